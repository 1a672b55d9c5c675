//! What receivers got again although they had answered 2xx.

use std::collections::BTreeMap;

use crate::clock::seconds;
use crate::ledger::Check;
use crate::ledger::books::Books;

/// A repeat that is explained.
#[derive(Debug)]
pub struct Repeat {
    pub event: String,
    pub subscription: u16,
    pub when: String,
    pub reason: String,
}

pub fn check(books: &Books) -> (Check, Vec<Repeat>) {
    let mut check = Check::new(
        "a receiver gets again what it accepted only where a worker was killed or frozen before it recorded that",
    );
    let mut explained = Vec::new();
    for (number, entry) in books.records.numbered() {
        let mut by_subscription: BTreeMap<u16, Vec<_>> = BTreeMap::new();
        for arrival in &entry.arrivals {
            by_subscription.entry(arrival.subscription).or_default().push(arrival);
        }
        for (subscription, arrivals) in by_subscription.into_iter().filter(|(_, arrivals)| arrivals.len() > 1) {
            for two in arrivals.windows(2).filter(|two| two[0].answer.is_accepted()) {
                match books.why_unrecorded(two[0]) {
                    Some(reason) => explained.push(Repeat {
                        event: entry.event_id.map(|id| format!("evt_{}", id.simple())).unwrap_or_default(),
                        subscription,
                        when: seconds(two[1].at),
                        reason,
                    }),
                    None => check.except(|| books.describe((number, subscription))),
                }
            }
        }
    }
    check.note = format!("{} explained repeats", explained.len());
    (check, explained)
}
