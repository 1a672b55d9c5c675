//! `POST /v1/sources/{id}/test`: a sample, signed as the provider would, through the gateway's own door.

use std::time::{Duration, Instant};

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use posthorn_core::id::SourceId;
use posthorn_core::signature::{Imitation, ImitationError, Verifier, Wish};
use posthorn_core::time::since;
use posthorn_store::sources;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::body::{Body, given};
use crate::api::params::{Params, path_id};
use crate::api::{Api, Caller, now};
use crate::contract::Shape;
use crate::error::{ApiError, ApiResult};

/// For how long a refusal may mean that the gateway does not know of a change yet: longer than the
/// second within which it is to be in force.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Bytes of the gateway's answer that are read.
const MAX_ANSWER_BYTES: usize = 65_536;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    #[serde(default, deserialize_with = "given")]
    event_type: Option<String>,
    /// The provider's whole body.
    payload: Option<Value>,
}

#[derive(Serialize)]
struct View {
    success: bool,
    status_code: Option<u16>,
    response: Option<String>,
    response_time_ms: u64,
    event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub async fn test(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest, body: Body) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: SourceId = path_id("source", &id)?;
    let ask: Ask = body.parse_optional(Shape::SourceSample)?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let source = sources::find(&client, tenant, id).await?.ok_or_else(|| ApiError::not_found("source", id))?;
    let secrets = sources::secrets(&client, api.store.sealer(), &[id]).await?;
    drop(client);
    let secrets = secrets.into_iter().map(|(_, secret)| secret.secret).collect();
    let verifier = Verifier::new(source.provider, &source.config, secrets)
        .map_err(|fault| ApiError::conflict(format!("the source has no usable key: {fault}")))?;
    let event_id = hex_id();
    let wish = Wish {
        address: source.address(),
        event_type: ask.event_type.as_deref(),
        payload: ask.payload.as_ref(),
        id: &event_id,
        now: now(),
    };
    let imitation = verifier.imitate(&wish).map_err(|error| match error {
        ImitationError::NoPlaceForType => ApiError::field("/event_type", error.to_string()),
        ImitationError::NoSuchPayload => ApiError::field("/payload", error.to_string()),
        ImitationError::KeyNotHere | ImitationError::NoPlaceForSignature => ApiError::conflict(error.to_string()),
    })?;
    // A test may have to wait for the gateway: not all of the API may.
    let _turn = api.tests.try_acquire().map_err(|_| ApiError::TooManyTests)?;
    let is_new = since(source.updated_at, now()) < PATIENCE;
    Ok(HttpResponse::Ok().json(send(&api, &imitation, is_new).await))
}

fn hex_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Sends; a source that changed a moment ago (`is_new`) until it is accepted, or a refusal cannot be the
/// gateway's not knowing yet. It is the same event each time.
async fn send(api: &Api, imitation: &Imitation, is_new: bool) -> View {
    let began = Instant::now();
    loop {
        let view = send_once(api, imitation).await;
        let may_not_know_yet = matches!(view.status_code, Some(401 | 403 | 404 | 422));
        if !is_new || !may_not_know_yet || began.elapsed() > PATIENCE {
            return view;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn send_once(api: &Api, imitation: &Imitation) -> View {
    let began = Instant::now();
    let url = format!("{}{}", api.gateway_internal_url.trim_end_matches('/'), imitation.target);
    let mut request = api.gateway.post(url).body(imitation.body.clone());
    for (name, value) in &imitation.headers {
        request = request.header(name, value);
    }
    let answered = async {
        let mut response = request.send().await?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() >= MAX_ANSWER_BYTES {
                break;
            }
        }
        Ok::<_, reqwest::Error>((status, String::from_utf8_lossy(&body).into_owned()))
    };
    let answered = answered.await;
    let response_time_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    match answered {
        Ok((status, body)) => {
            let answer: Option<Value> = serde_json::from_str(&body).ok();
            let event_id = answer.as_ref().and_then(|answer| answer["event_id"].as_str()).map(str::to_owned);
            let success = (200..300).contains(&status);
            let detail = answer.as_ref().and_then(|answer| answer["detail"].as_str()).map(str::to_owned);
            View {
                success,
                status_code: Some(status),
                response: Some(body.chars().take(1000).collect()),
                response_time_ms,
                event_id,
                error: if success { None } else { detail },
            }
        }
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "a source's test did not reach the gateway");
            let error = Some("the gateway cannot be reached from here".to_owned());
            View { success: false, status_code: None, response: None, response_time_ms, event_id: None, error }
        }
    }
}
