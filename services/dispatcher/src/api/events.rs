//! `/v1/events`: what came in.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use posthorn_core::envelope::Data as Payload;
use posthorn_core::id::{EventId, SourceId, TenantId};
use posthorn_core::time::Rfc3339;
use posthorn_store::events::{self, Event, Filter};
use serde::Serialize;

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
        }
    }
}

pub async fn list(api: Data<Api>, caller: Caller, request: HttpRequest) -> ApiResult {
    let known = ["tenant_id", "event_type", "source", "from", "to", "limit", "cursor"];
    let params = Params::of(&request, &known)?;
    let page = params.page()?;
    let source = params.text("source").map(str::to_owned);
    if source.as_deref().is_some_and(|source| !is_source_name(source)) {
        return Err(ApiError::field("source", "a source's slug or id"));
    }
    let client = api.store.client().await?;
    let filter = Filter {
        span: params.span()?,
        event_types: params.event_types()?,
        source,
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
    let payload = Payload::read(&found.content_type, &found.body);
    let payload_encoding = match &payload {
        Payload::Json(_) => "json",
        Payload::Form(_) => "form",
        Payload::Text(_) => "text",
        Payload::Binary(_) => "base64",
    };
    let event = View::from(found.event);
    Ok(HttpResponse::Ok().json(WholeView { event, headers: found.headers, payload, payload_encoding }))
}
