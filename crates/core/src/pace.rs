//! How fast a subscription may be served.

use std::time::Duration;

use jiff::Timestamp;

use crate::time::{later, since};

/// A token bucket: what may go at once, and since when it fills.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    pub tokens: f64,
    /// `None`: never used, so full.
    pub at: Option<Timestamp>,
}

/// How many of `wanted` may go now at `per_second`, and the bucket afterwards. The bucket holds one
/// second's worth, and at least one: after a pause that much goes at once, never more.
pub fn take(bucket: &Bucket, per_second: f64, wanted: u32, now: Timestamp) -> (u32, Bucket) {
    let capacity = per_second.max(1.0);
    let filled = match bucket.at {
        None => capacity,
        Some(at) => (bucket.tokens + since(at, now).as_secs_f64() * per_second).min(capacity),
    };
    // At most `capacity`, which fits: limits are small numbers.
    let taken = wanted.min(filled.max(0.0) as u32);
    (taken, Bucket { tokens: filled - f64::from(taken), at: Some(now) })
}

/// When the bucket will hold a whole token.
pub fn next_token(bucket: &Bucket, per_second: f64, now: Timestamp) -> Timestamp {
    let missing = (1.0 - bucket.tokens).max(0.0) / per_second;
    // No rate that is accepted makes this long; one that is not finite waits for ever.
    later(now, Duration::try_from_secs_f64(missing).unwrap_or(Duration::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_bucket_says_when_it_is_worth_asking_again() {
        let now = Timestamp::from_second(1_782_864_000).unwrap();
        let empty = Bucket { tokens: 0.5, at: Some(now) };
        assert_eq!(next_token(&empty, 2.0, now), later(now, Duration::from_millis(250)));
        assert_eq!(take(&empty, 2.0, 1, next_token(&empty, 2.0, now)).0, 1);
    }

    #[test]
    fn a_rate_below_one_a_second_lets_one_go_whenever_it_is_whole() {
        let start = Timestamp::from_second(1_782_864_000).unwrap();
        let (taken, left) = take(&Bucket { tokens: 0.0, at: None }, 1.0 / 60.0, 5, start);
        assert_eq!(taken, 1);
        let next = next_token(&left, 1.0 / 60.0, start);
        assert_eq!(next, later(start, Duration::from_secs(60)));
        assert_eq!(take(&left, 1.0 / 60.0, 5, later(start, Duration::from_secs(59))).0, 0);
        assert_eq!(take(&left, 1.0 / 60.0, 5, next).0, 1);
    }

    proptest! {
        #[test]
        fn over_any_stretch_no_more_goes_than_the_rate_and_one_bucket(
            per_second in prop_oneof![0.0001..0.5f64, 0.5..200.0f64],
            pauses in proptest::collection::vec(0u64..3000, 1..60),
        ) {
            let start = Timestamp::from_second(1_782_864_000).unwrap();
            let mut now = start;
            let mut bucket = Bucket { tokens: 0.0, at: None };
            let mut gone = 0.0;
            for pause in pauses {
                now = later(now, Duration::from_millis(pause));
                let (taken, left) = take(&bucket, per_second, 1000, now);
                gone += f64::from(taken);
                bucket = left;
                let allowed = per_second.max(1.0) + since(start, now).as_secs_f64() * per_second;
                prop_assert!(gone <= allowed + 1e-6, "{gone} of {allowed}");
            }
        }
    }
}
