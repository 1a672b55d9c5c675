//! What came through a source and what was refused there, counted by the hour.
//!
//! Accepted events are counted by the statement that accepts them ([`crate::events::accept`]), so
//! those numbers are exact. Refusals and matched secrets are counted in the gateway's memory and
//! added here every few seconds.

use std::collections::BTreeMap;

use jiff::Timestamp;
use posthorn_core::id::{SecretId, SourceId, TenantId};
use uuid::Uuid;

use crate::{EVERY, GenericClient, Result, rollup};

/// A source's counts over a time.
#[derive(Clone, Debug, Default)]
pub struct SourceStats {
    pub received: i64,
    pub duplicates: i64,
    pub schema_violations: i64,
    pub last_received_at: Option<Timestamp>,
    pub received_by_event_type: BTreeMap<String, i64>,
    pub refused_by_reason: BTreeMap<String, i64>,
    pub last_refused_at: Option<Timestamp>,
}

impl SourceStats {
    pub fn refused(&self) -> i64 {
        self.refused_by_reason.values().sum()
    }

    /// Accepted of all that came, duplicates among them; `None` if nothing came.
    pub fn success_rate(&self) -> Option<f64> {
        let good = self.received + self.duplicates;
        let all = good + self.refused();
        (all > 0).then(|| good as f64 / all as f64)
    }
}

/// Counts from the hour in which `since` lies.
pub async fn of_source(db: &impl GenericClient, source: SourceId, since: Timestamp) -> Result<SourceStats> {
    let sql = format!(
        "SELECT event_type, sum(received)::bigint, sum(duplicates)::bigint, sum(schema_violations)::bigint,
                max(last_received_at)
         FROM {} s GROUP BY event_type",
        rollup::window("event_stats", "tenant_id = $3 AND source_id = $1", 2)
    );
    let statement = db.prepare_cached(&sql).await?;
    let mut stats = SourceStats::default();
    for row in db.query(&statement, &[source.as_uuid(), &since, &EVERY]).await? {
        let received: i64 = row.get(1);
        stats.received += received;
        stats.duplicates += row.get::<_, i64>(2);
        stats.schema_violations += row.get::<_, i64>(3);
        stats.last_received_at = stats.last_received_at.max(row.get(4));
        if received > 0 {
            stats.received_by_event_type.insert(row.get(0), received);
        }
    }
    let statement = db
        .prepare_cached(
            "SELECT reason, sum(refused)::bigint, max(last_refused_at) FROM refusal_stats
             WHERE source_id = $1 AND hour >= date_trunc('hour', $2::timestamptz) GROUP BY reason",
        )
        .await?;
    for row in db.query(&statement, &[source.as_uuid(), &since]).await? {
        stats.refused_by_reason.insert(row.get(0), row.get(1));
        stats.last_refused_at = stats.last_refused_at.max(row.get(2));
    }
    Ok(stats)
}

/// What was accepted, over all sources.
#[derive(Clone, Debug, Default)]
pub struct Received {
    pub total: i64,
    pub duplicates: i64,
    pub by_event_type: BTreeMap<String, i64>,
    pub by_source: BTreeMap<SourceId, i64>,
}

/// What was accepted for `tenant`, or for everybody, from the hour in which `since` lies.
pub async fn received(db: &impl GenericClient, tenant: Option<TenantId>, since: Timestamp) -> Result<Received> {
    let sql = format!(
        "SELECT source_id, event_type, sum(received)::bigint, sum(duplicates)::bigint FROM {} s GROUP BY source_id, event_type",
        rollup::window("event_stats", "tenant_id = $1", 2)
    );
    let statement = db.prepare_cached(&sql).await?;
    let mut all = Received::default();
    let tenant = tenant.map_or(EVERY, |id| *id.as_uuid());
    for row in db.query(&statement, &[&tenant, &since]).await? {
        let count: i64 = row.get(2);
        all.total += count;
        all.duplicates += row.get::<_, i64>(3);
        if count > 0 {
            *all.by_source.entry(SourceId::from_uuid(row.get(0))).or_default() += count;
            *all.by_event_type.entry(row.get(1)).or_default() += count;
        }
    }
    Ok(all)
}

/// Refusals of one source for one reason, since they were last written down.
#[derive(Clone, Debug)]
pub struct Refusals {
    pub source_id: SourceId,
    pub reason: &'static str,
    pub count: i64,
    pub last_at: Timestamp,
}

/// Adds refusals to their hours.
pub async fn count_refusals(db: &impl GenericClient, refusals: &[Refusals]) -> Result<()> {
    let sources: Vec<Uuid> = refusals.iter().map(|r| *r.source_id.as_uuid()).collect();
    let reasons: Vec<&str> = refusals.iter().map(|r| r.reason).collect();
    let counts: Vec<i64> = refusals.iter().map(|r| r.count).collect();
    let last: Vec<Timestamp> = refusals.iter().map(|r| r.last_at).collect();
    // Sorted, so that two gateways which add to the same rows do not deadlock. A source is locked against deletion until
    // the transaction ends; one that is deleted, or being deleted, is counted no more.
    let statement = db
        .prepare_cached(
            "WITH alive AS (SELECT id FROM sources WHERE id = ANY ($1) FOR KEY SHARE SKIP LOCKED)
             INSERT INTO refusal_stats AS s (source_id, hour, reason, refused, last_refused_at)
             SELECT t.source_id, date_trunc('hour', t.last_at), t.reason, sum(t.n), max(t.last_at)
             FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::timestamptz[]) AS t(source_id, reason, n, last_at)
             WHERE t.source_id IN (SELECT id FROM alive)
             GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
             ON CONFLICT (source_id, hour, reason) DO UPDATE
             SET refused = s.refused + excluded.refused,
                 last_refused_at = greatest(s.last_refused_at, excluded.last_refused_at)",
        )
        .await?;
    db.execute(&statement, &[&sources, &reasons, &counts, &last]).await?;
    Ok(())
}

/// How often a secret matched since that was last written down.
#[derive(Clone, Copy, Debug)]
pub struct Matches {
    pub secret_id: SecretId,
    pub count: i64,
    pub last_at: Timestamp,
}

/// Adds matches to their secrets.
pub async fn count_matches(db: &impl GenericClient, matches: &[Matches]) -> Result<()> {
    let secrets: Vec<Uuid> = matches.iter().map(|m| *m.secret_id.as_uuid()).collect();
    let counts: Vec<i64> = matches.iter().map(|m| m.count).collect();
    let last: Vec<Timestamp> = matches.iter().map(|m| m.last_at).collect();
    let statement = db
        .prepare_cached(
            "WITH alive AS (SELECT id FROM source_secrets WHERE id = ANY ($1) FOR KEY SHARE SKIP LOCKED)
             INSERT INTO source_secret_matches AS s (secret_id, matched, last_matched_at)
             SELECT t.secret_id, sum(t.n), max(t.last_at)
             FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[]) AS t(secret_id, n, last_at)
             WHERE t.secret_id IN (SELECT id FROM alive)
             GROUP BY 1 ORDER BY 1
             ON CONFLICT (secret_id) DO UPDATE
             SET matched = s.matched + excluded.matched,
                 last_matched_at = greatest(s.last_matched_at, excluded.last_matched_at)",
        )
        .await?;
    db.execute(&statement, &[&secrets, &counts, &last]).await?;
    Ok(())
}

/// Forgets the hours before `before`.
pub async fn drop_old(db: &impl GenericClient, before: Timestamp) -> Result<()> {
    db.execute("DELETE FROM event_stats WHERE hour < $1", &[&before]).await?;
    db.execute("DELETE FROM refusal_stats WHERE hour < $1", &[&before]).await?;
    Ok(())
}
