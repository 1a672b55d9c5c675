//! The signatures that a delivery carries.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::hmac;
use secrecy::{ExposeSecret as _, SecretString};

use crate::signature::standard::{self, SigningKey, SigningSecret};
use crate::subscription::{Encoding, SignatureScheme};

/// The signature headers of one attempt, over the exact bytes sent.
///
/// `secrets` are newest first: `whsec_` for HMAC, `whsk_` for Ed25519. A scheme that can carry several
/// signatures is signed with all of its kind, so that receivers can change their secret at any time
/// during an overlap; one that cannot is signed with the newest.
pub fn headers(
    schemes: &[SignatureScheme],
    secrets: &[SecretString],
    id: &str,
    timestamp_secs: i64,
    body: &[u8],
) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    let mut standard = Vec::new();
    for scheme in schemes {
        match scheme {
            SignatureScheme::Standard => {
                let tags = secrets_of(secrets).map(|secret| standard::sign(&secret, id, timestamp_secs, body));
                standard.extend(tags);
            }
            SignatureScheme::StandardEd25519 => {
                let tags = keys_of(secrets).map(|key| standard::sign_ed25519(&key, id, timestamp_secs, body));
                standard.extend(tags);
            }
            SignatureScheme::HmacSha256 { header, encoding, prefix } => {
                // The key is the text as shown, `whsec_` included.
                let newest = secrets.iter().find(|secret| SigningSecret::parse(secret.expose_secret()).is_ok());
                let Some(newest) = newest else { continue };
                let key = hmac::Key::new(hmac::HMAC_SHA256, newest.expose_secret().as_bytes());
                let tag = hmac::sign(&key, body);
                let encoded = match encoding {
                    Encoding::Hex => hex::encode(tag),
                    Encoding::Base64 => BASE64.encode(tag),
                };
                headers.push((header.clone(), format!("{prefix}{encoded}")));
            }
        }
    }
    if !standard.is_empty() {
        // Exactly one space between them: reference libraries split strictly.
        headers.push(("webhook-signature".to_owned(), standard.join(" ")));
    }
    headers
}

fn secrets_of(secrets: &[SecretString]) -> impl Iterator<Item = SigningSecret> {
    secrets.iter().filter_map(|secret| SigningSecret::parse(secret.expose_secret()).ok())
}

/// The Ed25519 keys among a subscription's secrets, newest first.
pub fn keys_of(secrets: &[SecretString]) -> impl Iterator<Item = SigningKey> {
    secrets.iter().filter_map(|secret| SigningKey::parse(secret.expose_secret()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn every_secret_of_an_overlap_signs_and_the_newest_comes_first() {
        let secrets = [SecretString::from(SECRET), "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into()];
        let headers = headers(
            &[SignatureScheme::Standard],
            &secrets,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        let (name, value) = &headers[0];
        assert_eq!(name, "webhook-signature");
        // The example that the Standard Webhooks libraries test with.
        assert!(value.starts_with("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= v1,"), "{value}");
    }

    #[test]
    fn a_plain_hmac_is_keyed_with_the_secret_as_shown() {
        let scheme = |encoding, prefix: &str| SignatureScheme::HmacSha256 {
            header: "X-Signature".into(),
            encoding,
            prefix: prefix.into(),
        };
        let secrets = [SecretString::from(SECRET)];
        let schemes = [scheme(Encoding::Hex, "sha256="), scheme(Encoding::Base64, "")];
        let headers = headers(&schemes, &secrets, "evt_1", 0, b"{}");
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        let tag = hmac::sign(&key, b"{}");
        assert_eq!(headers[0], ("X-Signature".to_owned(), format!("sha256={}", hex::encode(tag))));
        assert_eq!(headers[1], ("X-Signature".to_owned(), BASE64.encode(tag)));
    }

    #[test]
    fn both_standard_signatures_stand_in_one_header_and_each_verifies() {
        let key = SigningKey::from_seed(&[7; 32]).unwrap();
        let secrets = [key.reveal(), SecretString::from(SECRET)];
        let schemes = [SignatureScheme::Standard, SignatureScheme::StandardEd25519];
        let headers = headers(&schemes, &secrets, "evt_1", 1_614_265_330, b"{}");
        assert_eq!(headers.len(), 1);
        let tags: Vec<&str> = headers[0].1.split(' ').collect();
        assert!(tags[0].starts_with("v1,") && tags[1].starts_with("v1a,"), "{tags:?}");
        assert_eq!(tags[1], standard::sign_ed25519(&key, "evt_1", 1_614_265_330, b"{}"));
        assert_eq!(SigningKey::parse(key.reveal().expose_secret()).unwrap().public_key(), key.public_key());
    }
}
