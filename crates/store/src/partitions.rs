//! The day partitions: made a week ahead, dropped by age.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use posthorn_core::id;

use crate::{GenericClient, Result, Store};

/// How many days ahead partitions are made.
pub const DAYS_AHEAD: i64 = 7;

/// With fewer days ahead a process is not ready.
const DAYS_NEEDED: i64 = 2;

/// Partitioned by UUIDv7 id; `event_dedup` is by date.
const BY_ID: [&str; 3] = ["events", "deliveries", "attempts"];

/// Advisory lock around making partitions: `IF NOT EXISTS` alone races with itself.
const LOCK: i64 = 0x706f_7374_7061_7274;

/// Makes the partitions from yesterday, for ids made by a clock that is behind, to a week ahead.
pub async fn ensure(db: &impl GenericClient, now: Timestamp) -> Result<()> {
    let today = day_of(now);
    let mut statements = String::new();
    for offset in -1..=DAYS_AHEAD {
        let day = plus_days(today, offset);
        let name = name_of(day);
        let (from, to) = (floor(day), floor(plus_days(day, 1)));
        for table in BY_ID {
            statements.push_str(&format!(
                "CREATE TABLE IF NOT EXISTS {table}_{name} PARTITION OF {table} FOR VALUES FROM ('{from}') TO ('{to}');"
            ));
        }
        let next = plus_days(day, 1);
        statements.push_str(&format!(
            "CREATE TABLE IF NOT EXISTS event_dedup_{name} PARTITION OF event_dedup FOR VALUES FROM ('{day}') TO ('{next}');"
        ));
    }
    // Somebody else who makes them is waited for; a table that is in use is not.
    let lock = format!(
        "SET LOCAL statement_timeout = '60s'; SET LOCAL lock_timeout = '60s'; SELECT pg_advisory_xact_lock({LOCK}); \
         SET LOCAL lock_timeout TO DEFAULT;"
    );
    // One implicit transaction: the lock is held to its end, and where it fails the session is left in none.
    db.batch_execute(&format!("{lock} {statements}")).await?;
    Ok(())
}

/// For how many whole days after today partitions exist.
pub async fn days_ahead(db: &impl GenericClient, now: Timestamp) -> Result<i64> {
    let today = day_of(now);
    let rows = db
        .query(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
             WHERE i.inhparent = to_regclass('events')",
            &[],
        )
        .await?;
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let mut ahead = -1;
    while names.contains(&format!("events_{}", name_of(plus_days(today, ahead + 1)))) {
        ahead += 1;
    }
    Ok(ahead)
}

/// Fails, in words for `/readyz`, when partitions run short.
pub async fn check(store: &Store, now: Timestamp) -> Result<(), String> {
    let client = store.client().await.map_err(|error| error.to_string())?;
    match days_ahead(&client, now).await {
        Ok(days) if days >= DAYS_NEEDED => Ok(()),
        Ok(days) => Err(format!("partitions for {days} more days only")),
        Err(error) => Err(error.to_string()),
    }
}

/// Drops what lies wholly before the retention: `keep_days` for history, `keep_dedup_days` for keys.
/// Returns the names of what went.
pub async fn drop_old(
    db: &impl GenericClient,
    keep_days: i64,
    keep_dedup_days: i64,
    now: Timestamp,
) -> Result<Vec<String>> {
    let rows = db
        .query(
            "SELECT p.relname, c.relname FROM pg_inherits i
             JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
             WHERE i.inhparent IN (to_regclass('events'), to_regclass('deliveries'), to_regclass('attempts'), to_regclass('event_dedup'))
               AND p.relkind = 'p'",
            &[],
        )
        .await?;
    let today = day_of(now);
    let mut dropped = Vec::new();
    for row in rows {
        let (table, partition): (String, String) = (row.get(0), row.get(1));
        let keep = if table == "event_dedup" { keep_dedup_days } else { keep_days };
        let oldest_kept = name_of(plus_days(today, -keep));
        let day = partition.strip_prefix(&format!("{table}_")).unwrap_or_default();
        if day.len() == oldest_kept.len() && day < oldest_kept.as_str() {
            db.batch_execute(&format!("DROP TABLE IF EXISTS {partition}")).await?;
            dropped.push(partition);
        }
    }
    Ok(dropped)
}

fn day_of(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

fn plus_days(day: Date, days: i64) -> Date {
    day.saturating_add(jiff::Span::new().days(days.clamp(-4_000, 4_000)))
}

fn name_of(day: Date) -> String {
    format!("{:04}{:02}{:02}", day.year(), day.month(), day.day())
}

fn floor(day: Date) -> uuid::Uuid {
    let midnight = day.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |zoned| zoned.timestamp());
    id::floor(midnight)
}
