//! JSON Web Key Sets (RFC 7517): the RSA keys with which an identity provider signs its tokens.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::RsaPublicKeyComponents;
use serde::Deserialize;

/// The RSA signing keys of a set, by `kid`. Keys of other kinds are left out.
#[derive(Clone, Debug)]
pub(crate) struct KeySet(BTreeMap<String, RsaPublicKeyComponents<Vec<u8>>>);

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: String,
    n: String,
    e: String,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
}

impl KeySet {
    /// `None` if `json` is not a key set or holds no usable key.
    pub(crate) fn parse(json: &str) -> Option<Self> {
        let document: Document = serde_json::from_str(json).ok()?;
        let keys: BTreeMap<_, _> = document.keys.into_iter().filter_map(rs256).collect();
        (!keys.is_empty()).then_some(Self(keys))
    }

    pub(crate) fn get(&self, kid: &str) -> Option<&RsaPublicKeyComponents<Vec<u8>>> {
        self.0.get(kid)
    }
}

fn rs256(key: serde_json::Value) -> Option<(String, RsaPublicKeyComponents<Vec<u8>>)> {
    let key: Jwk = serde_json::from_value(key).ok()?;
    let signs = key.purpose.as_deref().is_none_or(|purpose| purpose == "sig");
    if key.kty != "RSA" || !signs || key.alg.as_deref().is_some_and(|alg| alg != "RS256") {
        return None;
    }
    let components =
        RsaPublicKeyComponents { n: URL_SAFE_NO_PAD.decode(key.n).ok()?, e: URL_SAFE_NO_PAD.decode(key.e).ok()? };
    Some((key.kid, components))
}
