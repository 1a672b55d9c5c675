// Verifies what Posthorn sends; Java 17 or later and nothing else.
//
// Run as a program (Main) it verifies one request, a JSON document on standard input:
// {"secret", "id", "timestamp", "signature", "body", "now", "hex_signature"}.

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.IOException;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.Base64;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

public final class Verify {
    public static boolean standard(
            String secret, String id, String timestamp, String signatures, byte[] body, long now)
            throws GeneralSecurityException {
        byte[] key;
        long sent;
        try {
            key = Base64.getDecoder().decode(secret.replaceFirst("^whsec_", ""));
            sent = Long.parseLong(timestamp);
        } catch (IllegalArgumentException garbled) { // a NumberFormatException is one
            return false;
        }
        if (key.length < 24 || sent < now - 300 || sent > now + 300 || signatures == null) {
            return false;
        }
        byte[] tag = hmac(key, (id + "." + timestamp + ".").getBytes(UTF_8), body);
        byte[] expected = ("v1," + Base64.getEncoder().encodeToString(tag)).getBytes(UTF_8);
        // Several, separated by spaces, while a secret is being changed.
        for (String given : signatures.split(" ")) {
            if (MessageDigest.isEqual(expected, given.getBytes(UTF_8))) {
                return true;
            }
        }
        return false;
    }

    public static boolean hex(String secret, String signature, byte[] body) throws GeneralSecurityException {
        if (secret.isEmpty() || signature == null) {
            return false;
        }
        String expected = HexFormat.of().formatHex(hmac(secret.getBytes(UTF_8), body));
        return MessageDigest.isEqual(expected.getBytes(UTF_8), signature.getBytes(UTF_8));
    }

    private static byte[] hmac(byte[] key, byte[]... parts) throws GeneralSecurityException {
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(key, "HmacSHA256"));
        for (byte[] part : parts) {
            mac.update(part);
        }
        return mac.doFinal();
    }
}

final class Main {
    private static final String TEXT = "\"([^\"\\\\]*+(?:\\\\.[^\"\\\\]*+)*+)\"";
    private static final Pattern MEMBER = Pattern.compile(
            "\\s*" + TEXT + "\\s*:\\s*(?:" + TEXT + "|(-?\\d+)|null)\\s*([,}])", Pattern.DOTALL);
    private static final Pattern ESCAPE = Pattern.compile("\\\\(?:u([0-9a-fA-F]{4})|(.))", Pattern.DOTALL);

    public static void main(String[] arguments) throws IOException {
        String standard = "refused";
        String plain = "refused";
        try {
            Map<String, Object> request = read(new String(System.in.readAllBytes(), UTF_8));
            String signature = text(request, "signature");
            String hexSignature = text(request, "hex_signature");
            standard = signature == null ? "absent" : standard;
            plain = hexSignature == null ? "absent" : plain;
            String secret = text(request, "secret");
            byte[] body = text(request, "body").getBytes(UTF_8);
            if (signature != null && request.get("now") instanceof Long now
                    && Verify.standard(
                            secret, text(request, "id"), text(request, "timestamp"), signature, body, now)) {
                standard = "ok";
            }
            if (hexSignature != null && Verify.hex(secret, hexSignature, body)) {
                plain = "ok";
            }
        } catch (RuntimeException | GeneralSecurityException lacking) {
            // Whatever the document lacks is not there to be verified.
        }
        System.out.print(standard + "\n" + plain + "\n");
    }

    private static String text(Map<String, Object> request, String name) {
        return (String) request.get(name);
    }

    /** An object of texts and integers: the JDK has no JSON, and this is all that there is to read. */
    private static Map<String, Object> read(String document) {
        String rest = document.strip();
        if (!rest.startsWith("{")) {
            throw new IllegalArgumentException("no object");
        }
        Map<String, Object> members = new HashMap<>();
        Matcher member = MEMBER.matcher(rest).region(1, rest.length());
        while (member.lookingAt()) {
            Object value = member.group(2) != null ? unescaped(member.group(2))
                    : member.group(3) != null ? Long.valueOf(member.group(3)) : null;
            members.put(unescaped(member.group(1)), value);
            if (member.group(4).equals("}") && member.end() == rest.length()) {
                return members;
            }
            member.region(member.end(), rest.length());
        }
        throw new IllegalArgumentException("no object of texts and integers");
    }

    private static String unescaped(String text) {
        return ESCAPE.matcher(text).replaceAll(escape -> Matcher.quoteReplacement(
                escape.group(1) != null ? String.valueOf((char) Integer.parseInt(escape.group(1), 16))
                        : switch (escape.group(2)) {
                            case "n" -> "\n";
                            case "t" -> "\t";
                            case "r" -> "\r";
                            case "b" -> "\b";
                            case "f" -> "\f";
                            default -> escape.group(2);
                        }));
    }
}
