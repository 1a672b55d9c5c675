// Verifies what Posthorn sends; Node 18 or later and nothing else.
//
// Run as a program it verifies one request, a JSON document on standard input:
// {"secret", "id", "timestamp", "signature", "body", "now", "hex_signature"}.

import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync, realpathSync } from "node:fs";
import { fileURLToPath } from "node:url";

export function verifyStandard(secret, id, timestamp, signatures, body, now) {
  const key = Buffer.from((secret ?? "").replace(/^whsec_/, ""), "base64");
  const tag = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest("base64");
  const fresh = Math.abs(now - Number(timestamp)) <= 300; // false for what is no number
  // Several signatures, separated by spaces, while a secret is being changed.
  return key.length >= 24 && fresh && (signatures ?? "").split(" ").some((given) => same(`v1,${tag}`, given));
}

export function verifyHex(secret, signature, body) {
  return Boolean(secret) && same(createHmac("sha256", secret).update(body).digest("hex"), signature ?? "");
}

function same(expected, given) {
  const [a, b] = [Buffer.from(expected), Buffer.from(given)];
  return a.length === b.length && timingSafeEqual(a, b);
}

function main() {
  let [standard, plain] = ["refused", "refused"];
  try {
    const request = JSON.parse(readFileSync(0, "utf8"));
    if (request === null || typeof request !== "object" || Array.isArray(request)) throw new TypeError("no request");
    const { secret, id, timestamp, signature, body, now, hex_signature } = request;
    if (signature == null) standard = "absent";
    else if (verifyStandard(secret, id, timestamp, signature, body, now)) standard = "ok";
    if (hex_signature == null) plain = "absent";
    else if (verifyHex(secret, hex_signature, body)) plain = "ok";
  } catch {
    // Whatever the document lacks is not there to be verified.
  }
  console.log(`${standard}\n${plain}`);
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) main();
