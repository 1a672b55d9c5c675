//! Secrets at rest: AES-256-GCM, with the key's id in front so that keys can be changed online.
//!
//! Form: length of the key id (1 byte), key id, nonce (12 bytes), ciphertext and tag. The row's id
//! is authenticated with it, so a sealed secret moved to another row does not open.

use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

/// Seals and opens. Cheap to clone.
#[derive(Clone)]
pub struct Sealer {
    /// The first one seals; all of them open.
    keys: Arc<[(String, LessSafeKey)]>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "sealing keys are written as `id:base64 of 32 bytes`, separated by commas; an id has letters, digits, `-`, `_` and `.`"
    )]
    MalformedKeys,
    #[error("no sealing key has the id `{key_id}`")]
    UnknownKey { key_id: String },
    #[error("it was not sealed for this row, or was changed")]
    Forged,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.key_ids()).finish()
    }
}

impl Sealer {
    /// Reads `id:base64,id:base64…`.
    pub fn parse(keys: &SecretString) -> Result<Self, Error> {
        let keys = keys.expose_secret().split(',').map(parse_key).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() { Err(Error::MalformedKeys) } else { Ok(Self { keys: keys.into() }) }
    }

    /// One without keys, for programs that open no secret: with it, nothing opens, and what is sealed
    /// is lost.
    pub fn none() -> Self {
        Self { keys: Arc::new([]) }
    }

    /// The ids of the keys; the first one seals.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|(id, _)| id.as_str())
    }

    /// What stands in front of everything that is sealed now; empty without keys.
    pub(crate) fn head(&self) -> Vec<u8> {
        let Some((id, _)) = self.keys.first() else { return Vec::new() };
        let mut head = vec![u8::try_from(id.len()).unwrap_or(u8::MAX)];
        head.extend_from_slice(id.as_bytes());
        head
    }

    /// Seals `secret` for the row `row`.
    pub fn seal(&self, row: &Uuid, secret: &[u8]) -> Vec<u8> {
        let mut sealed = self.head();
        let Some((_, key)) = self.keys.first() else { return sealed };
        let nonce: [u8; NONCE_LEN] = rand::random();
        sealed.extend_from_slice(&nonce);
        let mut text = secret.to_vec();
        let tag =
            key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(row.as_bytes()), &mut text);
        // Fails only above 64 GiB, which no request can hold.
        if let Ok(tag) = tag {
            sealed.extend_from_slice(&text);
            sealed.extend_from_slice(tag.as_ref());
        }
        sealed
    }

    pub fn open(&self, row: &Uuid, sealed: &[u8]) -> Result<Vec<u8>, Error> {
        let (id_len, rest) = sealed.split_first().ok_or(Error::Forged)?;
        let (id, rest) = rest.split_at_checked(usize::from(*id_len)).ok_or(Error::Forged)?;
        let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or(Error::Forged)?;
        let (_, key) = self
            .keys
            .iter()
            .find(|(known, _)| known.as_bytes() == id)
            .ok_or_else(|| Error::UnknownKey { key_id: String::from_utf8_lossy(id).into_owned() })?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Error::Forged)?;
        let mut text = text.to_vec();
        let open = key.open_in_place(nonce, Aad::from(row.as_bytes()), &mut text).map_err(|_| Error::Forged)?.len();
        text.truncate(open);
        Ok(text)
    }

    /// Opens a secret that is text; one that does not open is told, and is as if it were not there: it
    /// must not keep all the others from being read.
    pub fn open_logged(&self, row: &Uuid, sealed: &[u8]) -> Option<SecretString> {
        self.open_text(row, sealed)
            .inspect_err(|error| {
                tracing::error!(error = error as &dyn std::error::Error, secret.row = %row, "a secret cannot be opened: {error}");
            })
            .ok()
    }

    /// Opens a secret that is text.
    pub fn open_text(&self, row: &Uuid, sealed: &[u8]) -> Result<SecretString, Error> {
        let text = String::from_utf8(self.open(row, sealed)?).map_err(|_| Error::Forged)?;
        Ok(text.into())
    }
}

fn parse_key(text: &str) -> Result<(String, LessSafeKey), Error> {
    use base64::Engine as _;
    let (id, key) = text.trim().split_once(':').ok_or(Error::MalformedKeys)?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(key).map_err(|_| Error::MalformedKeys)?;
    let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| Error::MalformedKeys)?;
    let is_plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if id.is_empty() || id.len() > usize::from(u8::MAX) || !is_plain {
        return Err(Error::MalformedKeys);
    }
    Ok((id.to_owned(), LessSafeKey::new(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    const NEW: &str = "k2:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

    fn sealer(keys: &str) -> Sealer {
        Sealer::parse(&keys.to_owned().into()).unwrap()
    }

    #[test]
    fn what_an_older_key_sealed_still_opens_after_a_new_one_comes_first() {
        let row = Uuid::from_u128(7);
        let sealed = sealer(OLD).seal(&row, b"whsec_x");
        assert_eq!(sealer(&format!("{NEW},{OLD}")).open(&row, &sealed).unwrap(), b"whsec_x");
        assert_eq!(sealer(NEW).open(&row, &sealed), Err(Error::UnknownKey { key_id: "k1".into() }));
    }

    #[test]
    fn a_sealed_secret_opens_in_its_own_row_only_and_not_after_a_change() {
        let row = Uuid::from_u128(7);
        let mut sealed = sealer(OLD).seal(&row, b"whsec_x");
        assert_eq!(sealer(OLD).open(&Uuid::from_u128(8), &sealed), Err(Error::Forged));
        *sealed.last_mut().unwrap() ^= 1;
        assert_eq!(sealer(OLD).open(&row, &sealed), Err(Error::Forged));
        for len in 0..sealed.len() {
            assert!(sealer(OLD).open(&row, &sealed[..len]).is_err());
        }
    }
}
