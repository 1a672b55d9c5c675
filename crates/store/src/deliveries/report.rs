//! What a delivery-worker has to say of deliveries, recorded with all that follows from it.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;
use posthorn_core::delivery::{DeadReason, HeldReason, Next, State, Trigger};
use posthorn_core::event_type::EventType;
use posthorn_core::id::{AttemptId, DeliveryId, EventId, SubscriptionId, TenantId};
use uuid::Uuid;

use super::{bounds, int, millisecond};
use crate::health::{self, Vitals};
use crate::{GenericClient, Result};

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
    pub event_id: EventId,
    pub event_type: EventType,
    pub subscription_id: SubscriptionId,
    pub tenant_id: TenantId,
    pub generation: u32,
    pub attempt: u32,
    /// Of what was not attempted: the lease under which its message went. Under another one somebody else is at it.
    pub lease_until: Option<Timestamp>,
    pub word: Word,
}

impl Report {
    pub fn has_arrived(&self) -> bool {
        matches!(&self.word, Word::Attempted(made) if made.next == Next::Delivered)
    }

    /// Until when the endpoint wants nothing, if it asked for time.
    pub fn asks_for_time(&self) -> Option<Timestamp> {
        match &self.word {
            Word::Attempted(made) => match made.next {
                Next::NotNow(until) => Some(until),
                _ => None,
            },
            Word::PutBack(..) | Word::Cancelled | Word::Expired => None,
        }
    }

    /// Whether the endpoint wants no more of anything.
    pub fn disables(&self) -> bool {
        matches!(&self.word, Word::Attempted(made) if made.disables)
    }
}

const RECORD: &str = "
WITH r AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::int[], $6::bool[], $7::text[], $8::text[],
                         $9::timestamptz[], $10::text[], $11::text[], $32::timestamptz[])
        AS t(id, subscription_id, tenant_id, generation, attempt, made, state, held_reason, due_at, dead_reason, trigger, lease)
),
d AS (
    UPDATE deliveries d
    SET state = r.state, held_reason = r.held_reason, due_at = r.due_at, dead_reason = r.dead_reason,
        attempt = CASE WHEN r.made THEN r.attempt ELSE d.attempt END,
        attempts_made = d.attempts_made + r.made::int,
        not_now = d.not_now + (r.made AND r.held_reason IS NOT DISTINCT FROM 'rate')::int,
        trigger = coalesce(r.trigger, d.trigger), updated_at = $23
    FROM r
    WHERE d.id = r.id AND d.id >= $24 AND d.id <= $25
      AND d.generation = r.generation AND d.attempt = r.attempt - 1
      -- An attempt that was made counts even if another message of it was put back meanwhile.
      AND (d.state = 'queued' OR (r.made AND d.state = 'held'))
      AND (r.made OR r.lease IS NULL OR d.due_at = r.lease)
    RETURNING d.id, d.subscription_id, d.tenant_id, d.event_type, d.state, d.due_at, r.made
),
a AS (
    INSERT INTO attempts (id, delivery_id, subscription_id, tenant_id, generation, number, trigger, started_at,
                          response_time_ms, status_code, error, error_detail, response, response_headers, request_headers)
    SELECT * FROM unnest($12::uuid[], $13::uuid[], $14::uuid[], $15::uuid[], $16::int[], $17::int[], $18::text[],
                         $19::timestamptz[], $20::int[], $21::int[], $22::text[], $26::text[], $27::text[], $28::jsonb[], $29::jsonb[])
    ON CONFLICT (id) DO NOTHING RETURNING id, tenant_id, subscription_id, started_at, response_time_ms, error
),
-- Counts of each subscription, each tenant and all; sorted, since recorders that count in the same rows must not deadlock.
ds AS (
    INSERT INTO delivery_stats AS s (tenant_id, subscription_id, hour, event_type, shard, delivered, failed)
    SELECT coalesce(tenant_id, $31::uuid),
           coalesce(subscription_id, $31::uuid),
           date_trunc('hour', $23::timestamptz), event_type, $30::smallint,
           count(*) FILTER (WHERE state = 'delivered'), count(*) FILTER (WHERE state = 'dead')
    FROM d WHERE state IN ('delivered', 'dead')
    GROUP BY GROUPING SETS ((tenant_id, subscription_id, event_type), (tenant_id, event_type), (event_type)) ORDER BY 1, 2, 4
    ON CONFLICT (tenant_id, subscription_id, hour, event_type, shard) DO UPDATE
    SET delivered = s.delivered + excluded.delivered, failed = s.failed + excluded.failed
),
ats AS (
    INSERT INTO attempt_stats AS s (tenant_id, subscription_id, hour, bucket, shard, attempts, failed, millis)
    SELECT coalesce(tenant_id, $31::uuid),
           coalesce(subscription_id, $31::uuid),
           date_trunc('hour', $23::timestamptz), bucket, $30::smallint,
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
-- Of each subscription, whether any of these attempts succeeded, and whether the newest failed. One at which the endpoint
-- asked for time says nothing of its health.
o AS (
    SELECT DISTINCT ON (subscription_id) subscription_id, error IS NOT NULL AS failed,
           bool_or(error IS NULL) OVER (PARTITION BY subscription_id) AS any_succeeded
    FROM a WHERE error IS DISTINCT FROM 'not_now'
    ORDER BY subscription_id, started_at DESC, id DESC
),
s AS (
    UPDATE subscription_runtime t
    SET delivered = t.delivered + coalesce(q.delivered, 0), failed = t.failed + coalesce(q.failed, 0),
        last_triggered_at = CASE WHEN q.made THEN $23 ELSE t.last_triggered_at END,
        -- The head of an ordered subscription may have ended: the next one's turn.
        next_due_at = least(t.next_due_at, q.due, CASE WHEN t.head IS NOT NULL THEN $23 END),
        failing_since = CASE WHEN o.failed IS NULL THEN t.failing_since WHEN NOT o.failed THEN NULL
                             WHEN o.any_succeeded THEN $23 ELSE coalesce(t.failing_since, $23) END,
        warned_percent = CASE WHEN o.any_succeeded THEN 0 ELSE t.warned_percent END
    FROM l LEFT JOIN q ON q.subscription_id = l.subscription_id LEFT JOIN o ON o.subscription_id = l.subscription_id
    WHERE t.subscription_id = l.subscription_id AND (q.subscription_id IS NOT NULL OR o.subscription_id IS NOT NULL)
    RETURNING t.subscription_id, t.failing_since, t.breaker, t.breaker_until, t.cooldowns, t.probes_succeeded, t.probes_failed,
              t.breaker_closed_at, t.hold_until, t.hold_per_second
)
SELECT id, NULL::uuid AS subscription_id, NULL::text AS breaker, NULL::timestamptz AS breaker_until, 0 AS cooldowns,
       0::smallint AS probes_succeeded, 0::smallint AS probes_failed, NULL::timestamptz AS breaker_closed_at,
       NULL::timestamptz AS hold_until, NULL::float8 AS hold_per_second FROM d
UNION ALL
SELECT NULL, subscription_id, breaker, breaker_until, cooldowns, probes_succeeded, probes_failed, breaker_closed_at,
       hold_until, hold_per_second FROM s
WHERE failing_since IS NOT NULL OR breaker <> 'closed' OR subscription_id = ANY ($33)";

/// What came of recording.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// Those whose report moved their row.
    pub moved: HashSet<DeliveryId>,
    /// Subscriptions whose last attempt failed, whose breaker is not closed, or whose endpoint asked for time.
    pub vitals: Vec<Vitals>,
}

impl Recorded {
    pub fn is_moved(&self, id: DeliveryId) -> bool {
        self.moved.contains(&id)
    }
}

/// Records reports, all or nothing, each as the attempt that it says it is.
pub(super) async fn record_as_told(db: &impl GenericClient, reports: &[Report], now: Timestamp) -> Result<Recorded> {
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
    let leases: Vec<Option<Timestamp>> = reports.iter().map(|r| r.lease_until).collect();
    let triggers: Vec<Option<&str>> = moves.iter().map(|m| m.trigger.map(Trigger::as_str)).collect();
    let attempts = Attempts::of(reports);
    let asked: Vec<Uuid> =
        reports.iter().filter(|r| r.asks_for_time().is_some()).map(|r| *r.subscription_id.as_uuid()).collect();
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
                &crate::EVERY,
                &leases,
                &asked,
            ],
        )
        .await?;
    let mut recorded = Recorded::default();
    for row in &rows {
        match row.get::<_, Option<Uuid>>("id") {
            Some(id) => {
                recorded.moved.insert(DeliveryId::from_uuid(id));
            }
            None => recorded.vitals.push(health::vitals(row)?),
        }
    }
    Ok(recorded)
}

/// Of deliveries and their generations, those whose generation before failed.
pub async fn had_failed(db: &impl GenericClient, deliveries: &[(DeliveryId, u32)]) -> Result<HashSet<DeliveryId>> {
    let ids: Vec<Uuid> = deliveries.iter().map(|(id, _)| *id.as_uuid()).collect();
    let generations: Vec<i32> = deliveries.iter().map(|(_, generation)| int(*generation)).collect();
    let (from, to): (Vec<Uuid>, Vec<Uuid>) = deliveries.iter().map(|(id, _)| millisecond(id.time())).unzip();
    let statement = db
        .prepare_cached(
            "SELECT u.id FROM unnest($1::uuid[], $2::int[], $3::uuid[], $4::uuid[]) AS u(id, generation, first, next)
             WHERE EXISTS (SELECT FROM attempts a WHERE a.id >= u.first AND a.id < u.next AND a.delivery_id = u.id
                             AND a.generation = u.generation - 1 AND a.error IS NOT NULL)
               AND NOT EXISTS (SELECT FROM attempts a WHERE a.id >= u.first AND a.id < u.next AND a.delivery_id = u.id
                                 AND a.generation = u.generation - 1 AND a.error IS NULL)",
        )
        .await?;
    let rows = db.query(&statement, &[&ids, &generations, &from, &to]).await?;
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
}

impl Move {
    fn of(word: &Word) -> Self {
        let to = |state| Self { made: false, state, held: None, due_at: None, dead: None, trigger: None };
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
            // By these two columns the statement counts it.
            Next::NotNow(until) => Self {
                held: Some(HeldReason::Rate),
                due_at: Some(until),
                trigger: Some(Trigger::Retry),
                ..to(State::Held)
            },
            Next::RetryAt(at) => Self {
                held: Some(HeldReason::Retry),
                due_at: Some(at),
                trigger: Some(Trigger::Retry),
                ..to(State::Held)
            },
        };
        Self { made: true, ..moved }
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
