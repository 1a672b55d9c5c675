//! Subscriptions that have failed for days: whom to warn, and what to end.

use std::time::Duration;

use jiff::Timestamp;

use crate::time::{later, since};

/// How much of the time must have passed, in percent, for each warning.
pub const WARNINGS: [u8; 3] = [50, 70, 90];

/// A subscription without a success for some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    /// Its first failure since its last success.
    pub since: Timestamp,
    /// Its last attempt: what nobody tried has not failed since.
    pub last_attempt: Timestamp,
    /// The last warning given, in percent; 0 for none.
    pub warned_percent: u8,
    pub warned_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// Tell the tenant that so many percent of its time have passed.
    Warn(u8),
    Disable,
}

impl Failing {
    /// What follows, for a subscription that is disabled after failing for `limit`. None is disabled before it was
    /// warned for the last time and a tenth of that time has passed, in which it was tried again.
    pub fn consequence(&self, limit: Duration) -> Option<Consequence> {
        let failed_for = since(self.since, self.last_attempt);
        let reached = |percent: &u8| failed_for >= limit.mul_f64(f64::from(*percent) / 100.0);
        let warning = WARNINGS.into_iter().rev().find(reached)?;
        if warning > self.warned_percent {
            return Some(Consequence::Warn(warning));
        }
        let warned_for = self.warned_at.map_or(Duration::ZERO, |warned_at| since(warned_at, self.last_attempt));
        (failed_for >= limit && warned_for >= limit / 10).then_some(Consequence::Disable)
    }

    /// When it is disabled if it goes on failing.
    pub fn disables_at(&self, limit: Duration) -> Timestamp {
        later(self.since, limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1000);

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(1_782_864_000 + secs).unwrap()
    }

    fn after(secs: i64, warned_percent: u8) -> Option<Consequence> {
        warned(secs, warned_percent, 900)
    }

    fn warned(secs: i64, warned_percent: u8, warned_at: i64) -> Option<Consequence> {
        let warned_at = Some(at(warned_at)).filter(|_| warned_percent > 0);
        Failing { since: at(0), last_attempt: at(secs), warned_percent, warned_at }.consequence(LIMIT)
    }

    #[test]
    fn warnings_come_one_by_one_before_the_end() {
        assert_eq!(after(499, 0), None);
        assert_eq!(after(500, 0), Some(Consequence::Warn(50)));
        assert_eq!(after(699, 50), None);
        assert_eq!(after(700, 50), Some(Consequence::Warn(70)));
        assert_eq!(after(900, 70), Some(Consequence::Warn(90)));
        assert_eq!(after(999, 90), None);
        assert_eq!(after(1000, 90), Some(Consequence::Disable));
    }

    #[test]
    fn nobody_is_disabled_without_the_last_warning() {
        assert_eq!(after(5000, 0), Some(Consequence::Warn(90)));
        assert_eq!(after(5000, 50), Some(Consequence::Warn(90)));
        assert_eq!(after(5000, 90), Some(Consequence::Disable));
        assert_eq!(warned(5000, 90, 5000), None, "it was not tried since");
        assert_eq!(warned(5100, 90, 5000), Some(Consequence::Disable));
    }
}
