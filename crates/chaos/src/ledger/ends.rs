//! Every pair of event and subscription has one delivery, and it has come to a true end.

use crate::journal::Answer;
use crate::ledger::Check;
use crate::ledger::books::{Books, Pair};

/// The checks, and how many deliveries are lost: missing, not ended, or not received.
pub fn checks(books: &Books) -> (Vec<Check>, usize) {
    let (pairs, delivered) = (pairs(books), delivered(books));
    let losses = pairs.exceptions + delivered.exceptions;
    (vec![pairs, delivered, dead(books)], losses)
}

/// Pairs without a delivery, or with one that has not ended.
fn pairs(books: &Books) -> Check {
    let mut check =
        Check::new("every matching (event, subscription) has one delivery, delivered or dead, and there is no other");
    let mut expected = 0;
    for pair in books.expected() {
        expected += 1;
        let state = books.deliveries.get(&pair).map(|delivery| delivery.state.as_str());
        if !matches!(state, Some("delivered" | "dead")) {
            check.except(|| books.describe(pair));
        }
    }
    for pair in books.deliveries.keys().filter(|pair| !books.entry(pair.0).expected.contains(&pair.1)) {
        check.except(|| format!("nobody asked for it: {}", books.describe(*pair)));
    }
    books.foreign.iter().for_each(|foreign| check.except(|| foreign.clone()));
    check.note = format!("{expected} deliveries");
    check
}

fn delivered(books: &Books) -> Check {
    let mut check = Check::new("what is delivered was received and answered with 2xx");
    for (pair, _) in books.deliveries.iter().filter(|(_, delivery)| delivery.state == "delivered") {
        if !books.arrivals(*pair).iter().any(|arrival| arrival.answer.is_accepted()) {
            check.except(|| books.describe(*pair));
        }
    }
    check
}

fn dead(books: &Books) -> Check {
    let mut check = Check::new("what is dead has one dead letter, with a true reason; nothing else has one");
    let (mut exhausted, mut permanent) = (0, 0);
    for (pair, delivery) in books.deliveries.iter().filter(|(_, delivery)| delivery.state == "dead") {
        let reasons = books.dead_letters.get(pair).map(Vec::as_slice).unwrap_or_default();
        let is_true = match reasons {
            [reason] if reason == "exhausted" => {
                exhausted += 1;
                is_exhausted(books, *pair, delivery.attempts_made)
            }
            [reason] if reason == "permanent" => {
                permanent += 1;
                is_permanent(books, *pair)
            }
            _ => false,
        };
        if !is_true {
            check.except(|| books.describe(*pair));
        }
    }
    let is_dead = |pair: &Pair| books.deliveries.get(pair).is_some_and(|delivery| delivery.state == "dead");
    for pair in books.dead_letters.keys().filter(|pair| !is_dead(pair)) {
        check.except(|| format!("it is not dead: {}", books.describe(*pair)));
    }
    check.note = format!("{exhausted} exhausted, {permanent} permanent");
    check
}

/// The schedule is used up, and no attempt was accepted that could have been recorded.
fn is_exhausted(books: &Books, pair: Pair, attempts_made: u32) -> bool {
    let accepted = |arrival: &&crate::journal::Arrival| arrival.answer.is_accepted();
    attempts_made == books.stage.subscriptions[usize::from(pair.1)].attempts
        && books.attempts_of(pair).iter().all(|attempt| attempt.failed)
        && books.arrivals(pair).iter().filter(accepted).all(|arrival| books.why_unrecorded(arrival).is_some())
}

/// The last answer on record is one that ends it, and the receiver gave it.
fn is_permanent(books: &Books, pair: Pair) -> bool {
    let last = books.attempts_of(pair).last().and_then(|attempt| attempt.status);
    last == Some(422) && books.arrivals(pair).iter().any(|arrival| arrival.answer == Answer::Status(422))
}
