//! `posthorn replay status|cancel|resume`

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::api::Api;
use crate::error::CliError;
use crate::say;

/// How often a job is asked how far it is.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub enum Replay {
    /// Show how far a job is, or the newest jobs.
    Status(Status),
    /// Stop a job where it is.
    Cancel(One),
    /// Go on with a job that was cancelled.
    Resume(One),
}

#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    api: Api,
    /// The job's id, `rpl_…`; without it, the newest jobs.
    id: Option<String>,
    /// Stay until it has ended.
    #[arg(long, requires = "id")]
    follow: bool,
    #[command(flatten)]
    watch: Watch,
}

#[derive(Debug, Args)]
pub struct One {
    #[command(flatten)]
    api: Api,
    /// The job's id, `rpl_…`.
    id: String,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

impl Replay {
    pub async fn run(self) -> Result<(), CliError> {
        match self {
            Self::Status(status) => status.run().await,
            Self::Cancel(one) => one.turn("cancel").await,
            Self::Resume(one) => one.turn("resume").await,
        }
    }
}

impl Status {
    async fn run(self) -> Result<(), CliError> {
        let Some(id) = &self.id else {
            let page = self.api.get("/v1/replays", &[]).await?;
            let jobs = page["data"].as_array().cloned().unwrap_or_default();
            if jobs.is_empty() && !self.watch.json {
                say("no replay jobs");
            }
            jobs.iter().for_each(|job| tell(job, self.watch.json));
            return Ok(());
        };
        let job = self.api.get(&format!("/v1/replays/{id}"), &[]).await?;
        if self.follow {
            return self.watch.follow(&self.api, job).await;
        }
        tell(&job, self.watch.json);
        Ok(())
    }
}

impl One {
    async fn turn(self, to: &str) -> Result<(), CliError> {
        let job = self.api.post(&format!("/v1/replays/{}/{to}", self.id), &json!({})).await?;
        tell(&job, self.json);
        Ok(())
    }
}

/// How a job's progress is shown.
#[derive(Clone, Copy, Debug, Args)]
pub struct Watch {
    /// One JSON object a line, for each change.
    #[arg(long)]
    pub json: bool,
}

impl Watch {
    /// Shows a job until it has ended: a bar on a terminal, otherwise a line for each change.
    pub async fn follow(self, api: &Api, mut job: Value) -> Result<(), CliError> {
        let path = format!("/v1/replays/{}", job["id"].as_str().unwrap_or_default());
        let bar = (!self.json && std::io::stderr().is_terminal()).then(bar);
        while is_under_way(&job) {
            match &bar {
                Some(bar) => advance(bar, &job),
                None => tell(&job, self.json),
            }
            let shown = job["updated_at"].clone();
            while is_under_way(&job) && job["updated_at"] == shown {
                tokio::time::sleep(PAUSE).await;
                job = api.get(&path, &[]).await?;
            }
        }
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        tell(&job, self.json);
        Ok(())
    }
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("[{bar:40}] {pos}/{len}  {per_sec}  {msg}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn advance(bar: &ProgressBar, job: &Value) {
    let number = |name: &str| job[name].as_u64().unwrap_or_default();
    bar.set_length(number("count"));
    bar.set_position(number("done") + number("failed"));
    bar.set_message(job["state"].as_str().unwrap_or("-").to_owned());
}

fn is_under_way(job: &Value) -> bool {
    ["counting", "running"].iter().any(|state| job["state"] == *state)
}

/// Prints a job on a line.
pub fn tell(job: &Value, as_json: bool) {
    if as_json {
        return say(job);
    }
    let dry = if job["dry_run"] == true { "  (dry run)" } else { "" };
    say(format_args!(
        "{}  {:<9}  {} of {} done, {} failed{dry}",
        job["id"].as_str().unwrap_or("-"),
        job["state"].as_str().unwrap_or("-"),
        job["done"],
        job["count"],
        job["failed"]
    ));
}
