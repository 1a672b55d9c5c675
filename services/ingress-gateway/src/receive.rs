//! A provider's request, from its first byte to the answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use posthorn_core::id::{EventId, RejectedRequestId, SourceId};
use posthorn_core::provider::Provider;
use posthorn_core::request::{Headers, RawRequest};
use posthorn_core::routing::Route;
use posthorn_core::signature::{Answer, Material, Need, Occurrence, RefusalKind, Verdict, Verifier};
use posthorn_core::{dedup, redact};
use posthorn_process::trace;
use posthorn_store::events::{Accepted, NewEvent};
use posthorn_store::rejected_requests::Rejected;
use serde::{Deserialize, Serialize};
use tracing::{Span, info, warn};

use crate::Gateway;
use crate::error::GatewayError;
use crate::limits;
use crate::sources::{Door, Found};

/// What an accepted request is answered.
#[derive(Serialize)]
struct Receipt {
    received: bool,
    event_id: EventId,
    duplicate: bool,
}

/// `{event}` is absent in the short form.
#[derive(Debug, Deserialize)]
pub struct Address {
    source: String,
    event: Option<String>,
}

/// `POST`, and `GET` for the challenges that come by it.
pub async fn receive(
    gateway: Data<Gateway>,
    address: Path<Address>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, GatewayError> {
    let now = Timestamp::now();
    let began = std::time::Instant::now();
    let sender = sender(&gateway, &request);
    let found = gateway.sources.find(&address.source);
    let mut raw = RawRequest {
        method: request.method().to_string(),
        target: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: headers(&request),
        body: Bytes::new(),
    };
    let (door, outcome) = match found {
        Found::NotLoaded => (None, Err(GatewayError::NotLoaded)),
        Found::Nothing => (None, Err(GatewayError::UnknownSource)),
        Found::Door(door) => {
            let outcome = take_in(&gateway, &door, &address, sender, &mut raw, payload, now).await;
            (Some(door), outcome)
        }
    };
    metrics::histogram!("posthorn_receive_seconds").record(began.elapsed());
    let (kind, event) = told(&outcome);
    let source = door.as_ref().map(|door| door.id);
    info!(
        source.id = source.map(tracing::field::display),
        source.provider = door.as_ref().map(|door| door.provider.as_str()),
        outcome = kind,
        event.id = event.map(tracing::field::display),
        body_bytes = raw.body.len(),
        duration_us = began.elapsed().as_micros() as u64,
        "received: {kind}"
    );
    metrics::counter!("posthorn_received_total", "outcome" => kind).increment(1);
    match outcome {
        Ok(outcome) => Ok(answer(door.as_deref(), outcome)),
        Err(error) => {
            if let Some((reason, detail)) = error.rejection() {
                keep(&gateway, door.as_deref(), reason, detail, sender, &raw, now);
            } else {
                warn!(error = &error as &dyn std::error::Error, "not accepted, by our fault");
            }
            Err(error)
        }
    }
}

/// What came of a request that was not refused.
enum Outcome {
    Accepted { id: EventId, duplicate: bool },
    Handshake(Answer),
    Ignored,
}

async fn take_in(
    gateway: &Gateway,
    door: &Door,
    address: &Address,
    sender: Option<IpAddr>,
    raw: &mut RawRequest,
    payload: Payload,
    now: Timestamp,
) -> Result<Outcome, GatewayError> {
    let verifier = door.verifier.as_ref().map_err(|detail| GatewayError::Misconfigured { detail: detail.clone() })?;
    let names_event = matches!(door.provider, Provider::Internal | Provider::Generic);
    if address.event.is_some() && !names_event {
        return Err(GatewayError::UnknownSource);
    }
    if !verifier.takes_method(&raw.method) {
        return Err(GatewayError::MethodNotAllowed);
    }
    let settings = &gateway.settings.accept;
    let limit = door.max_body_bytes.unwrap_or(settings.max_body_bytes).min(settings.hard_max_body_bytes);
    if raw.headers.get("content-length").and_then(|n| n.parse::<usize>().ok()).is_some_and(|n| n > limit) {
        return Err(GatewayError::TooLarge { limit_bytes: limit });
    }
    if !door.allows(sender) {
        let address = sender.map_or_else(|| "an unknown address".to_owned(), |address| address.to_string());
        return Err(GatewayError::AddressNotAllowed { address });
    }
    if !door.admits(now) {
        return Err(GatewayError::RateLimited);
    }
    read_body(payload, limit, Duration::from_millis(settings.body_timeout_ms), &mut raw.body).await?;
    match judge(gateway, verifier, raw, address.event.as_deref(), now).await? {
        Verdict::Events { occurrences, matched } => {
            if let Some(secret) = matched.and_then(|index| door.secrets.get(index)) {
                Span::current().record("secret.id", tracing::field::display(secret));
            }
            accept(gateway, door, raw, occurrences, now).await
        }
        Verdict::Handshake(answer) => Ok(Outcome::Handshake(answer)),
        Verdict::Confirm { url } => {
            gateway.keys.confirm(&url).await.map_err(|error| GatewayError::Unfetched(Arc::new(error)))?;
            info!(source.id = %door.id, "confirmed the provider's subscription");
            Ok(Outcome::Ignored)
        }
        Verdict::Ignore { detail } => {
            info!(source.id = %door.id, "nothing to accept: {detail}");
            Ok(Outcome::Ignored)
        }
        Verdict::Needs(Need::Certificate { url } | Need::KeySet { url }) => Err(GatewayError::Unusable { url }),
    }
}

/// Judges a request, with what that needs from the network. Asked for again in spite of having been
/// fetched, it was not usable: our fault, not the sender's.
async fn judge(
    gateway: &Gateway,
    verifier: &Verifier,
    raw: &RawRequest,
    path_event: Option<&str>,
    now: Timestamp,
) -> Result<Verdict, GatewayError> {
    let need = match verifier.judge(raw, path_event, now, &Material::default())? {
        Verdict::Needs(need) => need,
        verdict => return Ok(verdict),
    };
    let material = gateway.keys.get(&need).await.map_err(GatewayError::Unfetched)?;
    let judged = verifier.judge(raw, path_event, now, &material);
    let lacks_key = matches!(&judged, Err(refusal) if refusal.kind == RefusalKind::UnknownKey);
    match verifier.key_set_url() {
        Some(url) if lacks_key && gateway.keys.renew(url).await => {
            let material = gateway.keys.get(&need).await.map_err(GatewayError::Unfetched)?;
            Ok(verifier.judge(raw, path_event, now, &material)?)
        }
        _ => Ok(judged?),
    }
}

/// Returns only after the commit: a provider does not send again what was acknowledged.
async fn accept(
    gateway: &Gateway,
    door: &Door,
    raw: &RawRequest,
    occurrences: Vec<Occurrence>,
    now: Timestamp,
) -> Result<Outcome, GatewayError> {
    let events: Arc<[NewEvent]> =
        occurrences.into_iter().map(|occurrence| new_event(door, raw, occurrence, now)).collect();
    let timeout = Duration::from_millis(gateway.settings.accept.timeout_ms);
    let submitted = gateway.accepting.submit(crate::Submission(Arc::clone(&events)));
    // Given up here, it may be committed all the same; then the provider's repeat is a duplicate.
    let accepted = tokio::time::timeout(timeout, submitted).await.map_err(|_| GatewayError::TooSlow)??;
    let mut first = None;
    for (event, accepted) in events.iter().zip(accepted) {
        let (id, duplicate) = match accepted {
            Accepted::New { id, audience } => {
                gateway.relay.hand_over(event, audience);
                (id, false)
            }
            Accepted::Duplicate { first } => (first, true),
        };
        // A batch is answered with its first event that is new, or the first of all.
        match &first {
            None | Some((_, true)) if !duplicate => first = Some((id, false)),
            None => first = Some((id, duplicate)),
            Some(_) => {}
        }
    }
    Ok(first.map_or(Outcome::Ignored, |(id, duplicate)| Outcome::Accepted { id, duplicate }))
}

fn new_event(door: &Door, raw: &RawRequest, occurrence: Occurrence, now: Timestamp) -> NewEvent {
    let body = occurrence.body.unwrap_or_else(|| raw.body.clone());
    let dedup_key = dedup::key(door.id, occurrence.dedup_parts.iter().map(String::as_str));
    NewEvent {
        id: EventId::new(now, rand::random()),
        source_id: door.id,
        source_slug: door.slug.clone(),
        route: route(door, raw, &body),
        event_type: occurrence.event_type,
        provider_event_id: occurrence.provider_event_id.map(storable),
        dedup_key,
        occurred_at: occurrence.occurred_at,
        received_at: now,
        headers: redact::visible(&raw.headers).into(),
        content_type: raw.headers.get("content-type").unwrap_or_default().to_owned(),
        traceparent: trace::traceparent_or_new(&Span::current()),
        body,
    }
}

/// A tenant's source routes to that tenant whatever the request says.
fn route(door: &Door, raw: &RawRequest, body: &[u8]) -> Route {
    match door.tenant_id {
        Some(tenant) => Route::Tenant(tenant),
        None => match door.routing.route(&raw.headers, body) {
            Route::External(id) => Route::External(storable(id)),
            route => route,
        },
    }
}

/// PostgreSQL keeps no NUL in text, and no identifier has a use for one.
fn storable(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// Reads the body up to `limit`, checked while reading.
async fn read_body(
    mut payload: Payload,
    limit: usize,
    timeout: Duration,
    body: &mut Bytes,
) -> Result<(), GatewayError> {
    let mut read = BytesMut::new();
    let reading = async {
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|error| GatewayError::Unreadable { detail: error.to_string() })?;
            if read.len() + chunk.len() > limit {
                return Err(GatewayError::TooLarge { limit_bytes: limit });
            }
            read.extend_from_slice(&chunk);
        }
        Ok(())
    };
    let finished = tokio::time::timeout(timeout, reading).await;
    *body = read.freeze();
    finished.unwrap_or_else(|_| Err(GatewayError::Unreadable { detail: "the body did not come in time".to_owned() }))
}

fn answer(door: Option<&Door>, outcome: Outcome) -> HttpResponse {
    let usual = |receipt: &dyn Fn() -> HttpResponse| match door.and_then(|door| door.response.as_ref()) {
        Some(response) => HttpResponse::build(StatusCode::from_u16(response.status).unwrap_or(StatusCode::OK))
            .content_type(response.content_type.clone())
            .body(response.body.clone()),
        None => receipt(),
    };
    match outcome {
        Outcome::Accepted { id, duplicate } => {
            usual(&|| HttpResponse::Ok().json(Receipt { received: true, event_id: id, duplicate }))
        }
        Outcome::Ignored => usual(&|| HttpResponse::Ok().json(serde_json::json!({ "received": true }))),
        Outcome::Handshake(Answer { status, content_type, body }) => {
            HttpResponse::build(StatusCode::from_u16(status).unwrap_or(StatusCode::OK))
                .content_type(content_type)
                .body(body)
        }
    }
}

/// How a request is told of in logs and metrics.
fn told(outcome: &Result<Outcome, GatewayError>) -> (&'static str, Option<EventId>) {
    match outcome {
        Ok(Outcome::Accepted { id, duplicate: false }) => ("accepted", Some(*id)),
        Ok(Outcome::Accepted { id, duplicate: true }) => ("duplicate", Some(*id)),
        Ok(Outcome::Handshake(_)) => ("handshake", None),
        Ok(Outcome::Ignored) => ("ignored", None),
        Err(error) => (error.rejection().map_or("unavailable", |(reason, _)| reason), None),
    }
}

/// A refused request with what is needed to verify it again.
#[derive(Serialize)]
struct Kept<'a> {
    method: &'a str,
    target: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    body: String,
}

/// Keeps a refused request, if the budget allows. The answer does not wait for it.
fn keep(
    gateway: &Data<Gateway>,
    door: Option<&Door>,
    reason: &str,
    detail: String,
    sender: Option<IpAddr>,
    raw: &RawRequest,
    now: Timestamp,
) {
    let settings = &gateway.settings.rejected;
    let source: Option<SourceId> = door.map(|door| door.id);
    if !gateway.refusals.take(source, settings.per_source_and_minute, now) {
        metrics::counter!("posthorn_rejected_not_kept_total").increment(1);
        return;
    }
    let id = RejectedRequestId::new(now, rand::random());
    // What names no source can never be verified, so its content is of no use.
    let worth_keeping = source.is_some() && raw.body.len() <= settings.max_request_bytes;
    let request = worth_keeping.then(|| {
        let kept = Kept {
            method: &raw.method,
            target: &raw.target,
            headers: raw.headers.iter().collect(),
            body: base64::engine::general_purpose::STANDARD.encode(&raw.body),
        };
        // Strings only: there is nothing that cannot be written.
        gateway.store.sealer().seal(id.as_uuid(), &serde_json::to_vec(&kept).unwrap_or_default())
    });
    let rejected = Rejected {
        id,
        source_id: source,
        tenant_id: door.and_then(|door| door.tenant_id),
        reason: reason.to_owned(),
        detail: storable(detail),
        received_at: now,
        address: sender.map(|address| address.to_string()).unwrap_or_default(),
        body_bytes: i32::try_from(raw.body.len()).unwrap_or(i32::MAX),
        request,
    };
    let gateway = gateway.clone();
    actix_web::rt::spawn(async move {
        if let Err(error) = gateway.rejecting.submit(crate::Rejection(Arc::new(rejected))).await {
            warn!(error = &error as &dyn std::error::Error, "a refused request was not kept");
        }
    });
}

fn sender(gateway: &Gateway, request: &HttpRequest) -> Option<IpAddr> {
    let peer = request.peer_addr().map(|peer| peer.ip());
    let forwarded = request.headers().get("x-forwarded-for").and_then(|value| value.to_str().ok());
    limits::sender(peer, forwarded, gateway.settings.accept.trusted_proxies)
}

fn headers(request: &HttpRequest) -> Headers {
    // What is no UTF-8 cannot match any signature, whatever it is replaced by.
    request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect()
}
