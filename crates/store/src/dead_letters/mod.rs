//! What no longer moves.

mod filing;

use jiff::Timestamp;
use posthorn_core::delivery::DeadReason;
use posthorn_core::id::{DeadLetterId, DeliveryId, EventId, SubscriptionId, TenantId, floor};
use posthorn_core::replay::DeadLetterFilter;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::page::{self, Page, Span};
use crate::tenants::not_deleted;
use crate::type_filter::Types;
use crate::{GenericClient, Result};

pub use filing::{Death, Undelivered, of_delivery, of_message, untold};

#[derive(Clone, Debug)]
pub struct DeadLetter {
    pub id: DeadLetterId,
    pub reason: String,
    pub delivery_id: Option<DeliveryId>,
    pub subscription_id: Option<SubscriptionId>,
    pub event_id: Option<EventId>,
    pub tenant_id: Option<TenantId>,
    pub event_type: Option<String>,
    pub error: Option<String>,
    pub died_at: Timestamp,
}

const COLUMNS: &str = "id, reason, delivery_id, subscription_id, event_id, tenant_id, event_type, error, died_at";

/// Which dead letters are meant; `tenant` is who may see them, `None` the operator.
#[derive(Clone, Debug)]
pub struct Narrowed<'a> {
    tenant: Option<Uuid>,
    filter: &'a DeadLetterFilter,
    types: Types,
}

impl<'a> Narrowed<'a> {
    pub fn new(tenant: Option<TenantId>, filter: &'a DeadLetterFilter) -> Self {
        let tenant = tenant.or(filter.tenant_id).map(|tenant| *tenant.as_uuid());
        Self { tenant, filter, types: Types::like(filter.event_type.as_deref().unwrap_or_default()) }
    }

    /// What holds for them, of the parameters `$1` to `$7`.
    fn conditions(&self) -> String {
        // A text for each, so that each uses its index.
        let everyones = || format!("$1::uuid IS NULL AND {}", not_deleted("tenant_id"));
        let tenant = self.tenant.map_or_else(everyones, |_| "tenant_id = $1".to_owned());
        let subscription = self.filter.subscription_id.map_or("$2::uuid IS NULL", |_| "subscription_id = $2");
        let reason = self.filter.reason.map_or("$3::text IS NULL", |_| "reason = $3");
        let ids = self.filter.ids.as_ref().map_or("$4::uuid[] IS NULL", |_| "id = ANY ($4)");
        let types = match &self.types {
            Types::All => "cardinality($5::text[]) = 0",
            Types::These(_) | Types::Like(_) => "event_type LIKE ANY ($5)",
        };
        format!("{tenant} AND {subscription} AND {reason} AND {ids} AND {types} AND id >= $6 AND id < $7")
    }

    /// Those parameters.
    fn parameters(&self) -> Parameters {
        let whole = Span::default();
        Parameters {
            tenant: self.tenant,
            subscription: self.filter.subscription_id.map(|id| *id.as_uuid()),
            reason: self.filter.reason.map(DeadReason::as_str),
            ids: self.filter.ids.as_ref().map(|ids| ids.iter().map(|id| *id.as_uuid()).collect()),
            types: self.types.texts().to_vec(),
            from: self.filter.from.map_or(whole.from, |from| floor(from.0)),
            to: self.filter.to.map_or(whole.to, |to| floor(to.0)),
        }
    }
}

struct Parameters {
    tenant: Option<Uuid>,
    subscription: Option<Uuid>,
    reason: Option<&'static str>,
    ids: Option<Vec<Uuid>>,
    types: Vec<String>,
    from: Uuid,
    to: Uuid,
}

impl Parameters {
    fn and<'a>(&'a self, more: &[&'a (dyn ToSql + Sync)]) -> Vec<&'a (dyn ToSql + Sync)> {
        let ours: [&(dyn ToSql + Sync); 7] =
            [&self.tenant, &self.subscription, &self.reason, &self.ids, &self.types, &self.from, &self.to];
        [&ours, more].concat()
    }
}

pub async fn list(db: &impl GenericClient, narrowed: &Narrowed<'_>, page: Page) -> Result<Vec<DeadLetter>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM dead_letters WHERE {} AND id < $8 ORDER BY id DESC LIMIT $9",
        narrowed.conditions()
    );
    let statement = page::prepare(db, &sql).await?;
    let rows = db.query(&statement, &narrowed.parameters().and(&[&page.before(), &page.fetch()])).await?;
    Ok(rows.iter().map(dead_letter).collect())
}

/// Dead letters of one subscription that died of the same.
#[derive(Clone, Debug)]
pub struct Group {
    pub subscription_id: Option<SubscriptionId>,
    pub tenant_id: Option<TenantId>,
    pub reason: String,
    pub error: Option<String>,
    pub count: i64,
    pub first_died_at: Timestamp,
    pub last_died_at: Timestamp,
}

/// The largest groups, at most `limit`, largest first.
pub async fn groups(db: &impl GenericClient, narrowed: &Narrowed<'_>, limit: i64) -> Result<Vec<Group>> {
    let sql = format!(
        "SELECT subscription_id, tenant_id, reason, error, count(*) AS count, min(died_at) AS first, max(died_at) AS last
         FROM dead_letters WHERE {} GROUP BY 1, 2, 3, 4 ORDER BY count(*) DESC, 1, 3, 4 LIMIT $8",
        narrowed.conditions()
    );
    let statement = page::prepare(db, &sql).await?;
    let rows = db.query(&statement, &narrowed.parameters().and(&[&limit])).await?;
    let group = |row: &Row| Group {
        subscription_id: row.get::<_, Option<Uuid>>("subscription_id").map(SubscriptionId::from_uuid),
        tenant_id: row.get::<_, Option<Uuid>>("tenant_id").map(TenantId::from_uuid),
        reason: row.get("reason"),
        error: row.get("error"),
        count: row.get("count"),
        first_died_at: row.get("first"),
        last_died_at: row.get("last"),
    };
    Ok(rows.iter().map(group).collect())
}

/// How many there are, and the newest of them.
pub async fn count(db: &impl GenericClient, narrowed: &Narrowed<'_>) -> Result<(i64, Option<DeadLetterId>)> {
    let conditions = narrowed.conditions();
    let sql = format!(
        "SELECT count(*), (SELECT id FROM dead_letters WHERE {conditions} ORDER BY id DESC LIMIT 1)
         FROM dead_letters WHERE {conditions}"
    );
    let statement = page::prepare(db, &sql).await?;
    let row = db.query_one(&statement, &narrowed.parameters().and(&[])).await?;
    Ok((row.get(0), row.get::<_, Option<Uuid>>(1).map(DeadLetterId::from_uuid)))
}

/// The oldest after `position` and before `through`, at most `limit`, with the delivery of each that has one.
pub async fn next(
    db: &impl GenericClient,
    narrowed: &Narrowed<'_>,
    position: Uuid,
    through: Uuid,
    limit: i64,
) -> Result<Vec<(DeadLetterId, Option<DeliveryId>)>> {
    let sql = format!(
        "SELECT id, delivery_id FROM dead_letters WHERE {} AND id > $8 AND id < $9 ORDER BY id LIMIT $10",
        narrowed.conditions()
    );
    let statement = page::prepare(db, &sql).await?;
    let rows = db.query(&statement, &narrowed.parameters().and(&[&position, &through, &limit])).await?;
    let delivery = |row: &Row| row.get::<_, Option<Uuid>>(1).map(DeliveryId::from_uuid);
    Ok(rows.iter().map(|row| (DeadLetterId::from_uuid(row.get(0)), delivery(row))).collect())
}

/// Forgets a dead letter; its delivery stays dead. False if there is none that `tenant` may see.
pub async fn delete(db: &impl GenericClient, tenant: Option<TenantId>, id: DeadLetterId) -> Result<bool> {
    let sql = format!(
        "DELETE FROM dead_letters WHERE id = $1 AND ($2::uuid IS NULL OR tenant_id = $2) AND {}",
        not_deleted("tenant_id")
    );
    let statement = db.prepare_cached(&sql).await?;
    Ok(db.execute(&statement, &[id.as_uuid(), &tenant.map(|t| *t.as_uuid())]).await? > 0)
}

/// Forgets those meant, at most `limit` at once. Returns how many there were.
pub async fn purge(db: &impl GenericClient, narrowed: &Narrowed<'_>, limit: i64) -> Result<u64> {
    let sql = format!(
        "DELETE FROM dead_letters WHERE id IN (SELECT id FROM dead_letters WHERE {} LIMIT $8)",
        narrowed.conditions()
    );
    let statement = page::prepare(db, &sql).await?;
    Ok(db.execute(&statement, &narrowed.parameters().and(&[&limit])).await?)
}

/// One dead letter; `None` as `tenant` is the operator.
pub async fn find(db: &impl GenericClient, tenant: Option<TenantId>, id: DeadLetterId) -> Result<Option<DeadLetter>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM dead_letters WHERE id = $1 AND ($2::uuid IS NULL OR tenant_id = $2) AND {}",
        not_deleted("tenant_id")
    );
    let statement = db.prepare_cached(&sql).await?;
    Ok(db.query_opt(&statement, &[id.as_uuid(), &tenant.map(|t| *t.as_uuid())]).await?.as_ref().map(dead_letter))
}

fn dead_letter(row: &Row) -> DeadLetter {
    DeadLetter {
        id: DeadLetterId::from_uuid(row.get("id")),
        reason: row.get("reason"),
        delivery_id: row.get::<_, Option<Uuid>>("delivery_id").map(DeliveryId::from_uuid),
        subscription_id: row.get::<_, Option<Uuid>>("subscription_id").map(SubscriptionId::from_uuid),
        event_id: row.get::<_, Option<Uuid>>("event_id").map(EventId::from_uuid),
        tenant_id: row.get::<_, Option<Uuid>>("tenant_id").map(TenantId::from_uuid),
        event_type: row.get("event_type"),
        error: row.get("error"),
        died_at: row.get("died_at"),
    }
}
