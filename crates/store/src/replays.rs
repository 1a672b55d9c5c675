//! Replay jobs: how far each is.
//!
//! A step of a job is one transaction, which moves deliveries and the job's position together, and holds the
//! job's row for as long as it takes. So a job goes on where it was whoever dies, and nothing is set going
//! twice by it.

use jiff::Timestamp;
use posthorn_core::id::{ReplayId, SubscriptionId, TenantId};
use posthorn_core::pace::Bucket;
use posthorn_core::replay::{State, Work};
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::error::readable;
use crate::page::{self, Page};
use crate::tenants::not_deleted;
use crate::{GenericClient, Result, Transaction};

#[derive(Clone, Debug)]
pub struct Replay {
    pub id: ReplayId,
    /// Whose deliveries it may touch; `None` is everybody's.
    pub tenant_id: Option<TenantId>,
    pub work: Work,
    pub state: State,
    pub dry_run: bool,
    /// Whether `count` is known.
    pub counted: bool,
    /// Deliveries set going in a second.
    pub rate_per_second: f64,
    /// How many there are to set going.
    pub count: i64,
    pub done: i64,
    /// Those that could not be set going.
    pub failed: i64,
    /// Dead letters, or events, up to this id are dealt with.
    pub position: Uuid,
    /// None from this id on are dealt with.
    pub through: Uuid,
    pub bucket: Bucket,
    /// When somebody is to go on with it.
    pub due_at: Timestamp,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub finished_at: Option<Timestamp>,
}

const COLUMNS: &str =
    "id, tenant_id, kind, subscription_id, filter, state, dry_run, counted, rate_per_second, count, done, failed,
    position, through, tokens, tokens_at, due_at, created_at, updated_at, finished_at";

pub async fn insert(db: &impl GenericClient, replay: &Replay) -> Result<()> {
    let (kind, subscription, filter) = written(&replay.work);
    let sql = format!(
        "INSERT INTO replays ({COLUMNS})
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)"
    );
    let statement = db.prepare_cached(&sql).await?;
    db.execute(
        &statement,
        &[
            replay.id.as_uuid(),
            &replay.tenant_id.map(|id| *id.as_uuid()),
            &kind,
            &subscription,
            &filter,
            &replay.state.as_str(),
            &replay.dry_run,
            &replay.counted,
            &replay.rate_per_second,
            &replay.count,
            &replay.done,
            &replay.failed,
            &replay.position,
            &replay.through,
            &replay.bucket.tokens,
            &replay.bucket.at,
            &replay.due_at,
            &replay.created_at,
            &replay.updated_at,
            &replay.finished_at,
        ],
    )
    .await?;
    Ok(())
}

/// Writes down how far a job is.
pub async fn update(db: &impl GenericClient, replay: &Replay) -> Result<()> {
    let statement = db
        .prepare_cached(
            "UPDATE replays SET state = $2, count = $3, done = $4, failed = $5, position = $6, tokens = $7, tokens_at = $8,
                                due_at = $9, updated_at = $10, finished_at = $11, counted = $12
             WHERE id = $1",
        )
        .await?;
    db.execute(
        &statement,
        &[
            replay.id.as_uuid(),
            &replay.state.as_str(),
            &replay.count,
            &replay.done,
            &replay.failed,
            &replay.position,
            &replay.bucket.tokens,
            &replay.bucket.at,
            &replay.due_at,
            &replay.updated_at,
            &replay.finished_at,
            &replay.counted,
        ],
    )
    .await?;
    Ok(())
}

/// The job that waits longest to be gone on with, locked. Nobody else is at it.
pub async fn due(db: &Transaction<'_>, now: Timestamp) -> Result<Option<ReplayId>> {
    let statement = db
        .prepare_cached(
            "SELECT id FROM replays r WHERE state IN ('counting', 'running') AND due_at <= $1
               -- A deleted tenant's jobs end with it.
               AND NOT EXISTS (SELECT FROM tenants t WHERE t.id = r.tenant_id AND t.deleted_at IS NOT NULL)
             ORDER BY due_at LIMIT 1 FOR UPDATE OF r SKIP LOCKED",
        )
        .await?;
    Ok(db.query_opt(&statement, &[&now]).await?.map(|row| ReplayId::from_uuid(row.get(0))))
}

/// Has nobody go on with a job before `until`.
pub async fn put_off(db: &impl GenericClient, id: ReplayId, until: Timestamp) -> Result<()> {
    let statement = db.prepare_cached("UPDATE replays SET due_at = $2 WHERE id = $1").await?;
    db.execute(&statement, &[id.as_uuid(), &until]).await?;
    Ok(())
}

/// One job; `None` as `tenant` is the operator.
pub async fn find(db: &impl GenericClient, tenant: Option<TenantId>, id: ReplayId) -> Result<Option<Replay>> {
    one(db, tenant, id, "").await
}

/// One job, which nobody changes before the transaction ends.
pub async fn lock(db: &Transaction<'_>, tenant: Option<TenantId>, id: ReplayId) -> Result<Option<Replay>> {
    one(db, tenant, id, "FOR UPDATE").await
}

async fn one(db: &impl GenericClient, tenant: Option<TenantId>, id: ReplayId, locking: &str) -> Result<Option<Replay>> {
    let alive = not_deleted("tenant_id");
    let sql = format!(
        "SELECT {COLUMNS} FROM replays WHERE id = $1 AND ($2::uuid IS NULL OR tenant_id = $2) AND {alive} {locking}"
    );
    let statement = db.prepare_cached(&sql).await?;
    db.query_opt(&statement, &[id.as_uuid(), &tenant.map(|t| *t.as_uuid())]).await?.as_ref().map(replay).transpose()
}

pub async fn list(db: &impl GenericClient, tenant: Option<TenantId>, page: Page) -> Result<Vec<Replay>> {
    let everyones = || format!("$1::uuid IS NULL AND {}", not_deleted("tenant_id"));
    let scope = tenant.map_or_else(everyones, |_| "tenant_id = $1".to_owned());
    let sql = format!("SELECT {COLUMNS} FROM replays WHERE {scope} AND id < $2 ORDER BY id DESC LIMIT $3");
    let statement = page::prepare(db, &sql).await?;
    let rows = db.query(&statement, &[&tenant.map(|t| *t.as_uuid()), &page.before(), &page.fetch()]).await?;
    rows.iter().map(replay).collect()
}

/// Forgets jobs that ended before `before`.
pub async fn drop_old(db: &impl GenericClient, before: Timestamp) -> Result<u64> {
    Ok(db.execute("DELETE FROM replays WHERE finished_at < $1", &[&before]).await?)
}

/// The columns `kind`, `subscription_id` and `filter`.
fn written(work: &Work) -> (&'static str, Option<Uuid>, Value) {
    // Both are structs of texts and lists: there is nothing that cannot be written.
    match work {
        Work::DeadLetters(filter) => ("dead_letters", None, serde_json::to_value(filter).unwrap_or_default()),
        Work::Recover(subscription, recovery) => {
            ("recover", Some(*subscription.as_uuid()), serde_json::to_value(recovery).unwrap_or_default())
        }
    }
}

fn work(row: &Row) -> Option<Work> {
    let filter: Value = row.get("filter");
    let subscription: Option<Uuid> = row.get("subscription_id");
    match (row.get("kind"), subscription) {
        ("dead_letters", _) => serde_json::from_value(filter).ok().map(Work::DeadLetters),
        ("recover", Some(id)) => {
            Some(Work::Recover(SubscriptionId::from_uuid(id), serde_json::from_value(filter).ok()?))
        }
        _ => None,
    }
}

fn replay(row: &Row) -> Result<Replay> {
    Ok(Replay {
        id: ReplayId::from_uuid(row.get("id")),
        tenant_id: row.get::<_, Option<Uuid>>("tenant_id").map(TenantId::from_uuid),
        work: readable("replays.filter", work(row))?,
        state: readable("replays.state", State::parse(row.get("state")))?,
        dry_run: row.get("dry_run"),
        counted: row.get("counted"),
        rate_per_second: row.get("rate_per_second"),
        count: row.get("count"),
        done: row.get("done"),
        failed: row.get("failed"),
        position: row.get("position"),
        through: row.get("through"),
        bucket: Bucket { tokens: row.get("tokens"), at: row.get("tokens_at") },
        due_at: row.get("due_at"),
        created_at: row.get("created_at"),
        updated_at: row.get("updated_at"),
        finished_at: row.get("finished_at"),
    })
}
