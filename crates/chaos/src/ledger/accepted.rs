//! What senders saw accepted, against the events that there are.

use crate::api::{Api, id};
use crate::error::Result;
use crate::ledger::Check;
use crate::ledger::books::Books;

/// Deliveries whose attempts are compared between API and record.
const SAMPLE: usize = 100;

pub fn checks(books: &Books) -> Vec<Check> {
    vec![events(books), duplicates(books), sender(books)]
}

fn events(books: &Books) -> Check {
    let mut check = Check::new("what was accepted is exactly what the API lists as events, each once");
    let mut accepted = 0;
    for (number, entry) in books.records.numbered() {
        match entry.event_id {
            None => check.except(|| format!("event {number} was never accepted, after {} requests", entry.requests)),
            Some(id) if !books.events.contains_key(&id) => {
                check.except(|| format!("event {number} was accepted as {id} and is not there"));
            }
            Some(_) => accepted += 1,
        }
    }
    for event in books.events.keys().filter(|event| books.records.number_of(**event).is_none()) {
        check.except(|| format!("event {event} is there and no sender was told of it"));
    }
    check.note = format!("{accepted} events");
    check
}

/// A request that was not answered may have been counted or not; every other one was, or was not.
fn duplicates(books: &Books) -> Check {
    let mut check = Check::new("a provider's repeat is answered with the first event's id, and counted as a duplicate");
    let mut repeats = 0;
    for (number, entry) in books.records.numbered() {
        let Some(counted) = entry.event_id.and_then(|id| books.events.get(&id)) else { continue };
        let (least, most) = (u64::from(entry.accepted_again), u64::from(entry.requests.saturating_sub(1)));
        repeats += least;
        if !(least..=most).contains(counted) {
            check
                .except(|| format!("event {number} has {counted} duplicates, of {least} answered and {most} possible"));
        }
    }
    check.note = format!("{repeats} repeats");
    check
}

fn sender(books: &Books) -> Check {
    let mut check = Check::new("no genuine event is refused: 200 with one id, or 503 that says when to come back");
    books.records.refusals.iter().for_each(|refusal| check.except(|| refusal.clone()));
    let records = &books.records;
    check.note = format!("{} times 503, {} unanswered", records.unavailable, records.unanswered);
    check
}

/// The API tells of an attempt what the record has.
pub async fn sample(books: &Books, api: &Api) -> Result<Check> {
    let mut check = Check::new("of a sample of deliveries the API shows exactly the attempts on record");
    let step = (books.deliveries.len() / SAMPLE).max(1);
    for (pair, delivery) in books.deliveries.iter().step_by(step) {
        let shown = api.get(&format!("/v1/deliveries/dlv_{}", delivery.id.simple())).await?;
        let attempts: Vec<(i64, Option<u64>)> = shown["attempts"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|attempt| (attempt["number"].as_i64().unwrap_or_default(), attempt["status_code"].as_u64()))
            .collect();
        let recorded: Vec<(i64, Option<u64>)> = books
            .attempts_of(*pair)
            .iter()
            .map(|attempt| (attempt.number.into(), attempt.status.map(u64::from)))
            .collect();
        let same_row = shown["id"].as_str().and_then(id) == Some(delivery.id);
        if attempts != recorded || !same_row {
            check.except(|| format!("{attempts:?} by the API: {}", books.describe(*pair)));
        }
    }
    Ok(check)
}
