//! Messages: wake-ups that name a row, a generation, an attempt and the lease under which they were published.

use posthorn_core::delivery::{Trigger, Wake};

use crate::bag::Item;
use crate::moment::{Moment, timestamp};

/// A message of the deliveries queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Which of the deliveries there are.
    pub delivery: u8,
    pub generation: u8,
    /// The attempt to be made.
    pub attempt: u8,
    pub lease: Moment,
    pub trigger: Trigger,
    pub has_content: bool,
    pub redelivered: bool,
}

/// A message of the dead-letter queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dead {
    pub message: Message,
    /// It went round too often; otherwise a worker rejected it.
    pub over_limit: bool,
}

impl Message {
    /// A delivery's first message, as fan-out publishes it.
    pub fn first(delivery: u8, lease: Moment) -> Self {
        Self { delivery, lease, ..Self::default() }
    }

    /// As the broker gives it out again.
    pub fn again(self) -> Self {
        Self { redelivered: true, ..self }
    }

    /// Whether it is for the attempt that may be under way unread.
    pub fn is_of_first_attempt(&self) -> bool {
        self.attempt == 1 && self.trigger == Trigger::Dispatch
    }

    pub fn is_of_same_attempt(&self, other: &Self) -> bool {
        (self.delivery, self.generation, self.attempt) == (other.delivery, other.generation, other.attempt)
    }

    /// How `core` sees it.
    pub fn wake(&self) -> Wake {
        Wake {
            attempt: self.attempt.into(),
            trigger: self.trigger,
            redelivered: self.redelivered,
            has_content: self.has_content,
            lease_until: timestamp(self.lease),
        }
    }
}

impl Default for Message {
    fn default() -> Self {
        Self {
            delivery: 0,
            generation: 1,
            attempt: 1,
            lease: 0,
            trigger: Trigger::Dispatch,
            has_content: true,
            redelivered: false,
        }
    }
}

impl Item for Message {
    fn key(&self) -> u128 {
        let flags = u128::from(self.has_content) | u128::from(self.redelivered) << 1;
        let numbers = u128::from(self.delivery) | u128::from(self.generation) << 8 | u128::from(self.attempt) << 16;
        numbers | u128::from(self.lease as u16) << 24 | (self.trigger as u128) << 40 | flags << 44
    }
}

impl Item for Dead {
    fn key(&self) -> u128 {
        self.message.key() | u128::from(self.over_limit) << 48
    }
}
