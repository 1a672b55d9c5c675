//! `posthorn demo`: a tenant with all that is needed to see an event travel.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::api::Api;
use crate::error::CliError;
use crate::say;
use crate::send::read_secret;

/// What the demo's tenant is known by.
const EXTERNAL_ID: &str = "demo";

#[derive(Debug, Args)]
pub struct Demo {
    #[command(flatten)]
    api: Api,
    /// Where deliveries go.
    #[arg(long, default_value = "http://127.0.0.1:8099/")]
    receiver_url: String,
    /// Written with the subscription's secret.
    #[arg(long)]
    receiver_secret_file: PathBuf,
    /// The secret that Stripe signs with; made when there is no such file.
    #[arg(long)]
    stripe_secret_file: PathBuf,
    /// The token of internal services; made when there is no such file.
    #[arg(long)]
    internal_token_file: PathBuf,
}

impl Demo {
    pub async fn run(self) -> Result<(), CliError> {
        let tenant = self.tenant().await?;
        let stripe = secret(&self.stripe_secret_file, "whsec_")?;
        let token = secret(&self.internal_token_file, "")?;
        self.source("stripe", &tenant, json!({ "secrets": [stripe] })).await?;
        self.source("internal", &tenant, json!({ "tokens": [token] })).await?;
        let subscription = self.subscription(&tenant).await?;
        say(format_args!("tenant {tenant}, sources stripe and internal, subscription {subscription}"));
        Ok(())
    }

    async fn tenant(&self) -> Result<String, CliError> {
        let found = self.api.get("/v1/tenants", &[("external_id", EXTERNAL_ID)]).await?;
        if let Some(id) = found["data"][0]["id"].as_str() {
            return Ok(id.to_owned());
        }
        id(self.api.post("/v1/tenants", &json!({ "name": "Demo", "external_id": EXTERNAL_ID })).await?)
    }

    /// The source with this slug, with the secrets that stand in our files.
    async fn source(&self, provider: &str, tenant: &str, config: Value) -> Result<(), CliError> {
        let existing = self.find("/v1/sources", &[], |source| source["slug"] == provider).await?;
        match existing {
            Some(source) => {
                let path = format!("/v1/sources/{}", id(source)?);
                self.api.patch(&path, &json!({ "config": config })).await?;
            }
            None => {
                let routing = json!({ "kind": "tenant", "tenant_id": tenant });
                let source = json!({ "slug": provider, "provider": provider, "routing": routing, "config": config });
                self.api.post("/v1/sources", &source).await?;
            }
        }
        Ok(())
    }

    /// The secret is shown once, so a subscription whose secret is not in our file is made anew.
    async fn subscription(&self, tenant: &str) -> Result<String, CliError> {
        let ours = |subscription: &Value| subscription["url"] == self.receiver_url.as_str();
        let existing = self.find("/v1/subscriptions", &[("tenant_id", tenant)], ours).await?;
        if let Some(subscription) = existing
            && self.receiver_secret_file.exists()
        {
            return id(subscription);
        }
        let subscription = json!({
            "tenant_id": tenant,
            "name": "Demo receiver",
            "url": self.receiver_url,
            "event_types": ["*"],
        });
        let created = self.api.post("/v1/subscriptions", &subscription).await?;
        write_secret(&self.receiver_secret_file, created["secret"].as_str().unwrap_or_default())?;
        id(created)
    }

    /// The first item of a list for which `holds` is true.
    async fn find(
        &self,
        path: &str,
        query: &[(&str, &str)],
        holds: impl Fn(&Value) -> bool,
    ) -> Result<Option<Value>, CliError> {
        Ok(self.api.all(path, query).await?.into_iter().find(holds))
    }
}

fn id(value: Value) -> Result<String, CliError> {
    value["id"].as_str().map(str::to_owned).ok_or(CliError::Missing("an `id` in the answer"))
}

/// The secret in `path`, made first if there is none.
fn secret(path: &Path, prefix: &str) -> Result<String, CliError> {
    if !path.exists() {
        write_secret(path, &format!("{prefix}{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 24]>())))?;
    }
    Ok(read_secret(path)?.expose_secret().to_owned())
}

/// Readable by its owner alone.
fn write_secret(path: &Path, text: &str) -> Result<(), CliError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let write = || {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
        writeln!(file, "{text}")
    };
    write().map_err(|source| CliError::File { path: path.to_owned(), source })
}
