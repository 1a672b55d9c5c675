//! Accepted events, the keys that make them unique, and the outbox that carries them to their deliveries.

mod accept;
mod history;
mod outbox;

use bytes::Bytes;
use jiff::Timestamp;
use posthorn_core::event_type::EventType;
use posthorn_core::id::{EventId, TenantId};
use posthorn_core::subscription::Audience;
use tokio_postgres::Row;

use crate::error::readable;
use crate::{GenericClient, Result};

pub use accept::{Accepted, NewEvent, Origin, accept};
pub use history::{Assigned, Dispatched, Event, Filter, SourceName, WholeEvent, assign, find, list, next};
pub use outbox::{Part, Relayable, give_up, outbox_backlog, relay_now, split, take_due};

/// How long the accepting gateway has the outbox row to itself.
const OUTBOX_HEAD_START_SECS: i32 = 5;

/// What a delivery-worker needs of an event whose body did not ride along.
#[derive(Clone, Debug)]
pub struct Content {
    pub event_type: EventType,
    pub timestamp: Timestamp,
    pub content_type: String,
    /// Empty when the provider named none.
    pub content_encoding: String,
    pub traceparent: String,
    pub body: Bytes,
}

pub async fn content(db: &impl GenericClient, id: EventId) -> Result<Option<Content>> {
    let statement = db
        .prepare_cached(
            "SELECT event_type, coalesce(occurred_at, received_at) AS at, content_type, traceparent, body,
                    coalesce(headers ->> 'content-encoding', '') AS content_encoding
             FROM events WHERE id = $1",
        )
        .await?;
    let Some(row) = db.query_opt(&statement, &[id.as_uuid()]).await? else { return Ok(None) };
    Ok(Some(Content {
        event_type: event_type(&row)?,
        timestamp: row.get("at"),
        content_type: row.get("content_type"),
        content_encoding: row.get("content_encoding"),
        traceparent: row.get("traceparent"),
        body: Bytes::from(row.get::<_, Vec<u8>>("body")),
    }))
}

fn event_type(row: &Row) -> Result<EventType> {
    readable("event_type", EventType::parse(row.get("event_type")).ok())
}

fn audience(row: &Row, tenant: &str) -> Result<Audience> {
    match row.get("audience") {
        "broadcast" => Ok(Audience::Everyone),
        "unrouted" => Ok(Audience::Nobody),
        _ => Ok(Audience::Tenant(TenantId::from_uuid(readable("events.tenant_id", row.get(tenant))?))),
    }
}
