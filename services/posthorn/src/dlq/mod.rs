//! `posthorn dlq list|show|replay|purge`

mod filter;
mod list;
mod purge;
mod replay;

use clap::{Args, Subcommand};

use crate::api::Api;
use crate::error::CliError;
use crate::{pretty, say};

#[derive(Debug, Subcommand)]
pub enum Dlq {
    /// List dead letters, newest first, or how many died of what.
    List(list::List),
    /// Show one, with its delivery and every attempt.
    Show(Show),
    /// Set one going again, or by a job all that a filter means.
    Replay(replay::Replay),
    /// Forget those that died long ago.
    Purge(purge::Purge),
}

#[derive(Debug, Args)]
pub struct Show {
    #[command(flatten)]
    api: Api,
    /// The dead letter's id, `dl_…`.
    id: String,
}

impl Dlq {
    pub async fn run(self) -> Result<(), CliError> {
        match self {
            Self::List(list) => list.run().await,
            Self::Show(show) => show.run().await,
            Self::Replay(replay) => replay.run().await,
            Self::Purge(purge) => purge.run().await,
        }
    }
}

impl Show {
    async fn run(self) -> Result<(), CliError> {
        let mut letter = self.api.get(&format!("/v1/dead-letters/{}", self.id), &[]).await?;
        if let Some(delivery) = letter["delivery_id"].as_str() {
            letter["delivery"] = self.api.get(&format!("/v1/deliveries/{delivery}"), &[]).await?;
        }
        say(pretty(&letter)?);
        Ok(())
    }
}
