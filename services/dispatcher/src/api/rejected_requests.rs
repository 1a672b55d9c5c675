//! `/v1/rejected-requests`: what the gateway refused, and a second look at it.

use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use posthorn_core::address::AllowList;
use posthorn_core::envelope::Data as Payload;
use posthorn_core::id::{EventId, RejectedRequestId, SourceId};
use posthorn_core::provider::Provider;
use posthorn_core::request::RawRequest;
use posthorn_core::schema::{Schema, Validation};
use posthorn_core::signature::{Occurrence, Verdict, Verifier};
use posthorn_core::time::{Rfc3339, earlier};
use posthorn_process::keys::JudgeError;
use posthorn_process::trace;
use posthorn_store::events::{Accepted, NewEvent, Origin};
use posthorn_store::rejected_requests::{self, Filter, Rejected};
use posthorn_store::sources::{self, Source};
use posthorn_store::{Error, GenericClient, event_types, events};
use serde::Serialize;
use tracing::{Span, info};

use super::audit_log::Change;
use super::body::Body;
use super::params::{Params, path_id};
use super::{Api, Caller, List, now};
use crate::error::{ApiError, ApiResult};

#[derive(Serialize)]
struct View {
    id: RejectedRequestId,
    source_id: Option<SourceId>,
    reason: String,
    detail: String,
    received_at: Rfc3339,
    address: String,
    body_bytes: i32,
}

impl From<Rejected> for View {
    fn from(rejected: Rejected) -> Self {
        Self {
            id: rejected.id,
            source_id: rejected.source_id,
            reason: rejected.reason,
            detail: rejected.detail,
            received_at: Rfc3339(rejected.received_at),
            address: rejected.address,
            body_bytes: rejected.body_bytes,
        }
    }
}

pub async fn list(api: Data<Api>, caller: Caller, request: HttpRequest) -> ApiResult {
    let params = Params::of(&request, &["tenant_id", "source_id", "reason", "from", "to", "limit", "cursor"])?;
    let page = params.page()?;
    let client = api.store.client().await?;
    let filter = Filter {
        source_id: params.parsed("source_id")?,
        reason: params.text("reason").map(str::to_owned),
        span: params.span()?,
        tenant_id: caller.scope(&client, params.tenant()?).await?,
    };
    let rows = rejected_requests::list(&client, &filter, page).await?;
    Ok(HttpResponse::Ok().json(List::of(rows, page.limit, |rejected| *rejected.id.as_uuid(), View::from)))
}

/// What became of the second look.
#[derive(Default, Serialize)]
struct Reverified {
    accepted: bool,
    /// The first of `events`.
    event_id: Option<EventId>,
    duplicate: Option<bool>,
    events: Vec<EventView>,
    /// Why it is still refused.
    reason: Option<String>,
    detail: Option<String>,
}

#[derive(Serialize)]
struct EventView {
    event_id: EventId,
    duplicate: bool,
}

/// Why a request is refused again.
struct Again {
    reason: String,
    detail: String,
}

/// Verifies a request again, at the time at which it came, and accepts it as if it had just come. With
/// that it is settled, and no longer listed.
pub async fn reverify(api: Data<Api>, caller: Caller, id: Path<String>, request: HttpRequest, body: Body) -> ApiResult {
    let params = Params::of(&request, &["tenant_id"])?;
    let id: RejectedRequestId = path_id("rejected request", &id)?;
    body.parse_empty()?;
    let client = api.store.client().await?;
    let tenant = caller.scope(&client, params.tenant()?).await?;
    let rejected = rejected_requests::find(&client, tenant, id).await?;
    let rejected = rejected.ok_or_else(|| ApiError::not_found("rejected request", id))?;
    let source_id = rejected.source_id.ok_or_else(|| ApiError::conflict("the request's URL matched no source"))?;
    let source = sources::find(&client, tenant, source_id).await?;
    let source = source.ok_or_else(|| ApiError::conflict("the request's source is deleted"))?;
    if rejected.received_at < earlier(now(), api.keep_dedup) {
        let detail =
            "the request is older than the record of known events, so a repeat that was accepted could not be told";
        return Err(ApiError::conflict(detail));
    }
    let (raw, path_event) = content(&api, &rejected)?;
    let secrets = sources::secrets(&client, api.store.sealer(), &[source_id]).await?;
    // The provider's keys may have to be fetched, which may take as long as the provider does.
    drop(client);
    let secrets = secrets.into_iter().map(|(_, secret)| secret.secret).collect();
    let verifier = Verifier::new(source.provider, &source.config, secrets)
        .map_err(|fault| ApiError::conflict(format!("the source has no usable key: {fault}")))?;
    let verdict = judge(&api, &source, &verifier, &rejected, &raw, path_event.as_deref()).await?;
    let occurrences = match verdict {
        Err(again) => return Ok(refused(again)),
        Ok(Verdict::Events { occurrences, .. }) => occurrences,
        Ok(Verdict::Confirm { url }) => {
            let confirmed = api.keys.confirm(&url).await;
            confirmed.map_err(|error| ApiError::Unfetched(error.to_string()))?;
            Vec::new()
        }
        // Whoever asked has long had another answer.
        Ok(Verdict::Handshake(_) | Verdict::Ignore { .. } | Verdict::Needs(_)) => Vec::new(),
    };
    let mut client = api.store.client().await?;
    let new = match new_events(&client, &source, &verifier, &raw, occurrences).await? {
        Ok(new) => new,
        Err(again) => return Ok(refused(again)),
    };
    let transaction = client.transaction().await.map_err(Error::from)?;
    let accepted = if new.is_empty() { Vec::new() } else { events::accept(&transaction, &new, now()).await? };
    // No gateway has these in hand.
    let ids: Vec<EventId> = new.iter().map(|event| event.id).collect();
    events::relay_now(&transaction, &ids).await?;
    if !rejected_requests::delete(&transaction, id).await? {
        return Err(ApiError::conflict("another call is verifying the request; try again"));
    }
    let change = Change::new("reverify", "rejected_request", id, rejected.tenant_id);
    change.record(&transaction, caller, &request).await?;
    transaction.commit().await.map_err(Error::from)?;
    info!(rejected_request.id = %id, source.id = %source_id, events = accepted.len(), "accepted after a second look");
    let events: Vec<EventView> = accepted.into_iter().map(EventView::from).collect();
    Ok(HttpResponse::Ok().json(Reverified {
        accepted: true,
        event_id: events.first().map(|event| event.event_id),
        duplicate: events.first().map(|event| event.duplicate),
        events,
        ..Reverified::default()
    }))
}

fn refused(again: Again) -> HttpResponse {
    let Again { reason, detail } = again;
    HttpResponse::Ok().json(Reverified { reason: Some(reason), detail: Some(detail), ..Reverified::default() })
}

fn content(api: &Api, rejected: &Rejected) -> ApiResult<(RawRequest, Option<String>)> {
    let sealed = rejected.request.as_ref().ok_or_else(|| {
        ApiError::conflict("the request's content was not kept: it was too large, or was refused before it was read")
    })?;
    let document = api.store.sealer().open(rejected.id.as_uuid(), sealed).map_err(Error::from)?;
    RawRequest::from_document(&document).ok_or_else(|| Error::Corrupt { what: "rejected_requests.request" }.into())
}

async fn judge(
    api: &Api,
    source: &Source,
    verifier: &Verifier,
    rejected: &Rejected,
    raw: &RawRequest,
    path_event: Option<&str>,
) -> ApiResult<Result<Verdict, Again>> {
    let allowed = AllowList::parse(&source.allowed_ips).map_err(|index| {
        ApiError::conflict(format!("the source can take nothing in: allowed_ips/{index} is no network"))
    })?;
    if !allowed.allows(rejected.address.parse().ok()) {
        let detail = format!("this source does not take requests from {}", rejected.address);
        return Ok(Err(Again { reason: "address_not_allowed".to_owned(), detail }));
    }
    let path_event = path_event.filter(|_| matches!(source.provider, Provider::Internal | Provider::Generic));
    match api.keys.judge(verifier, raw, path_event, rejected.received_at).await {
        Ok(verdict) => Ok(Ok(verdict)),
        Err(JudgeError::Refused(refusal)) => {
            Ok(Err(Again { reason: refusal.kind.as_str().to_owned(), detail: refusal.detail }))
        }
        Err(error) => Err(ApiError::Unfetched(error.to_string())),
    }
}

async fn new_events(
    db: &impl GenericClient,
    source: &Source,
    verifier: &Verifier,
    raw: &RawRequest,
    occurrences: Vec<Occurrence>,
) -> ApiResult<Result<Vec<NewEvent>, Again>> {
    let now = now();
    let slug = source.slug.as_deref().unwrap_or_default();
    let secret_headers = verifier.secret_headers();
    let origin =
        Origin { source_id: source.id, tenant_id: source.tenant_id, slug, routing: &source.routing, secret_headers };
    let mut new = Vec::new();
    for occurrence in occurrences {
        let traceparent = trace::traceparent_or_new(&Span::current());
        let mut event = NewEvent::of(&origin, raw, occurrence, EventId::new(now, rand::random()), traceparent, now);
        if source.validate != Validation::Off {
            let entry = event_types::find(db, &event.event_type).await?;
            let schema = entry.and_then(|entry| entry.schema).map(|schema| Schema::parse(&schema)).transpose();
            let schema = schema.map_err(|fault| {
                ApiError::conflict(format!("the schema of `{}` cannot be used: {fault}", event.event_type))
            })?;
            let payload = Payload::read(&event.content_type, &event.body);
            let violation = schema.and_then(|schema| schema.check(&payload).err()).map(|found| found.to_string());
            if let (Validation::Enforce, Some(detail)) = (source.validate, &violation) {
                return Ok(Err(Again { reason: "payload_invalid".to_owned(), detail: detail.clone() }));
            }
            event.schema_violation = violation;
        }
        new.push(event);
    }
    Ok(Ok(new))
}

impl From<Accepted> for EventView {
    fn from(accepted: Accepted) -> Self {
        match accepted {
            Accepted::New { id, .. } => Self { event_id: id, duplicate: false },
            Accepted::Duplicate { first } => Self { event_id: first, duplicate: true },
        }
    }
}
