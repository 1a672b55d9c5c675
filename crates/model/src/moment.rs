//! The clock: moments are relative to now, in units of 50 ms.
//!
//! Passing time lowers every moment that a world holds. What lies on the grid is a multiple of [`GRID`]; a claim's lease and
//! a lease that was given back lie beside it, because two moments of the real clock never coincide by themselves and a
//! fence that compares them must not do so here.

use std::time::Duration;

use jiff::Timestamp;
use posthorn_core::delivery;
use posthorn_core::time::later;

/// Units of 50 ms from now; what is past is negative.
pub type Moment = i16;

/// A duration of `core`.
pub const fn units(duration: Duration) -> Moment {
    (duration.as_millis() / 50) as Moment
}

const fn seconds(seconds: Moment) -> Moment {
    seconds * 20
}

/// Everything on the grid is a multiple of this: 250 ms.
pub const GRID: Moment = 5;

/// A living process that can do what is due does it within 250 ms. Without some such promise no wait is long enough.
pub const PROMPT: Moment = GRID;

/// How long a message may wait in a worker for a lane and then for a slot, 500 ms each.
pub const TURN: Moment = seconds(1);

/// An attempt that was begun unread and lasts longer has its row claimed meanwhile.
pub const CLAIM_AFTER: Moment = units(delivery::CLAIM_AFTER);

/// How long a first attempt's message that came back waits before it claims. Whoever has the attempt elsewhere may have to wait
/// for its turn, then sends, and has the row claimed, or the answer recorded, in time.
/// `core::delivery::wait_before_claim` says so, and which messages do.
pub const PATIENCE: Moment = 6 * CLAIM_AFTER;

/// Too short.
pub const SHORT_PATIENCE: Moment = seconds(2);

const _: () = assert!(PATIENCE > TURN + CLAIM_AFTER + 2 * PROMPT);

/// Pause before the database is asked again: 500 ms.
pub const RETRY_PAUSE: Moment = seconds(1) / 2;

/// An attempt's timeout.
pub const TIMEOUT: Moment = seconds(10);

/// What a lease outlasts its attempt by.
pub const MARGIN: Moment = seconds(5);

/// The lease of what was published for the first time or released: the queue's 20 s, and the timeout.
pub const LEASE: Moment = seconds(20) + TIMEOUT;

/// The lease of what was published again: the queue's 20 s, and the longest timeout that a subscription may have.
pub const RENEWED_LEASE: Moment = seconds(20 + 30);

/// How long the database has to answer before lost messages are replaced.
pub const RECORDERS_FIRST: Moment = seconds(5);

/// How long the gateway has an outbox row to itself, and how long a relay has it then.
pub const HEAD_START: Moment = seconds(5);
pub const RELAY_LEASE: Moment = seconds(30);

/// How long a dead delivery may go without a dead letter before the janitor writes it.
pub const CLERK_HEAD_START: Moment = seconds(120);

/// How long a message that was put back waits.
pub const SLOW: Moment = seconds(1);

/// The last moment of an attempt's lease that begins at `began`: beside the grid.
pub fn claimed_until(began: Moment) -> Moment {
    began + TIMEOUT + MARGIN + 1
}

/// How `core` sees a moment.
pub fn timestamp(moment: Moment) -> Timestamp {
    let since = Duration::from_millis(50).saturating_mul(moment.unsigned_abs().into());
    if moment < 0 { posthorn_core::time::earlier(EPOCH, since) } else { later(EPOCH, since) }
}

/// How a moment of `core` is seen here.
pub fn moment(at: Timestamp) -> Moment {
    Moment::try_from(at.duration_since(EPOCH).as_millis() / 50).unwrap_or(Moment::MAX)
}

const EPOCH: Timestamp = Timestamp::UNIX_EPOCH;
