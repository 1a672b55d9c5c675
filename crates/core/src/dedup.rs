//! When two requests are one event.
//!
//! A key is remembered in day buckets (UTC). A table partitioned by day cannot hold a key unique
//! across days, so near midnight a key goes into both neighbours: two requests that straddle the
//! boundary share at least one bucket and collide there with certainty.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use ring::digest::{Context, SHA256};
use uuid::Uuid;

use crate::id::SourceId;

/// How near to midnight a key goes into two buckets, in seconds. More than the clocks of two
/// replicas differ and a commit may take.
pub const BOUNDARY_SECS: i64 = 300;

/// The key of an event: 16 bytes of SHA-256 over the source and what identifies the event there.
///
/// Each part is hashed with its length, so that moving a byte between parts gives another key.
pub fn key<'a>(source: SourceId, parts: impl IntoIterator<Item = &'a str>) -> Uuid {
    let mut hash = Context::new(&SHA256);
    hash.update(source.as_uuid().as_bytes());
    for part in parts {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finish().as_ref()[..16]);
    Uuid::from_bytes(bytes)
}

/// The buckets that a key seen at `now` goes into: one, or two near midnight.
pub fn buckets(now: Timestamp) -> Vec<Date> {
    let day = |offset: i64| {
        let at = Timestamp::from_second(now.as_second().saturating_add(offset)).unwrap_or(now);
        at.to_zoned(TimeZone::UTC).date()
    };
    let mut buckets = vec![day(-BOUNDARY_SECS), day(BOUNDARY_SECS)];
    buckets.dedup();
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn two_moments_less_than_five_minutes_apart_share_a_bucket() {
        let base = at("2026-11-23T23:50:00Z");
        for first in 0..1200 {
            for gap in [0, 1, 150, 299, 300] {
                let one = Timestamp::from_second(base.as_second() + first).unwrap();
                let two = Timestamp::from_second(one.as_second() + gap).unwrap();
                let shared = buckets(one).iter().any(|bucket| buckets(two).contains(bucket));
                assert!(shared, "{one} and {two}");
            }
        }
    }

    #[test]
    fn far_from_midnight_there_is_one_bucket() {
        assert_eq!(buckets(at("2026-11-23T12:00:00Z")).len(), 1);
        assert_eq!(buckets(at("2026-11-23T23:56:00Z")).len(), 2);
        assert_eq!(buckets(at("2026-11-24T00:04:59Z")).len(), 2);
    }

    #[test]
    fn a_key_depends_on_the_source_and_on_where_its_parts_end() {
        let source = SourceId::from_uuid(Uuid::from_u128(1));
        assert_eq!(key(source, ["a", "bc"]), key(source, ["a", "bc"]));
        assert_ne!(key(source, ["a", "bc"]), key(source, ["ab", "c"]));
        assert_ne!(key(source, ["a"]), key(SourceId::from_uuid(Uuid::from_u128(2)), ["a"]));
    }
}
