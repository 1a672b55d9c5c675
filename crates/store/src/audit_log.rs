//! Who changed what: written in the transaction of the change, and never changed itself.

use jiff::Timestamp;
use posthorn_core::id::{AuditEntryId, TenantId};
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::page::{self, Page, Span};
use crate::{GenericClient, Result};

/// One change.
#[derive(Clone, Debug)]
pub struct Entry {
    pub id: AuditEntryId,
    /// `operator`, the id of a tenant's key, or `posthorn`.
    pub actor: String,
    /// What was done, such as `update` or `rotate_secret`.
    pub action: String,
    /// The kind of thing, such as `subscription`.
    pub resource: String,
    pub resource_id: String,
    pub tenant_id: Option<TenantId>,
    /// Without secrets; `None` where there was, or is, nothing.
    pub before: Option<Value>,
    pub after: Option<Value>,
    /// `None` for what Posthorn does by itself.
    pub request_id: Option<String>,
}

impl Entry {
    pub fn at(&self) -> Timestamp {
        self.id.time()
    }
}

const COLUMNS: &str = "id, actor, action, resource, resource_id, tenant_id, before, after, request_id";

pub async fn insert(db: &impl GenericClient, entry: &Entry) -> Result<()> {
    let sql = format!("INSERT INTO audit_log ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)");
    let statement = db.prepare_cached(&sql).await?;
    db.execute(
        &statement,
        &[
            entry.id.as_uuid(),
            &entry.actor,
            &entry.action,
            &entry.resource,
            &entry.resource_id,
            &entry.tenant_id.map(|id| *id.as_uuid()),
            &entry.before,
            &entry.after,
            &entry.request_id,
        ],
    )
    .await?;
    Ok(())
}

/// What a list of changes is narrowed to.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub tenant_id: Option<TenantId>,
    pub resource_id: Option<String>,
    pub span: Span,
}

pub async fn list(db: &impl GenericClient, filter: &Filter, page: Page) -> Result<Vec<Entry>> {
    let tenant = filter.tenant_id.map_or("$1::uuid IS NULL", |_| "tenant_id = $1");
    let resource = filter.resource_id.as_ref().map_or("$2::text IS NULL", |_| "resource_id = $2");
    let sql = format!(
        "SELECT {COLUMNS} FROM audit_log WHERE {tenant} AND {resource} AND id < $3 AND id >= $4 AND id < $5
         ORDER BY id DESC LIMIT $6"
    );
    let statement = page::prepare(db, &sql).await?;
    let tenant = filter.tenant_id.map(|id| *id.as_uuid());
    let rows = db
        .query(
            &statement,
            &[&tenant, &filter.resource_id, &page.before(), &filter.span.from, &filter.span.to, &page.fetch()],
        )
        .await?;
    Ok(rows.iter().map(read).collect())
}

/// Takes out what the entries of an erased tenant say, up to `limit` of them; that something was done
/// stays. Returns how many.
pub async fn blank(db: &impl GenericClient, tenant: Uuid, limit: i64) -> Result<u64> {
    let sql = "UPDATE audit_log SET before = NULL, after = NULL WHERE id IN (
                   SELECT id FROM audit_log WHERE tenant_id = $1 AND action <> 'erase' AND (before IS NOT NULL OR after IS NOT NULL) LIMIT $2)";
    Ok(db.execute(sql, &[&tenant, &limit]).await?)
}

fn read(row: &Row) -> Entry {
    Entry {
        id: AuditEntryId::from_uuid(row.get("id")),
        actor: row.get("actor"),
        action: row.get("action"),
        resource: row.get("resource"),
        resource_id: row.get("resource_id"),
        tenant_id: row.get::<_, Option<Uuid>>("tenant_id").map(TenantId::from_uuid),
        before: row.get("before"),
        after: row.get("after"),
        request_id: row.get("request_id"),
    }
}
