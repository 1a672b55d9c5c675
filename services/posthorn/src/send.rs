//! `posthorn send stripe|internal …`: a provider at hand.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use ring::hmac;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use crate::api::client;
use crate::error::CliError;
use crate::refusal::Refusal;
use crate::say;

#[derive(Debug, Subcommand)]
pub enum Send {
    /// As Stripe: `Stripe-Signature` over time and body.
    Stripe(Stripe),
    /// As a service of your own: `X-Service-Token`, the event type in the path.
    Internal(Internal),
}

#[derive(Debug, Args)]
struct Target {
    /// The gateway's URL.
    #[arg(long, env = "POSTHORN_GATEWAY_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The secret itself.
    #[arg(long, env = "POSTHORN_SEND_SECRET", hide_env_values = true)]
    secret: Option<SecretString>,
    /// A file that holds the secret.
    #[arg(long)]
    secret_file: Option<PathBuf>,
    /// The event's data as JSON; a small sample when left out.
    #[arg(long)]
    data: Option<String>,
    /// The event's id; a new one when left out.
    #[arg(long)]
    id: Option<String>,
}

#[derive(Debug, Args)]
pub struct Stripe {
    #[command(flatten)]
    target: Target,
    /// The source's slug or token.
    #[arg(long, default_value = "stripe")]
    source: String,
    /// The event type.
    #[arg(long = "type", default_value = "invoice.paid")]
    event_type: String,
    /// The connected account, which routing by pointer looks at.
    #[arg(long)]
    account: Option<String>,
}

#[derive(Debug, Args)]
pub struct Internal {
    #[command(flatten)]
    target: Target,
    /// The source's slug or token.
    #[arg(long, default_value = "internal")]
    source: String,
    /// The event type.
    #[arg(long = "type", default_value = "report.completed")]
    event_type: String,
    /// The tenant's id or `external_id`, sent as `X-Tenant-Id`.
    #[arg(long)]
    tenant: Option<String>,
}

impl Send {
    pub async fn run(self) -> Result<(), CliError> {
        let request = match self {
            Self::Stripe(stripe) => stripe.request()?,
            Self::Internal(internal) => internal.request()?,
        };
        let response = request.send().await;
        let response = response.map_err(|error| CliError::unanswered(error, "POSTHORN_GATEWAY_URL (or --url)"))?;
        let status = response.status();
        let body = response.text().await?;
        if !status.is_success() {
            return Err(CliError::Refused(Refusal::new(status.as_u16(), body)));
        }
        say(format_args!("{status}\n{body}"));
        Ok(())
    }
}

impl Target {
    fn secret(&self) -> Result<SecretString, CliError> {
        match (&self.secret, &self.secret_file) {
            (Some(secret), _) => Ok(secret.clone()),
            (None, Some(path)) => read_secret(path),
            (None, None) => Err(CliError::Missing("--secret or --secret-file (or POSTHORN_SEND_SECRET)")),
        }
    }

    fn data(&self, sample: Value) -> Result<Value, CliError> {
        self.data.as_deref().map_or(Ok(sample), |text| serde_json::from_str(text).map_err(CliError::Payload))
    }

    fn address(&self, rest: &str) -> String {
        format!("{}/webhooks/{rest}", self.url.trim_end_matches('/'))
    }
}

impl Stripe {
    fn request(&self) -> Result<reqwest::RequestBuilder, CliError> {
        let now = Timestamp::now().as_second();
        let sample = json!({ "id": new_id("in"), "object": "invoice", "amount_paid": 4200, "currency": "eur" });
        let mut event = stripe_event(&self.event_type, self.target.data(sample)?, now);
        if let Some(id) = &self.target.id {
            event["id"] = json!(id);
        }
        if let Some(account) = &self.account {
            event["account"] = json!(account);
        }
        let body = event.to_string();
        let signature = stripe_signature(&self.target.secret()?, now, &body);
        Ok(client()?
            .post(self.target.address(&self.source))
            .header("content-type", "application/json; charset=utf-8")
            .header("stripe-signature", signature)
            .body(body))
    }
}

impl Internal {
    fn request(&self) -> Result<reqwest::RequestBuilder, CliError> {
        let mut body = self.target.data(json!({ "report": "monthly", "pages": 12 }))?;
        if body.is_object() && body.get("id").is_none() {
            body["id"] = json!(self.target.id.clone().unwrap_or_else(|| new_id("int")));
        }
        let mut request = client()?
            .post(self.target.address(&format!("{}/{}", self.source, self.event_type)))
            .header("content-type", "application/json")
            .header("x-service-token", self.target.secret()?.expose_secret())
            .body(body.to_string());
        if let Some(tenant) = &self.tenant {
            request = request.header("x-tenant-id", tenant);
        }
        Ok(request)
    }
}

/// A snapshot event as Stripe sends it.
pub fn stripe_event(event_type: &str, object: Value, created: i64) -> Value {
    json!({
        "id": new_id("evt"),
        "object": "event",
        "api_version": "2025-09-30.clover",
        "created": created,
        "livemode": false,
        "pending_webhooks": 1,
        "type": event_type,
        "data": { "object": object },
    })
}

/// `Stripe-Signature` for `body` at `now`, unix seconds.
pub fn stripe_signature(secret: &SecretString, now: i64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
    let tag = hmac::sign(&key, format!("{now}.{body}").as_bytes());
    format!("t={now},v1={}", hex::encode(tag))
}

/// The first line of a file.
pub fn read_secret(path: &std::path::Path) -> Result<SecretString, CliError> {
    let text = std::fs::read_to_string(path).map_err(|source| CliError::File { path: path.to_owned(), source })?;
    Ok(text.trim().to_owned().into())
}

pub fn new_id(prefix: &str) -> String {
    format!("{prefix}_{}", uuid::Uuid::new_v4().simple())
}
