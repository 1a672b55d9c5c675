"""Verifies what Posthorn sends; Python 3.9 or later and nothing else.

Run as a program it verifies one request, a JSON document on standard input:
{"secret", "id", "timestamp", "signature", "body", "now", "hex_signature"}.
"""

import base64
import hmac
import json
import sys


def verify_standard(secret, message_id, timestamp, signatures, body, now):
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        message = f"{message_id}.{timestamp}.".encode() + body
        given = signatures.encode().split(b" ")  # several while a secret is being changed
        age = abs(now - int(timestamp))
    except (AttributeError, TypeError, ValueError):  # a header is missing or garbled
        return False
    expected = b"v1," + base64.b64encode(hmac.digest(key, message, "sha256"))
    return len(key) >= 24 and age <= 300 and any(hmac.compare_digest(expected, one) for one in given)


def verify_hex(secret, signature, body):
    if not secret or not signature:
        return False
    expected = hmac.digest(secret.encode(), body, "sha256").hex().encode()
    return hmac.compare_digest(expected, signature.encode("utf-8", "replace"))  # of text it takes ASCII only


def main():
    standard = plain = "refused"
    try:
        request = json.load(sys.stdin.buffer)
        secret, signatures, hex_signature = (request.get(name) for name in ("secret", "signature", "hex_signature"))
        standard = "absent" if signatures is None else standard
        plain = "absent" if hex_signature is None else plain
        body = request["body"].encode()
        headers = request.get("id"), request.get("timestamp"), signatures
        if signatures is not None and verify_standard(secret, *headers, body, request.get("now")):
            standard = "ok"
        if hex_signature is not None and verify_hex(secret, hex_signature, body):
            plain = "ok"
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        pass  # whatever the document lacks is not there to be verified
    print(standard, plain, sep="\n")


if __name__ == "__main__":
    main()
