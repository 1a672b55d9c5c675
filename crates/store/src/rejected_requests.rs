//! Requests that were refused, kept so that somebody can see why, and verify them again.

use jiff::Timestamp;
use posthorn_core::id::{RejectedRequestId, SourceId, TenantId};
use uuid::Uuid;

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

/// Forgets those from before `before`. Returns how many went.
pub async fn drop_old(db: &impl GenericClient, before: Timestamp) -> Result<u64> {
    let bound = posthorn_core::id::floor(before);
    Ok(db.execute("DELETE FROM rejected_requests WHERE id < $1", &[&bound]).await?)
}
