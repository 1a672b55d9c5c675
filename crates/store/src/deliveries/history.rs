//! Deliveries and attempts as the API shows them.

use jiff::Timestamp;
use posthorn_core::delivery::{DeadReason, HeldReason, State, Trigger};
use posthorn_core::event_type::Pattern;
use posthorn_core::id::{AttemptId, DeliveryId, EventId, SubscriptionId, TenantId};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{QUEUED, bounds, millisecond, unsigned};
use crate::error::readable;
use crate::page::{self, Page, Span};
use crate::tenants::not_deleted;
use crate::type_filter::{Parameters, Types};
use crate::{GenericClient, Result};

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

impl Delivery {
    /// Whether nothing moves it any more but a person or a job.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Delivered | State::Dead | State::Cancelled)
    }
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
    CASE WHEN d.state <> 'held' OR d.due_at > now() THEN d.held_reason
         WHEN s.state <> 'active' THEN 'paused' WHEN r.breaker <> 'closed' THEN 'breaker' ELSE d.held_reason END AS held_reason,
    CASE WHEN d.state = 'held' AND r.breaker <> 'closed' THEN greatest(d.due_at, r.breaker_until) ELSE d.due_at END AS due_at,
    d.dead_reason, d.generation, d.attempts_made, d.created_at, d.updated_at";
const SUBSCRIPTIONS: &str = "LEFT JOIN subscriptions s ON s.id = d.subscription_id
    LEFT JOIN subscription_runtime r ON r.subscription_id = d.subscription_id";

pub async fn list(db: &impl GenericClient, filter: &Filter, page: Page) -> Result<Vec<Delivery>> {
    let (scope, tenant) = match &filter.tenant_id {
        Some(tenant) => ("d.tenant_id = $1".to_owned(), Some(*tenant.as_uuid())),
        None => (format!("$1::uuid IS NULL AND {}", not_deleted("d.tenant_id")), None),
    };
    let (narrowed, subscription) = match &filter.subscription_id {
        // Of another tenant's no row is read: how long that takes would tell that it is there.
        Some(subscription) if tenant.is_some() => (
            "d.subscription_id = $2 AND EXISTS (SELECT FROM subscriptions WHERE id = $2 AND tenant_id = $1)",
            Some(*subscription.as_uuid()),
        ),
        Some(subscription) => ("d.subscription_id = $2", Some(*subscription.as_uuid())),
        None => ("$2::uuid IS NULL", None),
    };
    // In the text, since a state has an index of its own where it is rare.
    let state = filter.state.map(|state| format!("AND d.state = '{}'", state.as_str())).unwrap_or_default();
    let table = if filter.state == Some(State::Queued) { QUEUED } else { "deliveries" };
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
    let event = filter.event_id.map_or("$6::uuid IS NULL", |_| "d.event_id = $6");
    let conditions = format!("{scope} AND {narrowed} {state} AND d.id < $5 AND {event}");
    let sql = format!(
        "SELECT {COLUMNS} FROM {} {SUBSCRIPTIONS} ORDER BY d.id DESC LIMIT $8",
        types.newest(table, "d", &conditions, Parameters { before: 3, from: 4, texts: 7, limit: 8 }),
    );
    let statement = page::prepare(db, &sql).await?;
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
    let sql = format!(
        "SELECT {COLUMNS} FROM deliveries d {SUBSCRIPTIONS}
         WHERE d.id = $1 AND ($2::uuid IS NULL OR d.tenant_id = $2) AND {}",
        not_deleted("d.tenant_id")
    );
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

/// An event's deliveries to `subscriptions`.
pub async fn of_event(
    db: &impl GenericClient,
    event: EventId,
    subscriptions: &[SubscriptionId],
) -> Result<Vec<Delivery>> {
    let ids: Vec<Uuid> = subscriptions.iter().map(|id| *DeliveryId::derive(event, *id).as_uuid()).collect();
    let (first, last) = bounds(&ids);
    let sql = format!(
        "SELECT {COLUMNS} FROM deliveries d {SUBSCRIPTIONS} WHERE d.id = ANY ($1) AND d.id >= $2 AND d.id <= $3"
    );
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
