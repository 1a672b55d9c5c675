//! TLS for what a process fetches or delivers.

use std::sync::Arc;

use posthorn_core::tls::{EndpointTls, Identity};
use ring::digest::{SHA256, digest};
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use rustls_platform_verifier::Verifier;

/// Why TLS of a subscription's own cannot be used. Says nothing of what was given.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("must be one or more certificates of authorities in PEM")]
    CaBundle,
    #[error("must be a certificate in PEM, with the chain behind it")]
    ClientCertificate,
    #[error("must be a private key in PEM: RSA, ECDSA or Ed25519, unencrypted")]
    ClientKey,
    #[error("is not the key of `client_certificate`")]
    OtherKey,
    #[error("TLS cannot be set up")]
    SetUp(#[from] rustls::Error),
}

/// TLS 1.2 and up with the system's roots, and HTTP/2 on offer. One provider everywhere: ring.
pub fn client_config() -> Result<ClientConfig, rustls::Error> {
    Ok(offering_http2(trusting([])?.with_no_client_auth()))
}

/// The same, with a subscription's own authorities beside the system's roots, and its certificate.
pub fn client_config_for(own: &EndpointTls) -> Result<ClientConfig, Unusable> {
    let authorities = own.ca_bundle().map(authorities).transpose()?.unwrap_or_default();
    let config = trusting(authorities)?;
    let config = match own.identity() {
        None => config.with_no_client_auth(),
        Some(identity) => identified(config, identity)?,
    };
    Ok(offering_http2(config))
}

/// SHA-256 of each certificate in `pem`, in hex.
pub fn fingerprints(pem: &str) -> Vec<String> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).flatten();
    certificates.map(|certificate| hex::encode(digest(&SHA256, &certificate))).collect()
}

fn trusting(
    authorities: impl IntoIterator<Item = CertificateDer<'static>>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new_with_extra_roots(authorities, Arc::clone(&provider))?;
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)))
}

/// reqwest leaves a given configuration as it is, so both protocols have to be offered here.
fn offering_http2(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

fn authorities(pem: &str) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let authorities = certificates(pem).ok_or(Unusable::CaBundle)?;
    let mut roots = RootCertStore::empty();
    let usable = authorities.iter().all(|authority| roots.add(authority.clone()).is_ok());
    if usable { Ok(authorities) } else { Err(Unusable::CaBundle) }
}

fn identified(
    config: ConfigBuilder<ClientConfig, WantsClientCert>,
    identity: &Identity,
) -> Result<ClientConfig, Unusable> {
    use rustls::Error;
    use secrecy::ExposeSecret as _;
    let chain = certificates(&identity.certificate).ok_or(Unusable::ClientCertificate)?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.expose_secret().as_bytes());
    let key = key.map_err(|_| Unusable::ClientKey)?;
    config.with_client_auth_cert(chain, key).map_err(|error| match error {
        Error::InconsistentKeys(_) => Unusable::OtherKey,
        Error::InvalidCertificate(_) => Unusable::ClientCertificate,
        _ => Unusable::ClientKey,
    })
}

/// All certificates in `pem`; `None` if there are none, or one that is not well formed.
fn certificates(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>().ok()?;
    (!certificates.is_empty()).then_some(certificates)
}
