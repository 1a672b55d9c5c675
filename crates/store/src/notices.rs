//! Operational events: written in the transaction of what they tell of, and relayed like any other.

use bytes::Bytes;
use jiff::Timestamp;
use posthorn_core::dedup;
use posthorn_core::id::{EventId, SourceId, TenantId};
use posthorn_core::operational::Notice;
use posthorn_core::routing::Route;
use uuid::Uuid;

use crate::events::{self, Accepted, NewEvent};
use crate::{GenericClient, Result};

/// The source of what Posthorn tells about itself: no row of `sources`, so nobody else can send by it.
const SLUG: &str = "posthorn";

/// Tells tenants. A notice that was told before is not told again.
pub async fn tell(db: &impl GenericClient, notices: &[(TenantId, Notice)], now: Timestamp) -> Result<()> {
    if notices.is_empty() {
        return Ok(());
    }
    let new: Vec<NewEvent> = notices.iter().map(|(tenant, notice)| event(*tenant, notice, now)).collect();
    let accepted = events::accept(db, &new, now).await?;
    let told: Vec<EventId> = accepted
        .iter()
        .filter_map(|accepted| match accepted {
            Accepted::New { id, .. } => Some(*id),
            Accepted::Duplicate { .. } => None,
        })
        .collect();
    // No gateway has them in hand.
    events::relay_now(db, &told).await
}

fn event(tenant: TenantId, notice: &Notice, now: Timestamp) -> NewEvent {
    let source_id = SourceId::from_uuid(Uuid::nil());
    let identity = notice.identity();
    NewEvent {
        id: EventId::new(now, rand::random()),
        source_id,
        source_slug: SLUG.to_owned(),
        route: Route::Tenant(tenant),
        event_type: notice.kind().event_type(),
        provider_event_id: None,
        dedup_key: dedup::key(source_id, [identity.as_str()]),
        occurred_at: None,
        received_at: now,
        headers: serde_json::json!({}),
        content_type: "application/json".to_owned(),
        traceparent: String::new(),
        body: Bytes::from(notice.data().to_string()),
        schema_violation: None,
    }
}
