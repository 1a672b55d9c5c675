//! TLS of a subscription's own: who may vouch for its endpoint beside the public authorities, and as whom
//! we come to it.

use ring::digest::{Context, SHA256};
use secrecy::{ExposeSecret as _, SecretString};

/// Certificates and a key, in PEM. Whether they are any, and fit together, is for whoever speaks TLS to say.
#[derive(Clone, Debug)]
pub struct EndpointTls {
    ca_bundle: Option<String>,
    identity: Option<Identity>,
    version: Version,
}

/// As whom we come: a certificate, with the chain behind it, and its key.
#[derive(Clone, Debug)]
pub struct Identity {
    pub certificate: String,
    pub key: SecretString,
}

/// The same for the same content and for no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version([u8; 32]);

impl EndpointTls {
    pub fn new(ca_bundle: Option<String>, identity: Option<Identity>) -> Self {
        let identity_parts = identity.as_ref().map(|own| (own.certificate.as_str(), own.key.expose_secret()));
        let (certificate, key) = identity_parts.unzip();
        let mut digest = Context::new(&SHA256);
        for part in [ca_bundle.as_deref(), certificate, key] {
            // With lengths, so that no text passes for the end of the one before it.
            digest.update(&part.map_or(u64::MAX, |part| part.len() as u64).to_be_bytes());
            digest.update(part.unwrap_or_default().as_bytes());
        }
        let mut version = [0; 32];
        version.copy_from_slice(digest.finish().as_ref());
        Self { ca_bundle, identity, version: Version(version) }
    }

    /// Authorities that are trusted beside those of the system.
    pub fn ca_bundle(&self) -> Option<&str> {
        self.ca_bundle.as_deref()
    }

    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    pub fn version(&self) -> Version {
        self.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(ca_bundle: Option<&str>, identity: Option<(&str, &str)>) -> Version {
        let identity = identity.map(|(certificate, key)| Identity { certificate: certificate.into(), key: key.into() });
        EndpointTls::new(ca_bundle.map(str::to_owned), identity).version()
    }

    #[test]
    fn what_differs_in_any_part_is_of_another_version() {
        let versions = [
            version(None, None),
            version(Some(""), None),
            version(Some("a"), None),
            version(None, Some(("a", "b"))),
            version(Some("a"), Some(("b", "c"))),
            version(Some("ab"), Some(("", "c"))),
            version(Some("a"), Some(("b", "d"))),
        ];
        for (index, one) in versions.iter().enumerate() {
            assert!(!versions[index + 1..].contains(one), "{index}");
        }
        assert_eq!(version(Some("a"), Some(("b", "c"))), versions[4]);
    }
}
