//! Events as the API shows them, and those whose tenant is found later.

use bytes::Bytes;
use jiff::Timestamp;
use posthorn_core::event_type::{EventType, Pattern};
use posthorn_core::id::{EventId, SourceId, TenantId};
use posthorn_core::subscription::Audience;
use tokio_postgres::Row;
use uuid::Uuid;

use super::event_type;
use crate::page::{self, Page, Span};
use crate::tenants::not_deleted;
use crate::type_filter::{Parameters, Types};
use crate::{GenericClient, Result};

/// An event as the API lists it.
#[derive(Clone, Debug)]
pub struct Event {
    pub id: EventId,
    pub tenant_id: Option<TenantId>,
    pub audience: String,
    pub source_id: SourceId,
    pub event_type: EventType,
    pub occurred_at: Option<Timestamp>,
    pub received_at: Timestamp,
    pub duplicates: i32,
    pub schema_violation: Option<String>,
}

/// An event with everything.
#[derive(Clone, Debug)]
pub struct WholeEvent {
    pub event: Event,
    /// Empty when the source had none.
    pub source_slug: String,
    pub headers: serde_json::Value,
    pub content_type: String,
    pub body: Bytes,
}

/// How a list names a source.
#[derive(Clone, Debug)]
pub enum SourceName {
    /// As it was when the event came.
    Slug(String),
    Id(SourceId),
}

/// What a list of events is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// `None` is the operator's view of everything.
    pub tenant_id: Option<TenantId>,
    /// None are all.
    pub event_types: Vec<Pattern>,
    pub source: Option<SourceName>,
    /// Only those whose tenant is unknown.
    pub unrouted: bool,
    pub span: Span,
}

const COLUMNS: &str = "e.id, e.tenant_id, e.audience, e.source_id, e.event_type, e.occurred_at, e.received_at,
                       e.duplicates, e.schema_violation";

pub async fn list(db: &impl GenericClient, filter: &Filter, page: Page) -> Result<Vec<Event>> {
    // A text for each, so that each uses its index.
    let (scope, tenant) = match &filter.tenant_id {
        Some(tenant) => ("e.tenant_id = $1".to_owned(), Some(*tenant.as_uuid())),
        None => (format!("$1::uuid IS NULL AND {}", not_deleted("e.tenant_id")), None),
    };
    let unrouted = if filter.unrouted { "AND e.audience = 'unrouted'" } else { "" };
    let (source, slug, source_id) = match &filter.source {
        None => ("$5::text IS NULL AND $6::uuid IS NULL", None, None),
        Some(SourceName::Slug(slug)) => ("e.source_slug = $5 AND $6::uuid IS NULL", Some(slug), None),
        Some(SourceName::Id(id)) => ("e.source_id = $6 AND $5::text IS NULL", None, Some(*id.as_uuid())),
    };
    let types = if filter.unrouted {
        Types::like(&filter.event_types)
    } else {
        Types::find(db, "events", tenant, &filter.event_types).await?
    };
    let conditions = format!("{scope} {unrouted} AND e.id < $4 AND {source}");
    let sql = format!(
        "SELECT {COLUMNS} FROM {} ORDER BY e.id DESC LIMIT $8",
        types.newest("events", "e", &conditions, Parameters { before: 2, from: 3, texts: 7, limit: 8 })
    );
    let statement = page::prepare(db, &sql).await?;
    let (span, before) = (filter.span, page.before());
    let rows = db
        .query(&statement, &[&tenant, &before, &span.from, &span.to, &slug, &source_id, &types.texts(), &page.fetch()])
        .await?;
    rows.iter().map(event).collect()
}

/// One event, if `tenant` may see it: its own, or one that was for everybody. `None` is the operator.
pub async fn find(db: &impl GenericClient, tenant: Option<TenantId>, id: EventId) -> Result<Option<WholeEvent>> {
    let statement = db
        .prepare_cached(&format!(
            "SELECT {COLUMNS}, e.source_slug, e.headers, e.content_type, e.body FROM events e
             WHERE id = $1 AND ($2::uuid IS NULL OR tenant_id = $2 OR audience = 'broadcast') AND {}",
            not_deleted("e.tenant_id")
        ))
        .await?;
    let row = db.query_opt(&statement, &[id.as_uuid(), &tenant.map(|t| *t.as_uuid())]).await?;
    row.map(|row| {
        Ok(WholeEvent {
            event: event(&row)?,
            source_slug: row.get("source_slug"),
            headers: row.get("headers"),
            content_type: row.get("content_type"),
            body: Bytes::from(row.get::<_, Vec<u8>>("body")),
        })
    })
    .transpose()
}

/// An event as dispatch sees it.
#[derive(Clone, Debug)]
pub struct Dispatched {
    pub id: EventId,
    pub source_id: SourceId,
    /// Empty when the source had none.
    pub source_slug: String,
    pub event_type: EventType,
    pub audience: Audience,
}

/// The oldest events after `position` and before `through` that a tenant may get, its own and those for everybody,
/// at most `limit`.
pub async fn next(
    db: &impl GenericClient,
    tenant: TenantId,
    position: Uuid,
    through: Uuid,
    limit: i64,
) -> Result<Vec<Dispatched>> {
    let sql = |whose: &str| {
        format!(
            "(SELECT id, tenant_id, audience, source_id, source_slug, event_type FROM events
              WHERE {whose} AND id > $2 AND id < $3 ORDER BY id LIMIT $4)"
        )
    };
    let (own, everybodys) = (sql("tenant_id = $1"), sql("tenant_id IS NULL AND audience = 'broadcast'"));
    let statement = page::prepare(db, &format!("{own} UNION ALL {everybodys} ORDER BY id LIMIT $4")).await?;
    let rows = db.query(&statement, &[tenant.as_uuid(), &position, &through, &limit]).await?;
    rows.iter()
        .map(|row| {
            Ok(Dispatched {
                id: EventId::from_uuid(row.get("id")),
                source_id: SourceId::from_uuid(row.get("source_id")),
                source_slug: row.get("source_slug"),
                event_type: event_type(row)?,
                audience: super::audience(row, "tenant_id")?,
            })
        })
        .collect()
}

/// What became of an event that somebody routes by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assigned {
    /// It is the tenant's, and goes to the broker again.
    Done,
    /// It has a tenant, or is for everybody.
    AlreadyRouted,
    /// The broker has not yet been told of it for the first time.
    StillInOutbox,
}

const ASSIGN: &str = "
WITH e AS (
    UPDATE events SET tenant_id = $2, audience = 'tenant'
    WHERE id = $1 AND audience = 'unrouted'
      -- A message that is under way says that nobody gets it, and settles the outbox row.
      AND NOT EXISTS (SELECT FROM outbox WHERE event_id = $1)
    RETURNING id
),
o AS (INSERT INTO outbox (event_id, due_at) SELECT id, now() FROM e)
SELECT EXISTS (SELECT FROM e), EXISTS (SELECT FROM outbox WHERE event_id = $1)";

/// Gives an unrouted event to `tenant`, whose subscriptions then see it.
pub async fn assign(db: &impl GenericClient, id: EventId, tenant: TenantId) -> Result<Assigned> {
    let statement = db.prepare_cached(ASSIGN).await?;
    let row = db.query_one(&statement, &[id.as_uuid(), tenant.as_uuid()]).await?;
    Ok(match (row.get(0), row.get(1)) {
        (true, _) => Assigned::Done,
        (false, true) => Assigned::StillInOutbox,
        (false, false) => Assigned::AlreadyRouted,
    })
}

fn event(row: &Row) -> Result<Event> {
    Ok(Event {
        id: EventId::from_uuid(row.get("id")),
        tenant_id: row.get::<_, Option<Uuid>>("tenant_id").map(TenantId::from_uuid),
        audience: row.get("audience"),
        source_id: SourceId::from_uuid(row.get("source_id")),
        event_type: event_type(row)?,
        occurred_at: row.get("occurred_at"),
        received_at: row.get("received_at"),
        duplicates: row.get("duplicates"),
        schema_violation: row.get("schema_violation"),
    })
}
