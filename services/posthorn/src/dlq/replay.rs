use clap::Args;
use serde_json::json;

use super::filter::Filter;
use crate::api::Api;
use crate::error::CliError;
use crate::replay::{Watch, tell};
use crate::{pretty, say};

#[derive(Debug, Args)]
pub struct Replay {
    #[command(flatten)]
    api: Api,
    /// One dead letter, `dl_…`.
    #[arg(conflicts_with_all = ["all", "tenant", "subscription", "reason", "event_type", "from", "to", "rate", "dry_run", "no_wait"])]
    id: Option<String>,
    #[command(flatten)]
    filter: Filter,
    /// All there are: needed where nothing narrows them.
    #[arg(long)]
    all: bool,
    /// Deliveries set going in a second.
    #[arg(long)]
    rate: Option<f64>,
    /// Only say how many there are.
    #[arg(long)]
    dry_run: bool,
    /// Begin the job and leave it to the dispatcher.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    watch: Watch,
}

impl Replay {
    pub async fn run(self) -> Result<(), CliError> {
        if let Some(id) = &self.id {
            let delivery = self.api.post(&format!("/v1/dead-letters/{id}/replay"), &json!({})).await?;
            say(pretty(&delivery)?);
            return Ok(());
        }
        if self.filter.given().is_empty() && !self.all {
            return Err(CliError::Missing("a dead letter's id, something that narrows them, or --all"));
        }
        let mut ask = json!({ "filter": self.filter.body(), "dry_run": self.dry_run });
        if let Some(rate) = self.rate {
            ask["rate_per_second"] = json!(rate);
        }
        let job = self.api.post("/v1/dead-letters/replay", &ask).await?;
        if self.no_wait || self.dry_run {
            tell(&job, self.watch.json);
            return Ok(());
        }
        self.watch.follow(&self.api, job).await
    }
}
