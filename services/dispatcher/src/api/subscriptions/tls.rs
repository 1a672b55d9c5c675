//! TLS of a subscription's own: taken in PEM, shown as fingerprints.

use posthorn_core::id::SubscriptionId;
use posthorn_core::tls::{EndpointTls, Identity};
use posthorn_process::tls::{Unusable, client_config_for, fingerprints};
use posthorn_store::seal::Sealer;
use posthorn_store::subscriptions::{SealedIdentity, Tls};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use crate::api::body::Checks;

/// Longest text, in bytes.
const MAX_LEN: usize = 65_536;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Given {
    ca_bundle: Option<String>,
    client_certificate: Option<String>,
    client_key: Option<SecretString>,
}

/// SHA-256 of certificates, in hex.
#[derive(Serialize)]
pub(super) struct TlsView {
    ca_certificates: Vec<String>,
    client_certificate: Option<String>,
}

impl Given {
    pub fn check(&self, checks: &mut Checks) {
        let key = self.client_key.as_ref().map(SecretString::expose_secret);
        let parts = [
            ("/tls/ca_bundle", self.ca_bundle.as_deref()),
            ("/tls/client_certificate", self.client_certificate.as_deref()),
            ("/tls/client_key", key),
        ];
        let is_long = |text: Option<&str>| text.is_some_and(|text| text.len() > MAX_LEN);
        if parts.iter().any(|(_, text)| is_long(*text)) {
            let long = parts.iter().filter(|(_, text)| is_long(*text));
            return long.for_each(|(pointer, _)| checks.fail(*pointer, "must have at most 65536 bytes"));
        }
        match (&self.client_certificate, &self.client_key) {
            (Some(_), None) => checks.fail("/tls/client_key", "is required with `client_certificate`"),
            (None, Some(_)) => checks.fail("/tls/client_certificate", "is required with `client_key`"),
            (None, None) if self.ca_bundle.is_none() => {
                checks.fail("/tls", "must have at least one field, or be `null`");
            }
            _ => {}
        }
        if let Err(error) = client_config_for(&self.opened()) {
            checks.fail(pointer(&error), error.to_string());
        }
    }

    /// As it is kept for the subscription `id`.
    pub fn sealed(self, sealer: &Sealer, id: SubscriptionId) -> Tls {
        let seal = |key: SecretString| sealer.seal(id.as_uuid(), key.expose_secret().as_bytes());
        let identity = self.client_certificate.zip(self.client_key);
        let client_identity = identity.map(|(certificate, key)| SealedIdentity { certificate, key: seal(key) });
        Tls { ca_bundle: self.ca_bundle, client_identity }
    }

    fn opened(&self) -> EndpointTls {
        let identity = self.client_certificate.clone().zip(self.client_key.clone());
        EndpointTls::new(self.ca_bundle.clone(), identity.map(|(certificate, key)| Identity { certificate, key }))
    }
}

impl TlsView {
    /// `None`: it has none of its own.
    pub fn of(tls: &Tls) -> Option<Self> {
        let ca_certificates = tls.ca_bundle.as_deref().map(fingerprints).unwrap_or_default();
        let own = tls.client_identity.as_ref().map(|identity| fingerprints(&identity.certificate));
        let is_given = tls.ca_bundle.is_some() || tls.client_identity.is_some();
        is_given.then(|| Self { ca_certificates, client_certificate: own.and_then(|chain| chain.into_iter().next()) })
    }
}

fn pointer(error: &Unusable) -> &'static str {
    match error {
        Unusable::CaBundle => "/tls/ca_bundle",
        Unusable::ClientCertificate => "/tls/client_certificate",
        Unusable::ClientKey | Unusable::OtherKey => "/tls/client_key",
        Unusable::SetUp(_) => "/tls",
    }
}
