# Verifies what Posthorn sends; Ruby 3.0 or later and nothing else.
#
# Run as a program it verifies one request, a JSON document on standard input:
# {"secret", "id", "timestamp", "signature", "body", "now", "hex_signature"}.

require "json"
require "openssl"

def verify_standard(secret, id, timestamp, signatures, body, now)
  key = secret.to_s.delete_prefix("whsec_").unpack1("m0")
  return false if key.bytesize < 24 || (now - Integer(timestamp, 10)).abs > 300

  tag = OpenSSL::HMAC.digest("SHA256", key, "#{id}.#{timestamp}.".b + body.b)
  expected = "v1," + [tag].pack("m0")
  # Several, separated by spaces, while a secret is being changed.
  signatures.to_s.split(" ").any? { |given| OpenSSL.secure_compare(expected, given) }
rescue ArgumentError, TypeError # a header is missing or garbled
  false
end

def verify_hex(secret, signature, body)
  return false if secret.to_s.empty?

  OpenSSL.secure_compare(OpenSSL::HMAC.hexdigest("SHA256", secret, body), signature.to_s)
end

def verdict(signature)
  return "absent" if signature.nil?

  signature.is_a?(String) && yield ? "ok" : "refused"
rescue NoMethodError, TypeError # something else is missing, or is no text
  "refused"
end

def main
  request = JSON.parse($stdin.binmode.read.force_encoding(Encoding::UTF_8))
  raise TypeError, "no request" unless request.is_a?(Hash)

  secret, body, signature, plain = request.values_at("secret", "body", "signature", "hex_signature")
  headers = [request["id"], request["timestamp"], signature]
  puts verdict(signature) { verify_standard(secret, *headers, body, request["now"]) }
  puts verdict(plain) { verify_hex(secret, plain, body) }
rescue JSON::ParserError, EncodingError, TypeError
  puts "refused", "refused"
end

main if $PROGRAM_NAME == __FILE__
