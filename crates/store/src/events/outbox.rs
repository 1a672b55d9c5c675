//! Events whose deliveries are still to be made.
//!
//! A row is written with its event and goes with the insert of its deliveries ([`crate::deliveries::insert`]), so what
//! happens in between, to whom and how often, loses nothing. Until then it is published again and again.

use bytes::Bytes;
use jiff::Timestamp;
use posthorn_core::id::{EventId, SourceId, SubscriptionId};
use posthorn_core::subscription::Audience;
use uuid::Uuid;

use super::{OUTBOX_HEAD_START_SECS, audience};
use crate::{GenericClient, Result};

/// Part of an event's fan-out: the subscriptions from the first id to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub first: SubscriptionId,
    pub last: SubscriptionId,
}

impl Part {
    /// All of it.
    pub fn whole() -> Self {
        Self { first: SubscriptionId::from_uuid(Uuid::nil()), last: SubscriptionId::from_uuid(Uuid::max()) }
    }

    pub fn is_whole(&self) -> bool {
        *self == Self::whole()
    }

    pub fn contains(&self, id: SubscriptionId) -> bool {
        self.first <= id && id <= self.last
    }
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
    pub content_encoding: String,
    pub traceparent: String,
    /// Absent when larger than asked for.
    pub body: Option<Bytes>,
    pub part: Part,
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
                 -- By their places, which are locked: a plan that is kept from when the outbox was empty joins badly.
                 UPDATE outbox SET due_at = now() + make_interval(secs => $2)
                 WHERE ctid = ANY (ARRAY(SELECT ctid FROM outbox WHERE due_at <= now()
                                         ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED))
                 RETURNING event_id, first_subscription_id, last_subscription_id
             )
             SELECT due.first_subscription_id, due.last_subscription_id, e.id, e.tenant_id, e.audience, e.source_id, e.source_slug, e.event_type, e.occurred_at, e.received_at,
                    e.content_type, coalesce(e.headers ->> 'content-encoding', '') AS content_encoding, e.traceparent,
                    CASE WHEN octet_length(e.body) <= $3 THEN e.body END AS body
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
                content_encoding: row.get("content_encoding"),
                traceparent: row.get("traceparent"),
                body: row.get::<_, Option<Vec<u8>>>("body").map(Bytes::from),
                part: Part {
                    first: SubscriptionId::from_uuid(row.get("first_subscription_id")),
                    last: SubscriptionId::from_uuid(row.get("last_subscription_id")),
                },
            })
        })
        .collect()
}

/// Puts the parts of an event into the place of the whole, all or nothing. The caller publishes them now, so relays
/// leave them alone for a while.
pub async fn split(db: &impl GenericClient, id: EventId, parts: &[Part]) -> Result<()> {
    let statement = db
        .prepare_cached(
            "WITH whole AS (DELETE FROM outbox WHERE event_id = $1 AND first_subscription_id = $5)
             INSERT INTO outbox (event_id, first_subscription_id, last_subscription_id, due_at)
             SELECT $1, first, last, now() + make_interval(secs => $4) FROM unnest($2::uuid[], $3::uuid[]) AS p(first, last)
             ORDER BY first ON CONFLICT DO NOTHING",
        )
        .await?;
    let first: Vec<Uuid> = parts.iter().map(|part| *part.first.as_uuid()).collect();
    let last: Vec<Uuid> = parts.iter().map(|part| *part.last.as_uuid()).collect();
    let head_start = f64::from(OUTBOX_HEAD_START_SECS);
    db.execute(&statement, &[id.as_uuid(), &first, &last, &head_start, &Uuid::nil()]).await?;
    Ok(())
}

/// Takes a part out although nobody fanned it out: its message became a dead letter.
pub async fn give_up(db: &impl GenericClient, id: EventId, part: Part) -> Result<()> {
    let statement = db.prepare_cached("DELETE FROM outbox WHERE event_id = $1 AND first_subscription_id = $2").await?;
    db.execute(&statement, &[id.as_uuid(), part.first.as_uuid()]).await?;
    Ok(())
}

/// Rows in the outbox, and the age of the oldest in seconds.
pub async fn outbox_backlog(db: &impl GenericClient) -> Result<(i64, f64)> {
    let statement = db
        .prepare_cached("SELECT count(*), coalesce(extract(epoch FROM now() - min(written_at))::float8, 0) FROM outbox")
        .await?;
    let row = db.query_one(&statement, &[]).await?;
    Ok((row.get(0), row.get::<_, f64>(1).max(0.0)))
}

fn uuids(ids: &[EventId]) -> Vec<Uuid> {
    ids.iter().map(|id| *id.as_uuid()).collect()
}
