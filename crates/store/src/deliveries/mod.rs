//! Deliveries and their attempts.
//!
//! A delivery's row is the truth about it. Whoever moves it says which state, generation and attempt
//! it believes in; a belief that is out of date moves nothing.

mod by_hand;
mod history;
mod late;
mod report;

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;
use posthorn_core::delivery::HeldReason;
use posthorn_core::id::{self, DeliveryId, EventId, SubscriptionId, TenantId};
use posthorn_core::subscription::Audience;
use uuid::Uuid;

use crate::events::Part;
use crate::sabotage::fence;
use crate::{GenericClient, Result};

pub use by_hand::{cancel, replay, set_going, states};
pub use history::{Attempt, Delivery, Filter, attempts, find, list, of_event};
pub use late::record;
pub use report::{Made, Recorded, Report, Word, had_failed};

/// A delivery about to be.
#[derive(Clone, Debug)]
pub struct NewDelivery {
    pub id: DeliveryId,
    pub event_id: EventId,
    pub subscription_id: SubscriptionId,
    pub tenant_id: TenantId,
    pub event_type: String,
    /// `None` is `queued`.
    pub held: Option<HeldReason>,
    /// The lease, or when a held one may go on.
    pub due_at: Timestamp,
}

/// What was fanned out as somebody understood it: with that its outbox row goes.
#[derive(Clone, Copy, Debug)]
pub struct FannedOut {
    pub event_id: EventId,
    pub part: Part,
    /// Whom the message said the event is for. One that said "nobody" is out of date once somebody routed the event.
    pub audience: Audience,
}

const INSERT: &str = "
WITH n AS (
    INSERT INTO deliveries (id, event_id, subscription_id, tenant_id, event_type, state, held_reason, due_at, created_at, updated_at)
    SELECT id, event_id, subscription_id, tenant_id, event_type,
           CASE WHEN held_reason IS NULL THEN 'queued' ELSE 'held' END, held_reason, due_at, $8, $8
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::timestamptz[])
        AS t(id, event_id, subscription_id, tenant_id, event_type, held_reason, due_at)
    -- In one order for everybody: two that insert the same must not deadlock.
    ORDER BY id
    ON CONFLICT (id) DO NOTHING RETURNING id, subscription_id, state, due_at
),
-- Locked whatever the row says: a scheduler that is just noting that nothing is held any more does not see what is
-- inserted here, and it is not forgotten only because this waits for it. In one order for everybody.
l AS (
    SELECT r.subscription_id, r.next_due_at, q.due
    FROM subscription_runtime r
    JOIN (SELECT subscription_id, min(due_at) AS due FROM n WHERE state = 'held' GROUP BY subscription_id) q
        ON q.subscription_id = r.subscription_id
    ORDER BY r.subscription_id FOR UPDATE OF r
),
h AS (
    UPDATE subscription_runtime r SET next_due_at = l.due FROM l
    WHERE r.subscription_id = l.subscription_id AND (l.next_due_at IS NULL OR l.next_due_at > l.due)
),
-- By arrays and not by a join: a plan that is kept from when the outbox was empty must do with one that is not. The
-- scalar subquery looks up each event that a message said is for nobody.
o AS (
    DELETE FROM outbox o WHERE o.event_id = ANY ($9) AND o.first_subscription_id = '00000000-0000-0000-0000-000000000000'
      AND (o.event_id <> ALL ($10) OR (SELECT e.audience FROM events e WHERE e.id = o.event_id) = 'unrouted')
),
p AS (
    DELETE FROM outbox o USING unnest($11::uuid[], $12::uuid[]) AS f(event_id, first)
    WHERE o.event_id = f.event_id AND o.first_subscription_id = f.first
)
SELECT id FROM n";

/// Inserts what is not there yet and takes what it comes from out of the outbox, all or nothing; tells which
/// deliveries were new.
pub async fn insert(
    db: &impl GenericClient,
    new: &[NewDelivery],
    fanned_out: &[FannedOut],
    now: Timestamp,
) -> Result<HashSet<DeliveryId>> {
    let ids: Vec<Uuid> = new.iter().map(|d| *d.id.as_uuid()).collect();
    let events: Vec<Uuid> = new.iter().map(|d| *d.event_id.as_uuid()).collect();
    let subscriptions: Vec<Uuid> = new.iter().map(|d| *d.subscription_id.as_uuid()).collect();
    let tenants: Vec<Uuid> = new.iter().map(|d| *d.tenant_id.as_uuid()).collect();
    let types: Vec<&str> = new.iter().map(|d| d.event_type.as_str()).collect();
    let held: Vec<Option<&str>> = new.iter().map(|d| d.held.map(HeldReason::as_str)).collect();
    let due: Vec<Timestamp> = new.iter().map(|d| d.due_at).collect();
    let statement = db.prepare_cached(INSERT).await?;
    let event = |f: &FannedOut| *f.event_id.as_uuid();
    let (wholes, parts): (Vec<FannedOut>, Vec<FannedOut>) = fanned_out.iter().partition(|f| f.part.is_whole());
    let mut whole: Vec<Uuid> = wholes.iter().map(event).collect();
    // In one order for everybody.
    whole.sort_unstable();
    let unrouted: Vec<Uuid> = wholes.iter().filter(|f| f.audience == Audience::Nobody).map(event).collect();
    let part_of: Vec<Uuid> = parts.iter().map(event).collect();
    let first: Vec<Uuid> = parts.iter().map(|f| *f.part.first.as_uuid()).collect();
    let rows = db
        .query(
            &statement,
            &[&ids, &events, &subscriptions, &tenants, &types, &held, &due, &now, &whole, &unrouted, &part_of, &first],
        )
        .await?;
    Ok(rows.iter().map(|row| DeliveryId::from_uuid(row.get(0))).collect())
}

/// What a message believes of the row it names.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub id: DeliveryId,
    pub generation: u32,
    /// The attempt to be made.
    pub attempt: u32,
    /// The lease under which the message was published.
    pub lease_until: Timestamp,
    /// The lease of whoever makes the attempt.
    pub new_lease: Timestamp,
}

const CLAIM: &str = concat!(
    "
UPDATE deliveries d SET due_at = c.new_lease
FROM unnest($1::uuid[], $2::int[], $3::int[], $4::timestamptz[], $5::timestamptz[]) AS c(id, generation, attempt, lease, new_lease)
WHERE d.id = c.id AND d.id >= $6 AND d.id <= $7
  AND d.state = 'queued' AND d.generation = c.generation AND d.attempt = c.attempt - 1",
    fence!(),
    " RETURNING d.id"
);

/// Takes rows for an attempt; tells which were still as believed.
pub async fn claim(db: &impl GenericClient, claims: &[Claim]) -> Result<HashSet<DeliveryId>> {
    let ids: Vec<Uuid> = claims.iter().map(|c| *c.id.as_uuid()).collect();
    let generations: Vec<i32> = claims.iter().map(|c| int(c.generation)).collect();
    let attempts: Vec<i32> = claims.iter().map(|c| int(c.attempt)).collect();
    let leases: Vec<Timestamp> = claims.iter().map(|c| c.lease_until).collect();
    let new_leases: Vec<Timestamp> = claims.iter().map(|c| c.new_lease).collect();
    let (first, last) = bounds(&ids);
    let statement = db.prepare_cached(CLAIM).await?;
    let rows = db.query(&statement, &[&ids, &generations, &attempts, &leases, &new_leases, &first, &last]).await?;
    Ok(rows.iter().map(|row| DeliveryId::from_uuid(row.get(0))).collect())
}

/// Whether a delivery is dead in `generation`: then a message that named it is a dead letter.
pub async fn is_dead(db: &impl GenericClient, id: DeliveryId, generation: u32) -> Result<bool> {
    let statement =
        db.prepare_cached("SELECT FROM deliveries WHERE id = $1 AND state = 'dead' AND generation = $2").await?;
    Ok(db.query_opt(&statement, &[id.as_uuid(), &int(generation)]).await?.is_some())
}

/// What is queued. There are never many, and an index of their own finds them; `OFFSET 0` keeps the planner from
/// looking for them among all the deliveries of a tenant or subscription instead.
pub(crate) const QUEUED: &str = "(SELECT * FROM deliveries WHERE state = 'queued' AND due_at > '-infinity' OFFSET 0)";

/// All ids of one millisecond.
fn millisecond(at: Timestamp) -> (Uuid, Uuid) {
    (id::floor(at), id::floor(posthorn_core::time::later(at, Duration::from_millis(1))))
}

/// The smallest and the largest: with them the planner leaves out partitions of other days.
pub(crate) fn bounds(ids: &[Uuid]) -> (Uuid, Uuid) {
    let first = ids.iter().min().copied().unwrap_or(Uuid::nil());
    let last = ids.iter().max().copied().unwrap_or(Uuid::nil());
    (first, last)
}

fn int(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn unsigned(number: i32) -> u32 {
    u32::try_from(number).unwrap_or_default()
}
