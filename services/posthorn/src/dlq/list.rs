use clap::Args;
use serde_json::Value;

use super::filter::Filter;
use crate::api::Api;
use crate::error::CliError;
use crate::say;

#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    api: Api,
    #[command(flatten)]
    filter: Filter,
    /// How many died of what at which subscription.
    #[arg(long)]
    group: bool,
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    limit: u32,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

impl List {
    pub async fn run(self) -> Result<(), CliError> {
        let limit = self.limit.to_string();
        let mut query = self.filter.given();
        query.push(("limit", &limit));
        let path = if self.group { "/v1/dead-letters/groups" } else { "/v1/dead-letters" };
        let page = self.api.get(path, &query).await?;
        let rows = page["data"].as_array().cloned().unwrap_or_default();
        if rows.is_empty() && !self.json {
            say("no dead letters");
        }
        for row in rows {
            match (self.json, self.group) {
                (true, _) => say(row),
                (false, true) => say(group(&row)),
                (false, false) => say(letter(&row)),
            }
        }
        Ok(())
    }
}

fn text<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap_or("-")
}

fn letter(row: &Value) -> String {
    format!(
        "{}  {}  {:<14}  {}  {}",
        text(row, "id"),
        text(row, "died_at"),
        text(row, "reason"),
        text(row, "subscription_id"),
        text(row, "error")
    )
}

fn group(row: &Value) -> String {
    format!(
        "{:>8}  {:<14}  {}  {}  (last {})",
        row["count"],
        text(row, "reason"),
        text(row, "subscription_id"),
        text(row, "error"),
        text(row, "last_died_at")
    )
}
