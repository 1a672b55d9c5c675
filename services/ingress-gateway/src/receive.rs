//! A provider's request, from its first byte to the answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{Data as AppData, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use posthorn_core::envelope::Data;
use posthorn_core::id::EventId;
use posthorn_core::provider::Provider;
use posthorn_core::request::{Headers, RawRequest};
use posthorn_core::schema::Validation;
use posthorn_core::signature::{Answer, Need, Occurrence, Refusal, RefusalKind, Verdict, Verifier};
use posthorn_process::telemetry::chain;
use posthorn_process::trace;
use posthorn_store::events::{Accepted, NewEvent, Origin};
use serde::{Deserialize, Serialize};
use tracing::{Span, info, warn};

use crate::error::GatewayError;
use crate::limits::{self, Ticket};
use crate::sources::{Door, Found, Sources};
use crate::{Gateway, refusals};

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

/// Every method: the source says which it takes.
pub async fn receive(
    gateway: AppData<Gateway>,
    address: Path<Address>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, GatewayError> {
    answered(&gateway, Some(&address), &request, payload).await
}

/// A path that is no source's. Below `/webhooks` it is kept as a refusal, since a provider may have been given it with a
/// slash too many; any other is counted only.
pub async fn unmatched(
    gateway: AppData<Gateway>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, GatewayError> {
    answered(&gateway, None, &request, payload).await
}

async fn answered(
    gateway: &AppData<Gateway>,
    address: Option<&Address>,
    request: &HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, GatewayError> {
    let now = Timestamp::now();
    let began = std::time::Instant::now();
    let sender = sender(gateway, request);
    let mut raw = RawRequest {
        method: request.method().to_string(),
        target: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: headers(request),
        body: Bytes::new(),
    };
    let (door, outcome) = match address.map(|address| (address, gateway.sources.find(&address.source))) {
        Some((_, Found::NotLoaded)) => (None, Err(GatewayError::NotLoaded)),
        None | Some((_, Found::Nothing)) => (None, Err(unknown(&gateway.sources, request.path()))),
        Some((_, Found::Unreadable(detail))) => (None, Err(GatewayError::Misconfigured { detail })),
        Some((address, Found::Door(door))) => {
            let outcome = take_in(gateway, &door, address, sender, &mut raw, payload, now).await;
            (Some(door), outcome)
        }
    };
    metrics::histogram!("posthorn_receive_seconds").record(began.elapsed());
    let (kind, event) = told(&outcome);
    let source = door.as_ref().map(|door| door.id);
    // One line for each request. What was not accepted is a warning, for the file of errors.
    macro_rules! tell {
        ($level:ident, $($detail:tt)*) => {
            $level!(
                source.id = source.map(tracing::field::display),
                source.provider = door.as_ref().map(|door| door.provider.as_str()),
                // False for one that takes in whatever comes.
                source.verifies = door.as_ref().map(|door| door.verifies()),
                outcome = kind,
                event.id = event.map(tracing::field::display),
                body_bytes = raw.body.len(),
                duration_us = began.elapsed().as_micros() as u64,
                $($detail)*
                "received: {kind}"
            )
        };
    }
    match &outcome {
        Ok(_) => tell!(info,),
        Err(error) => tell!(warn, error = chain(error),),
    }
    metrics::counter!("posthorn_received_total", "outcome" => kind).increment(1);
    match outcome {
        Ok(outcome) => Ok(answer(door.as_deref(), outcome)),
        Err(error) => {
            if let Some((reason, detail)) = error.rejection().filter(|_| is_for_webhooks(request.path())) {
                if let Some(source) = source {
                    gateway.tally.refused(source, reason, now);
                }
                let event = address.and_then(|address| address.event.as_deref());
                let content = error.is_of_content().then_some((&raw, event));
                refusals::keep(gateway, door.as_deref(), reason, detail, sender, content, now);
            }
            Err(error)
        }
    }
}

/// Whether a path, however many slashes it has, is below `/webhooks`.
fn is_for_webhooks(path: &str) -> bool {
    path.split('/').find(|segment| !segment.is_empty()) == Some("webhooks")
}

/// A path that no source has. Where it is a source's but for its slashes, that source's is named.
fn unknown(sources: &Sources, path: &str) -> GatewayError {
    /// What of a path is repeated in answers and records.
    const SHOWN: usize = 200;
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let hint = match segments.as_slice() {
        ["webhooks", source, rest @ ..] if matches!(sources.find(source), Found::Door(_)) => match rest {
            [] => Some(format!("/webhooks/{source}")),
            [event] => Some(format!("/webhooks/{source}/{event}")),
            _ => Some(format!("/webhooks/{source}/{}", rest.join("."))),
        },
        _ => None,
    };
    let hint = hint.filter(|hint| hint != path && hint.len() <= SHOWN);
    GatewayError::UnknownSource { path: path.chars().take(SHOWN).collect(), hint }
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
    let mut ticket = gateway.in_flight.enter().ok_or(GatewayError::Overloaded)?;
    let verifier = door.verifier.as_ref().map_err(|detail| GatewayError::Misconfigured { detail: detail.clone() })?;
    let names_event = matches!(door.provider, Provider::Internal | Provider::Generic);
    if address.event.is_some() && !names_event {
        return Err(unknown(&gateway.sources, raw.path()));
    }
    let methods = verifier.methods();
    if !methods.contains(&raw.method.as_str()) {
        return Err(GatewayError::MethodNotAllowed { methods });
    }
    let settings = &gateway.settings.accept;
    let limit = door.max_body_bytes.unwrap_or(settings.max_body_bytes).min(settings.hard_max_body_bytes);
    if raw.headers.get("content-length").and_then(|n| n.parse::<usize>().ok()).is_some_and(|n| n > limit) {
        return Err(GatewayError::TooLarge { limit_bytes: limit });
    }
    if !door.allowed.allows(sender) {
        let address = sender.map_or_else(|| "an unknown address".to_owned(), |address| address.to_string());
        return Err(GatewayError::AddressNotAllowed { address });
    }
    // An address that sends too much must not use up what the source has for others.
    if let (Some(per_second), Some(sender)) = (door.address_rate, sender) {
        gateway.address_rates.take(door.id, sender, per_second, now).map_err(|at| GatewayError::limited(now, at))?;
    }
    door.admit(now).map_err(|at| GatewayError::limited(now, at))?;
    if raw.method == "HEAD" {
        return Ok(Outcome::Handshake(verifier.head(raw, now)));
    }
    let timeout = Duration::from_millis(settings.body_timeout_ms);
    read_body(payload, limit, timeout, &mut ticket, &mut raw.body).await?;
    match gateway.keys.judge(verifier, raw, address.event.as_deref(), now).await? {
        Verdict::Events { occurrences, matched } => {
            if let Some((secret, expires_at)) = matched.and_then(|index| door.secrets.get(index)) {
                Span::current().record("secret.id", tracing::field::display(secret));
                if expires_at.is_some_and(|at| at <= now) {
                    return Err(GatewayError::Refused(expired()));
                }
                gateway.tally.matched(*secret, now);
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
        // `Keys::judge` gives it what it needs.
        Verdict::Needs(Need::Certificate { url } | Need::KeySet { url }) => Err(GatewayError::Unusable { url }),
    }
}

/// The secret is still loaded, but the time that it had beside its successor is over.
fn expired() -> Refusal {
    let detail = "signed with a secret that was replaced, and whose time is over".to_owned();
    Refusal { kind: RefusalKind::SignatureMismatch, detail }
}

/// Returns only after the commit: a provider does not send again what was acknowledged.
async fn accept(
    gateway: &Gateway,
    door: &Door,
    raw: &RawRequest,
    occurrences: Vec<Occurrence>,
    now: Timestamp,
) -> Result<Outcome, GatewayError> {
    let events: Arc<[NewEvent]> = occurrences
        .into_iter()
        .map(|occurrence| new_event(gateway, door, raw, occurrence, now))
        .collect::<Result<_, _>>()?;
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

/// The event of an occurrence, its payload held to the schema of its type as the source wants it.
fn new_event(
    gateway: &Gateway,
    door: &Door,
    raw: &RawRequest,
    occurrence: Occurrence,
    now: Timestamp,
) -> Result<NewEvent, GatewayError> {
    let origin = Origin {
        source_id: door.id,
        tenant_id: door.tenant_id,
        slug: &door.slug,
        routing: &door.routing,
        secret_headers: door.verifier.as_ref().map_or(&[], Verifier::secret_headers),
    };
    let traceparent = trace::traceparent_or_new(&Span::current());
    let mut event = NewEvent::of(&origin, raw, occurrence, EventId::new(now, rand::random()), traceparent, now);
    if door.validate == Validation::Off {
        return Ok(event);
    }
    let Some(schema) = gateway.sources.schema(&event.event_type) else { return Ok(event) };
    let schema = match schema {
        Ok(schema) => schema,
        // Fail closed: a schema that cannot be used allows nothing.
        Err(detail) if door.validate == Validation::Enforce => return Err(GatewayError::Misconfigured { detail }),
        Err(fault) => {
            event.schema_violation = Some(fault);
            return Ok(event);
        }
    };
    if let Err(violation) = schema.check(&Data::read(&event.content_type, &event.body)) {
        if door.validate == Validation::Enforce {
            return Err(GatewayError::PayloadInvalid { event_type: event.event_type.to_string(), violation });
        }
        warn!(source.id = %door.id, event.type = %event.event_type, "accepted against its schema: {violation}");
        metrics::counter!("posthorn_schema_violations_total").increment(1);
        event.schema_violation = Some(violation.to_string());
    }
    Ok(event)
}

/// Reads the body up to `limit`, checked while reading.
async fn read_body(
    mut payload: Payload,
    limit: usize,
    timeout: Duration,
    ticket: &mut Ticket<'_>,
    body: &mut Bytes,
) -> Result<(), GatewayError> {
    let mut read = BytesMut::new();
    let reading = async {
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|error| GatewayError::Unreadable { detail: error.to_string() })?;
            if read.len() + chunk.len() > limit {
                return Err(GatewayError::TooLarge { limit_bytes: limit });
            }
            if !ticket.hold(chunk.len()) {
                return Err(GatewayError::Overloaded);
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

fn sender(gateway: &Gateway, request: &HttpRequest) -> Option<IpAddr> {
    let peer = request.peer_addr().map(|peer| peer.ip());
    // A proxy may add a line of its own instead of a word to the sender's. One that cannot be read tells nothing.
    let lines = request.headers().get_all("x-forwarded-for").map(|value| value.to_str().unwrap_or("unknown"));
    let forwarded = lines.collect::<Vec<_>>().join(",");
    limits::sender(peer, Some(&forwarded), gateway.settings.accept.trusted_proxies)
}

fn headers(request: &HttpRequest) -> Headers {
    // What is no UTF-8 cannot match any signature, whatever it is replaced by.
    request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect()
}
