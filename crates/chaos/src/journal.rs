//! Two of the three ledgers, as they come: what the sender saw accepted, and what the receivers got.
//!
//! An event is known here by its number, which stands in its body (`chaos-00000042-`): so an arrival is
//! told whose it is before the gateway has answered the sender. The id that Posthorn gave it is compared with
//! the `webhook-id` of every arrival.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::clock::Millis;
use crate::peer::Worker;

/// What stands before the number in a body.
pub const MARK: &[u8] = b"chaos-";

/// What a receiver did with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Status(u16),
    /// Nothing, for longer than the subscription's timeout.
    Hang,
    /// The connection, reset.
    Reset,
}

impl Answer {
    pub fn is_accepted(self) -> bool {
        matches!(self, Self::Status(200..=299))
    }
}

/// One request at a receiver.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Index in the stage's subscriptions.
    pub subscription: u16,
    /// Who sent it.
    pub worker: Worker,
    pub answer: Answer,
    /// When it was read whole.
    pub at: Millis,
    /// When it was answered, or left.
    pub answered: Millis,
}

/// One event, from the plan to its arrivals.
#[derive(Debug)]
pub struct Entry {
    /// Index in the stage's flavours.
    pub flavour: u8,
    /// What decides how receivers answer: the same in every run with the same seed.
    pub fate: u32,
    pub bytes: u32,
    /// First bytes of the body's SHA-256, for those who get it as it was.
    pub digest: [u8; 4],
    /// Subscriptions that must get it, and those of them that have not got it once. The latter are counted only
    /// where nothing but Posthorn can hold them up.
    pub expected: Arc<[u16]>,
    missing: u16,
    /// Requests sent, and what they were answered.
    pub requests: u16,
    pub accepted_new: u16,
    pub accepted_again: u16,
    pub sent: Millis,
    pub accepted: Option<Millis>,
    pub event_id: Option<Uuid>,
    pub arrivals: Vec<Arrival>,
    /// `webhook-id` of the first arrival.
    pub webhook_id: Option<Uuid>,
}

/// Something that must not happen, in words.
pub type Violation = String;

#[derive(Debug, Default)]
pub struct Records {
    pub entries: Vec<Entry>,
    by_event: HashMap<Uuid, u32>,
    /// What senders were answered that they should not have been.
    pub refusals: Vec<Violation>,
    /// What receivers got that they should not have got.
    pub strays: Vec<Violation>,
    pub unavailable: u64,
    pub unanswered: u64,
}

#[derive(Debug)]
pub struct Journal {
    records: Mutex<Records>,
    /// Subscriptions whose arrivals count for [`Journal::missing_of`].
    prompt: HashSet<u16>,
}

impl Journal {
    pub fn new(prompt: HashSet<u16>) -> Self {
        Self { records: Mutex::default(), prompt }
    }

    pub fn read(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an event that is about to be sent; returns its number.
    pub fn plan(&self, flavour: u8, fate: u32, expected: Arc<[u16]>, sent: Millis) -> u32 {
        let missing = expected.iter().filter(|index| self.prompt.contains(index)).count();
        let mut records = self.read();
        records.entries.push(Entry {
            flavour,
            fate,
            bytes: 0,
            digest: [0; 4],
            expected,
            missing: u16::try_from(missing).unwrap_or(u16::MAX),
            requests: 0,
            accepted_new: 0,
            accepted_again: 0,
            sent,
            accepted: None,
            event_id: None,
            arrivals: Vec::new(),
            webhook_id: None,
        });
        u32::try_from(records.entries.len() - 1).unwrap_or(u32::MAX)
    }

    pub fn written(&self, number: u32, bytes: usize, digest: [u8; 4]) {
        let mut records = self.read();
        let entry = &mut records.entries[number as usize];
        entry.bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        entry.digest = digest;
    }

    pub fn requested(&self, number: u32) {
        self.read().entries[number as usize].requests += 1;
    }

    pub fn accepted(&self, number: u32, event_id: Uuid, duplicate: bool, now: Millis) {
        let mut records = self.read();
        let entry = &mut records.entries[number as usize];
        let known = *entry.event_id.get_or_insert(event_id);
        entry.accepted.get_or_insert(now);
        if duplicate {
            entry.accepted_again += 1;
        } else {
            entry.accepted_new += 1;
        }
        let twice = entry.accepted_new > 1;
        if known != event_id {
            records.refusals.push(format!("event {number} was accepted as {known} and as {event_id}"));
        } else if twice {
            records.refusals.push(format!("event {number} ({event_id}) was new more than once"));
        }
        records.by_event.insert(event_id, number);
    }

    pub fn unavailable(&self) {
        self.read().unavailable += 1;
    }

    /// How many of these events were not accepted yet.
    pub fn unaccepted(&self, numbers: &[u32]) -> usize {
        let records = self.read();
        let is_open =
            |number: &&u32| records.entries.get(**number as usize).is_some_and(|entry| entry.event_id.is_none());
        numbers.iter().filter(is_open).count()
    }

    /// How many requests were told to come back so far, and how many had no answer.
    pub fn turned_away(&self) -> (u64, u64) {
        let records = self.read();
        (records.unavailable, records.unanswered)
    }

    pub fn unanswered(&self) {
        self.read().unanswered += 1;
    }

    pub fn refused(&self, violation: Violation) {
        self.read().refusals.push(violation);
    }

    pub fn stray(&self, violation: Violation) {
        self.read().strays.push(violation);
    }

    /// An event's fate, and how often it has come to a subscription so far. `None` if nobody sent it.
    pub fn history(&self, number: u32, subscription: u16) -> Option<(u32, u32)> {
        let records = self.read();
        let entry = records.entries.get(number as usize)?;
        let times = entry.arrivals.iter().filter(|arrival| arrival.subscription == subscription).count();
        Some((entry.fate, u32::try_from(times).unwrap_or(u32::MAX)))
    }

    /// Notes an arrival; returns where its answer is to be noted.
    pub fn arrived(&self, number: u32, webhook_id: Option<Uuid>, arrival: Arrival) -> Option<usize> {
        let mut records = self.read();
        let Some(entry) = records.entries.get_mut(number as usize) else {
            records.strays.push(format!("event {number}, which nobody sent, at subscription {}", arrival.subscription));
            return None;
        };
        let first = !entry.arrivals.iter().any(|other| other.subscription == arrival.subscription);
        if first && self.prompt.contains(&arrival.subscription) {
            entry.missing = entry.missing.saturating_sub(1);
        }
        entry.arrivals.push(arrival);
        let place = entry.arrivals.len() - 1;
        if entry.webhook_id.is_none() {
            entry.webhook_id = webhook_id;
        }
        if entry.webhook_id != webhook_id || webhook_id.is_none() {
            let was = entry.webhook_id;
            records.strays.push(format!(
                "event {number} came to subscription {} as {webhook_id:?} and had been {was:?}",
                arrival.subscription
            ));
        }
        Some(place)
    }

    pub fn answered(&self, number: u32, place: usize, now: Millis) {
        let mut records = self.read();
        if let Some(arrival) = records.entries.get_mut(number as usize).and_then(|entry| entry.arrivals.get_mut(place))
        {
            arrival.answered = now;
        }
    }

    /// Pairs of events accepted before `before` that have not arrived once, where nothing but Posthorn holds them up.
    pub fn missing_of(&self, before: Millis) -> u64 {
        let records = self.read();
        let of_then = records.entries.iter().filter(|entry| entry.accepted.is_some_and(|at| at <= before));
        of_then.map(|entry| u64::from(entry.missing)).sum()
    }

    /// Whether an event was accepted and has arrived everywhere.
    pub fn is_through(&self, number: u32) -> bool {
        let records = self.read();
        records.entries.get(number as usize).is_some_and(|entry| entry.accepted.is_some() && entry.missing == 0)
    }

    pub fn digest_of(&self, number: u32) -> Option<[u8; 4]> {
        self.read().entries.get(number as usize).map(|entry| entry.digest)
    }
}

impl Records {
    pub fn number_of(&self, event_id: Uuid) -> Option<u32> {
        self.by_event.get(&event_id).copied()
    }

    /// Numbers and entries.
    pub fn numbered(&self) -> impl Iterator<Item = (u32, &Entry)> {
        (0u32..).zip(&self.entries)
    }
}

/// The number in a body.
pub fn number_in(body: &[u8]) -> Option<u32> {
    let start = body.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    std::str::from_utf8(body.get(start..start + 8)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_found_wherever_it_stands() {
        assert_eq!(number_in(br#"{"type":"a","data":{"id":"chaos-00000042-x"}}"#), Some(42));
        assert_eq!(number_in(b"chaos-0000"), None);
        assert_eq!(number_in(b"nothing"), None);
    }

    #[test]
    fn an_event_is_through_when_it_came_everywhere_once() {
        let journal = Journal::new(HashSet::from([0, 1]));
        let number = journal.plan(0, 9, Arc::from([0, 1, 2]), 5);
        let id = Uuid::from_u128(7);
        journal.accepted(number, id, false, 10);
        let come = |subscription| {
            let arrival = Arrival { subscription, worker: None, answer: Answer::Status(200), at: 11, answered: 11 };
            journal.arrived(number, Some(id), arrival)
        };
        come(0);
        come(0);
        assert!(!journal.is_through(number));
        assert_eq!(journal.missing_of(10), 1);
        assert_eq!(journal.missing_of(9), 0, "it was accepted later");
        come(1);
        assert!(journal.is_through(number), "the third may take its time");
        assert_eq!(journal.history(number, 0), Some((9, 2)));
    }
}
