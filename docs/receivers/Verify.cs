// Verifies what Posthorn sends; .NET 6 or later and nothing else.
//
// Run as a program it verifies one request, a JSON document on standard input:
// {"secret", "id", "timestamp", "signature", "body", "now", "hex_signature"}.

#nullable enable

using System;
using System.Globalization;
using System.Linq;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

public static class Verify
{
    public static bool Standard(
        string secret, string? id, string? timestamp, string? signatures, byte[] body, long now)
    {
        byte[] key;
        try
        {
            key = Convert.FromBase64String(secret.Replace("whsec_", ""));
        }
        catch (FormatException)
        {
            return false;
        }
        if (key.Length < 24
            || !long.TryParse(timestamp, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var sent)
            || sent < now - 300 || sent > now + 300)
        {
            return false;
        }
        var message = Encoding.UTF8.GetBytes($"{id}.{timestamp}.").Concat(body).ToArray();
        var expected = "v1," + Convert.ToBase64String(HMACSHA256.HashData(key, message));
        // Several, separated by spaces, while a secret is being changed.
        return (signatures ?? "").Split(' ').Any(given => Same(expected, given));
    }

    public static bool Hex(string secret, string? signature, byte[] body)
    {
        var expected = Convert.ToHexString(HMACSHA256.HashData(Encoding.UTF8.GetBytes(secret), body));
        return secret != "" && Same(expected.ToLowerInvariant(), signature ?? "");
    }

    private static bool Same(string expected, string given) =>
        CryptographicOperations.FixedTimeEquals(Encoding.UTF8.GetBytes(expected), Encoding.UTF8.GetBytes(given));
}

public static class Program
{
    public static void Main()
    {
        var standard = "refused";
        var plain = "refused";
        try
        {
            using var input = Console.OpenStandardInput();
            using var document = JsonDocument.Parse(input);
            var request = document.RootElement;
            var signature = Text(request, "signature");
            var hexSignature = Text(request, "hex_signature");
            standard = signature == null ? "absent" : standard;
            plain = hexSignature == null ? "absent" : plain;
            var secret = Text(request, "secret")!;
            var body = Encoding.UTF8.GetBytes(Text(request, "body")!);
            if (signature != null && request.TryGetProperty("now", out var now)
                && Verify.Standard(
                    secret, Text(request, "id"), Text(request, "timestamp"), signature, body, now.GetInt64()))
            {
                standard = "ok";
            }
            if (hexSignature != null && Verify.Hex(secret, hexSignature, body))
            {
                plain = "ok";
            }
        }
        catch (Exception)
        {
            // Whatever the document lacks is not there to be verified.
        }
        Console.Write($"{standard}\n{plain}\n");
    }

    private static string? Text(JsonElement request, string name) =>
        request.TryGetProperty(name, out var value) ? value.GetString() : null;
}
