//! Deliveries and their attempts.
//!
//! A delivery's row is the truth about it. Whoever moves it says which state, generation and attempt
//! it believes in; a belief that is out of date moves nothing.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;
use posthorn_core::delivery::{DeadReason, HeldReason, Next, State, Trigger};
use posthorn_core::event_type::Pattern;
use posthorn_core::id::{self, AttemptId, DeliveryId, EventId, SubscriptionId, TenantId};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::error::readable;
use crate::page::{Page, Span};
use crate::type_filter::Types;
use crate::{GenericClient, Result};

/// A delivery about to be.
#[derive(Clone, Debug)]
pub struct NewDelivery {
    pub id: DeliveryId,
    pub event_id: EventId,
    pub subscription_id: SubscriptionId,
    pub tenant_id: TenantId,
    pub event_type: String,
    /// `None` is `queued`.
    pub held: Option<HeldReason>,
    /// The lease, or when a held one may go on.
    pub due_at: Timestamp,
}

const INSERT: &str = "
WITH n AS (
    INSERT INTO deliveries (id, event_id, subscription_id, tenant_id, event_type, state, held_reason, due_at, created_at, updated_at)
    SELECT id, event_id, subscription_id, tenant_id, event_type,
           CASE WHEN held_reason IS NULL THEN 'queued' ELSE 'held' END, held_reason, due_at, $8, $8
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::timestamptz[])
        AS t(id, event_id, subscription_id, tenant_id, event_type, held_reason, due_at)
    ON CONFLICT (id) DO NOTHING RETURNING id, subscription_id, state, due_at
),
h AS (
    UPDATE subscription_runtime r SET next_due_at = q.due
    FROM (SELECT subscription_id, min(due_at) AS due FROM n WHERE state = 'held' GROUP BY subscription_id) q
    WHERE r.subscription_id = q.subscription_id AND (r.next_due_at IS NULL OR r.next_due_at > q.due)
)
SELECT id FROM n";

/// Inserts what is not there yet; tells which ones were new.
pub async fn insert(db: &impl GenericClient, new: &[NewDelivery], now: Timestamp) -> Result<HashSet<DeliveryId>> {
    let ids: Vec<Uuid> = new.iter().map(|d| *d.id.as_uuid()).collect();
    let events: Vec<Uuid> = new.iter().map(|d| *d.event_id.as_uuid()).collect();
    let subscriptions: Vec<Uuid> = new.iter().map(|d| *d.subscription_id.as_uuid()).collect();
    let tenants: Vec<Uuid> = new.iter().map(|d| *d.tenant_id.as_uuid()).collect();
    let types: Vec<&str> = new.iter().map(|d| d.event_type.as_str()).collect();
    let held: Vec<Option<&str>> = new.iter().map(|d| d.held.map(HeldReason::as_str)).collect();
    let due: Vec<Timestamp> = new.iter().map(|d| d.due_at).collect();
    let statement = db.prepare_cached(INSERT).await?;
    let rows = db.query(&statement, &[&ids, &events, &subscriptions, &tenants, &types, &held, &due, &now]).await?;
    Ok(rows.iter().map(|row| DeliveryId::from_uuid(row.get(0))).collect())
}

/// What a message believes of the row it names.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub id: DeliveryId,
    pub generation: u32,
    /// The attempt to be made.
    pub attempt: u32,
    /// The lease under which the message was published.
    pub lease_until: Timestamp,
    /// The lease of whoever makes the attempt.
    pub new_lease: Timestamp,
}

const CLAIM: &str = "
UPDATE deliveries d SET due_at = c.new_lease
FROM unnest($1::uuid[], $2::int[], $3::int[], $4::timestamptz[], $5::timestamptz[]) AS c(id, generation, attempt, lease, new_lease)
WHERE d.id = c.id AND d.id >= $6 AND d.id <= $7
  AND d.state = 'queued' AND d.generation = c.generation AND d.attempt = c.attempt - 1 AND d.due_at = c.lease
RETURNING d.id";

/// Takes rows for an attempt; tells which were still as believed.
pub async fn claim(db: &impl GenericClient, claims: &[Claim]) -> Result<HashSet<DeliveryId>> {
    let ids: Vec<Uuid> = claims.iter().map(|c| *c.id.as_uuid()).collect();
    let generations: Vec<i32> = claims.iter().map(|c| int(c.generation)).collect();
    let attempts: Vec<i32> = claims.iter().map(|c| int(c.attempt)).collect();
    let leases: Vec<Timestamp> = claims.iter().map(|c| c.lease_until).collect();
    let new_leases: Vec<Timestamp> = claims.iter().map(|c| c.new_lease).collect();
    let (first, last) = bounds(&ids);
    let statement = db.prepare_cached(CLAIM).await?;
    let rows = db.query(&statement, &[&ids, &generations, &attempts, &leases, &new_leases, &first, &last]).await?;
    Ok(rows.iter().map(|row| DeliveryId::from_uuid(row.get(0))).collect())
}

/// Whether a delivery is dead in `generation`: then a message that named it is a dead letter.
pub async fn is_dead(db: &impl GenericClient, id: DeliveryId, generation: u32) -> Result<bool> {
    let statement =
        db.prepare_cached("SELECT FROM deliveries WHERE id = $1 AND state = 'dead' AND generation = $2").await?;
    Ok(db.query_opt(&statement, &[id.as_uuid(), &int(generation)]).await?.is_some())
}

/// An attempt that was made.
#[derive(Clone, Debug)]
pub struct Made {
    pub trigger: Trigger,
    pub started_at: Timestamp,
    pub response_time: Duration,
    pub status_code: Option<u16>,
    /// A code, then a sentence.
    pub error: Option<(&'static str, String)>,
    pub response: Option<String>,
    pub response_headers: Option<serde_json::Value>,
    pub request_headers: serde_json::Value,
    pub next: Next,
    /// The endpoint wants no more of anything.
    pub disables: bool,
}

/// What a delivery-worker has to say of a delivery.
#[derive(Clone, Debug)]
pub enum Word {
    Attempted(Box<Made>),
    /// Not attempted: it waits again, for this, until then.
    PutBack(HeldReason, Timestamp),
    /// Not attempted: its subscription is gone.
    Cancelled,
    /// Not attempted: its event is older than the retention.
    Expired,
}

/// A [`Word`] about one attempt of one delivery.
#[derive(Clone, Debug)]
pub struct Report {
    pub id: DeliveryId,
    pub subscription_id: SubscriptionId,
    pub tenant_id: TenantId,
    pub generation: u32,
    pub attempt: u32,
    pub word: Word,
}

const RECORD: &str = "
WITH r AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::int[], $6::bool[], $7::text[], $8::text[],
                         $9::timestamptz[], $10::text[], $11::text[], $12::bool[])
        AS t(id, subscription_id, tenant_id, generation, attempt, made, state, held_reason, due_at, dead_reason, trigger, disables)
),
d AS (
    UPDATE deliveries d
    SET state = r.state, held_reason = r.held_reason, due_at = r.due_at, dead_reason = r.dead_reason,
        attempt = CASE WHEN r.made THEN r.attempt ELSE d.attempt END,
        attempts_made = d.attempts_made + r.made::int,
        trigger = coalesce(r.trigger, d.trigger), updated_at = $24
    FROM r
    WHERE d.id = r.id AND d.id >= $25 AND d.id <= $26
      AND d.generation = r.generation AND d.attempt = r.attempt - 1
      -- An attempt that was made counts even if another message of it was put back meanwhile.
      AND (d.state = 'queued' OR (r.made AND d.state = 'held'))
    RETURNING d.id, d.subscription_id, d.tenant_id, d.event_type, d.state, d.due_at, r.made
),
a AS (
    INSERT INTO attempts (id, delivery_id, subscription_id, tenant_id, generation, number, trigger, started_at,
                          response_time_ms, status_code, error, error_detail, response, response_headers, request_headers)
    SELECT * FROM unnest($13::uuid[], $14::uuid[], $15::uuid[], $16::uuid[], $17::int[], $18::int[], $19::text[],
                         $20::timestamptz[], $21::int[], $22::int[], $23::text[], $27::text[], $28::text[], $29::jsonb[], $30::jsonb[])
    ON CONFLICT (id) DO NOTHING RETURNING tenant_id, subscription_id, response_time_ms, error
),
-- Counts of each subscription, each tenant and all; sorted, since recorders that count in the same rows must not deadlock.
ds AS (
    INSERT INTO delivery_stats AS s (tenant_id, subscription_id, hour, event_type, shard, delivered, failed)
    SELECT coalesce(tenant_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff'),
           coalesce(subscription_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff'),
           date_trunc('hour', $24::timestamptz), event_type, $31::smallint,
           count(*) FILTER (WHERE state = 'delivered'), count(*) FILTER (WHERE state = 'dead')
    FROM d WHERE state IN ('delivered', 'dead')
    GROUP BY GROUPING SETS ((tenant_id, subscription_id, event_type), (tenant_id, event_type), (event_type)) ORDER BY 1, 2, 4
    ON CONFLICT (tenant_id, subscription_id, hour, event_type, shard) DO UPDATE
    SET delivered = s.delivered + excluded.delivered, failed = s.failed + excluded.failed
),
ats AS (
    INSERT INTO attempt_stats AS s (tenant_id, subscription_id, hour, bucket, shard, attempts, failed, millis)
    SELECT coalesce(tenant_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff'),
           coalesce(subscription_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff'),
           date_trunc('hour', $24::timestamptz), bucket, $31::smallint,
           count(*), count(error), sum(response_time_ms)
    FROM (SELECT *, ceil(ln(response_time_ms + 1) / ln(1.1))::smallint AS bucket FROM a) b
    GROUP BY GROUPING SETS ((tenant_id, subscription_id, bucket), (tenant_id, bucket), (bucket)) ORDER BY 1, 2, 4
    ON CONFLICT (tenant_id, subscription_id, hour, bucket, shard) DO UPDATE
    SET attempts = s.attempts + excluded.attempts, failed = s.failed + excluded.failed, millis = s.millis + excluded.millis
),
q AS (
    SELECT subscription_id, count(*) FILTER (WHERE state = 'delivered') AS delivered,
           count(*) FILTER (WHERE state = 'dead') AS failed, bool_or(made) AS made,
           min(due_at) FILTER (WHERE state = 'held') AS due
    FROM d GROUP BY subscription_id
),
-- In one order for everybody: recorders that lock the same subscriptions must not deadlock.
l AS (
    SELECT subscription_id FROM subscription_runtime WHERE subscription_id = ANY ($2)
    ORDER BY subscription_id FOR UPDATE
),
s AS (
    UPDATE subscription_runtime t
    SET delivered = t.delivered + q.delivered, failed = t.failed + q.failed,
        last_triggered_at = CASE WHEN q.made THEN $24 ELSE t.last_triggered_at END,
        next_due_at = least(t.next_due_at, q.due)
    FROM l JOIN q ON q.subscription_id = l.subscription_id WHERE t.subscription_id = l.subscription_id
),
x AS (
    UPDATE subscriptions SET state = 'disabled', disabled_reason = 'gone', updated_at = $24
    WHERE id IN (SELECT subscription_id FROM r WHERE disables) AND state <> 'disabled'
)
SELECT id FROM d";

/// Records reports, all or nothing. Repeating one changes nothing. Tells which ones moved their row.
pub async fn record(db: &impl GenericClient, reports: &[Report], now: Timestamp) -> Result<HashSet<DeliveryId>> {
    let ids: Vec<Uuid> = reports.iter().map(|r| *r.id.as_uuid()).collect();
    let subscriptions: Vec<Uuid> = reports.iter().map(|r| *r.subscription_id.as_uuid()).collect();
    let tenants: Vec<Uuid> = reports.iter().map(|r| *r.tenant_id.as_uuid()).collect();
    let generations: Vec<i32> = reports.iter().map(|r| int(r.generation)).collect();
    let numbers: Vec<i32> = reports.iter().map(|r| int(r.attempt)).collect();
    let moves: Vec<Move> = reports.iter().map(|r| Move::of(&r.word)).collect();
    let made: Vec<bool> = moves.iter().map(|m| m.made).collect();
    let states: Vec<&str> = moves.iter().map(|m| m.state.as_str()).collect();
    let held: Vec<Option<&str>> = moves.iter().map(|m| m.held.map(HeldReason::as_str)).collect();
    let due: Vec<Option<Timestamp>> = moves.iter().map(|m| m.due_at).collect();
    let dead: Vec<Option<&str>> = moves.iter().map(|m| m.dead.map(DeadReason::as_str)).collect();
    let triggers: Vec<Option<&str>> = moves.iter().map(|m| m.trigger.map(Trigger::as_str)).collect();
    let disables: Vec<bool> = moves.iter().map(|m| m.disables).collect();
    let attempts = Attempts::of(reports);
    let (first, last) = bounds(&ids);
    let statement = db.prepare_cached(RECORD).await?;
    let rows = db
        .query(
            &statement,
            &[
                &ids,
                &subscriptions,
                &tenants,
                &generations,
                &numbers,
                &made,
                &states,
                &held,
                &due,
                &dead,
                &triggers,
                &disables,
                &attempts.ids,
                &attempts.deliveries,
                &attempts.subscriptions,
                &attempts.tenants,
                &attempts.generations,
                &attempts.numbers,
                &attempts.triggers,
                &attempts.started,
                &attempts.millis,
                &attempts.statuses,
                &attempts.errors,
                &now,
                &first,
                &last,
                &attempts.details,
                &attempts.responses,
                &attempts.response_headers,
                &attempts.request_headers,
                &crate::stats_shard(),
            ],
        )
        .await?;
    Ok(rows.iter().map(|row| DeliveryId::from_uuid(row.get(0))).collect())
}

/// Where a [`Word`] moves its row.
struct Move {
    made: bool,
    state: State,
    held: Option<HeldReason>,
    due_at: Option<Timestamp>,
    dead: Option<DeadReason>,
    trigger: Option<Trigger>,
    disables: bool,
}

impl Move {
    fn of(word: &Word) -> Self {
        let to =
            |state| Self { made: false, state, held: None, due_at: None, dead: None, trigger: None, disables: false };
        let made = match word {
            Word::Cancelled => return to(State::Cancelled),
            Word::Expired => return Self { dead: Some(DeadReason::Expired), ..to(State::Dead) },
            Word::PutBack(reason, due_at) => {
                return Self { held: Some(*reason), due_at: Some(*due_at), ..to(State::Held) };
            }
            Word::Attempted(made) => made,
        };
        let moved = match made.next {
            Next::Delivered => to(State::Delivered),
            Next::Dead(reason) => Self { dead: Some(reason), ..to(State::Dead) },
            Next::RetryAt(at) => Self {
                held: Some(HeldReason::Retry),
                due_at: Some(at),
                trigger: Some(Trigger::Retry),
                ..to(State::Held)
            },
        };
        Self { made: true, disables: made.disables, ..moved }
    }
}

/// The attempts of a batch, column by column.
#[derive(Default)]
struct Attempts<'a> {
    ids: Vec<Uuid>,
    deliveries: Vec<Uuid>,
    subscriptions: Vec<Uuid>,
    tenants: Vec<Uuid>,
    generations: Vec<i32>,
    numbers: Vec<i32>,
    triggers: Vec<&'a str>,
    started: Vec<Timestamp>,
    millis: Vec<i32>,
    statuses: Vec<Option<i32>>,
    errors: Vec<Option<&'a str>>,
    details: Vec<Option<&'a str>>,
    responses: Vec<Option<&'a str>>,
    response_headers: Vec<Option<&'a serde_json::Value>>,
    request_headers: Vec<&'a serde_json::Value>,
}

impl<'a> Attempts<'a> {
    fn of(reports: &'a [Report]) -> Self {
        let mut columns = Self::default();
        for report in reports {
            let Word::Attempted(made) = &report.word else { continue };
            let id = AttemptId::derive(report.id, report.generation, report.attempt);
            columns.ids.push(*id.as_uuid());
            columns.deliveries.push(*report.id.as_uuid());
            columns.subscriptions.push(*report.subscription_id.as_uuid());
            columns.tenants.push(*report.tenant_id.as_uuid());
            columns.generations.push(int(report.generation));
            columns.numbers.push(int(report.attempt));
            columns.triggers.push(made.trigger.as_str());
            columns.started.push(made.started_at);
            columns.millis.push(i32::try_from(made.response_time.as_millis()).unwrap_or(i32::MAX));
            columns.statuses.push(made.status_code.map(i32::from));
            columns.errors.push(made.error.as_ref().map(|(code, _)| *code));
            columns.details.push(made.error.as_ref().map(|(_, detail)| detail.as_str()));
            columns.responses.push(made.response.as_deref());
            columns.response_headers.push(made.response_headers.as_ref());
            columns.request_headers.push(&made.request_headers);
        }
        columns
    }
}

/// A delivery as the API lists it.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub id: DeliveryId,
    pub event_id: EventId,
    pub subscription_id: SubscriptionId,
    pub tenant_id: TenantId,
    pub event_type: String,
    pub state: State,
    pub held_reason: Option<HeldReason>,
    pub due_at: Option<Timestamp>,
    pub dead_reason: Option<DeadReason>,
    pub generation: u32,
    pub attempts_made: u32,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// What a list of deliveries is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// `None` is the operator's view of everything.
    pub tenant_id: Option<TenantId>,
    pub subscription_id: Option<SubscriptionId>,
    pub event_id: Option<EventId>,
    pub state: Option<State>,
    /// None are all.
    pub event_types: Vec<Pattern>,
    pub span: Span,
}

/// What is due and waits all the same waits for its subscription, whatever it waited for before.
const COLUMNS: &str = "d.id, d.event_id, d.subscription_id, d.tenant_id, d.event_type, d.state,
    CASE WHEN d.state = 'held' AND d.due_at <= now() AND s.state <> 'active' THEN 'paused' ELSE d.held_reason END AS held_reason,
    d.due_at, d.dead_reason, d.generation, d.attempts_made, d.created_at, d.updated_at";
const FROM: &str = "deliveries d LEFT JOIN subscriptions s ON s.id = d.subscription_id";

pub async fn list(db: &impl GenericClient, filter: &Filter, page: Page) -> Result<Vec<Delivery>> {
    let (scope, tenant) = match &filter.tenant_id {
        Some(tenant) => ("d.tenant_id = $1", Some(*tenant.as_uuid())),
        None => ("$1::uuid IS NULL", None),
    };
    let (narrowed, subscription) = match &filter.subscription_id {
        Some(subscription) => ("d.subscription_id = $2", Some(*subscription.as_uuid())),
        None => ("$2::uuid IS NULL", None),
    };
    // In the text, since a state has an index of its own where it is rare.
    let state = filter.state.map(|state| format!("AND d.state = '{}'", state.as_str())).unwrap_or_default();
    // A delivery shares the millisecond of its event.
    let mut span = filter.span;
    if let Some(event) = &filter.event_id {
        let (from, to) = millisecond(event.time());
        span = Span { from: span.from.max(from), to: span.to.min(to) };
    }
    let is_short = filter.event_id.is_some() || filter.state.is_some_and(|state| state != State::Delivered);
    let types = if is_short {
        Types::like(&filter.event_types)
    } else {
        Types::find(db, "deliveries", tenant, &filter.event_types).await?
    };
    let conditions = format!(
        "{scope} AND {narrowed} {state} AND d.id < $3 AND d.id >= $4 AND d.id < $5 AND ($6::uuid IS NULL OR d.event_id = $6)"
    );
    let sql = format!(
        "SELECT {COLUMNS} FROM {} LEFT JOIN subscriptions s ON s.id = d.subscription_id ORDER BY d.id DESC LIMIT $8",
        types.newest("deliveries", "d", &conditions, 7, 8),
    );
    let statement = db.prepare_cached(&sql).await?;
    let rows = db
        .query(
            &statement,
            &[
                &tenant,
                &subscription,
                &page.before(),
                &span.from,
                &span.to,
                &filter.event_id.map(|id| *id.as_uuid()),
                &types.texts(),
                &page.fetch(),
            ],
        )
        .await?;
    rows.iter().map(delivery).collect()
}

/// One delivery; `None` as `tenant` is the operator.
pub async fn find(db: &impl GenericClient, tenant: Option<TenantId>, id: DeliveryId) -> Result<Option<Delivery>> {
    let sql = format!("SELECT {COLUMNS} FROM {FROM} WHERE d.id = $1 AND ($2::uuid IS NULL OR d.tenant_id = $2)");
    let statement = db.prepare_cached(&sql).await?;
    let row = db.query_opt(&statement, &[id.as_uuid(), &tenant.map(|t| *t.as_uuid())]).await?;
    row.as_ref().map(delivery).transpose()
}

/// An attempt as the API shows it.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub id: AttemptId,
    pub number: u32,
    pub generation: u32,
    pub trigger: Trigger,
    pub started_at: Timestamp,
    pub response_time_ms: i32,
    pub status_code: Option<u16>,
    pub error: Option<String>,
    pub error_detail: Option<String>,
    pub response: Option<String>,
    pub response_headers: Option<serde_json::Value>,
    pub request_headers: serde_json::Value,
}

/// All attempts of a delivery, oldest first.
pub async fn attempts(db: &impl GenericClient, id: DeliveryId) -> Result<Vec<Attempt>> {
    let (from, to) = millisecond(id.time());
    let statement = db
        .prepare_cached(
            "SELECT id, number, generation, trigger, started_at, response_time_ms, status_code, error, error_detail,
                    response, response_headers, request_headers
             FROM attempts WHERE id >= $1 AND id < $2 AND delivery_id = $3 ORDER BY generation, number",
        )
        .await?;
    let rows = db.query(&statement, &[&from, &to, id.as_uuid()]).await?;
    rows.iter()
        .map(|row| {
            Ok(Attempt {
                id: AttemptId::from_uuid(row.get("id")),
                number: unsigned(row.get("number")),
                generation: unsigned(row.get("generation")),
                trigger: readable("attempts.trigger", Trigger::parse(row.get("trigger")))?,
                started_at: row.get("started_at"),
                response_time_ms: row.get("response_time_ms"),
                status_code: row.get::<_, Option<i32>>("status_code").and_then(|s| u16::try_from(s).ok()),
                error: row.get("error"),
                error_detail: row.get("error_detail"),
                response: row.get("response"),
                response_headers: row.get("response_headers"),
                request_headers: row.get("request_headers"),
            })
        })
        .collect()
}

const SET_GOING: &str = "
WITH d AS (
    UPDATE deliveries
    SET state = 'held', held_reason = CASE WHEN state = 'held' THEN held_reason ELSE 'replay' END, due_at = $3, dead_reason = NULL,
        -- What had ended begins anew; what waits only stops waiting.
        generation = generation + (state <> 'held')::int,
        attempt = CASE WHEN state = 'held' THEN attempt ELSE 0 END,
        trigger = $4, updated_at = $3
    WHERE id = $1 AND ($2::uuid IS NULL OR tenant_id = $2) AND state = ANY ($5)
    RETURNING id, subscription_id
),
r AS (
    UPDATE subscription_runtime r SET next_due_at = least(next_due_at, $3) FROM d WHERE r.subscription_id = d.subscription_id
),
l AS (DELETE FROM dead_letters USING d WHERE delivery_id = d.id)
SELECT id FROM d";

/// Sets a delivery going that is in one of the states `from`: a held one now, one that had ended in a
/// new generation. Whatever dead letter told of it is settled. False if it is in another state.
pub async fn set_going(
    db: &impl GenericClient,
    tenant: Option<TenantId>,
    id: DeliveryId,
    from: &[State],
    trigger: Trigger,
    now: Timestamp,
) -> Result<bool> {
    let from: Vec<&str> = from.iter().map(|state| state.as_str()).collect();
    let statement = db.prepare_cached(SET_GOING).await?;
    let tenant = tenant.map(|t| *t.as_uuid());
    let row = db.query_opt(&statement, &[id.as_uuid(), &tenant, &now, &trigger.as_str(), &from]).await?;
    Ok(row.is_some())
}

/// Ends a held delivery for good. False if it is in another state.
pub async fn cancel(db: &impl GenericClient, tenant: Option<TenantId>, id: DeliveryId, now: Timestamp) -> Result<bool> {
    let statement = db
        .prepare_cached(
            "UPDATE deliveries SET state = 'cancelled', held_reason = NULL, due_at = NULL, updated_at = $3
             WHERE id = $1 AND ($2::uuid IS NULL OR tenant_id = $2) AND state = 'held'",
        )
        .await?;
    Ok(db.execute(&statement, &[id.as_uuid(), &tenant.map(|t| *t.as_uuid()), &now]).await? > 0)
}

const REPLAY_EVENT: &str = "
WITH d AS (
    INSERT INTO deliveries (id, event_id, subscription_id, tenant_id, event_type, state, held_reason, due_at, trigger,
                            created_at, updated_at)
    SELECT id, event_id, subscription_id, tenant_id, event_type, 'held', 'replay', $6, 'replay', $6, $6
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[])
        AS t(id, event_id, subscription_id, tenant_id, event_type)
    -- What had ended begins anew; what is on its way is left alone.
    ON CONFLICT (id) DO UPDATE
    SET state = 'held', held_reason = 'replay', due_at = $6, dead_reason = NULL, trigger = 'replay',
        generation = deliveries.generation + 1, attempt = 0, updated_at = $6
    WHERE deliveries.state IN ('delivered', 'dead', 'cancelled')
    RETURNING id, subscription_id
),
r AS (
    UPDATE subscription_runtime r SET next_due_at = least(next_due_at, $6) FROM d WHERE r.subscription_id = d.subscription_id
),
l AS (DELETE FROM dead_letters USING d WHERE delivery_id = d.id)
SELECT id FROM d";

/// Sets an event going to subscriptions, whether or not it went there before. Tells which deliveries
/// began; the others are on their way. `held` and `due_at` of `deliveries` say nothing here.
pub async fn replay(
    db: &impl GenericClient,
    deliveries: &[NewDelivery],
    now: Timestamp,
) -> Result<HashSet<DeliveryId>> {
    let ids: Vec<Uuid> = deliveries.iter().map(|d| *d.id.as_uuid()).collect();
    let events: Vec<Uuid> = deliveries.iter().map(|d| *d.event_id.as_uuid()).collect();
    let subscriptions: Vec<Uuid> = deliveries.iter().map(|d| *d.subscription_id.as_uuid()).collect();
    let tenants: Vec<Uuid> = deliveries.iter().map(|d| *d.tenant_id.as_uuid()).collect();
    let types: Vec<&str> = deliveries.iter().map(|d| d.event_type.as_str()).collect();
    let statement = db.prepare_cached(REPLAY_EVENT).await?;
    let rows = db.query(&statement, &[&ids, &events, &subscriptions, &tenants, &types, &now]).await?;
    Ok(rows.iter().map(|row| DeliveryId::from_uuid(row.get(0))).collect())
}

/// An event's deliveries to `subscriptions`.
pub async fn of_event(
    db: &impl GenericClient,
    event: EventId,
    subscriptions: &[SubscriptionId],
) -> Result<Vec<Delivery>> {
    let ids: Vec<Uuid> = subscriptions.iter().map(|id| *DeliveryId::derive(event, *id).as_uuid()).collect();
    let (first, last) = bounds(&ids);
    let sql = format!("SELECT {COLUMNS} FROM {FROM} WHERE d.id = ANY ($1) AND d.id >= $2 AND d.id <= $3");
    let statement = db.prepare_cached(&sql).await?;
    db.query(&statement, &[&ids, &first, &last]).await?.iter().map(delivery).collect()
}

fn delivery(row: &Row) -> Result<Delivery> {
    let held: Option<&str> = row.get("held_reason");
    let dead: Option<&str> = row.get("dead_reason");
    Ok(Delivery {
        id: DeliveryId::from_uuid(row.get("id")),
        event_id: EventId::from_uuid(row.get("event_id")),
        subscription_id: SubscriptionId::from_uuid(row.get("subscription_id")),
        tenant_id: TenantId::from_uuid(row.get("tenant_id")),
        event_type: row.get("event_type"),
        state: readable("deliveries.state", State::parse(row.get("state")))?,
        held_reason: held.map(|r| readable("deliveries.held_reason", HeldReason::parse(r))).transpose()?,
        due_at: row.get("due_at"),
        dead_reason: dead.map(|r| readable("deliveries.dead_reason", DeadReason::parse(r))).transpose()?,
        generation: unsigned(row.get("generation")),
        attempts_made: unsigned(row.get("attempts_made")),
        created_at: row.get("created_at"),
        updated_at: row.get("updated_at"),
    })
}

/// All ids of one millisecond.
fn millisecond(at: Timestamp) -> (Uuid, Uuid) {
    (id::floor(at), id::floor(posthorn_core::time::later(at, Duration::from_millis(1))))
}

/// The smallest and the largest: with them the planner leaves out partitions of other days.
fn bounds(ids: &[Uuid]) -> (Uuid, Uuid) {
    let first = ids.iter().min().copied().unwrap_or(Uuid::nil());
    let last = ids.iter().max().copied().unwrap_or(Uuid::nil());
    (first, last)
}

fn int(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn unsigned(number: i32) -> u32 {
    u32::try_from(number).unwrap_or_default()
}
