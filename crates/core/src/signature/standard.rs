//! Standard Webhooks 1.0.0, as a sender signs and as a receiver verifies.
//!
//! What is signed is `{id}.{timestamp}.{body}` with the exact bytes sent. The id is the event's and
//! equal on every attempt; the timestamp is the attempt's, so every attempt is signed anew.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair};
use secrecy::{ExposeSecret, SecretSlice, SecretString};

use crate::request::Headers;
use crate::signature::refusal::{Refusal, RefusalKind};

/// How far a receiver lets the sender's clock be off, in seconds, in both directions.
pub const TOLERANCE_SECS: u64 = 300;

const SECRET_PREFIX: &str = "whsec_";
const SIGNING_KEY_PREFIX: &str = "whsk_";
const PUBLIC_KEY_PREFIX: &str = "whpk_";

/// A symmetric secret: `whsec_` and the canonical base64 of 24 to 64 bytes.
///
/// Padding and alphabet are held to strictly, because receivers' libraries differ on anything else:
/// some refuse it, one silently reads another key.
#[derive(Clone)]
pub struct SigningSecret {
    bytes: SecretSlice<u8>,
    key: hmac::Key,
}

/// An Ed25519 key that signs `v1a`: `whsk_` and the base64 of seed and public key, 64 bytes.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    seed: SecretSlice<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the secret begins with `whsec_`")]
    NoSecretPrefix,
    #[error("the signing key begins with `whsk_`")]
    NoKeyPrefix,
    #[error("after its prefix comes canonical, padded base64 of the standard alphabet")]
    NotBase64,
    #[error("a secret has 24 to 64 bytes")]
    SecretLength,
    #[error("a signing key is a seed of 32 bytes and the public key that belongs to it")]
    NotAKey,
}

impl SigningSecret {
    pub fn parse(text: &str) -> Result<Self, Error> {
        let encoded = text.strip_prefix(SECRET_PREFIX).ok_or(Error::NoSecretPrefix)?;
        Self::from_bytes(&STANDARD.decode(encoded).map_err(|_| Error::NotBase64)?)
    }

    /// A secret of 24 to 64 bytes, drawn by the caller.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        if !(24..=64).contains(&bytes.len()) {
            return Err(Error::SecretLength);
        }
        Ok(Self { bytes: bytes.to_vec().into(), key: hmac::Key::new(hmac::HMAC_SHA256, bytes) })
    }

    /// The secret as its owner is shown it, once.
    pub fn reveal(&self) -> SecretString {
        format!("{SECRET_PREFIX}{}", STANDARD.encode(self.bytes.expose_secret())).into()
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(…)")
    }
}

impl SigningKey {
    pub fn parse(text: &str) -> Result<Self, Error> {
        let encoded = text.strip_prefix(SIGNING_KEY_PREFIX).ok_or(Error::NoKeyPrefix)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| Error::NotBase64)?;
        let (seed, public) = bytes.split_at_checked(32).ok_or(Error::NotAKey)?;
        let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public).map_err(|_| Error::NotAKey)?;
        Ok(Self { pair, seed: seed.to_vec().into() })
    }

    /// The key of a seed of 32 bytes, drawn by the caller.
    pub fn from_seed(seed: &[u8]) -> Result<Self, Error> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| Error::NotAKey)?;
        Ok(Self { pair, seed: seed.to_vec().into() })
    }

    /// What receivers verify with: `whpk_` and base64.
    pub fn public_key(&self) -> String {
        format!("{PUBLIC_KEY_PREFIX}{}", STANDARD.encode(self.pair.public_key()))
    }

    /// The key as it is kept: it is never shown.
    pub fn reveal(&self) -> SecretString {
        let whole = [self.seed.expose_secret(), self.pair.public_key().as_ref()].concat();
        format!("{SIGNING_KEY_PREFIX}{}", STANDARD.encode(whole)).into()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public_key())
    }
}

/// One `v1` entry of the `webhook-signature` header. Several are joined with a single space.
///
/// `id` must not contain a dot: dots separate what is signed.
pub fn sign(secret: &SigningSecret, id: &str, timestamp_secs: i64, body: &[u8]) -> String {
    let tag = v1_tag(secret, id, &timestamp_secs.to_string(), body);
    format!("v1,{}", STANDARD.encode(tag))
}

/// One `v1a` entry of the `webhook-signature` header.
pub fn sign_ed25519(key: &SigningKey, id: &str, timestamp_secs: i64, body: &[u8]) -> String {
    let message = [id.as_bytes(), b".", timestamp_secs.to_string().as_bytes(), b".", body].concat();
    format!("v1a,{}", STANDARD.encode(key.pair.sign(&message)))
}

/// Verifies the `v1` signatures of a request that Posthorn, or any such sender, has sent.
pub fn verify(secret: &SigningSecret, headers: &Headers, body: &[u8], now: Timestamp) -> Result<(), Refusal> {
    let header = |name: &str| {
        headers.get(name).ok_or_else(|| Refusal::new(RefusalKind::MissingHeader, format!("`{name}` is missing")))
    };
    let id = header("webhook-id")?;
    let timestamp = header("webhook-timestamp")?;
    let signatures = header("webhook-signature")?;
    let timestamp_secs: i64 = timestamp.parse().map_err(|_| {
        Refusal::new(RefusalKind::MalformedHeader, "`webhook-timestamp` is not a number of seconds since 1970")
    })?;
    let mut tags = signatures.split(' ').filter_map(|entry| entry.strip_prefix("v1,")).peekable();
    if tags.peek().is_none() {
        return Err(Refusal::new(RefusalKind::UnsupportedScheme, "`webhook-signature` holds no `v1` signature"));
    }
    let expected = v1_tag(secret, id, timestamp, body);
    // Several signatures are present while a secret is rotated; one match is enough.
    let matches = |tag: &str| {
        STANDARD.decode(tag).is_ok_and(|tag| subtle::ConstantTimeEq::ct_eq(tag.as_slice(), expected.as_ref()).into())
    };
    if !tags.any(matches) {
        return Err(Refusal::new(RefusalKind::SignatureMismatch, "no signature matches"));
    }
    if now.as_second().abs_diff(timestamp_secs) <= TOLERANCE_SECS {
        return Ok(());
    }
    let (kind, word) = if timestamp_secs < now.as_second() {
        (RefusalKind::TimestampTooOld, "old")
    } else {
        (RefusalKind::TimestampTooNew, "new")
    };
    Err(Refusal::new(kind, format!("`webhook-timestamp` is more than {TOLERANCE_SECS} s too {word}")))
}

fn v1_tag(secret: &SigningSecret, id: &str, timestamp: &str, body: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&secret.key);
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        context.update(part);
    }
    context.sign()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> SigningSecret {
        SigningSecret::parse("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap()
    }

    fn signed(id: &str, timestamp: &str, signature: &str) -> Headers {
        [("webhook-id", id), ("webhook-timestamp", timestamp), ("webhook-signature", signature)].into_iter().collect()
    }

    #[test]
    fn what_was_signed_verifies_and_nothing_else_does() {
        let now = Timestamp::from_second(1_782_864_000).unwrap();
        let signature = sign(&secret(), "evt_1", 1_782_864_000, b"{}");
        let kind =
            |headers: &Headers, body: &[u8]| verify(&secret(), headers, body, now).map_err(|refusal| refusal.kind);
        assert_eq!(kind(&signed("evt_1", "1782864000", &signature), b"{}"), Ok(()));
        let two = format!("v1a,AAAA v1,AAAA {signature}");
        assert_eq!(kind(&signed("evt_1", "1782864000", &two), b"{}"), Ok(()));
        let cases = [
            (signed("evt_2", "1782864000", &signature), RefusalKind::SignatureMismatch),
            (signed("evt_1", "1782864001", &signature), RefusalKind::SignatureMismatch),
            (signed("evt_1", "now", &signature), RefusalKind::MalformedHeader),
            (signed("evt_1", "1782864000", "v2,AAAA"), RefusalKind::UnsupportedScheme),
            (Headers::default(), RefusalKind::MissingHeader),
        ];
        for (headers, expected) in cases {
            assert_eq!(kind(&headers, b"{}"), Err(expected), "{headers:?}");
        }
        assert_eq!(kind(&signed("evt_1", "1782864000", &signature), b"{ }"), Err(RefusalKind::SignatureMismatch));
    }

    #[test]
    fn a_signature_is_good_for_five_minutes_both_ways() {
        let kind = |offset: i64| {
            let signature = sign(&secret(), "evt_1", 1_000_000, b"");
            let now = Timestamp::from_second(1_000_000 + offset).unwrap();
            verify(&secret(), &signed("evt_1", "1000000", &signature), b"", now).map_err(|refusal| refusal.kind)
        };
        assert_eq!([kind(300), kind(-300)], [Ok(()), Ok(())]);
        assert_eq!(kind(301), Err(RefusalKind::TimestampTooOld));
        assert_eq!(kind(-301), Err(RefusalKind::TimestampTooNew));
    }

    #[test]
    fn a_secret_is_24_to_64_bytes_in_canonical_base64() {
        assert_eq!(secret().reveal().expose_secret(), "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
        assert_eq!(format!("{:?}", secret()), "SigningSecret(…)");
        let parsed = |text: &str| SigningSecret::parse(text).map(|_| ()).unwrap_err();
        assert_eq!(parsed("C2FVsBQIhrscChlQIMV+b5sSYspob7oD"), Error::NoSecretPrefix);
        assert_eq!(parsed("whsec_C2FVsBQIhrscChlQIMV-b5sSYspob7oD"), Error::NotBase64);
        assert_eq!(parsed("whsec_AAAA"), Error::SecretLength);
        assert!(SigningSecret::from_bytes(&[0; 23]).is_err() && SigningSecret::from_bytes(&[0; 65]).is_err());
        // 25 bytes need padding.
        assert_eq!(parsed(&format!("whsec_{}", "A".repeat(34))), Error::NotBase64);
        assert!(SigningSecret::parse(&format!("whsec_{}==", "A".repeat(34))).is_ok());
    }

    #[test]
    fn a_signing_key_is_a_seed_and_its_own_public_key() {
        let key = SigningKey::from_seed(&[7; 32]).unwrap();
        let public = STANDARD.decode(key.public_key().trim_start_matches("whpk_")).unwrap();
        let text = |public: &[u8]| format!("whsk_{}", STANDARD.encode([&[7; 32], public].concat()));
        assert_eq!(SigningKey::parse(&text(&public)).unwrap().public_key(), key.public_key());
        assert_eq!(SigningKey::parse(&text(&[0; 32])).unwrap_err(), Error::NotAKey);
        assert_eq!(SigningKey::parse("whpk_AAAA").unwrap_err(), Error::NoKeyPrefix);
        assert_eq!(SigningKey::parse("whsk_AAAA").unwrap_err(), Error::NotAKey);
    }
}
