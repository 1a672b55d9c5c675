//! One vector as the product sees it: a source, a request, a clock.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use posthorn_core::provider::Provider;
use posthorn_core::request::RawRequest;
use posthorn_core::signature::{ConfigError, Material, Verifier, preset_names, split_secrets};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// One entry of a vector file, as its README describes it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Vector {
    pub(crate) provider: String,
    pub(crate) name: String,
    pub(crate) config: Map<String, Value>,
    request: Request,
    now: i64,
    pub(crate) expect: String,
    #[serde(default)]
    pub(crate) also_acceptable: Option<Vec<String>>,
    pub(crate) event: Option<Value>,
    #[serde(default)]
    pub(crate) note: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Request {
    method: String,
    url: String,
    headers: Map<String, Value>,
    body: String,
}

/// The vectors of the repository.
pub(crate) fn own_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

/// The vectors in a directory, by the name of their file.
pub(crate) fn files(directory: &Path) -> Vec<(String, Vec<Vector>)> {
    let mut files = vec![];
    for entry in std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = std::fs::read_to_string(&path).unwrap();
            let vectors = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            files.push((path.file_name().unwrap().to_string_lossy().into_owned(), vectors));
        }
    }
    files.sort_by(|one, two| one.0.cmp(&two.0));
    files
}

impl Vector {
    /// The source that the vector's configuration means, in the product's own words.
    pub(crate) fn source(&self) -> Result<(Provider, Value), String> {
        let (provider, preset) = provider(&self.provider)?;
        let mut config = self.config.clone();
        for name in ["certificates", "jwks"] {
            config.remove(name);
        }
        for name in ["tolerance_s", "clock_skew_s"] {
            if let Some(tolerance) = config.remove(name) {
                config.insert("tolerance_seconds".to_owned(), tolerance);
            }
        }
        if let Some(preset) = preset {
            config.insert("preset".to_owned(), json!(preset));
        }
        Ok((provider, Value::Object(config)))
    }

    pub(crate) fn verifier(&self) -> Result<Verifier, ConfigError> {
        let (provider, config) = self.source().unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let (public, secrets) = split_secrets(provider, config)?;
        Verifier::new(provider, &public, secrets)
    }

    /// What stands in for downloads.
    pub(crate) fn material(&self, verifier: &Verifier) -> Material {
        let certificates = self.config.get("certificates").and_then(Value::as_object).into_iter().flatten();
        let material = certificates.fold(Material::default(), |material, (url, pem)| {
            material.with_certificate(url.as_str(), pem.as_str().unwrap())
        });
        match (verifier.key_set_url(), self.config.get("jwks")) {
            (Some(url), Some(keys)) => material.with_key_set(url, &keys.to_string()),
            _ => material,
        }
    }

    pub(crate) fn request(&self) -> RawRequest {
        let after_scheme = self.request.url.split_once("://").unwrap().1;
        RawRequest {
            method: self.request.method.clone(),
            target: after_scheme.find('/').map_or("/", |at| &after_scheme[at..]).to_owned(),
            headers: self.request.headers.iter().map(|(name, value)| (name, value.as_str().unwrap())).collect(),
            body: self.request.body.clone().into(),
        }
    }

    /// The last segment of the path, for sources whose events are named there.
    pub(crate) fn path_event(&self) -> Option<&str> {
        let path = self.request.url.split('?').next().filter(|_| self.provider == "internal");
        path.and_then(|path| path.rsplit('/').next())
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_second(self.now).unwrap()
    }
}

/// A provider of the product, or a preset of `generic`.
fn provider(name: &str) -> Result<(Provider, Option<String>), String> {
    let renamed = match name {
        "ses_sns" | "sns" => "ses",
        "standardwebhooks" => "standard_webhooks",
        "telnyx_hmac_legacy" => "telnyx_hmac",
        "google_pubsub_oidc" => "google_pubsub",
        "hubspot" => "hubspot_v3",
        name => name,
    };
    if let Ok(provider) = renamed.parse() {
        return Ok((provider, None));
    }
    if preset_names().iter().any(|preset| preset == renamed) {
        return Ok((Provider::Generic, Some(renamed.to_owned())));
    }
    Err(format!("`{name}` is neither a provider nor a preset"))
}
