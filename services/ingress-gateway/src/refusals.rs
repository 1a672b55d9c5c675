//! Refused requests, kept so that somebody can see why and verify them again.

use std::net::IpAddr;
use std::sync::Arc;

use actix_web::web::Data;
use jiff::Timestamp;
use posthorn_core::id::RejectedRequestId;
use posthorn_core::request::RawRequest;
use posthorn_store::rejected_requests::Rejected;
use tracing::warn;

use crate::Gateway;
use crate::sources::Door;

/// Keeps a refused request, if the budget allows. The answer does not wait for it. `content` is the
/// request and the event that its path named, where it was read as a whole and could be verified again.
pub fn keep(
    gateway: &Data<Gateway>,
    door: Option<&Door>,
    reason: &str,
    detail: String,
    sender: Option<IpAddr>,
    content: Option<(&RawRequest, Option<&str>)>,
    now: Timestamp,
) {
    let settings = &gateway.settings.rejected;
    let source_id = door.map(|door| door.id);
    if !gateway.refusals.take(source_id, sender, settings.per_source_and_minute, now) {
        metrics::counter!("posthorn_rejected_not_kept_total").increment(1);
        return;
    }
    let id = RejectedRequestId::new(now, rand::random());
    let body_bytes = content.map_or(0, |(request, _)| request.body.len());
    let worth_keeping = content.filter(|_| body_bytes <= settings.max_request_bytes);
    let request = worth_keeping.map(|(request, event)| {
        gateway.store.sealer().seal(id.as_uuid(), request.to_document(event).to_string().as_bytes())
    });
    let rejected = Rejected {
        id,
        source_id,
        tenant_id: door.and_then(|door| door.tenant_id),
        reason: reason.to_owned(),
        detail: detail.replace('\0', "\u{fffd}"),
        received_at: now,
        address: sender.map(|address| address.to_string()).unwrap_or_default(),
        body_bytes: i32::try_from(body_bytes).unwrap_or(i32::MAX),
        request,
    };
    let gateway = gateway.clone();
    actix_web::rt::spawn(async move {
        if let Err(error) = gateway.rejecting.submit(crate::Rejection(Arc::new(rejected))).await {
            warn!(error = &error as &dyn std::error::Error, "a refused request was not kept");
        }
    });
}
