//! JSON Web Tokens (RFC 7519) signed with RS256, and no others.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::RSA_PKCS1_2048_8192_SHA256;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::signature::key_set::KeySet;
use crate::signature::refusal::{Refusal, RefusalKind};

/// A token taken apart, before anything in it is believed.
#[derive(Debug)]
pub(crate) struct Token<'a> {
    kid: String,
    signed: &'a str,
    claims: &'a str,
    signature: &'a str,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood (RFC 7515 §4.1.11); none is.
    crit: Option<serde_json::Value>,
}

impl<'a> Token<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, Refusal> {
        let (signed, signature) = text.rsplit_once('.').ok_or_else(malformed)?;
        let (header, claims) = signed.split_once('.').filter(|(_, c)| !c.contains('.')).ok_or_else(malformed)?;
        let header: Header = decode(header)?;
        if header.alg != "RS256" || header.crit.is_some() {
            return Err(Refusal::new(RefusalKind::UnsupportedAlg, "the token is not signed with RS256"));
        }
        Ok(Self { kid: header.kid.ok_or_else(malformed)?, signed, claims, signature })
    }

    /// The claims, once the signature holds.
    pub(crate) fn verify<C: DeserializeOwned>(&self, keys: &KeySet) -> Result<C, Refusal> {
        let key = keys.get(&self.kid).ok_or_else(|| {
            Refusal::new(RefusalKind::UnknownKey, "the token names a key that the key set does not hold")
        })?;
        let signature = URL_SAFE_NO_PAD.decode(self.signature).map_err(|_| malformed())?;
        key.verify(&RSA_PKCS1_2048_8192_SHA256, self.signed.as_bytes(), &signature)
            .map_err(|_| Refusal::new(RefusalKind::SignatureMismatch, "the token's signature does not hold"))?;
        decode(self.claims)
    }
}

fn decode<T: DeserializeOwned>(segment: &str) -> Result<T, Refusal> {
    let bytes = URL_SAFE_NO_PAD.decode(segment).map_err(|_| malformed())?;
    serde_json::from_slice(&bytes).map_err(|_| malformed())
}

fn malformed() -> Refusal {
    Refusal::new(RefusalKind::TokenMalformed, "the bearer token is not a JSON Web Token")
}
