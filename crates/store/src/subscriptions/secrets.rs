//! What signs for subscriptions: sealed, several at once, some until a time.

use jiff::Timestamp;
use posthorn_core::id::{SecretId, SubscriptionId};
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use crate::seal::Sealer;
use crate::{GenericClient, Result};

pub async fn add_secret(
    db: &impl GenericClient,
    sealer: &Sealer,
    id: SecretId,
    subscription: SubscriptionId,
    secret: &SecretString,
    now: Timestamp,
) -> Result<()> {
    let statement = db
        .prepare_cached(
            "INSERT INTO subscription_secrets (id, subscription_id, sealed, created_at) VALUES ($1, $2, $3, $4)",
        )
        .await?;
    let sealed = sealer.seal(id.as_uuid(), secret.expose_secret().as_bytes());
    db.execute(&statement, &[id.as_uuid(), subscription.as_uuid(), &sealed, &now]).await?;
    Ok(())
}

/// Lets the secrets that a subscription has sign until `until`; `None` ends them at once. One that was to
/// end sooner still does.
pub async fn retire_secrets(
    db: &impl GenericClient,
    subscription: SubscriptionId,
    until: Option<Timestamp>,
) -> Result<()> {
    let sql = match until {
        Some(_) => {
            "UPDATE subscription_secrets SET expires_at = least(expires_at, $2::timestamptz) WHERE subscription_id = $1"
        }
        None => "DELETE FROM subscription_secrets WHERE subscription_id = $1 AND $2::timestamptz IS NULL",
    };
    let statement = db.prepare_cached(sql).await?;
    db.execute(&statement, &[subscription.as_uuid(), &until]).await?;
    Ok(())
}

/// Forgets secrets whose time is over.
pub async fn drop_expired_secrets(db: &impl GenericClient) -> Result<u64> {
    Ok(db.execute("DELETE FROM subscription_secrets WHERE expires_at < now()", &[]).await?)
}

/// The secrets that sign for one subscription, or for all: newest first, as far as they can be opened.
pub async fn secrets(
    db: &impl GenericClient,
    sealer: &Sealer,
    id: Option<SubscriptionId>,
) -> Result<Vec<(SubscriptionId, SecretString, Option<Timestamp>)>> {
    let statement = db
        .prepare_cached(
            "SELECT subscription_id, id, sealed, expires_at FROM subscription_secrets
             WHERE ($1::uuid IS NULL OR subscription_id = $1) AND (expires_at IS NULL OR expires_at > now())
             ORDER BY subscription_id, created_at DESC, id DESC",
        )
        .await?;
    let rows = db.query(&statement, &[&id.map(|id| *id.as_uuid())]).await?;
    Ok(rows
        .iter()
        .filter_map(|row| {
            let id: Uuid = row.get("id");
            let secret = sealer.open_logged(&id, row.get("sealed"))?;
            Some((SubscriptionId::from_uuid(row.get("subscription_id")), secret, row.get("expires_at")))
        })
        .collect())
}
