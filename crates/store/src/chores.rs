//! What one process at a time does for all of them.
//!
//! Whoever takes a chore has it for a while and has to say so again while it goes on. One that dies or stands still is
//! replaced when that while is over; should it wake then, two are at it, which no chore minds.

use std::time::Duration;

use crate::{GenericClient, Result};

/// A chore, by its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chore {
    /// Partitions, retention, erasure: the janitor's.
    Upkeep,
}

impl Chore {
    fn name(self) -> &'static str {
        match self {
            Self::Upkeep => "upkeep",
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

/// Says when anybody may take it: whoever goes on with it asks for some more time, whoever is done says when the next
/// time is.
pub async fn put_off(db: &impl GenericClient, chore: Chore, by: Duration) -> Result<()> {
    let statement =
        db.prepare_cached("UPDATE chores SET due_at = now() + make_interval(secs => $2) WHERE name = $1").await?;
    db.execute(&statement, &[&chore.name(), &by.as_secs_f64()]).await?;
    Ok(())
}
