//! `/v1/dead-letters`: what no longer moves.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use posthorn_core::delivery::{DeadReason, State, Trigger};
use posthorn_core::id::{DeadLetterId, DeliveryId, EventId, SubscriptionId, TenantId};
use posthorn_core::time::Rfc3339;
use posthorn_store::dead_letters::{self, DeadLetter, Filter};
use posthorn_store::{Error, deliveries};
use serde::Serialize;

use super::audit_log::Change;
use super::body::Body;
use super::deliveries::{WholeView, set_going};
use super::params::{Params, path_id};
use super::{Api, Caller, List};
use crate::error::{ApiError, ApiResult};

#[derive(Serialize)]
struct View {
    id: DeadLetterId,
    reason: String,
    delivery_id: Option<DeliveryId>,
    subscription_id: Option<SubscriptionId>,
    event_id: Option<EventId>,
    tenant_id: Option<TenantId>,
    error: Option<String>,
    died_at: Rfc3339,
}

impl From<DeadLetter> for View {
    fn from(dead: DeadLetter) -> Self {
        Self {
            id: dead.id,
            reason: dead.reason,
            delivery_id: dead.delivery_id,
            subscription_id: dead.subscription_id,
            event_id: dead.event_id,
            tenant_id: dead.tenant_id,
            error: dead.error,
            died_at: Rfc3339(dead.died_at),
        }
    }
}

pub async fn list(api: Data<Api>, caller: Caller, request: HttpRequest) -> ApiResult {
    let known = ["tenant_id", "subscription_id", "reason", "from", "to", "limit", "cursor"];
    let params = Params::of(&request, &known)?;
    let page = params.page()?;
    if params.text("reason").is_some_and(|reason| DeadReason::parse(reason).is_none()) {
        return Err(ApiError::field("reason", "no reason of a dead letter"));
    }
    let client = api.store.client().await?;
    let filter = Filter {
        subscription_id: params.parsed("subscription_id")?,
        reason: params.text("reason").map(str::to_owned),
        span: params.span()?,
        tenant_id: caller.scope(&client, params.tenant()?).await?,
    };
    let rows = dead_letters::list(&client, &filter, page).await?;
    Ok(HttpResponse::Ok().json(List::of(rows, page.limit, |dead| *dead.id.as_uuid(), View::from)))
}

pub async fn show(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: DeadLetterId = path_id("dead letter", &id)?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let found = dead_letters::find(&client, tenant, id).await?;
    Ok(HttpResponse::Ok().json(View::from(found.ok_or_else(|| ApiError::not_found("dead letter", id))?)))
}

/// Sets the delivery going again; with that the dead letter is settled.
pub async fn replay(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest, body: Body) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: DeadLetterId = path_id("dead letter", &id)?;
    body.parse_empty()?;
    let mut client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let client = client.transaction().await.map_err(Error::from)?;
    let dead = dead_letters::find(&client, tenant, id).await?.ok_or_else(|| ApiError::not_found("dead letter", id))?;
    let delivery =
        dead.delivery_id.ok_or_else(|| ApiError::conflict("the message names no delivery that could be replayed"))?;
    let found = deliveries::find(&client, tenant, delivery).await?;
    let found = found.ok_or_else(|| ApiError::conflict("its delivery is older than the retention"))?;
    let going = set_going(&client, found, &[State::Dead], Trigger::Replay).await?;
    Change::new("replay", "dead_letter", id, Some(going.tenant_id)).record(&client, caller, &request).await?;
    let view = WholeView::of(&client, going).await?;
    client.commit().await.map_err(Error::from)?;
    Ok(HttpResponse::Accepted().json(view))
}
