//! Requests that were refused, kept so that somebody can see why, and verify them again.

use jiff::Timestamp;
use posthorn_core::id::{RejectedRequestId, SourceId, TenantId};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::page::{self, Page, Span};
use crate::tenants::not_deleted;
use crate::{GenericClient, Result};

#[derive(Clone, Debug)]
pub struct Rejected {
    pub id: RejectedRequestId,
    /// `None` when no source has that name.
    pub source_id: Option<SourceId>,
    pub tenant_id: Option<TenantId>,
    pub reason: String,
    pub detail: String,
    pub received_at: Timestamp,
    pub address: String,
    pub body_bytes: i32,
    /// Sealed for this id; absent where keeping it is not worth the room.
    pub request: Option<Vec<u8>>,
}

/// Keeps a batch of them. Best effort: a refusal is answered whether or not it could be kept.
pub async fn insert(db: &impl GenericClient, rejected: &[Rejected]) -> Result<()> {
    let ids: Vec<Uuid> = rejected.iter().map(|r| *r.id.as_uuid()).collect();
    let sources: Vec<Option<Uuid>> = rejected.iter().map(|r| r.source_id.map(|id| *id.as_uuid())).collect();
    let tenants: Vec<Option<Uuid>> = rejected.iter().map(|r| r.tenant_id.map(|id| *id.as_uuid())).collect();
    let reasons: Vec<&str> = rejected.iter().map(|r| r.reason.as_str()).collect();
    let details: Vec<&str> = rejected.iter().map(|r| r.detail.as_str()).collect();
    let received: Vec<Timestamp> = rejected.iter().map(|r| r.received_at).collect();
    let addresses: Vec<&str> = rejected.iter().map(|r| r.address.as_str()).collect();
    let sizes: Vec<i32> = rejected.iter().map(|r| r.body_bytes).collect();
    let requests: Vec<Option<&[u8]>> = rejected.iter().map(|r| r.request.as_deref()).collect();
    let statement = db
        .prepare_cached(
            "INSERT INTO rejected_requests (id, source_id, tenant_id, reason, detail, received_at, address, body_bytes, request)
             SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::timestamptz[], $7::text[],
                                  $8::int[], $9::bytea[])",
        )
        .await?;
    db.execute(&statement, &[&ids, &sources, &tenants, &reasons, &details, &received, &addresses, &sizes, &requests])
        .await?;
    Ok(())
}

/// What a list of them is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// `None` is the operator's view of everything.
    pub tenant_id: Option<TenantId>,
    pub source_id: Option<SourceId>,
    pub reason: Option<String>,
    pub span: Span,
}

const COLUMNS: &str = "id, source_id, tenant_id, reason, detail, received_at, address, body_bytes";

/// Without their contents.
pub async fn list(db: &impl GenericClient, filter: &Filter, page: Page) -> Result<Vec<Rejected>> {
    // Texts that use an index each: one with `$1 IS NULL OR …` could use none.
    let everyones = || format!("$1::uuid IS NULL AND {}", not_deleted("tenant_id"));
    let tenant = filter.tenant_id.map_or_else(everyones, |_| "tenant_id = $1".to_owned());
    let source = filter.source_id.map_or("$2::uuid IS NULL", |_| "source_id = $2");
    let reason = filter.reason.as_ref().map_or("$6::text IS NULL", |_| "reason = $6");
    let sql = format!(
        "SELECT {COLUMNS}, NULL::bytea AS request FROM rejected_requests
         WHERE {tenant} AND {source} AND id < $3 AND id >= $4 AND id < $5 AND {reason}
         ORDER BY id DESC LIMIT $7"
    );
    let statement = page::prepare(db, &sql).await?;
    let rows = db
        .query(
            &statement,
            &[
                &filter.tenant_id.map(|id| *id.as_uuid()),
                &filter.source_id.map(|id| *id.as_uuid()),
                &page.before(),
                &filter.span.from,
                &filter.span.to,
                &filter.reason,
                &page.fetch(),
            ],
        )
        .await?;
    Ok(rows.iter().map(rejected).collect())
}

/// One with its content, if it was kept; `None` as `tenant` is the operator.
pub async fn find(
    db: &impl GenericClient,
    tenant: Option<TenantId>,
    id: RejectedRequestId,
) -> Result<Option<Rejected>> {
    let statement = db
        .prepare_cached(&format!(
            "SELECT {COLUMNS}, request FROM rejected_requests
             WHERE id = $1 AND ($2::uuid IS NULL OR tenant_id = $2) AND {}",
            not_deleted("tenant_id")
        ))
        .await?;
    let row = db.query_opt(&statement, &[id.as_uuid(), &tenant.map(|t| *t.as_uuid())]).await?;
    Ok(row.as_ref().map(rejected))
}

/// Forgets one that was accepted after all. False if there is none, or no longer one.
pub async fn delete(db: &impl GenericClient, id: RejectedRequestId) -> Result<bool> {
    let statement = db.prepare_cached("DELETE FROM rejected_requests WHERE id = $1").await?;
    Ok(db.execute(&statement, &[id.as_uuid()]).await? > 0)
}

fn rejected(row: &Row) -> Rejected {
    Rejected {
        id: RejectedRequestId::from_uuid(row.get("id")),
        source_id: row.get::<_, Option<Uuid>>("source_id").map(SourceId::from_uuid),
        tenant_id: row.get::<_, Option<Uuid>>("tenant_id").map(TenantId::from_uuid),
        reason: row.get("reason"),
        detail: row.get("detail"),
        received_at: row.get("received_at"),
        address: row.get("address"),
        body_bytes: row.get("body_bytes"),
        request: row.get("request"),
    }
}

/// Forgets the contents of the oldest ones of each source, beyond `bytes` of them; that they were refused
/// stays. Returns how many.
pub async fn drop_contents(db: &impl GenericClient, bytes: i64) -> Result<u64> {
    let sql = "UPDATE rejected_requests SET request = NULL WHERE id IN (
                   SELECT id FROM (
                       SELECT id, sum(octet_length(request)) OVER (PARTITION BY source_id ORDER BY id DESC) AS newer
                       FROM rejected_requests WHERE request IS NOT NULL
                   ) t WHERE newer > $1)";
    Ok(db.execute(sql, &[&bytes]).await?)
}

/// Forgets those from before `before`. Returns how many went.
pub async fn drop_old(db: &impl GenericClient, before: Timestamp) -> Result<u64> {
    let bound = posthorn_core::id::floor(before);
    Ok(db.execute("DELETE FROM rejected_requests WHERE id < $1", &[&bound]).await?)
}
