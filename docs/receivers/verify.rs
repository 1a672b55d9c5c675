//! Verifies what Posthorn sends. The standard library has no HMAC; in Cargo.toml, with `serde_json`
//! for `main` alone:
//!
//! ```toml
//! base64 = "0.22"
//! hmac = "0.13"
//! serde_json = "1"
//! sha2 = "0.11"
//! subtle = "2"
//! ```
//!
//! Run as a program it verifies one request, a JSON document on standard input:
//! `{"secret", "id", "timestamp", "signature", "body", "now", "hex_signature"}`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

pub fn verify_standard(secret: &str, id: &str, timestamp: &str, signatures: &str, body: &[u8], now: i64) -> bool {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap_or(secret)).unwrap_or_default();
    let fresh = timestamp.parse().is_ok_and(|sent: i64| now.abs_diff(sent) <= 300);
    let tag = hmac_sha256(&key, &[id.as_bytes(), b".", timestamp.as_bytes(), b".", body]);
    let expected = format!("v1,{}", STANDARD.encode(tag));
    // Several signatures, separated by spaces, while a secret is being changed.
    let matches = |given: &str| expected.as_bytes().ct_eq(given.as_bytes()).into();
    key.len() >= 24 && fresh && signatures.split(' ').any(matches)
}

pub fn verify_hex(secret: &str, signature: &str, body: &[u8]) -> bool {
    let tag = hmac_sha256(secret.as_bytes(), &[body]);
    let expected: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
    !secret.is_empty() && expected.as_bytes().ct_eq(signature.as_bytes()).into()
}

fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

fn main() {
    let request: Value = serde_json::from_reader(std::io::stdin()).unwrap_or_default();
    // Whatever the document lacks is not there to be verified; empty text verifies nothing.
    let text = |name: &str| request[name].as_str().unwrap_or_default();
    let verdict = |name: &str, verified: &dyn Fn(&str) -> bool| match &request[name] {
        Value::Null if request.is_object() => "absent",
        Value::String(signature) if request["body"].is_string() && verified(signature) => "ok",
        _ => "refused",
    };
    let (secret, body) = (text("secret"), text("body").as_bytes());
    let standard = verdict("signature", &|signatures| {
        let now = request["now"].as_i64();
        now.is_some_and(|now| verify_standard(secret, text("id"), text("timestamp"), signatures, body, now))
    });
    println!("{standard}\n{}", verdict("hex_signature", &|signature| verify_hex(secret, signature, body)));
}
