//! First answers to creating requests, given again to whoever repeats one (`Idempotency-Key`).

use jiff::Timestamp;
use uuid::Uuid;

use crate::error::readable;
use crate::{GenericClient, Result, Transaction};

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nobody used it: it is the caller's, if the transaction commits.
    Fresh,
    /// Another request used it.
    Different,
    Answered {
        status: u16,
        response: Vec<u8>,
    },
}

/// Takes a key for a request, or tells what became of it. A request with the same key that is under
/// way in another transaction is waited for.
pub async fn begin(db: &Transaction<'_>, actor: Uuid, key: &str, request_hash: &[u8], now: Timestamp) -> Result<Known> {
    let statement = db
        .prepare_cached(
            "INSERT INTO idempotency_keys (actor, key, request_hash, created_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (actor, key) DO UPDATE SET request_hash = $3, created_at = $4, status = NULL, response = NULL
             WHERE idempotency_keys.created_at < $4::timestamptz - interval '24 hours'",
        )
        .await?;
    if db.execute(&statement, &[&actor, &key, &request_hash, &now]).await? > 0 {
        return Ok(Known::Fresh);
    }
    let statement = db
        .prepare_cached("SELECT request_hash, status, response FROM idempotency_keys WHERE actor = $1 AND key = $2")
        .await?;
    let row = db.query_one(&statement, &[&actor, &key]).await?;
    if row.get::<_, &[u8]>("request_hash") != request_hash {
        return Ok(Known::Different);
    }
    // Committed rows have an answer: it is written in the transaction that takes the key.
    let status = readable("idempotency_keys.status", row.get::<_, Option<i32>>("status"))?;
    let status = readable("idempotency_keys.status", u16::try_from(status).ok())?;
    Ok(Known::Answered { status, response: row.get("response") })
}

/// Keeps the answer, sealed by the caller: it may show a secret.
pub async fn finish(db: &Transaction<'_>, actor: Uuid, key: &str, status: u16, response: &[u8]) -> Result<()> {
    let statement = db
        .prepare_cached("UPDATE idempotency_keys SET status = $3, response = $4 WHERE actor = $1 AND key = $2")
        .await?;
    db.execute(&statement, &[&actor, &key, &i32::from(status), &response]).await?;
    Ok(())
}

/// Forgets what is older than a day.
pub async fn drop_old(db: &impl GenericClient, now: Timestamp) -> Result<u64> {
    Ok(db
        .execute("DELETE FROM idempotency_keys WHERE created_at < $1::timestamptz - interval '24 hours'", &[&now])
        .await?)
}
