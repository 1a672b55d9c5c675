//! How fast a subscription may be served.

use jiff::Timestamp;

use crate::time::since;

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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::time::later;

    proptest! {
        #[test]
        fn over_any_stretch_no_more_goes_than_the_rate_and_one_bucket(
            per_second in 0.5..200.0f64,
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
