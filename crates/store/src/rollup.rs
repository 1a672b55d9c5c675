//! Counts that are read take few rows: the shards of an hour that is over become one row, and a day gets rows
//! of its own beside those of its hours.
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

/// A table of counts: whose and what a row counts in its hour, and how two rows become one.
struct Counts {
    table: &'static str,
    /// The columns of the key beside `hour` and `shard`.
    key: [&'static str; 3],
    sums: &'static [&'static str],
    latest: &'static [&'static str],
}

const COUNTS: [Counts; 3] = [
    Counts {
        table: "delivery_stats",
        key: ["tenant_id", "subscription_id", "event_type"],
        sums: &["delivered", "failed"],
        latest: &[],
    },
    Counts {
        table: "attempt_stats",
        key: ["tenant_id", "subscription_id", "bucket"],
        sums: &["attempts", "failed", "millis"],
        latest: &[],
    },
    Counts {
        table: "event_stats",
        key: ["tenant_id", "source_id", "event_type"],
        sums: &["received", "duplicates", "schema_violations"],
        latest: &["last_received_at"],
    },
];

impl Counts {
    /// Inserts the sums of the rows in `from`, for the hour and shard that these expressions say.
    fn insert(&self, hour: &str, shard: i16, from: &str) -> String {
        let Self { table, key, sums, latest } = self;
        let key = key.join(", ");
        let columns = [*sums, *latest].concat().join(", ");
        let sums = sums.iter().map(|column| format!("sum({column})"));
        let values = sums.chain(latest.iter().map(|column| format!("max({column})"))).collect::<Vec<_>>().join(", ");
        // Sorted: whoever adds to the same rows must not deadlock.
        format!(
            "INSERT INTO {table} AS s ({key}, hour, shard, {columns})
             SELECT {key}, {hour}, {shard}, {values} FROM {from} GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 4, 3"
        )
    }

    fn merge(&self) -> String {
        let Self { table, key, sums, latest } = self;
        let sums = sums.iter().map(|column| format!("{column} = s.{column} + excluded.{column}"));
        let latest = latest.iter().map(|column| format!("{column} = greatest(s.{column}, excluded.{column})"));
        format!(
            "WITH gone AS (
                 DELETE FROM {table} WHERE ctid = ANY (ARRAY(
                     SELECT ctid FROM {table} WHERE shard > 0 AND hour < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))
                 RETURNING *
             )
             {} ON CONFLICT ({}, hour, shard) DO UPDATE SET {}",
            self.insert("hour", 0, "gone"),
            key.join(", "),
            sums.chain(latest).collect::<Vec<_>>().join(", "),
        )
    }
}

/// Puts the shards of hours before `before` into one row each, at most `limit` rows of each table at once. The
/// rows go and their sum comes in one statement. Returns whether there may be more.
pub async fn merge(db: &impl GenericClient, before: Timestamp, limit: i64) -> Result<bool> {
    let mut merged = 0;
    for counts in &COUNTS {
        merged += db.execute(&counts.merge(), &[&before, &limit]).await?;
    }
    Ok(merged > 0)
}

/// Adds the rows of the next day that has none, if it has been over for six hours: whoever counts in an hour
/// does so within minutes of its end, and the rest is for clocks that are behind. Returns whether it did.
pub async fn add_a_day(db: &impl GenericClient, now: Timestamp) -> Result<bool> {
    let day = |counts: &Counts| {
        let from = format!("day JOIN {} c ON c.hour >= day AND c.hour < next AND c.shard >= 0", counts.table);
        format!("{}_added AS ({})", counts.table, counts.insert("day", -1, &from))
    };
    let sql = format!(
        "WITH day AS (
             SELECT through AS day, through + interval '1 day' AS next FROM stats_days
             WHERE through + interval '30 hours' <= $1 FOR UPDATE
         ),
         {}
         UPDATE stats_days SET through = next FROM day",
        COUNTS.iter().map(day).collect::<Vec<_>>().join(", "),
    );
    Ok(db.execute(&sql, &[&now]).await? > 0)
}
