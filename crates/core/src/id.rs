//! Names of things: a prefix that says what, and a UUID whose first 48 bits say when.
//!
//! Invariant: the UUID begins with a millisecond timestamp (version 7, or version 8 where the rest
//! is derived), so ids sort by time and name the day partition of their row.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use ring::digest::{Context, SHA256};
use uuid::{Builder, Uuid};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not an id of the form `{prefix}_…`")]
pub struct Malformed {
    pub prefix: &'static str,
}

/// Ten random bytes, drawn by the caller.
pub type Entropy = [u8; 10];

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            pub const PREFIX: &'static str = $prefix;

            /// A new name (UUIDv7, RFC 9562 §5.7).
            pub fn new(now: Timestamp, entropy: Entropy) -> Self {
                Self(Builder::from_unix_timestamp_millis(millis(now), &entropy).into_uuid())
            }

            pub fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            pub fn as_uuid(&self) -> &Uuid {
                &self.0
            }

            /// The time in the id, whole milliseconds.
            pub fn time(&self) -> Timestamp {
                time_of(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = Malformed;

            fn from_str(text: &str) -> Result<Self, Malformed> {
                text.strip_prefix(concat!($prefix, "_"))
                    .and_then(|uuid| Uuid::try_parse(uuid).ok())
                    .map(Self)
                    .ok_or(Malformed { prefix: $prefix })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    TenantId = "ten";
    SourceId = "src";
    SubscriptionId = "sub";
    EventId = "evt";
    DeliveryId = "dlv";
    AttemptId = "att";
    ApiKeyId = "key";
    DeadLetterId = "dl";
    ReplayId = "rpl";
    RejectedRequestId = "rej";
    /// A line of the audit log.
    AuditEntryId = "aud";
    SecretId = "sec";
}

impl DeliveryId {
    /// The one delivery of `event` to `subscription`: dispatching twice names the same row.
    pub fn derive(event: EventId, subscription: SubscriptionId) -> Self {
        Self(derived(event.as_uuid(), &[event.as_uuid().as_bytes(), subscription.as_uuid().as_bytes()]))
    }
}

impl AttemptId {
    /// The one record of try `number` in `generation` of `delivery`: recording twice names the same row.
    pub fn derive(delivery: DeliveryId, generation: u32, number: u32) -> Self {
        Self(derived(
            delivery.as_uuid(),
            &[delivery.as_uuid().as_bytes(), &generation.to_be_bytes(), &number.to_be_bytes()],
        ))
    }
}

/// The smallest id of the millisecond `at`: the bound of a partition, or of a list filtered by time.
pub fn floor(at: Timestamp) -> Uuid {
    Uuid::from_u128(u128::from(millis(at)) << 80)
}

/// UUIDv8 (RFC 9562 §5.8): the time of `parent`, then bits of SHA-256 over `parts`.
fn derived(parent: &Uuid, parts: &[&[u8]]) -> Uuid {
    let mut hash = Context::new(&SHA256);
    for part in parts {
        hash.update(part);
    }
    let mut bytes = *parent.as_bytes();
    bytes[6..].copy_from_slice(&hash.finish().as_ref()[..10]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

fn millis(at: Timestamp) -> u64 {
    // Before 1970 there are no events; clamping keeps a broken clock from wrapping into the far future.
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}

fn time_of(uuid: &Uuid) -> Timestamp {
    let millis = i64::try_from(uuid.as_u128() >> 80).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    #[test]
    fn an_id_reads_back_as_it_was_written_and_tells_its_time() {
        let id = EventId::new(at(1_782_864_000_123), [7; 10]);
        assert_eq!(id.to_string().parse::<EventId>(), Ok(id));
        assert_eq!(id.time(), at(1_782_864_000_123));
        assert!(id.to_string().starts_with("evt_"));
        assert_eq!(id.as_uuid().get_version_num(), 7);
    }

    #[test]
    fn an_id_of_another_kind_is_refused() {
        let event = EventId::new(at(1), [1; 10]).to_string();
        assert!(event.parse::<DeliveryId>().is_err());
        assert!("evt_zzz".parse::<EventId>().is_err());
    }

    #[test]
    fn a_derived_id_is_the_same_every_time_and_lies_in_its_parents_millisecond() {
        let event = EventId::new(at(1_782_864_000_123), [7; 10]);
        let one = SubscriptionId::new(at(5), [1; 10]);
        let two = SubscriptionId::new(at(5), [2; 10]);
        let delivery = DeliveryId::derive(event, one);
        assert_eq!(delivery, DeliveryId::derive(event, one));
        assert_ne!(delivery, DeliveryId::derive(event, two));
        assert_eq!(delivery.time(), event.time());
        let attempt = AttemptId::derive(delivery, 0, 1);
        assert_ne!(attempt, AttemptId::derive(delivery, 1, 1));
        assert_eq!(attempt.time(), event.time());
    }

    #[test]
    fn the_floor_of_a_millisecond_sorts_before_every_id_in_it() {
        let id = EventId::new(at(1_782_864_000_123), [0; 10]);
        assert!(floor(at(1_782_864_000_123)) <= *id.as_uuid());
        assert!(floor(at(1_782_864_000_124)) > *id.as_uuid());
    }
}
