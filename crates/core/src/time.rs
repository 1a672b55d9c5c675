//! Moments as the outside and the database see them.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// RFC 3339 in UTC with milliseconds, the form of every time in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rfc3339(pub Timestamp);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

impl serde::Serialize for Rfc3339 {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Rfc3339 {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        text.parse().map(Self).map_err(|_| serde::de::Error::custom("not a time of the form `2026-07-01T00:00:00Z`"))
    }
}

/// `wait` after `from`; the end of time where that lies beyond it.
pub fn later(from: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait).ok().and_then(|wait| from.checked_add(wait).ok()).unwrap_or(Timestamp::MAX)
}

/// The beginning of the hour (UTC) in which `at` lies.
pub fn start_of_hour(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second().div_euclid(3600) * 3600).unwrap_or(at)
}

/// `by` before `at`; the beginning of time where that lies beyond it.
pub fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_sub(by).unwrap_or(Timestamp::MIN)
}

/// The microsecond of `at`, the finest that PostgreSQL keeps.
pub fn to_micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

/// The moment `micros` after 1970. Values that no clock shows become the end of time.
pub fn from_micros(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX)
}

/// `at` without what PostgreSQL would drop, so that a value compares equal after a round trip.
pub fn whole_micros(at: Timestamp) -> Timestamp {
    from_micros(to_micros(at))
}

/// How long after `earlier` is `now`; zero when it is not after.
pub fn since(earlier: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(earlier)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_in_utc_with_milliseconds() {
        let at = Timestamp::from_microsecond(1_782_864_000_120_456).unwrap();
        assert_eq!(Rfc3339(at).to_string(), "2026-07-01T00:00:00.120Z");
    }

    #[test]
    fn no_wait_is_too_long_to_add() {
        assert_eq!(later(Timestamp::UNIX_EPOCH, Duration::MAX), Timestamp::MAX);
        assert_eq!(since(Timestamp::MAX, Timestamp::UNIX_EPOCH), Duration::ZERO);
    }
}
