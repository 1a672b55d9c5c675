//! `/v1/events`: what came in.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use posthorn_core::envelope::Data as Payload;
use posthorn_core::id::{EventId, SourceId, TenantId};
use posthorn_core::request::Headers;
use posthorn_core::routing::Route;
use posthorn_core::time::Rfc3339;
use posthorn_store::events::{self, Assigned, Event, Filter, WholeEvent};
use posthorn_store::page::Page;
use posthorn_store::{GenericClient, sources, tenants};
use serde::{Deserialize, Serialize};

use super::body::{Body, given};
use super::params::{Params, path_id};
use super::subscriptions::is_source_name;
use super::{Api, Caller, List};
use crate::error::{ApiError, ApiResult};

#[derive(Serialize)]
struct View {
    id: EventId,
    tenant_id: Option<TenantId>,
    source_id: SourceId,
    event_type: String,
    routed: String,
    occurred_at: Option<Rfc3339>,
    received_at: Rfc3339,
    duplicates: i32,
    schema_violation: Option<String>,
}

#[derive(Serialize)]
struct WholeView<'a> {
    #[serde(flatten)]
    event: View,
    headers: serde_json::Value,
    payload: Payload<'a>,
    payload_encoding: &'static str,
}

impl From<Event> for View {
    fn from(event: Event) -> Self {
        Self {
            id: event.id,
            tenant_id: event.tenant_id,
            source_id: event.source_id,
            event_type: event.event_type.to_string(),
            routed: event.audience,
            occurred_at: event.occurred_at.map(Rfc3339),
            received_at: Rfc3339(event.received_at),
            duplicates: event.duplicates,
            schema_violation: event.schema_violation,
        }
    }
}

pub async fn list(api: Data<Api>, caller: Caller, request: HttpRequest) -> ApiResult {
    let known = ["tenant_id", "event_type", "source", "routed", "from", "to", "limit", "cursor"];
    let params = Params::of(&request, &known)?;
    let page = params.page()?;
    let source = params.text("source").map(str::to_owned);
    if source.as_deref().is_some_and(|source| !is_source_name(source)) {
        return Err(ApiError::field("source", "a source's slug or id"));
    }
    let unrouted = match params.text("routed") {
        None => false,
        Some("unrouted") => true,
        Some(_) => return Err(ApiError::field("routed", "`unrouted`: events whose tenant is unknown")),
    };
    let client = api.store.client().await?;
    let filter = Filter {
        span: params.span()?,
        event_types: params.event_types()?,
        source,
        unrouted,
        tenant_id: caller.scope(&client, params.tenant()?).await?,
    };
    let rows = events::list(&client, &filter, page).await?;
    Ok(HttpResponse::Ok().json(List::of(rows, page.limit, |event| *event.id.as_uuid(), View::from)))
}

pub async fn show(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: EventId = path_id("event", &id)?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let found = events::find(&client, tenant, id).await?.ok_or_else(|| ApiError::not_found("event", id))?;
    Ok(HttpResponse::Ok().json(WholeView::of(&found)))
}

impl<'a> WholeView<'a> {
    fn of(found: &'a WholeEvent) -> Self {
        let payload = Payload::read(&found.content_type, &found.body);
        let payload_encoding = match &payload {
            Payload::Json(_) => "json",
            Payload::Form(_) => "form",
            Payload::Text(_) => "text",
            Payload::Binary(_) => "base64",
        };
        Self { event: View::from(found.event.clone()), headers: found.headers.clone(), payload, payload_encoding }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Destination {
    #[serde(default, deserialize_with = "given")]
    tenant_id: Option<TenantId>,
}

/// Gives an unrouted event to a tenant: the one named, or whom the source's routing finds by now.
pub async fn route(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest, body: Body) -> ApiResult {
    caller.operator()?;
    Params::of(&request, &[])?;
    let id: EventId = path_id("event", &id)?;
    let Destination { tenant_id } = if body.0.is_empty() { Destination { tenant_id: None } } else { body.parse()? };
    let client = api.store.client().await?;
    let found = events::find(&client, None, id).await?.ok_or_else(|| ApiError::not_found("event", id))?;
    let tenant = match tenant_id {
        Some(tenant) => tenants::find(&client, tenant).await?.map(|tenant| tenant.id),
        None => routed_by_now(&client, &found).await?,
    };
    let tenant = match (tenant, tenant_id) {
        (Some(tenant), _) => tenant,
        (None, Some(named)) => return Err(ApiError::not_found("tenant", named)),
        (None, None) => return Err(ApiError::conflict("its source's routing finds no tenant for it")),
    };
    match events::assign(&client, id, tenant).await? {
        Assigned::Done => {}
        Assigned::AlreadyRouted => return Err(ApiError::conflict("the event is routed")),
        Assigned::StillInOutbox => {
            return Err(ApiError::conflict("the event is still on its way; try again in a moment"));
        }
    }
    let found = events::find(&client, None, id).await?.unwrap_or(found);
    Ok(HttpResponse::Accepted().json(WholeView::of(&found)))
}

/// Whom the source's routing names for an event that is kept already.
async fn routed_by_now(db: &impl GenericClient, found: &WholeEvent) -> ApiResult<Option<TenantId>> {
    let Some(source) = sources::find(db, None, found.event.source_id).await? else { return Ok(None) };
    let headers = found.headers.as_object().into_iter().flatten();
    let headers: Headers = headers.filter_map(|(name, value)| Some((name, value.as_str()?))).collect();
    Ok(match source.routing.route(&headers, &found.body) {
        Route::Tenant(tenant) => tenants::find(db, tenant).await?.map(|tenant| tenant.id),
        Route::External(external_id) => {
            let page = Page { before: None, limit: 1 };
            tenants::list(db, Some(&external_id), page).await?.first().map(|tenant| tenant.id)
        }
        Route::Broadcast | Route::Unrouted => None,
    })
}
