//! TLS for what a process fetches or delivers.

use std::sync::Arc;

use rustls_platform_verifier::BuilderVerifierExt as _;

/// TLS 1.2 and up with the system's roots, and HTTP/2 on offer. One provider everywhere: ring.
pub fn client_config() -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
    // reqwest leaves a given configuration as it is, so both protocols have to be offered here.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
