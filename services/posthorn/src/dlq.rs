//! `posthorn dlq list|show|replay`

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::api::Api;
use crate::error::CliError;
use crate::say;

#[derive(Debug, Subcommand)]
pub enum Dlq {
    /// List dead letters, newest first.
    List(List),
    /// Show one, with its delivery and every attempt.
    Show(One),
    /// Set one going again.
    Replay(One),
}

#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    api: Api,
    /// Only this tenant's.
    #[arg(long)]
    tenant: Option<String>,
    /// Only those with this reason, such as `exhausted`.
    #[arg(long)]
    reason: Option<String>,
    /// Only this subscription's.
    #[arg(long)]
    subscription: Option<String>,
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    limit: u32,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct One {
    #[command(flatten)]
    api: Api,
    /// The dead letter's id, `dl_…`.
    id: String,
}

impl Dlq {
    pub async fn run(self) -> Result<(), CliError> {
        match self {
            Self::List(list) => list.run().await,
            Self::Show(one) => one.show().await,
            Self::Replay(one) => one.replay().await,
        }
    }
}

impl List {
    async fn run(self) -> Result<(), CliError> {
        let limit = self.limit.to_string();
        let mut query = vec![("limit", limit.as_str())];
        let narrowed = [("tenant_id", &self.tenant), ("reason", &self.reason), ("subscription_id", &self.subscription)];
        query.extend(narrowed.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))));
        let page = self.api.get("/v1/dead-letters", &query).await?;
        let letters = page["data"].as_array().cloned().unwrap_or_default();
        if letters.is_empty() && !self.json {
            say("no dead letters");
        }
        for letter in letters {
            if self.json {
                say(letter);
            } else {
                let text = |name: &str| letter[name].as_str().unwrap_or("-").to_owned();
                say(format_args!(
                    "{}  {}  {:<14}  {}  {}",
                    text("id"),
                    text("died_at"),
                    text("reason"),
                    text("subscription_id"),
                    text("error")
                ));
            }
        }
        Ok(())
    }
}

impl One {
    async fn show(self) -> Result<(), CliError> {
        let mut letter = self.api.get(&format!("/v1/dead-letters/{}", self.id), &[]).await?;
        if let Some(delivery) = letter["delivery_id"].as_str() {
            letter["delivery"] = self.api.get(&format!("/v1/deliveries/{delivery}"), &[]).await?;
        }
        say(pretty(&letter)?);
        Ok(())
    }

    async fn replay(self) -> Result<(), CliError> {
        let delivery = self.api.post(&format!("/v1/dead-letters/{}/replay", self.id), &json!({})).await?;
        say(pretty(&delivery)?);
        Ok(())
    }
}

fn pretty(value: &Value) -> Result<String, CliError> {
    Ok(serde_json::to_string_pretty(value)?)
}
