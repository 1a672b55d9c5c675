//! A subscription whose endpoint asked for time: 429, or 503 with `Retry-After`.
//!
//! Nothing of it is sent until then. After that it goes on at a rate that doubles every few seconds, and that the next
//! such answer halves: so an endpoint that admits one request a second gets about that many.

use std::time::Duration;

use jiff::Timestamp;

use crate::time::since;

/// Shortest and longest time that an endpoint is granted, whatever it asks for.
pub const MIN: Duration = Duration::from_secs(1);
pub const MAX: Duration = Duration::from_secs(24 * 3600);

/// The rate at which a subscription goes on for the first time, in deliveries a second.
const FIRST_RATE: f64 = 1.0;

/// The rate doubles so often.
const DOUBLES_EVERY: Duration = Duration::from_secs(3);

/// The rate from which on a subscription is no longer held back.
const FREE_RATE: f64 = 100.0;

/// Until when nothing is sent, and how it goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hold {
    pub until: Timestamp,
    /// Deliveries a second right after `until`.
    pub per_second: f64,
}

/// What a held subscription may send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Admitted {
    /// As if it had never been held.
    Freely,
    /// Deliveries a second.
    AtRate(f64),
    NothingUntil(Timestamp),
}

impl Hold {
    /// After an endpoint asked for time until `until`; `before` is the hold that it had.
    pub fn after(before: Option<Self>, until: Timestamp, now: Timestamp) -> Self {
        let per_second = match before.map(|before| (before, before.admits(now))) {
            // Several requests were under way when it asked for the first time.
            Some((before, Admitted::NothingUntil(earlier))) => {
                return Self { until: until.max(earlier), ..before };
            }
            Some((_, Admitted::AtRate(rate))) => (rate / 2.0).max(FIRST_RATE),
            Some((_, Admitted::Freely)) | None => FIRST_RATE,
        };
        Self { until, per_second }
    }

    pub fn admits(&self, now: Timestamp) -> Admitted {
        if self.until > now {
            return Admitted::NothingUntil(self.until);
        }
        let doubled = since(self.until, now).as_secs() / DOUBLES_EVERY.as_secs();
        let rate = self.per_second * 2f64.powf(doubled.min(64) as f64);
        if rate < FREE_RATE { Admitted::AtRate(rate) } else { Admitted::Freely }
    }

    /// Whether deliveries wait for their turn in the database.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.admits(now) != Admitted::Freely
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_782_864_000_000 + millis).unwrap()
    }

    #[test]
    fn a_subscription_goes_on_slowly_and_faster_while_the_endpoint_keeps_up() {
        let hold = Hold::after(None, at(2_000), at(0));
        assert_eq!(hold.admits(at(1_999)), Admitted::NothingUntil(at(2_000)));
        let rates = [2_000, 4_999, 5_000, 8_000].map(|millis| hold.admits(at(millis)));
        assert_eq!(rates, [1.0, 1.0, 2.0, 4.0].map(Admitted::AtRate));
        assert_eq!(hold.admits(at(2_000 + 21_000)), Admitted::Freely);
    }

    #[test]
    fn an_endpoint_that_asks_again_is_asked_half_as_often() {
        let first = Hold::after(None, at(1_000), at(0));
        let same = Hold::after(Some(first), at(1_200), at(200));
        assert_eq!(same, Hold { until: at(1_200), per_second: 1.0 }, "requests of the same moment count once");
        assert_eq!(Hold::after(Some(same), at(500), at(300)), same, "the longest wish counts");
        let later = at(1_200 + 12_000);
        assert_eq!(same.admits(later), Admitted::AtRate(16.0));
        assert_eq!(Hold::after(Some(same), at(20_000), later).per_second, 8.0);
    }

    /// One request a second is admitted, in the manner of a token bucket of one; the others are answered 429 with
    /// `Retry-After: 1`.
    #[test]
    fn an_endpoint_that_admits_one_a_second_gets_little_more() {
        let (mut hold, mut last_admitted) = (Hold::after(None, at(1_000), at(0)), at(0));
        let (mut admitted, mut refused, mut last_sent) = (0, 0, at(0));
        for millis in (0..60_000).step_by(50) {
            let now = at(millis);
            let Admitted::AtRate(rate) = hold.admits(now) else { continue };
            if since(last_sent, now).as_secs_f64() < 1.0 / rate {
                continue;
            }
            last_sent = now;
            if since(last_admitted, now) >= Duration::from_secs(1) {
                (admitted, last_admitted) = (admitted + 1, now);
            } else {
                refused += 1;
                hold = Hold::after(Some(hold), at(millis + 1_000), now);
            }
        }
        assert!(admitted >= 40 && refused * 3 <= admitted, "{admitted} admitted, {refused} refused");
    }
}
