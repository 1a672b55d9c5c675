//! `/v1/deliveries`: events on their way to subscriptions.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use posthorn_core::delivery::{HeldReason, State, Trigger};
use posthorn_core::id::{DeliveryId, EventId, SubscriptionId, TenantId};
use posthorn_core::redact;
use posthorn_core::time::Rfc3339;
use posthorn_store::deliveries::{self, Attempt, Delivery, Filter};
use posthorn_store::{Error, GenericClient, health, subscriptions};
use serde::Serialize;

use super::audit_log::Change;
use super::body::Body;
use super::params::{Params, path_id};
use super::{Api, Caller, List, now};
use crate::error::{ApiError, ApiResult};

#[derive(Serialize)]
pub struct View {
    id: DeliveryId,
    event_id: EventId,
    subscription_id: SubscriptionId,
    tenant_id: TenantId,
    event_type: String,
    state: State,
    held_reason: Option<HeldReason>,
    due_at: Option<Rfc3339>,
    attempts_made: u32,
    generation: u32,
    created_at: Rfc3339,
    updated_at: Rfc3339,
}

#[derive(Serialize)]
pub struct WholeView {
    #[serde(flatten)]
    delivery: View,
    attempts: Vec<AttemptView>,
}

#[derive(Serialize)]
struct AttemptView {
    number: u32,
    generation: u32,
    trigger: Trigger,
    started_at: Rfc3339,
    status_code: Option<u16>,
    response: Option<String>,
    response_headers: Option<serde_json::Value>,
    response_time_ms: i32,
    error: Option<String>,
    request_headers: serde_json::Value,
}

impl From<Delivery> for View {
    fn from(delivery: Delivery) -> Self {
        // Nobody knows when a paused subscription is resumed.
        let waits_for_a_person = delivery.held_reason == Some(HeldReason::Paused);
        Self {
            id: delivery.id,
            event_id: delivery.event_id,
            subscription_id: delivery.subscription_id,
            tenant_id: delivery.tenant_id,
            event_type: delivery.event_type,
            state: delivery.state,
            held_reason: delivery.held_reason,
            due_at: delivery.due_at.filter(|_| !waits_for_a_person).map(Rfc3339),
            attempts_made: delivery.attempts_made,
            generation: delivery.generation,
            created_at: Rfc3339(delivery.created_at),
            updated_at: Rfc3339(delivery.updated_at),
        }
    }
}

impl WholeView {
    pub async fn of(db: &impl GenericClient, delivery: Delivery) -> ApiResult<Self> {
        let attempts = deliveries::attempts(db, delivery.id).await?.into_iter().map(AttemptView::from).collect();
        Ok(Self { delivery: View::from(delivery), attempts })
    }
}

impl From<Attempt> for AttemptView {
    fn from(attempt: Attempt) -> Self {
        let error = attempt.error.map(|code| match attempt.error_detail {
            Some(detail) => format!("{code}: {detail}"),
            None => code,
        });
        Self {
            number: attempt.number,
            generation: attempt.generation,
            trigger: attempt.trigger,
            started_at: Rfc3339(attempt.started_at),
            status_code: attempt.status_code,
            response: attempt.response,
            response_headers: attempt.response_headers,
            response_time_ms: attempt.response_time_ms,
            error,
            request_headers: redact::without_secret_headers(attempt.request_headers),
        }
    }
}

pub async fn list(api: Data<Api>, caller: Caller, request: HttpRequest) -> ApiResult {
    let known = ["tenant_id", "subscription_id", "event_id", "state", "event_type", "from", "to", "limit", "cursor"];
    let params = Params::of(&request, &known)?;
    let page = params.page()?;
    let state = params
        .text("state")
        .map(|text| State::parse(text).ok_or_else(|| ApiError::field("state", "is not a known delivery state")))
        .transpose()?;
    let client = api.store.client().await?;
    let filter = Filter {
        subscription_id: params.parsed("subscription_id")?,
        event_id: params.parsed("event_id")?,
        state,
        event_types: params.event_types()?,
        span: params.span()?,
        tenant_id: caller.scope(&client, params.tenant()?).await?,
    };
    let rows = deliveries::list(&client, &filter, page).await?;
    Ok(HttpResponse::Ok().json(List::of(rows, page.limit, |delivery| *delivery.id.as_uuid(), View::from)))
}

pub async fn show(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: DeliveryId = path_id("delivery", &id)?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let found = deliveries::find(&client, tenant, id).await?.ok_or_else(|| ApiError::not_found("delivery", id))?;
    Ok(HttpResponse::Ok().json(WholeView::of(&client, found).await?))
}

/// A held delivery goes on now; a dead or delivered one is sent again.
pub async fn retry(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest, body: Body) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: DeliveryId = path_id("delivery", &id)?;
    body.parse_empty()?;
    let mut client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let client = client.transaction().await.map_err(Error::from)?;
    let found = deliveries::find(&client, tenant, id).await?.ok_or_else(|| ApiError::not_found("delivery", id))?;
    let from = [State::Held, State::Dead, State::Delivered];
    let going = set_going(&client, found, &from, Trigger::Manual).await?;
    // Whoever tries by hand has a reason to.
    health::probe_now(&client, going.subscription_id, now()).await?;
    Change::new("retry", "delivery", id, Some(going.tenant_id)).record(&client, caller, &request).await?;
    let view = WholeView::of(&client, going).await?;
    client.commit().await.map_err(Error::from)?;
    Ok(HttpResponse::Accepted().json(view))
}

/// Ends a held delivery: it is never sent.
pub async fn cancel(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest, body: Body) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: DeliveryId = path_id("delivery", &id)?;
    body.parse_empty()?;
    let mut client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let client = client.transaction().await.map_err(Error::from)?;
    let found = deliveries::find(&client, tenant, id).await?.ok_or_else(|| ApiError::not_found("delivery", id))?;
    if !deliveries::cancel(&client, tenant, id, now()).await? {
        let now = deliveries::find(&client, tenant, id).await?.map_or(found.state, |found| found.state);
        return Err(ApiError::conflict(format!("a delivery that is {} cannot be cancelled", now.as_str())));
    }
    Change::new("cancel", "delivery", id, Some(found.tenant_id)).record(&client, caller, &request).await?;
    let found = deliveries::find(&client, tenant, id).await?.unwrap_or(found);
    let view = WholeView::of(&client, found).await?;
    client.commit().await.map_err(Error::from)?;
    Ok(HttpResponse::Ok().json(view))
}

/// Sets a delivery going that is in one of the states `from`, and tells how it is then.
pub async fn set_going(
    db: &impl GenericClient,
    found: Delivery,
    from: &[State],
    trigger: Trigger,
) -> ApiResult<Delivery> {
    let owner = Some(found.tenant_id);
    if subscriptions::find(db, owner, found.subscription_id).await?.is_none() {
        return Err(ApiError::conflict("the delivery's subscription is deleted"));
    }
    if deliveries::set_going(db, owner, &[found.id], from, trigger, now()).await?.is_empty() {
        let now = deliveries::find(db, owner, found.id).await?.map_or(found.state, |found| found.state);
        return Err(ApiError::conflict(format!("a delivery that is {} cannot be retried", now.as_str())));
    }
    Ok(deliveries::find(db, owner, found.id).await?.unwrap_or(found))
}
