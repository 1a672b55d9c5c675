//! Who may wait for a busy endpoint inside a delivery-worker.
//!
//! A worker holds a bounded number of messages. Those that wait for one endpoint keep others out,
//! so a message may wait only as long as its turn is near; otherwise it goes back to PostgreSQL
//! (`held(slow)`). A fast endpoint with a burst drains from memory, a hanging one holds nothing up.

use std::time::Duration;

/// One endpoint as a worker sees it now.
#[derive(Clone, Copy, Debug)]
pub struct Lane {
    /// Attempts under way.
    pub in_flight: u32,
    /// Messages that wait in this worker for their turn.
    pub waiting: u32,
    /// The subscription's cap; at least 1.
    pub max_in_flight: u32,
    /// Smoothed duration of an attempt; zero when none has ended yet.
    pub typical: Duration,
    /// Age of the oldest attempt under way: what hangs has no duration yet.
    pub oldest: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Go,
    Wait,
    /// Back to PostgreSQL, for about this long.
    Hold(Duration),
}

/// Shortest and longest time for which a delivery is put back.
const HOLD: std::ops::RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_secs(30);

/// Decides for one more message. `patience` is the longest wait inside the worker.
pub fn place(lane: &Lane, patience: Duration) -> Place {
    if lane.in_flight < lane.max_in_flight && lane.waiting == 0 {
        return Place::Go;
    }
    let turn = lane.typical.max(lane.oldest);
    let wait = turn.saturating_mul(lane.waiting + 1) / lane.max_in_flight.max(1);
    if wait <= patience { Place::Wait } else { Place::Hold(wait.clamp(*HOLD.start(), *HOLD.end())) }
}

/// The smoothed duration after one more attempt took `took`.
pub fn smooth(typical: Duration, took: Duration) -> Duration {
    if typical.is_zero() { took } else { (typical * 7 + took) / 8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(in_flight: u32, waiting: u32, typical_ms: u64, oldest_ms: u64) -> Lane {
        Lane {
            in_flight,
            waiting,
            max_in_flight: 8,
            typical: Duration::from_millis(typical_ms),
            oldest: Duration::from_millis(oldest_ms),
        }
    }

    #[test]
    fn a_free_endpoint_is_used_and_a_fast_one_is_waited_for() {
        let patience = Duration::from_millis(500);
        assert_eq!(place(&lane(7, 0, 5, 5), patience), Place::Go);
        assert_eq!(place(&lane(8, 0, 5, 5), patience), Place::Wait);
        assert_eq!(place(&lane(8, 60, 5, 5), patience), Place::Wait);
    }

    #[test]
    fn a_slow_or_hanging_endpoint_gives_its_place_to_others() {
        let patience = Duration::from_millis(500);
        assert!(matches!(place(&lane(8, 4, 2000, 0), patience), Place::Hold(_)));
        assert!(matches!(place(&lane(8, 0, 5, 14_000), patience), Place::Hold(_)));
        assert_eq!(place(&lane(8, 500, 10_000, 0), patience), Place::Hold(Duration::from_secs(30)));
    }
}
