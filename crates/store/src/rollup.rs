//! Counts of whole days beside those of their hours, so that statistics over weeks read few rows.
//!
//! Invariant: every day before `stats_days.through` has rows with `shard` -1 whose sum is that of its
//! hours, and no later day has any. Both are read and changed in one statement, so a sum over hours and
//! days is exact at any moment.

use jiff::Timestamp;

use crate::{GenericClient, Result};

/// The rows of `table`, an hour's or a day's each, from the hour in which `$since` lies on, that fulfil
/// `conditions`: the hours up to midnight, the days that have rows, and the hours after those.
pub(crate) fn window(table: &str, conditions: &str, since: u8) -> String {
    let first = format!("date_trunc('hour', ${since}::timestamptz, 'UTC')");
    let midnight = format!("date_trunc('day', {first} + interval '1 day' - interval '1 microsecond', 'UTC')");
    let through = "(SELECT through FROM stats_days)";
    format!(
        "(SELECT * FROM {table} WHERE {conditions} AND shard >= 0 AND hour >= {first} AND hour < {midnight}
          UNION ALL
          SELECT * FROM {table} WHERE {conditions} AND shard = -1 AND hour >= {midnight} AND hour < {through}
          UNION ALL
          SELECT * FROM {table} WHERE {conditions} AND shard >= 0 AND hour >= greatest({midnight}, {through}))"
    )
}

// Whoever counts in an hour does so within minutes of its end; six hours are for clocks that are behind.
const ADD_A_DAY: &str = "
WITH day AS (
    SELECT through AS day, through + interval '1 day' AS next FROM stats_days
    WHERE through + interval '30 hours' <= $1 FOR UPDATE
),
d AS (
    INSERT INTO delivery_stats (tenant_id, subscription_id, hour, event_type, shard, delivered, failed)
    SELECT tenant_id, subscription_id, day, event_type, -1, sum(delivered), sum(failed)
    FROM day JOIN delivery_stats ON hour >= day AND hour < next AND shard >= 0 GROUP BY 1, 2, 3, 4
),
a AS (
    INSERT INTO attempt_stats (tenant_id, subscription_id, hour, bucket, shard, attempts, failed, millis)
    SELECT tenant_id, subscription_id, day, bucket, -1, sum(attempts), sum(failed), sum(millis)
    FROM day JOIN attempt_stats ON hour >= day AND hour < next AND shard >= 0 GROUP BY 1, 2, 3, 4
),
e AS (
    INSERT INTO event_stats (tenant_id, source_id, hour, event_type, shard, received, duplicates, schema_violations,
                             last_received_at)
    SELECT tenant_id, source_id, day, event_type, -1, sum(received), sum(duplicates), sum(schema_violations),
           max(last_received_at)
    FROM day JOIN event_stats ON hour >= day AND hour < next AND shard >= 0 GROUP BY 1, 2, 3, 4
)
UPDATE stats_days SET through = next FROM day";

/// Adds the rows of the next day that has none, if it has been over for six hours. Returns whether it did.
pub async fn add_a_day(db: &impl GenericClient, now: Timestamp) -> Result<bool> {
    Ok(db.execute(ADD_A_DAY, &[&now]).await? > 0)
}
