//! Certificates and key sets that providers sign with: fetched, bounded, remembered.
//!
//! Which URL may be fetched is core's to say (a certificate's host by the provider's rule, a key set
//! by the source's configuration); here it is only fetched, without redirects, up to a size, within
//! a time.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use moka::future::Cache;
use posthorn_core::egress::Egress;
use posthorn_core::endpoint::{self, EndpointUrl};
use posthorn_core::request::RawRequest;
use posthorn_core::signature::{Material, Need, Refusal, RefusalKind, Verdict, Verifier};
use serde::Deserialize;
use tracing::warn;

use crate::egress::{self, ProxyUrl, SystemResolver};
use crate::tls;

/// How certificates and key sets are fetched, and for how long they are remembered.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Longest wait for a certificate or key set, in milliseconds.
    pub timeout_ms: u64,
    /// Largest certificate or key set, in bytes.
    pub max_bytes: usize,
    /// How many of each are remembered.
    pub entries: u64,
    /// How long a certificate is remembered, in seconds.
    pub certificate_seconds: u64,
    /// How long a key set is remembered, in seconds.
    pub key_set_seconds: u64,
    /// Shortest time between two fetches of a key set for keys that it lacks, in seconds.
    pub renew_seconds: u64,
    /// An HTTP proxy for these requests, such as `http://proxy:3128`; empty goes directly. Its password is never logged.
    pub proxy_url: ProxyUrl,
}

/// Why nothing can be fetched at all.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    #[error("the subscription's own TLS cannot be used")]
    OwnTls(#[from] tls::Unusable),
    #[error("the HTTP client cannot be built")]
    Client(#[from] reqwest::Error),
}

/// Why a request could not be judged, or was refused.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    #[error("the request was refused")]
    Refused(#[from] Refusal),
    #[error("what the source verifies with cannot be fetched")]
    Unfetched(#[source] Arc<FetchError>),
    /// Asked for again in spite of having been fetched: our fault, not the sender's.
    #[error("what was fetched to verify with cannot be used: {url}")]
    Unusable { url: String },
}

/// Fetches and remembers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Keys {
    client: reqwest::Client,
    egress: Egress,
    max_bytes: usize,
    /// By URL. A certificate's name changes when it is replaced; a key set goes stale.
    certificates: Cache<String, Arc<Material>>,
    key_sets: Cache<String, Arc<Material>>,
    /// Key sets that were fetched anew for a key they did not have.
    renewed: Cache<String, ()>,
    /// Certificates that do not exist: whoever makes up their names must not make us fetch without end.
    absent: Cache<String, u16>,
}

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the URL is not one to fetch from")]
    Url(#[from] endpoint::Error),
    #[error("the request failed")]
    Request(#[from] reqwest::Error),
    #[error("the answer was {0}")]
    Status(u16),
    #[error("larger than allowed")]
    TooLarge,
    #[error("neither a certificate nor a key set")]
    Unusable,
    #[error("not text")]
    NotText(#[from] std::string::FromUtf8Error),
}

impl FetchError {
    /// The status by which the other side said that there is nothing, and that asking again is no use.
    fn definite(&self) -> Option<u16> {
        match self {
            Self::Status(status) if (400..500).contains(status) && ![408, 429].contains(status) => Some(*status),
            _ => None,
        }
    }
}

/// What says nothing is not remembered: the next request asks again.
fn usable(material: Material) -> Result<Arc<Material>, FetchError> {
    if material.is_empty() { Err(FetchError::Unusable) } else { Ok(Arc::new(material)) }
}

/// A certificate that does not exist, at a host that only Amazon serves, was made up by the sender.
fn unfetched(need: &Need, error: Arc<FetchError>) -> JudgeError {
    match (need, error.definite()) {
        (Need::Certificate { .. }, Some(status)) => {
            let detail = format!("there is no certificate at `SigningCertURL`: it answers {status}");
            JudgeError::Refused(Refusal { kind: RefusalKind::UntrustedCertUrl, detail })
        }
        _ => JudgeError::Unfetched(error),
    }
}

impl Keys {
    pub fn new(settings: &Settings, egress: Egress) -> Result<Self, SetUpError> {
        let client = egress::client(&settings.proxy_url, &egress, Arc::new(SystemResolver))?
            .tls_backend_preconfigured(tls::client_config()?)
            .timeout(Duration::from_millis(settings.timeout_ms))
            .build()?;
        let remembering =
            |seconds: u64| Cache::builder().max_capacity(settings.entries).time_to_live(Duration::from_secs(seconds));
        Ok(Self {
            client,
            egress,
            max_bytes: settings.max_bytes,
            certificates: remembering(settings.certificate_seconds).build(),
            key_sets: remembering(settings.key_set_seconds).build(),
            absent: Cache::builder()
                .max_capacity(settings.entries)
                .time_to_live(Duration::from_secs(settings.renew_seconds))
                .build(),
            renewed: Cache::builder()
                .max_capacity(settings.entries)
                .time_to_live(Duration::from_secs(settings.renew_seconds))
                .build(),
        })
    }

    /// Judges a request, with what that needs from the network. Never answers [`Verdict::Needs`].
    pub async fn judge(
        &self,
        verifier: &Verifier,
        request: &RawRequest,
        path_event: Option<&str>,
        now: Timestamp,
    ) -> Result<Verdict, JudgeError> {
        let need = match verifier.judge(request, path_event, now, &Material::default())? {
            Verdict::Needs(need) => need,
            verdict => return Ok(verdict),
        };
        let material = match self.get(&need).await {
            Ok(material) => material,
            Err(error) => return Err(unfetched(&need, error)),
        };
        let judged = verifier.judge(request, path_event, now, &material);
        let lacks_key = matches!(&judged, Err(refusal) if refusal.kind == RefusalKind::UnknownKey);
        let judged = match verifier.key_set_url() {
            Some(url) if lacks_key && self.renew(url).await => {
                let material = self.get(&need).await.map_err(JudgeError::Unfetched)?;
                verifier.judge(request, path_event, now, &material)
            }
            _ => judged,
        };
        match judged? {
            Verdict::Needs(Need::Certificate { url } | Need::KeySet { url }) => Err(JudgeError::Unusable { url }),
            verdict => Ok(verdict),
        }
    }

    /// What is needed, from memory or from the network. Requests that need the same wait for one fetch.
    async fn get(&self, need: &Need) -> Result<Arc<Material>, Arc<FetchError>> {
        match need {
            Need::Certificate { url } => {
                if let Some(status) = self.absent.get(url).await {
                    return Err(Arc::new(FetchError::Status(status)));
                }
                let fetching = async {
                    let pem = self.fetch(url).await?;
                    usable(Material::default().with_certificate(url.as_str(), &pem))
                };
                let fetched = self.certificates.try_get_with(url.clone(), fetching).await;
                if let Some(status) = fetched.as_ref().err().and_then(|error: &Arc<FetchError>| error.definite()) {
                    self.absent.insert(url.clone(), status).await;
                }
                fetched
            }
            Need::KeySet { url } => {
                let fetching = async {
                    let json = self.fetch(url).await?;
                    usable(Material::default().with_key_set(url.as_str(), &json))
                };
                self.key_sets.try_get_with(url.clone(), fetching).await
            }
        }
    }

    /// Forgets a key set that lacks a key, so that it is fetched anew. False if that was done a moment
    /// ago: unknown keys must not make us fetch without end.
    async fn renew(&self, key_set_url: &str) -> bool {
        let first = self.renewed.entry(key_set_url.to_owned()).or_insert(()).await.is_fresh();
        if first {
            self.key_sets.invalidate(key_set_url).await;
        }
        first
    }

    /// Answers a confirmation by asking for its URL once.
    pub async fn confirm(&self, url: &str) -> Result<(), FetchError> {
        self.fetch(url).await.map(|_| ())
    }

    async fn fetch(&self, url: &str) -> Result<String, FetchError> {
        let fetched = self.fetch_bounded(url).await;
        if let Err(error) = &fetched {
            // A confirmation's query is a token.
            let shown = url.split('?').next().unwrap_or_default();
            warn!(error = error as &dyn std::error::Error, "{shown} cannot be fetched");
        }
        fetched
    }

    async fn fetch_bounded(&self, url: &str) -> Result<String, FetchError> {
        // The URL may be a tenant's own word, and a literal address meets no resolver.
        EndpointUrl::parse(url, &self.egress)?;
        // Without the URL: a confirmation's query is a token, and errors are told.
        let mut response = self.client.get(url).send().await.map_err(reqwest::Error::without_url)?;
        if !response.status().is_success() {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
            if body.len() + chunk.len() > self.max_bytes {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(String::from_utf8(body)?)
    }
}
