//! Tenants.

use jiff::Timestamp;
use posthorn_core::id::{AuditEntryId, TenantId};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::page::Page;
use crate::{GenericClient, Result, Transaction};

#[derive(Clone, Debug)]
pub struct Tenant {
    pub id: TenantId,
    pub name: String,
    pub external_id: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The constraint that keeps `external_id` unique.
pub const EXTERNAL_ID_UNIQUE: &str = "tenants_external_id_key";

const COLUMNS: &str = "id, name, external_id, created_at, updated_at";

pub async fn insert(db: &impl GenericClient, tenant: &Tenant) -> Result<()> {
    let statement = db
        .prepare_cached(
            "INSERT INTO tenants (id, name, external_id, created_at, updated_at) VALUES ($1, $2, $3, $4, $5)",
        )
        .await?;
    let Tenant { id, name, external_id, created_at, updated_at } = tenant;
    db.execute(&statement, &[id.as_uuid(), name, external_id, created_at, updated_at]).await?;
    Ok(())
}

pub async fn find(db: &impl GenericClient, id: TenantId) -> Result<Option<Tenant>> {
    let sql = format!("SELECT {COLUMNS} FROM tenants WHERE id = $1 AND deleted_at IS NULL");
    let statement = db.prepare_cached(&sql).await?;
    Ok(db.query_opt(&statement, &[id.as_uuid()]).await?.as_ref().map(tenant))
}

/// Like [`find`], and nobody else changes it until the transaction ends.
pub async fn lock(db: &Transaction<'_>, id: TenantId) -> Result<Option<Tenant>> {
    let sql = format!("SELECT {COLUMNS} FROM tenants WHERE id = $1 AND deleted_at IS NULL FOR UPDATE");
    let statement = db.prepare_cached(&sql).await?;
    Ok(db.query_opt(&statement, &[id.as_uuid()]).await?.as_ref().map(tenant))
}

pub async fn list(db: &impl GenericClient, external_id: Option<&str>, page: Page) -> Result<Vec<Tenant>> {
    let named = external_id.map_or("$2::text IS NULL", |_| "external_id = $2");
    let sql = format!(
        "SELECT {COLUMNS} FROM tenants WHERE deleted_at IS NULL AND id < $1 AND {named} ORDER BY id DESC LIMIT $3"
    );
    let statement = db.prepare_cached(&sql).await?;
    let rows = db.query(&statement, &[&page.before(), &external_id, &page.fetch()]).await?;
    Ok(rows.iter().map(tenant).collect())
}

pub async fn update(db: &impl GenericClient, tenant: &Tenant) -> Result<()> {
    let statement = db
        .prepare_cached(
            "UPDATE tenants SET name = $2, external_id = $3, updated_at = $4 WHERE id = $1 AND deleted_at IS NULL",
        )
        .await?;
    let Tenant { id, name, external_id, updated_at, .. } = tenant;
    db.execute(&statement, &[id.as_uuid(), name, external_id, updated_at]).await?;
    Ok(())
}

/// A condition on a column with a tenant's id, for the operator's view of everything: it is not that of a deleted tenant,
/// whose history is there until it is erased. These tenants are few, so the subquery is a small hash table.
pub(crate) fn not_deleted(column: &str) -> String {
    format!("({column} IN (SELECT t.id FROM tenants t WHERE t.deleted_at IS NOT NULL)) IS NOT TRUE")
}

/// Makes a tenant vanish, with its configuration. What it leaves in history is erased by
/// [`erase_some`]. False if there is no such tenant.
pub async fn delete(db: &Transaction<'_>, id: TenantId, now: Timestamp) -> Result<bool> {
    let statement = db
        .prepare_cached(
            "UPDATE tenants SET deleted_at = $2, external_id = NULL, name = '' WHERE id = $1 AND deleted_at IS NULL",
        )
        .await?;
    if db.execute(&statement, &[id.as_uuid(), &now]).await? == 0 {
        return Ok(false);
    }
    let refusals = "DELETE FROM refusal_stats WHERE source_id IN (SELECT id FROM sources WHERE tenant_id = $1)";
    db.execute(refusals, &[id.as_uuid()]).await?;
    // What is counted for all of a source is the tenant's where the source is, and can be told no longer when that is gone.
    let own =
        "DELETE FROM event_stats WHERE tenant_id = $2 AND source_id IN (SELECT id FROM sources WHERE tenant_id = $1)";
    db.execute(own, &[id.as_uuid(), &crate::EVERY]).await?;
    for table in ["subscriptions", "sources", "api_keys"] {
        db.execute(&format!("DELETE FROM {table} WHERE tenant_id = $1"), &[id.as_uuid()]).await?;
    }
    Ok(true)
}

/// Tenants that were deleted before `before` and are not erased yet, at most 1000, the oldest first.
pub async fn deleted(db: &impl GenericClient, before: Timestamp) -> Result<Vec<TenantId>> {
    let sql = "SELECT id FROM tenants WHERE deleted_at < $1 ORDER BY deleted_at LIMIT 1000";
    Ok(db.query(sql, &[&before]).await?.iter().map(|row| TenantId::from_uuid(row.get(0))).collect())
}

/// Erases up to `limit` rows of each history table of a deleted tenant, and the tenant itself when nothing is left,
/// which the audit log then tells. Returns how many rows went: 0 when nothing was left, or another janitor has locked
/// it all. May run in several places at once.
pub async fn erase_some(db: &impl GenericClient, tenant: TenantId, limit: i64, now: Timestamp) -> Result<u64> {
    let id: Uuid = *tenant.as_uuid();
    let mut erased = 0;
    for table in ["dead_letters", "rejected_requests", "deliveries", "events"] {
        // Attempts go with their deliveries: they have no index by tenant.
        let attempts = if table == "deliveries" {
            ", a AS (DELETE FROM attempts a USING d WHERE a.delivery_id = d.id AND a.id >= d.ms AND a.id < d.next_ms
                     RETURNING a.id)"
        } else {
            ", a AS (SELECT FROM d WHERE false)"
        };
        let keys = if table == "events" {
            ", k AS (DELETE FROM event_dedup k USING d WHERE k.event_id = d.id AND k.dedup_key = d.dedup_key),
               o AS (DELETE FROM outbox o USING d WHERE o.event_id = d.id)"
        } else {
            ""
        };
        let returning = match table {
            "events" => "id, dedup_key",
            "deliveries" => {
                "id, (substr(id::text, 1, 13) || '-0000-0000-000000000000')::uuid AS ms,
                 (substr(id::text, 1, 13) || '-ffff-ffff-ffffffffffff')::uuid AS next_ms"
            }
            _ => "id",
        };
        let sql = format!(
            "WITH d AS (DELETE FROM {table} WHERE tenant_id = $1 AND id IN (
                 SELECT id FROM {table} WHERE tenant_id = $1 LIMIT $2) RETURNING {returning}){attempts}{keys},
             n AS (SELECT (SELECT count(*) FROM d) + (SELECT count(*) FROM a) AS erased),
             t AS (UPDATE tenants SET erased_rows = erased_rows + n.erased FROM n WHERE id = $1 AND n.erased > 0)
             SELECT erased FROM n"
        );
        let row = db.query_one(&sql, &[&id, &limit]).await?;
        erased += u64::try_from(row.get::<_, i64>(0)).unwrap_or_default();
    }
    erased += crate::delivery_stats::erase(db, id).await?;
    erased += crate::audit_log::blank(db, id, limit).await?;
    erased += db.execute("DELETE FROM event_stats WHERE tenant_id = $1", &[&id]).await?;
    erased += db.execute("DELETE FROM idempotency_keys WHERE actor = $1", &[&id]).await?;
    erased += db.execute("DELETE FROM replays WHERE tenant_id = $1", &[&id]).await?;
    if erased == 0 {
        // Another janitor may be at the same rows, and this one have found none that were free.
        let sql = "WITH t AS (
                       DELETE FROM tenants WHERE id = $1 AND deleted_at IS NOT NULL
                         AND NOT EXISTS (SELECT FROM events WHERE tenant_id = $1)
                         AND NOT EXISTS (SELECT FROM deliveries WHERE tenant_id = $1)
                         AND NOT EXISTS (SELECT FROM dead_letters WHERE tenant_id = $1)
                         AND NOT EXISTS (SELECT FROM rejected_requests WHERE tenant_id = $1)
                       RETURNING erased_rows)
                   INSERT INTO audit_log (id, actor, action, resource, resource_id, tenant_id, after)
                   SELECT $2, 'posthorn', 'erase', 'tenant', $3, $1, jsonb_build_object('rows', erased_rows) FROM t";
        let entry = AuditEntryId::new(now, rand::random());
        db.execute(sql, &[&id, entry.as_uuid(), &TenantId::from_uuid(id).to_string()]).await?;
    }
    Ok(erased)
}

fn tenant(row: &Row) -> Tenant {
    Tenant {
        id: TenantId::from_uuid(row.get("id")),
        name: row.get("name"),
        external_id: row.get("external_id"),
        created_at: row.get("created_at"),
        updated_at: row.get("updated_at"),
    }
}
