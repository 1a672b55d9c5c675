//! What one process at a time does for all of them.
//!
//! Whoever takes a chore has it for a while and has to say so again while it goes on. One that dies or stands still is
//! replaced when that while is over; should it wake then, two are at it, which no chore minds.

use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::Row;

use crate::{GenericClient, Result};

/// A chore, by its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chore {
    /// Partitions, retention, erasure: the janitor's.
    Upkeep,
    /// Sealing the credentials that an older version stored in clear: the janitor's.
    SealHeaders,
}

impl Chore {
    fn name(self) -> &'static str {
        match self {
            Self::Upkeep => "upkeep",
            Self::SealHeaders => "seal_headers",
        }
    }
}

/// Takes a chore that is due and that nobody is at, for `lease`. False: not now.
pub async fn take(db: &impl GenericClient, chore: Chore, lease: Duration) -> Result<bool> {
    let statement = db
        .prepare_cached(
            "UPDATE chores SET due_at = now() + make_interval(secs => $2) WHERE name = $1 AND due_at <= now()",
        )
        .await?;
    Ok(db.execute(&statement, &[&chore.name(), &lease.as_secs_f64()]).await? > 0)
}

/// Sets when the chore may next be taken: to extend a lease, or to schedule the next run.
pub async fn put_off(db: &impl GenericClient, chore: Chore, by: Duration) -> Result<()> {
    let statement =
        db.prepare_cached("UPDATE chores SET due_at = now() + make_interval(secs => $2) WHERE name = $1").await?;
    db.execute(&statement, &[&chore.name(), &by.as_secs_f64()]).await?;
    Ok(())
}

/// Writes down how a part of a chore ended; `error` is why it failed.
pub async fn ended(db: &impl GenericClient, name: &str, error: Option<&str>) -> Result<()> {
    let statement = db
        .prepare_cached(
            "INSERT INTO chore_runs AS c (name, last_success_at, last_failure_at, last_error)
             VALUES ($1, CASE WHEN $2::text IS NULL THEN now() END, CASE WHEN $2::text IS NOT NULL THEN now() END, $2)
             ON CONFLICT (name) DO UPDATE
             SET last_success_at = coalesce(excluded.last_success_at, c.last_success_at),
                 last_failure_at = coalesce(excluded.last_failure_at, c.last_failure_at), last_error = $2",
        )
        .await?;
    db.execute(&statement, &[&name, &error]).await?;
    Ok(())
}

/// How a part of a chore ended for the last time.
#[derive(Clone, Debug)]
pub struct Run {
    pub name: String,
    /// `None`: it has never succeeded.
    pub last_success_at: Option<Timestamp>,
    pub last_failure_at: Option<Timestamp>,
    /// `None`: it did not fail the last time.
    pub last_error: Option<String>,
}

/// All parts that have ever run, by name.
pub async fn runs(db: &impl GenericClient) -> Result<Vec<Run>> {
    let statement = db
        .prepare_cached("SELECT name, last_success_at, last_failure_at, last_error FROM chore_runs ORDER BY name")
        .await?;
    let run = |row: &Row| Run {
        name: row.get("name"),
        last_success_at: row.get("last_success_at"),
        last_failure_at: row.get("last_failure_at"),
        last_error: row.get("last_error"),
    };
    Ok(db.query(&statement, &[]).await?.iter().map(run).collect())
}
