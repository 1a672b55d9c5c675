//! Certificates and key sets that providers sign with: fetched, bounded, remembered.
//!
//! Which URL may be fetched is core's to say (a certificate's host by the provider's rule, a key set
//! by the source's configuration); here it is only fetched, without redirects, up to a size, within
//! a time.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use posthorn_core::signature::{Material, Need};
use reqwest::redirect::Policy;
use tracing::warn;

use crate::error::RunError;
use crate::settings::Keys as Settings;

/// Fetches and remembers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Keys {
    client: reqwest::Client,
    max_bytes: usize,
    /// By URL. A certificate's name changes when it is replaced; a key set goes stale.
    certificates: Cache<String, Arc<Material>>,
    key_sets: Cache<String, Arc<Material>>,
    /// Key sets that were fetched anew for a key they did not have.
    renewed: Cache<String, ()>,
}

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the request failed")]
    Request(#[from] reqwest::Error),
    #[error("the answer was {0}")]
    Status(u16),
    #[error("larger than allowed")]
    TooLarge,
    #[error("not text")]
    NotText(#[from] std::string::FromUtf8Error),
}

impl Keys {
    pub fn new(settings: &Settings) -> Result<Self, RunError> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(posthorn_process::tls::client_config()?)
            .redirect(Policy::none())
            .no_proxy()
            .referer(false)
            .retry(reqwest::retry::never())
            .timeout(Duration::from_millis(settings.timeout_ms))
            .build()?;
        let remembering =
            |seconds: u64| Cache::builder().max_capacity(settings.entries).time_to_live(Duration::from_secs(seconds));
        Ok(Self {
            client,
            max_bytes: settings.max_bytes,
            certificates: remembering(settings.certificate_seconds).build(),
            key_sets: remembering(settings.key_set_seconds).build(),
            renewed: Cache::builder()
                .max_capacity(settings.entries)
                .time_to_live(Duration::from_secs(settings.renew_seconds))
                .build(),
        })
    }

    /// What is needed, from memory or from the network. Requests that need the same wait for one fetch.
    pub async fn get(&self, need: &Need) -> Result<Arc<Material>, Arc<FetchError>> {
        match need {
            Need::Certificate { url } => {
                let fetching = async {
                    let pem = self.fetch(url).await?;
                    Ok(Arc::new(Material::default().with_certificate(url.as_str(), &pem)))
                };
                self.certificates.try_get_with(url.clone(), fetching).await
            }
            Need::KeySet { url } => {
                let fetching = async {
                    let json = self.fetch(url).await?;
                    Ok(Arc::new(Material::default().with_key_set(url.as_str(), &json)))
                };
                self.key_sets.try_get_with(url.clone(), fetching).await
            }
        }
    }

    /// Forgets a key set that lacks a key, so that it is fetched anew. False if that was done a moment
    /// ago: unknown keys must not make us fetch without end.
    pub async fn renew(&self, key_set_url: &str) -> bool {
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
        let mut response = self.client.get(url).send().await?;
        if !response.status().is_success() {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > self.max_bytes {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(String::from_utf8(body)?)
    }
}
