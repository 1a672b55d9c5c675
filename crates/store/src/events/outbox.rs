//! What is still to be carried to the broker.

use bytes::Bytes;
use jiff::Timestamp;
use posthorn_core::id::{EventId, SourceId};
use posthorn_core::subscription::Audience;
use uuid::Uuid;

use super::{OUTBOX_HEAD_START_SECS, audience};
use crate::{GenericClient, Result};

/// Forgets outbox rows whose events the broker has.
pub async fn relayed(db: &impl GenericClient, ids: &[EventId]) -> Result<()> {
    let statement = db.prepare_cached("DELETE FROM outbox WHERE event_id = ANY($1)").await?;
    db.execute(&statement, &[&uuids(ids)]).await?;
    Ok(())
}

/// Lets any relay have the outbox rows of `ids` at once: no gateway has these events in hand.
pub async fn relay_now(db: &impl GenericClient, ids: &[EventId]) -> Result<()> {
    let statement = db.prepare_cached("UPDATE outbox SET due_at = now() WHERE event_id = ANY($1)").await?;
    db.execute(&statement, &[&uuids(ids)]).await?;
    Ok(())
}

/// What the broker is told of an event.
#[derive(Clone, Debug)]
pub struct Relayable {
    pub id: EventId,
    pub source_id: SourceId,
    pub source_slug: String,
    pub audience: Audience,
    pub event_type: String,
    pub occurred_at: Option<Timestamp>,
    pub received_at: Timestamp,
    pub content_type: String,
    pub traceparent: String,
    /// Absent when larger than asked for.
    pub body: Option<Bytes>,
}

/// Takes outbox rows that are due and puts them off by `lease_secs`, so that another relay leaves
/// them alone meanwhile. Bodies up to `inline_bytes` come along.
pub async fn take_due(
    db: &impl GenericClient,
    limit: i64,
    lease_secs: f64,
    inline_bytes: i32,
) -> Result<Vec<Relayable>> {
    let statement = db
        .prepare_cached(
            "WITH due AS (
                 UPDATE outbox SET due_at = now() + make_interval(secs => $2)
                 WHERE event_id IN (SELECT event_id FROM outbox WHERE due_at <= now()
                                    ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
                 RETURNING event_id
             )
             SELECT e.id, e.tenant_id, e.audience, e.source_id, e.source_slug, e.event_type, e.occurred_at, e.received_at,
                    e.content_type, e.traceparent, CASE WHEN octet_length(e.body) <= $3 THEN e.body END AS body
             FROM due JOIN events e ON e.id = due.event_id",
        )
        .await?;
    let rows = db.query(&statement, &[&limit, &lease_secs, &inline_bytes]).await?;
    rows.iter()
        .map(|row| {
            Ok(Relayable {
                id: EventId::from_uuid(row.get("id")),
                source_id: SourceId::from_uuid(row.get("source_id")),
                source_slug: row.get("source_slug"),
                audience: audience(row, "tenant_id")?,
                event_type: row.get("event_type"),
                occurred_at: row.get("occurred_at"),
                received_at: row.get("received_at"),
                content_type: row.get("content_type"),
                traceparent: row.get("traceparent"),
                body: row.get::<_, Option<Vec<u8>>>("body").map(Bytes::from),
            })
        })
        .collect()
}

/// Rows in the outbox, and the age of the oldest in seconds.
pub async fn outbox_backlog(db: &impl GenericClient) -> Result<(i64, f64)> {
    let statement = db
        .prepare_cached(
            "SELECT count(*), coalesce(extract(epoch FROM now() - min(due_at))::float8 + $1, 0) FROM outbox",
        )
        .await?;
    let row = db.query_one(&statement, &[&f64::from(OUTBOX_HEAD_START_SECS)]).await?;
    Ok((row.get(0), row.get::<_, f64>(1).max(0.0)))
}

fn uuids(ids: &[EventId]) -> Vec<Uuid> {
    ids.iter().map(|id| *id.as_uuid()).collect()
}
