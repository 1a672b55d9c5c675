//! An endpoint's yes counts, also when its attempt is on record with another end.
//!
//! A worker that stood still for longer than its lease may record that an attempt failed which another worker has made
//! again meanwhile, and which arrived. By its number that second one comes too late; as one attempt more it is true, and
//! the endpoint hears no more of what it has accepted.

use std::collections::HashMap;

use jiff::Timestamp;
use posthorn_core::id::DeliveryId;
use uuid::Uuid;

use super::report::record_as_told;
use super::{Recorded, Report, bounds, int, unsigned};
use crate::{GenericClient, Result};

/// Records reports, all or nothing where the caller has a transaction. Repeating one changes nothing.
pub async fn record(db: &impl GenericClient, reports: &[Report], now: Timestamp) -> Result<Recorded> {
    let mut recorded = record_as_told(db, reports, now).await?;
    let late: Vec<&Report> =
        reports.iter().filter(|report| report.has_arrived() && !recorded.is_moved(report.id)).collect();
    if late.is_empty() {
        return Ok(recorded);
    }
    let numbers = open(db, &late).await?;
    let one_more =
        |report: &&Report| numbers.get(&report.id).map(|made| Report { attempt: made + 1, ..Report::clone(report) });
    let renumbered: Vec<Report> = late.iter().filter_map(one_more).collect();
    if !renumbered.is_empty() {
        let more = record_as_told(db, &renumbered, now).await?;
        recorded.moved.extend(more.moved);
        // The newer state of a subscription takes the place of the older.
        recorded
            .vitals
            .retain(|vitals| more.vitals.iter().all(|newer| newer.subscription_id != vitals.subscription_id));
        recorded.vitals.extend(more.vitals);
    }
    Ok(recorded)
}

/// How many attempts are on record of those that have not ended, in the generation that is reported of.
async fn open(db: &impl GenericClient, late: &[&Report]) -> Result<HashMap<DeliveryId, u32>> {
    let ids: Vec<Uuid> = late.iter().map(|report| *report.id.as_uuid()).collect();
    let generations: Vec<i32> = late.iter().map(|report| int(report.generation)).collect();
    let (first, last) = bounds(&ids);
    let statement = db
        .prepare_cached(
            "SELECT d.id, d.attempt FROM unnest($1::uuid[], $2::int[]) AS l(id, generation)
             JOIN deliveries d ON d.id = l.id AND d.generation = l.generation
             WHERE d.id >= $3 AND d.id <= $4 AND d.state IN ('queued', 'held')",
        )
        .await?;
    let rows = db.query(&statement, &[&ids, &generations, &first, &last]).await?;
    Ok(rows.iter().map(|row| (DeliveryId::from_uuid(row.get(0)), unsigned(row.get(1)))).collect())
}
