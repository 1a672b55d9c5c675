//! `POST /v1/subscriptions/{id}/test`: a sample to the endpoint, at once.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use posthorn_core::envelope::Payload;
use posthorn_core::event_type::{self, EventType, Pattern};
use posthorn_core::id::{EventId, SubscriptionId};
use posthorn_core::outcome::Attempted;
use posthorn_process::sender::Shipment;
use posthorn_process::trace;
use posthorn_store::{event_types, subscriptions};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::Span;

use crate::api::body::{Body, given};
use crate::api::params::{Params, path_id};
use crate::api::{Api, Caller, now};
use crate::contract::Shape;
use crate::error::{ApiError, ApiResult};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    #[serde(default, deserialize_with = "given")]
    event_type: Option<String>,
    /// What stands in `data`.
    payload: Option<Value>,
}

#[derive(Serialize)]
struct View {
    success: bool,
    status_code: Option<u16>,
    response: Option<String>,
    response_time_ms: u64,
    webhook_id: EventId,
    request_headers: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Sends a sample as a delivery would be sent: signed, within the timeout, past the same guard. It is no
/// event, is not tried again, and stands in no statistic.
pub async fn test(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest, body: Body) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: SubscriptionId = path_id("subscription", &id)?;
    let ask: Ask = body.parse_optional(Shape::SubscriptionSample)?;
    let named = ask.event_type.as_deref().map(EventType::parse).transpose();
    let named = named.map_err(|error| ApiError::field("/event_type", error.to_string()))?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    subscriptions::find(&client, tenant, id).await?.ok_or_else(|| ApiError::not_found("subscription", id))?;
    let entry = api.subscriptions.fetch(&client, api.store.sealer(), id).await?;
    let entry = entry.ok_or_else(|| ApiError::not_found("subscription", id))?;
    let event_type = named.map_or_else(|| usual(&entry.event_types), Ok);
    let event_type = event_type.map_err(|error| ApiError::field("/event_type", error.to_string()))?;
    let payload = match ask.payload {
        Some(payload) => payload,
        None => {
            let known = event_types::find(&client, &event_type).await?;
            known.and_then(|known| known.sample).unwrap_or_else(|| json!({ "sample": true }))
        }
    };
    drop(client);
    let now = now();
    let secrets = entry.signing(now);
    if secrets.is_empty() {
        return Err(ApiError::conflict(
            "the subscription has no secret that can be opened, and nothing is sent unsigned",
        ));
    }
    if !entry.opens {
        return Err(ApiError::conflict("the key of the client certificate, or a header, does not open"));
    }
    // A test takes as long as the endpoint does: not all of the API may wait for endpoints.
    let _turn = api.tests.try_acquire().map_err(|_| ApiError::TooManyTests)?;
    let event_id = EventId::new(now, rand::random());
    let shipment = Shipment {
        event_id,
        subscription: &entry,
        secrets: &secrets,
        payload: Payload {
            event_type: &event_type,
            timestamp: now,
            content_type: "application/json",
            content_encoding: "",
            body: &Bytes::from(payload.to_string()),
        },
        traceparent: &trace::traceparent_or_new(&Span::current()),
        is_test: true,
    };
    let answered = api.sender.send(&shipment).await;
    Ok(HttpResponse::Ok().json(View {
        success: answered.attempted == Attempted::Accepted,
        status_code: answered.status,
        response: answered.response,
        response_time_ms: u64::try_from(answered.took.as_millis()).unwrap_or(u64::MAX),
        webhook_id: event_id,
        request_headers: answered.request_headers,
        error: answered.error.map(|(code, detail)| format!("{code}: {detail}")),
    }))
}

/// A type that the subscription asks for.
fn usual(patterns: &[Pattern]) -> Result<EventType, event_type::Error> {
    match patterns.first() {
        Some(Pattern::Exact(exact)) => Ok(exact.clone()),
        Some(pattern @ (Pattern::Prefix(_) | Pattern::Glob(_))) => {
            let pattern = pattern.to_string();
            // A long pattern leaves no room for more.
            EventType::parse(&pattern.replace('*', "sample")).or_else(|_| EventType::parse(&pattern.replace('*', "")))
        }
        Some(Pattern::All) | None => EventType::parse("test.sample"),
    }
}
