<?php
// Verifies what Posthorn sends; PHP 8 and nothing else.
//
// Run as a program it verifies one request, a JSON document on standard input:
// {"secret", "id", "timestamp", "signature", "body", "now", "hex_signature"}.

declare(strict_types=1);

function verify_standard(
    string $secret, ?string $id, ?string $timestamp, ?string $signatures, string $body, int $now
): bool {
    $key = base64_decode(preg_replace('/^whsec_/', '', $secret), true);
    $sent = filter_var($timestamp, FILTER_VALIDATE_INT);
    if ($key === false || strlen($key) < 24 || $sent === false || abs($now - $sent) > 300) {
        return false;
    }
    $expected = 'v1,' . base64_encode(hash_hmac('sha256', "$id.$timestamp.$body", $key, true));
    // Several, separated by spaces, while a secret is being changed.
    foreach (explode(' ', $signatures ?? '') as $given) {
        if (hash_equals($expected, $given)) {
            return true;
        }
    }
    return false;
}

function verify_hex(string $secret, ?string $signature, string $body): bool
{
    return $secret !== '' && hash_equals(hash_hmac('sha256', $body, $secret), $signature ?? '');
}

function main(): void
{
    $standard = $plain = 'refused';
    try {
        $r = json_decode(stream_get_contents(STDIN), false, 512, JSON_THROW_ON_ERROR);
        if (!$r instanceof stdClass) {
            throw new TypeError('no request');
        }
        $standard = isset($r->signature) ? $standard : 'absent';
        $plain = isset($r->hex_signature) ? $plain : 'absent';
        [$secret, $body] = [$r->secret ?? null, $r->body ?? null];
        if (isset($r->signature, $r->now)
            && verify_standard($secret, $r->id ?? null, $r->timestamp ?? null, $r->signature, $body, $r->now)) {
            $standard = 'ok';
        }
        if (isset($r->hex_signature) && verify_hex($secret, $r->hex_signature, $body)) {
            $plain = 'ok';
        }
    } catch (JsonException | TypeError) {
        // Whatever the document lacks is not there to be verified.
    }
    echo "$standard\n$plain\n";
}

if (realpath($_SERVER['SCRIPT_FILENAME']) === __FILE__) {
    main();
}
