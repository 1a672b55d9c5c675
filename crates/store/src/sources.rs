//! Sources and their secrets.

use jiff::Timestamp;
use posthorn_core::id::{SecretId, SourceId, TenantId};
use posthorn_core::provider::Provider;
use posthorn_core::routing::Routing;
use posthorn_core::schema::Validation;
use ring::digest::{SHA256, digest};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::error::readable;
use crate::page::Page;
use crate::seal::Sealer;
use crate::{GenericClient, Result, Transaction};

#[derive(Clone, Debug)]
pub struct Source {
    pub id: SourceId,
    /// `None`: the operator's.
    pub tenant_id: Option<TenantId>,
    /// Exactly one of `slug` and `token` stands in the URL.
    pub slug: Option<String>,
    pub token: Option<String>,
    pub provider: Provider,
    pub routing: Routing,
    /// Without secrets.
    pub config: Value,
    pub rate_limit: Option<Value>,
    pub allowed_ips: Vec<String>,
    pub max_body_bytes: Option<i32>,
    pub response: Option<Value>,
    pub validate: Validation,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Source {
    /// What stands in the URL.
    pub fn address(&self) -> &str {
        self.slug.as_deref().or(self.token.as_deref()).unwrap_or_default()
    }
}

/// A secret as the API shows it: not at all.
#[derive(Clone, Debug)]
pub struct SecretInfo {
    pub id: SecretId,
    pub fingerprint: String,
    /// How many requests it has verified, and when it did last.
    pub matched: i64,
    pub last_matched_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}

/// A secret for whoever verifies with it.
#[derive(Clone, Debug)]
pub struct Secret {
    pub id: SecretId,
    pub secret: SecretString,
    pub expires_at: Option<Timestamp>,
}

/// The constraint that keeps slugs unique.
pub const SLUG_UNIQUE: &str = "sources_slug_key";

const COLUMNS: &str = "id, tenant_id, slug, token, provider, routing, config, rate_limit, allowed_ips, max_body_bytes,
                       response, validate, created_at, updated_at";

pub async fn insert(db: &impl GenericClient, source: &Source) -> Result<()> {
    let sql =
        format!("INSERT INTO sources ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)");
    let statement = db.prepare_cached(&sql).await?;
    db.execute(
        &statement,
        &[
            source.id.as_uuid(),
            &source.tenant_id.map(|t| *t.as_uuid()),
            &source.slug,
            &source.token,
            &source.provider.as_str(),
            &json(&source.routing),
            &source.config,
            &source.rate_limit,
            &source.allowed_ips,
            &source.max_body_bytes,
            &source.response,
            &source.validate.as_str(),
            &source.created_at,
            &source.updated_at,
        ],
    )
    .await?;
    Ok(())
}

pub async fn update(db: &impl GenericClient, source: &Source) -> Result<()> {
    let statement = db
        .prepare_cached(
            "UPDATE sources SET slug = $2, routing = $3, config = $4, rate_limit = $5, allowed_ips = $6,
                    max_body_bytes = $7, response = $8, validate = $9, updated_at = $10
             WHERE id = $1",
        )
        .await?;
    db.execute(
        &statement,
        &[
            source.id.as_uuid(),
            &source.slug,
            &json(&source.routing),
            &source.config,
            &source.rate_limit,
            &source.allowed_ips,
            &source.max_body_bytes,
            &source.response,
            &source.validate.as_str(),
            &source.updated_at,
        ],
    )
    .await?;
    Ok(())
}

/// One source; `None` as `tenant` is the operator.
pub async fn find(db: &impl GenericClient, tenant: Option<TenantId>, id: SourceId) -> Result<Option<Source>> {
    find_with(db, tenant, id, "").await
}

/// Like [`find`]. Other transactions that lock or change it wait until this one ends; those that count for it do not.
pub async fn lock(db: &Transaction<'_>, tenant: Option<TenantId>, id: SourceId) -> Result<Option<Source>> {
    find_with(db, tenant, id, "FOR NO KEY UPDATE").await
}

async fn find_with(
    db: &impl GenericClient,
    tenant: Option<TenantId>,
    id: SourceId,
    lock: &str,
) -> Result<Option<Source>> {
    let sql = format!("SELECT {COLUMNS} FROM sources WHERE id = $1 AND ($2::uuid IS NULL OR tenant_id = $2) {lock}");
    let statement = db.prepare_cached(&sql).await?;
    let row = db.query_opt(&statement, &[id.as_uuid(), &tenant.map(|t| *t.as_uuid())]).await?;
    row.as_ref().map(source).transpose()
}

pub async fn list(db: &impl GenericClient, tenant: Option<TenantId>, page: Page) -> Result<Vec<Source>> {
    let owned = tenant.map_or("$1::uuid IS NULL", |_| "tenant_id = $1");
    let sql = format!("SELECT {COLUMNS} FROM sources WHERE {owned} AND id < $2 ORDER BY id DESC LIMIT $3");
    let statement = db.prepare_cached(&sql).await?;
    let rows = db.query(&statement, &[&tenant.map(|t| *t.as_uuid()), &page.before(), &page.fetch()]).await?;
    rows.iter().map(source).collect()
}

/// A source in a snapshot, which has to stand for itself: one that cannot be read keeps no other from being known.
#[derive(Debug)]
pub struct Known {
    pub id: SourceId,
    /// What stands in the URL.
    pub address: String,
    pub source: Result<Source>,
}

/// For a snapshot: one, or all.
pub async fn snapshot(db: &impl GenericClient, id: Option<SourceId>) -> Result<Vec<Known>> {
    let sql = format!(
        "SELECT {COLUMNS}, coalesce(slug, token, '') AS address FROM sources WHERE ($1::uuid IS NULL OR id = $1)"
    );
    let statement = db.prepare_cached(&sql).await?;
    let rows = db.query(&statement, &[&id.map(|id| *id.as_uuid())]).await?;
    let known =
        |row: &Row| Known { id: SourceId::from_uuid(row.get("id")), address: row.get("address"), source: source(row) };
    Ok(rows.iter().map(known).collect())
}

/// False if the caller has no such source.
pub async fn delete(db: &impl GenericClient, tenant: Option<TenantId>, id: SourceId) -> Result<bool> {
    let statement =
        db.prepare_cached("DELETE FROM sources WHERE id = $1 AND ($2::uuid IS NULL OR tenant_id = $2)").await?;
    Ok(db.execute(&statement, &[id.as_uuid(), &tenant.map(|t| *t.as_uuid())]).await? > 0)
}

/// Puts `secrets` in the place of whatever the source had. One that it had already stays as it is,
/// for good; `ids` name the rows of the others.
pub async fn set_secrets(
    db: &impl GenericClient,
    sealer: &Sealer,
    source: SourceId,
    secrets: &[(SecretId, SecretString)],
    now: Timestamp,
) -> Result<()> {
    let fingerprints: Vec<String> = secrets.iter().map(|(_, secret)| fingerprint(secret)).collect();
    let statement =
        db.prepare_cached("DELETE FROM source_secrets WHERE source_id = $1 AND NOT fingerprint = ANY ($2)").await?;
    db.execute(&statement, &[source.as_uuid(), &fingerprints]).await?;
    let keep = db
        .prepare_cached(
            "UPDATE source_secrets SET position = $3, expires_at = NULL WHERE source_id = $1 AND fingerprint = $2",
        )
        .await?;
    for ((position, (id, secret)), fingerprint) in (0i32..).zip(secrets).zip(&fingerprints) {
        if db.execute(&keep, &[source.as_uuid(), fingerprint, &position]).await? == 0 {
            insert_secret(db, sealer, source, *id, secret, position, now).await?;
        }
    }
    Ok(())
}

/// Puts a new secret before those that the source has. They stay good until `old_until`; `None` ends
/// them at once.
pub async fn rotate(
    db: &impl GenericClient,
    sealer: &Sealer,
    source: SourceId,
    (id, secret): (SecretId, &SecretString),
    old_until: Option<Timestamp>,
    now: Timestamp,
) -> Result<()> {
    let old = match old_until {
        // One that was to end sooner still does.
        Some(_) => {
            "UPDATE source_secrets SET position = position + 1, expires_at = least(expires_at, $2::timestamptz)
             WHERE source_id = $1"
        }
        None => "DELETE FROM source_secrets WHERE source_id = $1 AND $2::timestamptz IS NULL",
    };
    let statement = db.prepare_cached(old).await?;
    db.execute(&statement, &[source.as_uuid(), &old_until]).await?;
    insert_secret(db, sealer, source, id, secret, 0, now).await
}

async fn insert_secret(
    db: &impl GenericClient,
    sealer: &Sealer,
    source: SourceId,
    id: SecretId,
    secret: &SecretString,
    position: i32,
    now: Timestamp,
) -> Result<()> {
    let statement = db
        .prepare_cached(
            "INSERT INTO source_secrets (id, source_id, sealed, fingerprint, position, created_at)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .await?;
    let sealed = sealer.seal(id.as_uuid(), secret.expose_secret().as_bytes());
    db.execute(&statement, &[id.as_uuid(), source.as_uuid(), &sealed, &fingerprint(secret), &position, &now]).await?;
    Ok(())
}

/// Forgets secrets whose time is over.
pub async fn drop_expired_secrets(db: &impl GenericClient) -> Result<u64> {
    Ok(db.execute("DELETE FROM source_secrets WHERE expires_at < now()", &[]).await?)
}

/// What the API shows of the secrets of `sources`.
pub async fn secret_infos(db: &impl GenericClient, sources: &[SourceId]) -> Result<Vec<(SourceId, SecretInfo)>> {
    let ids: Vec<Uuid> = sources.iter().map(|id| *id.as_uuid()).collect();
    let statement = db
        .prepare_cached(
            "SELECT s.source_id, s.id, s.fingerprint, s.created_at, s.expires_at, coalesce(m.matched, 0) AS matched,
                    m.last_matched_at
             FROM source_secrets s LEFT JOIN source_secret_matches m ON m.secret_id = s.id
             WHERE s.source_id = ANY ($1) AND (s.expires_at IS NULL OR s.expires_at > now())
             ORDER BY s.source_id, s.position",
        )
        .await?;
    let rows = db.query(&statement, &[&ids]).await?;
    Ok(rows
        .iter()
        .map(|row| {
            let info = SecretInfo {
                id: SecretId::from_uuid(row.get("id")),
                fingerprint: row.get("fingerprint"),
                matched: row.get("matched"),
                last_matched_at: row.get("last_matched_at"),
                created_at: row.get("created_at"),
                expires_at: row.get("expires_at"),
            };
            (SourceId::from_uuid(row.get("source_id")), info)
        })
        .collect())
}

/// The secrets of `sources`, opened as far as they can be, in the order of each source's configuration.
pub async fn secrets(
    db: &impl GenericClient,
    sealer: &Sealer,
    sources: &[SourceId],
) -> Result<Vec<(SourceId, Secret)>> {
    let ids: Vec<Uuid> = sources.iter().map(|id| *id.as_uuid()).collect();
    let statement = db
        .prepare_cached(
            "SELECT source_id, id, sealed, expires_at FROM source_secrets
             WHERE source_id = ANY ($1) AND (expires_at IS NULL OR expires_at > now()) ORDER BY source_id, position",
        )
        .await?;
    let rows = db.query(&statement, &[&ids]).await?;
    Ok(rows
        .iter()
        .filter_map(|row| {
            let id: Uuid = row.get("id");
            let secret = Secret {
                id: SecretId::from_uuid(id),
                secret: sealer.open_logged(&id, row.get("sealed"))?,
                expires_at: row.get("expires_at"),
            };
            Some((SourceId::from_uuid(row.get("source_id")), secret))
        })
        .collect())
}

/// The first 12 hex digits of a secret's SHA-256: enough to tell two apart, useless to guess from.
pub fn fingerprint(secret: &SecretString) -> String {
    let hash = digest(&SHA256, secret.expose_secret().as_bytes());
    hash.as_ref()[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn source(row: &Row) -> Result<Source> {
    Ok(Source {
        id: SourceId::from_uuid(row.get("id")),
        tenant_id: row.get::<_, Option<Uuid>>("tenant_id").map(TenantId::from_uuid),
        slug: row.get("slug"),
        token: row.get("token"),
        provider: readable("sources.provider", row.get::<_, &str>("provider").parse().ok())?,
        routing: readable("sources.routing", serde_json::from_value(row.get("routing")).ok())?,
        config: row.get("config"),
        rate_limit: row.get("rate_limit"),
        allowed_ips: row.get("allowed_ips"),
        max_body_bytes: row.get("max_body_bytes"),
        response: row.get("response"),
        validate: readable("sources.validate", Validation::parse(row.get("validate")))?,
        created_at: row.get("created_at"),
        updated_at: row.get("updated_at"),
    })
}

/// Our own documents always serialise: no maps with odd keys, no foreign code.
pub(crate) fn json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}
