use std::sync::Arc;

use posthorn_core::outcome::Attempted;
use posthorn_core::subscription::Subscription;
use posthorn_core::tls::{EndpointTls, Identity};
use posthorn_process::sender::Sender;
use posthorn_process::tls::{Unusable, client_config_for, fingerprints};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::attempt::{attempt, code, sender, subscription};

/// An authority that nobody trusts unless told to.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    fn identity(&self) -> Identity {
        let (certificate, key) = self.issue();
        Identity { certificate: certificate.pem(), key: key.serialize_pem().into() }
    }

    /// The URL of an endpoint with a certificate of this authority, that asks for one of `clients`, if any.
    async fn endpoint(&self, clients: Option<&Self>) -> String {
        let config = self.server(clients);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap());
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config))));
        url
    }

    /// The TLS of a server with a certificate of this authority.
    pub fn server(&self, clients: Option<&Self>) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = match clients {
            None => config.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.0.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
                config.with_client_cert_verifier(verifier.unwrap())
            }
        };
        let (certificate, key) = self.issue();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        config.with_single_cert(vec![certificate.der().clone()], key).unwrap()
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor) {
    while let Ok((connection, _)) = listener.accept().await {
        let Ok(mut connection) = acceptor.accept(connection).await else { continue };
        let _ = connection.read(&mut [0; 4096]).await;
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let _ = connection.shutdown().await;
    }
}

pub fn with_tls(url: &str, ca_bundle: Option<String>, identity: Option<Identity>) -> Subscription {
    Subscription { tls: Some(Arc::new(EndpointTls::new(ca_bundle, identity))), ..subscription(url) }
}

async fn is_accepted(sender: &Sender, subscription: &Subscription) -> bool {
    let answered = attempt(sender, subscription).await;
    let accepted = answered.attempted == Attempted::Accepted;
    assert!(accepted || code(&answered) == "tls_failed", "{:?}", answered.error);
    accepted
}

#[tokio::test]
async fn a_private_authority_is_trusted_by_the_subscription_that_brings_it_and_by_no_other() {
    let (authority, other) = (Authority::new(), Authority::new());
    let url = authority.endpoint(None).await;
    let sender = sender();

    assert!(!is_accepted(&sender, &subscription(&url)).await);
    assert!(is_accepted(&sender, &with_tls(&url, Some(authority.pem()), None)).await);
    assert!(!is_accepted(&sender, &with_tls(&url, Some(other.pem()), None)).await);
    let both = other.pem() + &authority.pem();
    assert!(is_accepted(&sender, &with_tls(&url, Some(both), None)).await);
    assert!(!is_accepted(&sender, &subscription(&url)).await, "what one subscription trusts stays with it");
}

#[tokio::test]
async fn an_endpoint_that_asks_for_a_certificate_takes_only_the_right_one() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let url = authority.endpoint(Some(&clients)).await;
    let sender = sender();

    assert!(!is_accepted(&sender, &with_tls(&url, Some(authority.pem()), None)).await);
    assert!(!is_accepted(&sender, &with_tls(&url, Some(authority.pem()), Some(authority.identity()))).await);
    assert!(is_accepted(&sender, &with_tls(&url, Some(authority.pem()), Some(clients.identity()))).await);
    assert!(!is_accepted(&sender, &with_tls(&url, None, Some(clients.identity()))).await);
}

#[tokio::test]
async fn an_endpoint_of_old_tls_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.read(&mut [0; 4096]).await;
            // What a server of TLS 1.1 says to a newer client: alert, TLS 1.1, two bytes: fatal, protocol_version.
            let _ = connection.write_all(&[21, 3, 2, 0, 2, 2, 70]).await;
        }
    });
    assert!(!is_accepted(&sender(), &subscription(&url)).await);
    assert!(!is_accepted(&sender(), &with_tls(&url, Some(Authority::new().pem()), None)).await);
}

#[test]
fn what_cannot_be_used_is_told_by_its_part() {
    let authority = Authority::new();
    let (mine, other) = (authority.identity(), authority.identity());
    let own = |ca_bundle: Option<&str>, certificate: &str, key: secrecy::SecretString| {
        let identity = Identity { certificate: certificate.to_owned(), key };
        client_config_for(&EndpointTls::new(ca_bundle.map(str::to_owned), Some(identity)))
    };
    let usable = own(Some(&authority.pem()), &mine.certificate, mine.key.clone()).unwrap();
    assert_eq!(usable.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    let garbled = authority.pem().replacen("MII", "MIJ", 1).replacen('A', "B", 1);
    for ca_bundle in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &garbled] {
        let error = own(Some(ca_bundle), &mine.certificate, mine.key.clone()).unwrap_err();
        assert!(matches!(error, Unusable::CaBundle), "{ca_bundle}: {error:?}");
    }
    assert!(matches!(own(None, "", mine.key.clone()), Err(Unusable::ClientCertificate)));
    assert!(matches!(own(None, &mine.certificate, "no key".into()), Err(Unusable::ClientKey)));
    assert!(matches!(own(None, &mine.certificate, mine.certificate.clone().into()), Err(Unusable::ClientKey)));
    assert!(matches!(own(None, &mine.certificate, other.key), Err(Unusable::OtherKey)));
    let prints = fingerprints(&(mine.certificate + &authority.pem()));
    assert_eq!(prints.iter().map(String::len).collect::<Vec<_>>(), [64, 64]);
}
