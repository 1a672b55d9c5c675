//! Public keys out of X.509: just enough DER (X.690) to find a key, never to judge a certificate.
//!
//! Whose a certificate is, is settled by where it was fetched from.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT_ID: u8 = 0x06;
/// `[0] EXPLICIT`: the version of a certificate.
const VERSION: u8 = 0xa0;

/// rsaEncryption, 1.2.840.113549.1.1.1.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// id-ecPublicKey, 1.2.840.10045.2.1.
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// prime256v1, 1.2.840.10045.3.1.7.
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// id-Ed25519, 1.3.101.112.
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// An RSA public key as PKCS #1 `RSAPublicKey` in DER, the form `ring` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RsaPublicKey(Vec<u8>);

impl RsaPublicKey {
    /// The key of the first certificate in `pem` (RFC 7468); `None` if there is none with an RSA key.
    pub(crate) fn from_certificate_pem(pem: &str) -> Option<Self> {
        let armoured = pem.split_once("-----BEGIN CERTIFICATE-----")?.1.split_once("-----END CERTIFICATE-----")?.0;
        let der = STANDARD.decode(without_whitespace(armoured)).ok()?;
        match public_key(certificate_spki(&der)?)? {
            PublicKey::Rsa(key) => Some(Self(key.to_vec())),
            PublicKey::P256(_) | PublicKey::Ed25519(_) => None,
        }
    }

    pub(crate) fn as_der(&self) -> &[u8] {
        &self.0
    }
}

/// The key inside a `SubjectPublicKeyInfo` (RFC 5280 §4.1.2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PublicKey<'a> {
    /// PKCS #1 `RSAPublicKey`.
    Rsa(&'a [u8]),
    /// An uncompressed point: 0x04 and 64 bytes.
    P256(&'a [u8]),
    /// 32 bytes.
    Ed25519(&'a [u8]),
}

/// Reads the contents of a `SubjectPublicKeyInfo`, with or without its outer SEQUENCE header.
pub(crate) fn spki(der: &[u8]) -> Option<PublicKey<'_>> {
    let (info, rest) = take(der, SEQUENCE)?;
    rest.is_empty().then(|| public_key(info)).flatten()
}

/// `text` without the white space that PEM and copied keys are broken with.
pub(crate) fn without_whitespace(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

fn certificate_spki(der: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = take(der, SEQUENCE)?;
    let (mut tbs, _) = take(certificate, SEQUENCE)?;
    if let Some((_, rest)) = take(tbs, VERSION) {
        tbs = rest;
    }
    // serialNumber, signature, issuer, validity, subject.
    for tag in [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE] {
        tbs = take(tbs, tag)?.1;
    }
    Some(take(tbs, SEQUENCE)?.0)
}

fn public_key(info: &[u8]) -> Option<PublicKey<'_>> {
    let (algorithm, rest) = take(info, SEQUENCE)?;
    let (bits, _) = take(rest, BIT_STRING)?;
    // The first byte counts unused bits; keys are whole bytes.
    let key = bits.strip_prefix(&[0])?;
    let (name, parameters) = take(algorithm, OBJECT_ID)?;
    if name == RSA {
        return Some(PublicKey::Rsa(key));
    }
    if name == ED25519 && key.len() == 32 {
        return Some(PublicKey::Ed25519(key));
    }
    let is_p256 = name == EC && take(parameters, OBJECT_ID)?.0 == P256;
    (is_p256 && key.len() == 65 && key.first() == Some(&4)).then_some(PublicKey::P256(key))
}

/// Takes one element with `tag` off the front: its contents and what follows it.
fn take(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // Two length bytes reach 64 KiB, more than any certificate.
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), rest.get(2..)?),
        _ => return None,
    };
    (found == tag).then(|| rest.split_at_checked(len)).flatten()
}
