//! Tenants' keys. Only their SHA-256 is kept: a key is 256 random bits, so nothing slower is needed.

use jiff::Timestamp;
use posthorn_core::id::{ApiKeyId, TenantId};
use tokio_postgres::Row;

use crate::page::Page;
use crate::{GenericClient, Result};

#[derive(Clone, Debug)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub tenant_id: TenantId,
    pub name: String,
    pub scopes: Vec<String>,
    pub prefix: String,
    pub expires_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
    pub created_at: Timestamp,
}

const COLUMNS: &str = "id, tenant_id, name, scopes, prefix, expires_at, last_used_at, created_at";

pub async fn insert(db: &impl GenericClient, key: &ApiKey, hash: &[u8]) -> Result<()> {
    let statement = db
        .prepare_cached(
            "INSERT INTO api_keys (id, tenant_id, name, scopes, prefix, hash, expires_at, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .await?;
    db.execute(
        &statement,
        &[
            key.id.as_uuid(),
            key.tenant_id.as_uuid(),
            &key.name,
            &key.scopes,
            &key.prefix,
            &hash,
            &key.expires_at,
            &key.created_at,
        ],
    )
    .await?;
    Ok(())
}

/// The key with this hash, unless it has expired or its tenant is gone.
pub async fn find_by_hash(db: &impl GenericClient, hash: &[u8], now: Timestamp) -> Result<Option<ApiKey>> {
    let sql = format!("SELECT {COLUMNS} FROM api_keys WHERE hash = $1 AND (expires_at IS NULL OR expires_at > $2)");
    let statement = db.prepare_cached(&sql).await?;
    Ok(db.query_opt(&statement, &[&hash, &now]).await?.as_ref().map(api_key))
}

/// Notes that a key was used, at most once a minute: it is read more often than it matters.
pub async fn touch(db: &impl GenericClient, id: ApiKeyId, now: Timestamp) -> Result<()> {
    let statement = db
        .prepare_cached(
            "UPDATE api_keys SET last_used_at = $2
             WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2::timestamptz - interval '1 minute')",
        )
        .await?;
    db.execute(&statement, &[id.as_uuid(), &now]).await?;
    Ok(())
}

pub async fn list(db: &impl GenericClient, tenant: TenantId, page: Page) -> Result<Vec<ApiKey>> {
    let sql = format!("SELECT {COLUMNS} FROM api_keys WHERE tenant_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3");
    let statement = db.prepare_cached(&sql).await?;
    let rows = db.query(&statement, &[tenant.as_uuid(), &page.before(), &page.fetch()]).await?;
    Ok(rows.iter().map(api_key).collect())
}

/// False if the tenant has no such key.
pub async fn delete(db: &impl GenericClient, tenant: TenantId, id: ApiKeyId) -> Result<bool> {
    let statement = db.prepare_cached("DELETE FROM api_keys WHERE tenant_id = $1 AND id = $2").await?;
    Ok(db.execute(&statement, &[tenant.as_uuid(), id.as_uuid()]).await? > 0)
}

fn api_key(row: &Row) -> ApiKey {
    ApiKey {
        id: ApiKeyId::from_uuid(row.get("id")),
        tenant_id: TenantId::from_uuid(row.get("tenant_id")),
        name: row.get("name"),
        scopes: row.get("scopes"),
        prefix: row.get("prefix"),
        expires_at: row.get("expires_at"),
        last_used_at: row.get("last_used_at"),
        created_at: row.get("created_at"),
    }
}
