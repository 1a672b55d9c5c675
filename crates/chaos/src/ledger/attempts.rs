//! Attempts on record, against requests at the receivers: each stands for the other.

use crate::journal::{Answer, Arrival};
use crate::ledger::Check;
use crate::ledger::books::{Attempt, Books, Pair};

pub fn checks(books: &Books) -> Vec<Check> {
    let mut recorded = Check::new("every attempt on record with a status was answered so by the receiver");
    let mut received = Check::new(
        "every request at a receiver is an attempt on record, or a worker was killed or frozen before it recorded it",
    );
    let (mut attempts, mut arrivals, mut unrecorded) = (0, 0, 0);
    for pair in books.expected() {
        attempts += books.attempts_of(pair).len();
        let Matched { missing, unmatched } = matched(books, pair);
        arrivals += books.arrivals(pair).len();
        unrecorded += unmatched.len();
        if missing > 0 {
            recorded.except(|| books.describe(pair));
        }
        if unmatched.iter().any(|arrival| books.why_unrecorded(arrival).is_none()) {
            received.except(|| books.describe(pair));
        }
    }
    recorded.note = format!("{attempts} attempts");
    received.note = format!("{arrivals} requests, {unrecorded} not on record and explained");
    books.records.strays.iter().for_each(|stray| received.except(|| stray.clone()));
    vec![recorded, received]
}

struct Matched {
    /// Attempts with a status that no arrival was answered with.
    missing: usize,
    /// Arrivals that stand for no attempt.
    unmatched: Vec<Arrival>,
}

/// Pairs attempts with arrivals: those with a status first, then those that got no answer.
fn matched(books: &Books, pair: Pair) -> Matched {
    let mut unmatched = books.arrivals(pair);
    let attempts = books.attempts_of(pair);
    let missing = attempts.iter().filter(|attempt| attempt.status.is_some() && !take(&mut unmatched, attempt)).count();
    for attempt in attempts.iter().filter(|attempt| attempt.status.is_none()) {
        // One that did not come as far as the receiver stands for no arrival.
        take(&mut unmatched, attempt);
    }
    Matched { missing, unmatched }
}

/// Takes the arrival that an attempt stands for; of several, the one nearest in time. A frozen worker may call an
/// answer a timeout that the receiver gave.
fn take(arrivals: &mut Vec<Arrival>, attempt: &Attempt) -> bool {
    let fits = |arrival: &&(usize, Arrival)| match attempt.status {
        Some(status) => arrival.1.answer == Answer::Status(status),
        None => true,
    };
    let far = |arrival: &(usize, Arrival)| {
        let silent = matches!(arrival.1.answer, Answer::Hang | Answer::Reset);
        (attempt.status.is_none() && !silent, (i64::from(arrival.1.at) - attempt.started).abs())
    };
    let numbered: Vec<(usize, Arrival)> = arrivals.iter().copied().enumerate().collect();
    match numbered.iter().filter(fits).min_by_key(|arrival| far(arrival)) {
        Some((place, _)) => {
            arrivals.remove(*place);
            true
        }
        None => false,
    }
}
