//! Verified requests become events, each once.

use std::collections::HashMap;

use bytes::Bytes;
use jiff::Timestamp;
use posthorn_core::event_type::EventType;
use posthorn_core::id::{EventId, SourceId, TenantId};
use posthorn_core::request::{Headers, RawRequest};
use posthorn_core::routing::{Route, Routing};
use posthorn_core::signature::Occurrence;
use posthorn_core::subscription::Audience;
use posthorn_core::{dedup, redact};
use uuid::Uuid;

use super::{OUTBOX_HEAD_START_SECS, audience};
use crate::error::readable;
use crate::sabotage::outbox;
use crate::{GenericClient, Result};

/// A verified request that may be a new event.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub id: EventId,
    pub source_id: SourceId,
    /// Empty when the source has none.
    pub source_slug: String,
    pub route: Route,
    pub event_type: EventType,
    pub provider_event_id: Option<String>,
    pub dedup_key: Uuid,
    pub occurred_at: Option<Timestamp>,
    pub received_at: Timestamp,
    /// Name to value, without credentials.
    pub headers: serde_json::Value,
    pub content_type: String,
    pub traceparent: String,
    pub body: Bytes,
    /// What its schema does not allow, where that is only noted.
    pub schema_violation: Option<String>,
}

/// Where an event comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    pub source_id: SourceId,
    /// The source's owner; `None` is the operator.
    pub tenant_id: Option<TenantId>,
    /// Empty when the source has none.
    pub slug: &'a str,
    pub routing: &'a Routing,
    /// Headers in which senders show a secret.
    pub secret_headers: &'a [String],
}

impl Origin<'_> {
    /// A tenant's source routes to that tenant whatever the request says.
    fn route(&self, headers: &Headers, body: &[u8]) -> Route {
        match self.tenant_id {
            Some(tenant) => Route::Tenant(tenant),
            None => match self.routing.route(headers, body) {
                Route::External(id) => Route::External(storable(id)),
                route => route,
            },
        }
    }
}

impl NewEvent {
    /// What a verified request says happened, as it came in `now`.
    pub fn of(
        origin: &Origin<'_>,
        request: &RawRequest,
        occurrence: Occurrence,
        id: EventId,
        traceparent: String,
        now: Timestamp,
    ) -> Self {
        let body = occurrence.body.unwrap_or_else(|| request.body.clone());
        let own = [id.to_string()];
        // Without a key of its provider it is like no other.
        let parts = if occurrence.dedup_parts.is_empty() { own.as_slice() } else { &occurrence.dedup_parts };
        let dedup_key = dedup::key(origin.source_id, parts.iter().map(String::as_str));
        Self {
            id,
            source_id: origin.source_id,
            source_slug: origin.slug.to_owned(),
            route: origin.route(&request.headers, &body),
            event_type: occurrence.event_type,
            provider_event_id: occurrence.provider_event_id.map(storable),
            dedup_key,
            occurred_at: occurrence.occurred_at,
            received_at: now,
            headers: redact::visible_but(&request.headers, origin.secret_headers).into(),
            content_type: request.headers.get("content-type").unwrap_or_default().to_owned(),
            traceparent,
            body,
            schema_violation: None,
        }
    }
}

impl NewEvent {
    /// The provider's `content-encoding`; empty when there was none.
    pub fn content_encoding(&self) -> &str {
        self.headers.get("content-encoding").and_then(serde_json::Value::as_str).unwrap_or_default()
    }
}

/// PostgreSQL keeps no NUL in text, and no identifier has a use for one.
fn storable(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// What became of a [`NewEvent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    New {
        id: EventId,
        audience: Audience,
    },
    /// The key is known; this is the first event that had it.
    Duplicate {
        first: EventId,
    },
}

const ACCEPT: &str = concat!(
    "
WITH i AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::bool[], $6::uuid[], $7::text[], $8::text[],
                         $9::text[], $10::timestamptz[], $11::timestamptz[], $12::jsonb[], $13::text[], $14::text[], $15::bytea[],
                         $16::text[])
        WITH ORDINALITY
        AS t(id, dedup_key, source_id, source_slug, broadcast, tenant_id, external_id, event_type,
             provider_event_id, occurred_at, received_at, headers, content_type, traceparent, body, schema_violation, place)
),
-- ORDER BY: two statements that insert the same keys in opposite order would deadlock. With the place
-- last, the first of equal keys in one batch gets all its buckets.
d AS (
    INSERT INTO event_dedup (bucket, dedup_key, event_id)
    SELECT b.bucket, i.dedup_key, i.id FROM i CROSS JOIN unnest($17::date[]) AS b(bucket)
    WHERE NOT EXISTS (SELECT FROM event_dedup p WHERE p.dedup_key = i.dedup_key AND p.bucket < $18)
    ORDER BY i.dedup_key, b.bucket, i.place
    ON CONFLICT DO NOTHING RETURNING event_id
),
-- New only if every bucket was free: see core::dedup on midnight.
n AS (SELECT event_id FROM d GROUP BY event_id HAVING count(*) = cardinality($17)),
r AS (
    SELECT i.*, coalesce(by_id.id, by_external.id) AS tenant,
           CASE WHEN i.broadcast THEN 'broadcast'
                WHEN coalesce(by_id.id, by_external.id) IS NULL THEN 'unrouted' ELSE 'tenant' END AS audience
    FROM i JOIN n ON n.event_id = i.id
    LEFT JOIN tenants by_id ON by_id.id = i.tenant_id AND by_id.deleted_at IS NULL
    LEFT JOIN tenants by_external ON by_external.external_id = i.external_id AND by_external.deleted_at IS NULL
),
e AS (
    INSERT INTO events (id, tenant_id, audience, source_id, source_slug, event_type, provider_event_id, dedup_key,
                        occurred_at, received_at, headers, content_type, traceparent, body, schema_violation)
    SELECT id, tenant, audience, source_id, source_slug, event_type, provider_event_id, dedup_key,
           occurred_at, received_at, headers, content_type, traceparent, body, schema_violation FROM r
),
o AS (INSERT INTO outbox (event_id, due_at) SELECT id, now() + make_interval(secs => $19) FROM r",
    outbox!(),
    "),
-- Of each tenant, nil for none, and of all. Sorted as the dedup keys are, and for the same reason.
s AS (
    INSERT INTO event_stats AS s (tenant_id, source_id, hour, event_type, shard, received, schema_violations, last_received_at)
    SELECT CASE WHEN grouping(tenant) = 1 THEN $21::uuid
                ELSE coalesce(tenant, '00000000-0000-0000-0000-000000000000') END,
           source_id, hour, event_type, $20::smallint, count(*), count(schema_violation), max(received_at)
    FROM (SELECT *, date_trunc('hour', received_at) AS hour FROM r) t
    GROUP BY GROUPING SETS ((tenant, source_id, hour, event_type), (source_id, hour, event_type)) ORDER BY 1, 2, 3, 4
    ON CONFLICT (tenant_id, source_id, hour, event_type, shard) DO UPDATE
    SET received = s.received + excluded.received, schema_violations = s.schema_violations + excluded.schema_violations,
        last_received_at = greatest(s.last_received_at, excluded.last_received_at)
)
SELECT id, tenant, audience FROM r"
);

/// Accepts what is new, in one statement: dedup keys, events and outbox, all or nothing. Answers in
/// the order of `events`. `now` chooses the dedup buckets.
pub async fn accept(db: &impl GenericClient, events: &[NewEvent], now: Timestamp) -> Result<Vec<Accepted>> {
    let buckets = dedup::buckets(now);
    let column = |of: fn(&NewEvent) -> &str| events.iter().map(of).collect::<Vec<_>>();
    let ids: Vec<Uuid> = events.iter().map(|e| *e.id.as_uuid()).collect();
    let keys: Vec<Uuid> = events.iter().map(|e| e.dedup_key).collect();
    let sources: Vec<Uuid> = events.iter().map(|e| *e.source_id.as_uuid()).collect();
    let broadcast: Vec<bool> = events.iter().map(|e| e.route == Route::Broadcast).collect();
    let tenants: Vec<Option<Uuid>> = events.iter().map(|e| named_tenant(&e.route)).collect();
    let externals: Vec<Option<&str>> = events.iter().map(|e| external_id(&e.route)).collect();
    let provider_ids: Vec<Option<&str>> = events.iter().map(|e| e.provider_event_id.as_deref()).collect();
    let occurred: Vec<Option<Timestamp>> = events.iter().map(|e| e.occurred_at).collect();
    let received: Vec<Timestamp> = events.iter().map(|e| e.received_at).collect();
    let headers: Vec<&serde_json::Value> = events.iter().map(|e| &e.headers).collect();
    let bodies: Vec<&[u8]> = events.iter().map(|e| e.body.as_ref()).collect();
    let violations: Vec<Option<&str>> = events.iter().map(|e| e.schema_violation.as_deref()).collect();
    let shard = crate::stats_shard();

    let statement = db.prepare_cached(ACCEPT).await?;
    let rows = db
        .query(
            &statement,
            &[
                &ids,
                &keys,
                &sources,
                &column(|e| &e.source_slug),
                &broadcast,
                &tenants,
                &externals,
                &column(|e| e.event_type.as_str()),
                &provider_ids,
                &occurred,
                &received,
                &headers,
                &column(|e| &e.content_type),
                &column(|e| &e.traceparent),
                &bodies,
                &violations,
                &buckets,
                &buckets[0],
                &f64::from(OUTBOX_HEAD_START_SECS),
                &shard,
                &crate::EVERY,
            ],
        )
        .await?;
    let new: HashMap<Uuid, Audience> =
        rows.iter().map(|row| Ok((row.get("id"), audience(row, "tenant")?))).collect::<Result<_>>()?;

    let known: Vec<Uuid> = events.iter().filter(|e| !new.contains_key(e.id.as_uuid())).map(|e| e.dedup_key).collect();
    let first = if known.is_empty() { HashMap::new() } else { count_duplicates(db, &known, shard).await? };
    events
        .iter()
        .map(|event| match new.get(event.id.as_uuid()) {
            Some(audience) => Ok(Accepted::New { id: event.id, audience: *audience }),
            None => {
                let first = readable("event_dedup.event_id", first.get(&event.dedup_key))?;
                Ok(Accepted::Duplicate { first: EventId::from_uuid(*first) })
            }
        })
        .collect()
}

const COUNT_DUPLICATES: &str = "
WITH k AS (SELECT dedup_key, count(*)::int AS n FROM unnest($1::uuid[]) AS t(dedup_key) GROUP BY dedup_key),
-- A key that straddled midnight may also stand in a bucket under an event that was never stored.
f AS (
    SELECT DISTINCT ON (k.dedup_key) k.dedup_key, k.n, p.event_id
    FROM k JOIN event_dedup p ON p.dedup_key = k.dedup_key LEFT JOIN events e ON e.id = p.event_id
    ORDER BY k.dedup_key, e.id IS NULL, p.bucket
),
u AS (UPDATE events e SET duplicates = e.duplicates + f.n FROM f WHERE e.id = f.event_id),
s AS (
    INSERT INTO event_stats AS s (tenant_id, source_id, hour, event_type, shard, duplicates)
    SELECT CASE WHEN grouping(e.tenant_id) = 1 THEN $3::uuid
                ELSE coalesce(e.tenant_id, '00000000-0000-0000-0000-000000000000') END,
           e.source_id, date_trunc('hour', now()), e.event_type, $2::smallint, sum(f.n)
    FROM f JOIN events e ON e.id = f.event_id
    GROUP BY GROUPING SETS ((e.tenant_id, e.source_id, e.event_type), (e.source_id, e.event_type)) ORDER BY 1, 2, 4
    ON CONFLICT (tenant_id, source_id, hour, event_type, shard) DO UPDATE SET duplicates = s.duplicates + excluded.duplicates
)
SELECT dedup_key, event_id FROM f";

/// Counts each key's repeats with its first event, and tells which that is.
async fn count_duplicates(db: &impl GenericClient, keys: &[Uuid], shard: i16) -> Result<HashMap<Uuid, Uuid>> {
    let statement = db.prepare_cached(COUNT_DUPLICATES).await?;
    let rows = match db.query(&statement, &[&keys, &shard, &crate::EVERY]).await {
        Ok(rows) => rows,
        // Two batches that count the same events in opposite order: the database picks one to fail.
        Err(error) if error.code() == Some(&tokio_postgres::error::SqlState::T_R_DEADLOCK_DETECTED) => {
            db.query(&statement, &[&keys, &shard, &crate::EVERY]).await?
        }
        Err(error) => return Err(error.into()),
    };
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

fn named_tenant(route: &Route) -> Option<Uuid> {
    match route {
        Route::Tenant(id) => Some(*id.as_uuid()),
        _ => None,
    }
}

fn external_id(route: &Route) -> Option<&str> {
    match route {
        Route::External(id) => Some(id),
        _ => None,
    }
}
