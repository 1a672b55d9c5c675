//! What a delivery-worker has to say of deliveries, recorded with all that follows from it.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;
use posthorn_core::delivery::{DeadReason, HeldReason, Next, State, Trigger};
use posthorn_core::id::{AttemptId, DeliveryId, SubscriptionId, TenantId};
use uuid::Uuid;

use super::{bounds, int};
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
    SELECT coalesce(tenant_id, $32::uuid),
           coalesce(subscription_id, $32::uuid),
           date_trunc('hour', $24::timestamptz), event_type, $31::smallint,
           count(*) FILTER (WHERE state = 'delivered'), count(*) FILTER (WHERE state = 'dead')
    FROM d WHERE state IN ('delivered', 'dead')
    GROUP BY GROUPING SETS ((tenant_id, subscription_id, event_type), (tenant_id, event_type), (event_type)) ORDER BY 1, 2, 4
    ON CONFLICT (tenant_id, subscription_id, hour, event_type, shard) DO UPDATE
    SET delivered = s.delivered + excluded.delivered, failed = s.failed + excluded.failed
),
ats AS (
    INSERT INTO attempt_stats AS s (tenant_id, subscription_id, hour, bucket, shard, attempts, failed, millis)
    SELECT coalesce(tenant_id, $32::uuid),
           coalesce(subscription_id, $32::uuid),
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
                &crate::EVERY,
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
