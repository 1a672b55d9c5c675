//! Waiting until nothing moves any more, and what still does when the time is up.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_postgres::Client;

use crate::clock::seconds;
use crate::error::Result;
use crate::load::sender::Sender;
use crate::world::World;

/// The janitor files after two minutes what the clerk could not know.
const LIMIT: Duration = Duration::from_secs(170);

const TELL_EVERY: Duration = Duration::from_secs(10);

/// Waits; returns what is left over, in words: nothing, if all is quiet.
pub async fn wait(world: &World, sender: &Sender, database: &Client) -> Result<Vec<String>> {
    let deadline = tokio::time::Instant::now() + LIMIT;
    let mut told = tokio::time::Instant::now();
    loop {
        let left = left_over(world, sender, database).await?;
        if left.is_empty() || tokio::time::Instant::now() >= deadline {
            return Ok(left);
        }
        if told.elapsed() >= TELL_EVERY {
            told = tokio::time::Instant::now();
            crate::say(format_args!("{:>9}  still {}", seconds(world.clock.now()), left.join(", ")));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn left_over(world: &World, sender: &Sender, database: &Client) -> Result<Vec<String>> {
    let mut left = Vec::new();
    let open = sender.open.load(Ordering::Relaxed);
    if open > 0 {
        left.push(format!("{open} events that are still being sent"));
    }
    let outbox: i64 = database.query_one("SELECT count(*) FROM outbox", &[]).await?.get(0);
    if outbox > 0 {
        left.push(format!("{outbox} outbox rows"));
    }
    const WAITING: &str = "SELECT state, coalesce(held_reason, ''), count(*), min(due_at)::text FROM deliveries
        WHERE state NOT IN ('delivered', 'dead', 'cancelled') GROUP BY 1, 2";
    for row in database.query(WAITING, &[]).await? {
        let (state, reason, count, due): (String, String, i64, Option<String>) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        left.push(format!("{count} deliveries {state} {reason}, the first due at {due:?}"));
    }
    const UNTOLD: &str = "SELECT count(*) FROM deliveries d WHERE state = 'dead'
        AND NOT EXISTS (SELECT FROM dead_letters l WHERE l.delivery_id = d.id)";
    let untold: i64 = database.query_one(UNTOLD, &[]).await?.get(0);
    if untold > 0 {
        left.push(format!("{untold} dead deliveries without a dead letter"));
    }
    if left.is_empty() {
        for queue in world.broker.queues().await? {
            if queue.ready + queue.unacknowledged > 0 {
                left.push(format!("{}: {} ready, {} unacknowledged", queue.name, queue.ready, queue.unacknowledged));
            }
        }
    }
    Ok(left)
}
