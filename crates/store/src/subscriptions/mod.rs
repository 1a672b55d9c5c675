//! Subscriptions, their secrets, and what they count.

mod headers;
mod secrets;

use jiff::Timestamp;
use posthorn_core::breaker::Breaker;
use posthorn_core::failing::Failing;
use posthorn_core::hold::Hold;
use posthorn_core::id::{SubscriptionId, TenantId};
use posthorn_core::retry::RetryPolicy;
use posthorn_core::subscription::{PayloadFormat, RateLimit, SignatureScheme, State};
use serde_json::Value;
use tokio_postgres::Row;

use crate::error::readable;
use crate::page::Page;
use crate::sources::json;
use crate::{GenericClient, Result, Transaction, health};

pub use headers::{Headers, Shown, seal_clear as seal_clear_headers};
pub use secrets::{add_secret, drop_expired_secrets, retire_secrets, secrets};

#[derive(Clone, Debug)]
pub struct Subscription {
    pub id: SubscriptionId,
    pub tenant_id: TenantId,
    pub name: Option<String>,
    pub description: Option<String>,
    pub url: String,
    pub event_types: Vec<String>,
    pub sources: Vec<String>,
    pub state: State,
    pub disabled_reason: Option<String>,
    pub retry_policy: RetryPolicy,
    pub timeout_seconds: i32,
    pub rate_limit: Option<RateLimit>,
    pub max_in_flight: i32,
    pub ordered: bool,
    pub ordered_max_block_seconds: i32,
    pub headers: Headers,
    pub tls: Tls,
    pub payload_format: PayloadFormat,
    pub signatures: Vec<SignatureScheme>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// TLS of its own, in PEM; nothing where it has none.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    pub ca_bundle: Option<String>,
    pub client_identity: Option<SealedIdentity>,
}

#[derive(Clone, Debug)]
pub struct SealedIdentity {
    pub certificate: String,
    /// Sealed for the subscription's id.
    pub key: Vec<u8>,
}

impl Tls {
    fn certificate(&self) -> Option<&str> {
        self.client_identity.as_ref().map(|identity| identity.certificate.as_str())
    }

    fn key(&self) -> Option<&[u8]> {
        self.client_identity.as_ref().map(|identity| identity.key.as_slice())
    }
}

/// What a subscription has seen.
#[derive(Clone, Copy, Debug)]
pub struct Runtime {
    pub delivered: i64,
    /// Deliveries that died.
    pub failed: i64,
    pub last_triggered_at: Option<Timestamp>,
    pub breaker: Breaker,
    pub failing: Option<Failing>,
    /// From when on something may be missing: since before the platform disabled it.
    pub recover_since: Option<Timestamp>,
}

impl Default for Runtime {
    fn default() -> Self {
        let breaker = Breaker::CLOSED;
        Self { delivered: 0, failed: 0, last_triggered_at: None, breaker, failing: None, recover_since: None }
    }
}

const COLUMNS: &str =
    "s.id, s.tenant_id, s.name, s.description, s.url, s.event_types, s.sources, s.state, s.disabled_reason,
    s.retry_policy, s.timeout_seconds, s.rate_limit, s.max_in_flight, s.ordered, s.ordered_max_block_seconds,
    s.headers, s.sealed_headers, s.tls_ca_bundle, s.tls_client_certificate, s.tls_client_key, s.payload_format,
    s.signatures, s.created_at, s.updated_at";

const RUNTIME: &str =
    "r.delivered, r.failed, r.last_triggered_at, r.breaker, r.breaker_until, r.cooldowns, r.probes_succeeded, r.probes_failed, r.failing_since,
    r.warned_percent, r.warned_at, r.recover_since";

pub async fn insert(db: &impl GenericClient, subscription: &Subscription) -> Result<()> {
    let (headers, sealed_headers) = subscription.headers.columns();
    let statement = db
        .prepare_cached(
            "WITH s AS (
                 INSERT INTO subscriptions (id, tenant_id, name, description, url, event_types, sources, state, retry_policy,
                     timeout_seconds, rate_limit, max_in_flight, ordered, ordered_max_block_seconds, headers, payload_format,
                     signatures, created_at, updated_at, tls_ca_bundle, tls_client_certificate, tls_client_key,
                     sealed_headers)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $18, $19, $20, $21, $22)
             )
             INSERT INTO subscription_runtime (subscription_id, tenant_id) VALUES ($1, $2)",
        )
        .await?;
    db.execute(
        &statement,
        &[
            subscription.id.as_uuid(),
            subscription.tenant_id.as_uuid(),
            &subscription.name,
            &subscription.description,
            &subscription.url,
            &subscription.event_types,
            &subscription.sources,
            &text(&subscription.state),
            &json(&subscription.retry_policy),
            &subscription.timeout_seconds,
            &subscription.rate_limit.map(|limit| json(&limit)),
            &subscription.max_in_flight,
            &subscription.ordered,
            &subscription.ordered_max_block_seconds,
            &headers,
            &text(&subscription.payload_format),
            &json(&subscription.signatures),
            &subscription.created_at,
            &subscription.tls.ca_bundle,
            &subscription.tls.certificate(),
            &subscription.tls.key(),
            &sealed_headers,
        ],
    )
    .await?;
    Ok(())
}

/// Writes every field that can change. Whatever was held is looked at again.
pub async fn update(db: &impl GenericClient, subscription: &Subscription) -> Result<()> {
    let (headers, sealed_headers) = subscription.headers.columns();
    let statement = db
        .prepare_cached(
            "WITH s AS (
                 UPDATE subscriptions SET name = $2, description = $3, url = $4, event_types = $5, sources = $6, state = $7,
                     disabled_reason = $8, retry_policy = $9, timeout_seconds = $10, rate_limit = $11, max_in_flight = $12,
                     ordered = $13, ordered_max_block_seconds = $14, headers = $15, payload_format = $16, signatures = $17,
                     updated_at = $18, tls_ca_bundle = $19, tls_client_certificate = $20, tls_client_key = $21,
                     sealed_headers = $22
                 WHERE id = $1 RETURNING id
             )
             UPDATE subscription_runtime SET next_due_at = $18, head = CASE WHEN $13 THEN head END FROM s WHERE subscription_id = s.id",
        )
        .await?;
    db.execute(
        &statement,
        &[
            subscription.id.as_uuid(),
            &subscription.name,
            &subscription.description,
            &subscription.url,
            &subscription.event_types,
            &subscription.sources,
            &text(&subscription.state),
            &subscription.disabled_reason,
            &json(&subscription.retry_policy),
            &subscription.timeout_seconds,
            &subscription.rate_limit.map(|limit| json(&limit)),
            &subscription.max_in_flight,
            &subscription.ordered,
            &subscription.ordered_max_block_seconds,
            &headers,
            &text(&subscription.payload_format),
            &json(&subscription.signatures),
            &subscription.updated_at,
            &subscription.tls.ca_bundle,
            &subscription.tls.certificate(),
            &subscription.tls.key(),
            &sealed_headers,
        ],
    )
    .await?;
    Ok(())
}

/// One subscription and its counts; `None` as `tenant` is the operator.
pub async fn find(
    db: &impl GenericClient,
    tenant: Option<TenantId>,
    id: SubscriptionId,
) -> Result<Option<(Subscription, Runtime)>> {
    let sql = format!(
        "SELECT {COLUMNS}, {RUNTIME}
         FROM subscriptions s JOIN subscription_runtime r ON r.subscription_id = s.id
         WHERE s.id = $1 AND s.deleted_at IS NULL AND ($2::uuid IS NULL OR s.tenant_id = $2)"
    );
    let statement = db.prepare_cached(&sql).await?;
    let row = db.query_opt(&statement, &[id.as_uuid(), &tenant.map(|t| *t.as_uuid())]).await?;
    row.as_ref().map(with_runtime).transpose()
}

/// Like [`find`], and nobody else changes it until the transaction ends.
pub async fn lock(
    db: &Transaction<'_>,
    tenant: Option<TenantId>,
    id: SubscriptionId,
) -> Result<Option<(Subscription, Runtime)>> {
    let statement = db.prepare_cached("SELECT FROM subscriptions WHERE id = $1 FOR UPDATE").await?;
    db.query_opt(&statement, &[id.as_uuid()]).await?;
    find(db, tenant, id).await
}

pub async fn list(
    db: &impl GenericClient,
    tenant: Option<TenantId>,
    page: Page,
) -> Result<Vec<(Subscription, Runtime)>> {
    let owned = tenant.map_or("$1::uuid IS NULL", |_| "s.tenant_id = $1");
    let sql = format!(
        "SELECT {COLUMNS}, {RUNTIME}
         FROM subscriptions s JOIN subscription_runtime r ON r.subscription_id = s.id
         WHERE s.deleted_at IS NULL AND {owned} AND s.id < $2 ORDER BY s.id DESC LIMIT $3"
    );
    let statement = db.prepare_cached(&sql).await?;
    let rows = db.query(&statement, &[&tenant.map(|t| *t.as_uuid()), &page.before(), &page.fetch()]).await?;
    rows.iter().map(with_runtime).collect()
}

/// A subscription in a snapshot: one that cannot be read keeps no other from being known, and events still match it.
#[derive(Debug)]
pub struct Known {
    pub id: SubscriptionId,
    pub tenant_id: TenantId,
    pub event_types: Vec<String>,
    pub sources: Vec<String>,
    pub is_disabled: bool,
    pub whole: Result<(Subscription, Breaker, Option<Hold>)>,
}

/// For a snapshot: one, or all, with what may hold them back. Disabled ones are among them, deleted ones are not.
pub async fn snapshot(db: &impl GenericClient, id: Option<SubscriptionId>) -> Result<Vec<Known>> {
    let sql = format!(
        "SELECT {COLUMNS}, r.breaker, r.breaker_until, r.cooldowns, r.probes_succeeded, r.probes_failed, r.hold_until,
                r.hold_per_second
         FROM subscriptions s JOIN subscription_runtime r ON r.subscription_id = s.id
         WHERE s.deleted_at IS NULL AND ($1::uuid IS NULL OR s.id = $1)"
    );
    let statement = db.prepare_cached(&sql).await?;
    let rows = db.query(&statement, &[&id.map(|id| *id.as_uuid())]).await?;
    let whole = |row: &Row| Ok((subscription(row)?, health::breaker(row)?, health::hold(row)));
    let known = |row: &Row| Known {
        id: SubscriptionId::from_uuid(row.get("id")),
        tenant_id: TenantId::from_uuid(row.get("tenant_id")),
        event_types: row.get("event_types"),
        sources: row.get("sources"),
        is_disabled: row.get::<_, &str>("state") == "disabled",
        whole: whole(row),
    };
    Ok(rows.iter().map(known).collect())
}

/// False if the caller has no such subscription. What still waits for it is left to the scheduler.
pub async fn delete(
    db: &impl GenericClient,
    tenant: Option<TenantId>,
    id: SubscriptionId,
    now: Timestamp,
) -> Result<bool> {
    let statement = db
        .prepare_cached(
            "WITH s AS (
                 UPDATE subscriptions SET deleted_at = $3, updated_at = $3, tls_client_certificate = NULL, tls_client_key = NULL,
                     headers = '{}', sealed_headers = NULL
                 WHERE id = $1 AND deleted_at IS NULL AND ($2::uuid IS NULL OR tenant_id = $2) RETURNING id
             ), k AS (
                 DELETE FROM subscription_secrets USING s WHERE subscription_id = s.id
             )
             UPDATE subscription_runtime SET next_due_at = $3 FROM s WHERE subscription_id = s.id",
        )
        .await?;
    Ok(db.execute(&statement, &[id.as_uuid(), &tenant.map(|t| *t.as_uuid()), &now]).await? > 0)
}

/// Notes that something about a subscription changed.
pub async fn touch(db: &impl GenericClient, id: SubscriptionId, now: Timestamp) -> Result<()> {
    let statement = db.prepare_cached("UPDATE subscriptions SET updated_at = $2 WHERE id = $1").await?;
    db.execute(&statement, &[id.as_uuid(), &now]).await?;
    Ok(())
}

fn with_runtime(row: &Row) -> Result<(Subscription, Runtime)> {
    let runtime = Runtime {
        delivered: row.get("delivered"),
        failed: row.get("failed"),
        last_triggered_at: row.get("last_triggered_at"),
        breaker: health::breaker(row)?,
        failing: health::failing(row),
        recover_since: row.get("recover_since"),
    };
    Ok((subscription(row)?, runtime))
}

fn subscription(row: &Row) -> Result<Subscription> {
    let read = |column| row.get::<_, Value>(column);
    Ok(Subscription {
        id: SubscriptionId::from_uuid(row.get("id")),
        tenant_id: TenantId::from_uuid(row.get("tenant_id")),
        name: row.get("name"),
        description: row.get("description"),
        url: row.get("url"),
        event_types: row.get("event_types"),
        sources: row.get("sources"),
        state: readable("subscriptions.state", state(row.get("state")))?,
        disabled_reason: row.get("disabled_reason"),
        retry_policy: readable("subscriptions.retry_policy", serde_json::from_value(read("retry_policy")).ok())?,
        timeout_seconds: row.get("timeout_seconds"),
        rate_limit: rate_limit(row)?,
        max_in_flight: row.get("max_in_flight"),
        ordered: row.get("ordered"),
        ordered_max_block_seconds: row.get("ordered_max_block_seconds"),
        headers: Headers::read(row)?,
        tls: tls(row),
        payload_format: readable(
            "subscriptions.payload_format",
            serde_json::from_value(Value::String(row.get("payload_format"))).ok(),
        )?,
        signatures: readable("subscriptions.signatures", serde_json::from_value(read("signatures")).ok())?,
        created_at: row.get("created_at"),
        updated_at: row.get("updated_at"),
    })
}

fn tls(row: &Row) -> Tls {
    let (certificate, key): (Option<String>, Option<Vec<u8>>) =
        (row.get("tls_client_certificate"), row.get("tls_client_key"));
    Tls {
        ca_bundle: row.get("tls_ca_bundle"),
        client_identity: certificate.zip(key).map(|(certificate, key)| SealedIdentity { certificate, key }),
    }
}

/// Reads the column `rate_limit`.
pub(crate) fn rate_limit(row: &Row) -> Result<Option<RateLimit>> {
    let limit: Option<Value> = row.get("rate_limit");
    limit.map(|limit| readable("subscriptions.rate_limit", serde_json::from_value(limit).ok())).transpose()
}

/// Reads a state's name.
pub(crate) fn state(text: &str) -> Option<State> {
    serde_json::from_value(Value::String(text.to_owned())).ok()
}

/// The name of a value that serialises as a string.
fn text(value: &impl serde::Serialize) -> String {
    match json(value) {
        Value::String(text) => text,
        other => other.to_string(),
    }
}
