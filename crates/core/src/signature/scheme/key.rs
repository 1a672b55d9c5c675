//! Keys, and what they verify.

use std::borrow::Cow;
use std::cell::OnceCell;

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::{hmac, signature};
use secrecy::{ExposeSecret, SecretSlice};
use serde::Deserialize;
use subtle::ConstantTimeEq;

use crate::signature::certificate::{self, PublicKey};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Algorithm {
    HmacSha1,
    HmacSha256,
    HmacSha512,
    Ed25519,
    EcdsaP256Sha256,
    RsaPkcs1Sha256,
    /// The secret itself is sent.
    Token,
    /// `Authorization: Basic`; the secret is `user:password`.
    Basic,
    /// Nothing is verified.
    None,
}

/// How a key is written in the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeyEncoding {
    #[default]
    Utf8,
    Hex,
    Base64,
    /// `SubjectPublicKeyInfo` in base64, with or without PEM armour.
    SpkiBase64,
}

/// How a signature is written in the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Encoding {
    #[default]
    Hex,
    Base64,
    Base64url,
}

impl Algorithm {
    /// Whether the verifier holds a secret and not a public key.
    pub(crate) fn is_secret(self) -> bool {
        self.hmac().is_some() || self.sends_the_secret()
    }

    /// Whether the sender shows the secret and signs nothing.
    pub(crate) fn sends_the_secret(self) -> bool {
        matches!(self, Self::Token | Self::Basic)
    }

    fn hmac(self) -> Option<hmac::Algorithm> {
        match self {
            Self::HmacSha1 => Some(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            Self::HmacSha256 => Some(hmac::HMAC_SHA256),
            Self::HmacSha512 => Some(hmac::HMAC_SHA512),
            _ => None,
        }
    }
}

/// A key that one algorithm takes.
pub(crate) struct Key {
    pub(crate) algorithm: Algorithm,
    /// Its place among the source's secrets; `None` for a public key.
    pub(crate) secret: Option<usize>,
    held: Held,
}

enum Held {
    Hmac(hmac::Key),
    Public(Vec<u8>, &'static dyn signature::VerificationAlgorithm),
    Shared(SecretSlice<u8>),
}

impl Key {
    /// A secret of `bytes`, the `index`th of its source. `None` if the algorithm takes no secret.
    pub(crate) fn secret(algorithm: Algorithm, bytes: Vec<u8>, index: usize) -> Option<Self> {
        let held = match algorithm.hmac() {
            Some(hmac) => Held::Hmac(hmac::Key::new(hmac, &bytes)),
            None if algorithm.sends_the_secret() => Held::Shared(bytes.into()),
            None => return None,
        };
        Some(Self { algorithm, secret: Some(index), held })
    }

    /// A public key of `bytes` as [`KeyEncoding`] gives them. `None` if it is not one for `algorithm`.
    pub(crate) fn public(algorithm: Algorithm, encoding: KeyEncoding, bytes: &[u8]) -> Option<Self> {
        let found = match (encoding, algorithm) {
            (KeyEncoding::SpkiBase64, _) => certificate::spki(bytes)?,
            (_, Algorithm::Ed25519) if bytes.len() == 32 => PublicKey::Ed25519(bytes),
            (_, Algorithm::EcdsaP256Sha256) if bytes.len() == 65 => PublicKey::P256(bytes),
            _ => return None,
        };
        let (key, verification): (_, &'static dyn signature::VerificationAlgorithm) = match (algorithm, found) {
            (Algorithm::Ed25519, PublicKey::Ed25519(key)) => (key, &signature::ED25519),
            (Algorithm::EcdsaP256Sha256, PublicKey::P256(key)) => (key, &signature::ECDSA_P256_SHA256_ASN1),
            (Algorithm::RsaPkcs1Sha256, PublicKey::Rsa(key)) => (key, &signature::RSA_PKCS1_2048_8192_SHA256),
            _ => return None,
        };
        Some(Self { algorithm, secret: None, held: Held::Public(key.to_vec(), verification) })
    }

    /// Whether one of `candidates` is this key's signature of `message`, or the shared secret itself.
    pub(crate) fn accepts<'c>(&self, message: &Message<'_>, mut candidates: impl Iterator<Item = &'c [u8]>) -> bool {
        match &self.held {
            Held::Hmac(key) => {
                let tag = message.hmac(key);
                candidates.any(|candidate| tag.as_ref().ct_eq(candidate).into())
            }
            Held::Shared(secret) => candidates.any(|candidate| secret.expose_secret().ct_eq(candidate).into()),
            Held::Public(key, algorithm) => {
                let key = signature::UnparsedPublicKey::new(*algorithm, key);
                candidates.any(|candidate| key.verify(message.joined(), candidate).is_ok())
            }
        }
    }

    /// What [`Self::accepts`]: the HMAC of `message`, or the secret itself; `None` for a public key.
    pub(crate) fn sign(&self, message: &Message<'_>) -> Option<Vec<u8>> {
        match &self.held {
            Held::Hmac(key) => Some(message.hmac(key).as_ref().to_vec()),
            Held::Shared(secret) => Some(secret.expose_secret().to_vec()),
            Held::Public(..) => None,
        }
    }

    /// HMAC of `text`, for handshakes that ask for one; `None` if this is no HMAC key.
    pub(crate) fn hmac_of(&self, text: &str) -> Option<Vec<u8>> {
        match &self.held {
            Held::Hmac(key) => Some(hmac::sign(key, text.as_bytes()).as_ref().to_vec()),
            Held::Public(..) | Held::Shared(_) => None,
        }
    }
}

/// What is signed, in pieces: a body is not copied to be hashed.
#[derive(Debug, Default)]
pub(crate) struct Message<'a> {
    pieces: Vec<Cow<'a, [u8]>>,
    /// Public keys want one piece.
    joined: OnceCell<Vec<u8>>,
}

impl<'a> Message<'a> {
    pub(crate) fn new(pieces: Vec<Cow<'a, [u8]>>) -> Self {
        Self { pieces, joined: OnceCell::new() }
    }

    fn hmac(&self, key: &hmac::Key) -> hmac::Tag {
        let mut context = hmac::Context::with_key(key);
        self.pieces.iter().for_each(|piece| context.update(piece));
        context.sign()
    }

    fn joined(&self) -> &[u8] {
        self.joined.get_or_init(|| self.pieces.concat())
    }
}

impl KeyEncoding {
    /// A key of `bytes` as an owner writes it; `None` for the encoding of public keys.
    pub(crate) fn encode(self, bytes: &[u8]) -> Option<String> {
        match self {
            Self::Utf8 | Self::Hex => Some(hex::encode(bytes)),
            Self::Base64 => Some(STANDARD.encode(bytes)),
            Self::SpkiBase64 => None,
        }
    }

    /// The bytes of a key as its owner wrote it, or what it should have been.
    pub(crate) fn decode(self, text: &str) -> Result<Vec<u8>, &'static str> {
        match self {
            Self::Utf8 => Ok(text.as_bytes().to_vec()),
            Self::Hex => hex::decode(text).map_err(|_| "must be hexadecimal"),
            Self::Base64 => LENIENT.decode(text).map_err(|_| "must be base64 of the standard alphabet"),
            Self::SpkiBase64 => {
                let lines = text.lines().filter(|line| !line.starts_with("-----"));
                let encoded = certificate::without_whitespace(&lines.collect::<String>());
                LENIENT.decode(encoded).map_err(|_| "must be a public key in base64")
            }
        }
    }
}

impl Encoding {
    pub(crate) fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => hex::encode(bytes),
            Self::Base64 => STANDARD.encode(bytes),
            Self::Base64url => URL_SAFE_NO_PAD.encode(bytes),
        }
    }

    /// The bytes of a signature. Strict: one digest has one spelling, but for the case of a whole
    /// hexadecimal one.
    pub(crate) fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Hex => {
                let is_mixed =
                    text.contains(|c: char| c.is_ascii_lowercase()) && text.contains(|c: char| c.is_ascii_uppercase());
                if is_mixed { None } else { hex::decode(text).ok() }
            }
            Self::Base64 => STANDARD.decode(text).ok(),
            Self::Base64url => URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok(),
        }
    }
}

/// Standard base64 whose padding may be left out: people copy keys by hand.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_in_hexadecimal_has_one_case() {
        assert_eq!(Encoding::Hex.decode("ab0c"), Some(vec![0xab, 0x0c]));
        assert_eq!(Encoding::Hex.decode("AB0C"), Some(vec![0xab, 0x0c]));
        assert_eq!(Encoding::Hex.decode("Ab0c"), None);
        assert_eq!(Encoding::Hex.decode("abc"), None);
    }

    #[test]
    fn a_signature_in_base64_has_one_spelling() {
        assert_eq!(Encoding::Base64.decode("AAE="), Some(vec![0, 1]));
        for text in ["AAE", "AAF=", "AA E=", "AAE=\n"] {
            assert_eq!(Encoding::Base64.decode(text), None, "{text:?}");
        }
        assert_eq!(Encoding::Base64url.decode("-_8"), Some(vec![0xfb, 0xff]));
    }

    #[test]
    fn a_key_is_taken_only_by_its_own_algorithm() {
        assert!(Key::secret(Algorithm::Ed25519, vec![0; 32], 0).is_none());
        assert!(Key::public(Algorithm::HmacSha256, KeyEncoding::Hex, &[0; 32]).is_none());
        assert!(Key::public(Algorithm::Ed25519, KeyEncoding::Hex, &[0; 31]).is_none());
        assert!(Key::public(Algorithm::Ed25519, KeyEncoding::Hex, &[0; 32]).is_some());
    }
}
