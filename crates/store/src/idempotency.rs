//! First answers to creating requests, given again to whoever repeats one (`Idempotency-Key`).

use jiff::Timestamp;
use uuid::Uuid;

use crate::{GenericClient, Result};

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nobody used it: it is the caller's now.
    Fresh,
    /// The same request is under way, or its process died meanwhile.
    UnderWay,
    /// Another request used it.
    Different,
    Answered {
        status: u16,
        response: Vec<u8>,
    },
}

/// Takes a key for a request, or tells what became of it. A key under way for longer than a minute
/// is taken over: no request runs that long, so whoever had it is gone.
pub async fn begin(
    db: &impl GenericClient,
    actor: Uuid,
    key: &str,
    request_hash: &[u8],
    now: Timestamp,
) -> Result<Known> {
    let statement = db
        .prepare_cached(
            "INSERT INTO idempotency_keys (actor, key, request_hash, created_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (actor, key) DO UPDATE SET request_hash = $3, created_at = $4, status = NULL, response = NULL
             WHERE idempotency_keys.created_at < $4 - interval '24 hours'
                OR (idempotency_keys.status IS NULL AND idempotency_keys.request_hash = $3
                    AND idempotency_keys.created_at < $4 - interval '1 minute')",
        )
        .await?;
    if db.execute(&statement, &[&actor, &key, &request_hash, &now]).await? > 0 {
        return Ok(Known::Fresh);
    }
    let statement = db
        .prepare_cached("SELECT request_hash, status, response FROM idempotency_keys WHERE actor = $1 AND key = $2")
        .await?;
    let Some(row) = db.query_opt(&statement, &[&actor, &key]).await? else { return Ok(Known::UnderWay) };
    if row.get::<_, &[u8]>("request_hash") != request_hash {
        return Ok(Known::Different);
    }
    let status: Option<i32> = row.get("status");
    Ok(match status.and_then(|status| u16::try_from(status).ok()) {
        Some(status) => Known::Answered { status, response: row.get("response") },
        None => Known::UnderWay,
    })
}

/// Keeps the answer. With `sealed` responses, the caller seals: they may show a secret.
pub async fn finish(db: &impl GenericClient, actor: Uuid, key: &str, status: u16, response: &[u8]) -> Result<()> {
    let statement = db
        .prepare_cached("UPDATE idempotency_keys SET status = $3, response = $4 WHERE actor = $1 AND key = $2")
        .await?;
    db.execute(&statement, &[&actor, &key, &i32::from(status), &response]).await?;
    Ok(())
}

/// Gives a key back: the request failed by our fault and may be tried again.
pub async fn abandon(db: &impl GenericClient, actor: Uuid, key: &str) -> Result<()> {
    let statement =
        db.prepare_cached("DELETE FROM idempotency_keys WHERE actor = $1 AND key = $2 AND status IS NULL").await?;
    db.execute(&statement, &[&actor, &key]).await?;
    Ok(())
}

/// Forgets what is older than a day.
pub async fn drop_old(db: &impl GenericClient, now: Timestamp) -> Result<u64> {
    Ok(db.execute("DELETE FROM idempotency_keys WHERE created_at < $1 - interval '24 hours'", &[&now]).await?)
}
