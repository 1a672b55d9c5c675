//! Nothing is left over: no row, message, lock or partition.

use std::collections::BTreeSet;

use jiff::{ToSpan as _, tz::TimeZone};
use tokio_postgres::Client;

use crate::error::Result;
use crate::ledger::Check;
use crate::world::World;

const DAYS_AHEAD: i64 = 7;
const PARTITIONED: [&str; 4] = ["attempts", "deliveries", "event_dedup", "events"];

/// `left` is what still moved when the time was up.
pub async fn checks(left: &[String], world: &World, database: &Client) -> Result<Vec<Check>> {
    let mut quiet = Check::new("nothing is held, queued, in the outbox or in a queue any more");
    left.iter().for_each(|left| quiet.except(|| left.clone()));
    Ok(vec![quiet, queues(world).await?, sessions(database).await?, partitions(world, database).await?])
}

async fn queues(world: &World) -> Result<Check> {
    let mut check = Check::new("there are the ten queues of the topology, and no other");
    let mut names: Vec<String> = world.broker.queues().await?.into_iter().map(|queue| queue.name).collect();
    names.sort();
    let mut expected = vec!["posthorn.dead.v1".to_owned()];
    expected.extend((0..8).map(|shard| format!("posthorn.deliveries.v1.s{shard}")));
    expected.push("posthorn.events.v1".to_owned());
    if names != expected {
        check.except(|| format!("{names:?}"));
    }
    Ok(check)
}

async fn sessions(database: &Client) -> Result<Check> {
    let mut check = Check::new("no lock, transaction or prepared transaction is left open");
    const OPEN: &str = "
        SELECT 'advisory lock ' || objid || ' of ' || pid FROM pg_locks WHERE locktype = 'advisory'
        UNION ALL
        SELECT application_name || ' in a transaction since ' || xact_start || ': ' || left(query, 80) FROM pg_stat_activity
        WHERE state LIKE 'idle in transaction%' AND state_change < now() - interval '2 seconds'
        UNION ALL
        SELECT 'prepared ' || gid FROM pg_prepared_xacts
        UNION ALL
        SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgname LIKE 'chaos%'";
    for row in database.query(OPEN, &[]).await? {
        check.except(|| row.get(0));
    }
    Ok(check)
}

/// From yesterday to a week ahead, as they are made; around midnight there may be a day more.
async fn partitions(world: &World, database: &Client) -> Result<Check> {
    let mut check = Check::new("there are the partitions from yesterday to a week ahead, and no other");
    const NAMES: &str = "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        JOIN pg_class p ON p.oid = i.inhparent WHERE p.relkind = 'p'";
    let is: BTreeSet<String> = database.query(NAMES, &[]).await?.iter().map(|row| row.get(0)).collect();
    let today = world.clock.wall().to_zoned(TimeZone::UTC).date();
    let mut expected = BTreeSet::new();
    for offset in -1..=DAYS_AHEAD {
        let day = today.saturating_add(offset.days());
        expected.extend(PARTITIONED.map(|table| format!("{table}_{}", day.strftime("%Y%m%d"))));
    }
    for name in expected.difference(&is) {
        check.except(|| format!("{name} is missing"));
    }
    let yesterday = today.saturating_sub(2.days()).strftime("%Y%m%d").to_string();
    for name in is.difference(&expected).filter(|name| !name.ends_with(&yesterday)) {
        check.except(|| format!("{name} is there"));
    }
    Ok(check)
}
