//! Workers: the messages that they have in hand, and how far they are with each.

use posthorn_core::delivery::wait_before_claim;

use crate::bag::{Bag, Item};
use crate::message::Message;
use crate::moment::{CLAIM_AFTER, Moment, PROMPT, RETRY_PAUSE, SHORT_PATIENCE, TIMEOUT, TURN, units};
use crate::row::Next;
use crate::sabotage::Sabotage;

/// How far a worker is with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It came back, and waits for the handler that has the same attempt in hand here.
    InLine,
    /// It came back, and waits for whoever may have the attempt elsewhere.
    Waiting { until: Moment },
    /// It waits for its turn; begun or put back `by` then.
    Got { by: Moment },
    /// Its row is taken for this attempt.
    Claimed { by: Moment },
    /// The POST is under way. One that was begun `unread` has its row claimed when it lasts, `by` then.
    Sending { began: Moment, unread: bool, by: Moment },
    /// The attempt is over, and is to be recorded `by` then. `accepted`: by the receiver.
    Answered { next: Next, by: Moment },
    /// The record knows; the message is to be settled.
    Recorded { dead: bool },
}

/// A message in a worker's hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hand {
    pub message: Message,
    /// The message is still this handler's to settle. Otherwise it went back, and the handler goes on.
    pub attached: bool,
    /// Its worker stood still meanwhile, so nothing is held against what it does.
    pub excused: bool,
    pub stage: Stage,
}

/// A delivery-worker process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Worker {
    pub hands: Bag<Hand, 3>,
    /// It found the database away, and consumes nothing until that is back.
    pub stalled: bool,
    /// It stands still: paused, swapped out. Its messages went back.
    pub frozen: bool,
}

impl Stage {
    /// Tells stages apart, whatever their moments.
    pub fn number(self) -> u8 {
        match self {
            Self::InLine => 0,
            Self::Waiting { .. } => 1,
            Self::Got { .. } => 2,
            Self::Claimed { .. } => 3,
            Self::Sending { .. } => 4,
            Self::Answered { .. } => 5,
            Self::Recorded { .. } => 6,
        }
    }
}

impl Hand {
    /// A message that has just come.
    pub fn of(message: Message, sabotage: Sabotage) -> Self {
        let stage = match message.redelivered {
            true if sabotage == Sabotage::NobodyWaitsInHand => Stage::Waiting { until: patience(&message, sabotage) },
            true => Stage::InLine,
            false => Stage::Got { by: TURN },
        };
        Self { message, attached: true, excused: false, stage }
    }

    /// Whether `in_hand` counts it: what still waits for others is not counted.
    pub fn is_in_hand(&self) -> bool {
        !matches!(self.stage, Stage::InLine | Stage::Waiting { .. })
    }

    /// Until when time may pass before it has to move.
    pub fn limit(&self, database_is_up: bool) -> Moment {
        match self.stage {
            Stage::InLine | Stage::Recorded { .. } => Moment::MAX,
            Stage::Waiting { until } => until + TURN,
            Stage::Got { by } | Stage::Claimed { by } => by,
            Stage::Sending { began, unread: true, by } if database_is_up => by.min(began + TIMEOUT),
            Stage::Sending { began, .. } => began + TIMEOUT,
            Stage::Answered { by, .. } if database_is_up => by,
            Stage::Answered { .. } => Moment::MAX,
        }
    }

    /// The moments at which it may do something new.
    pub fn moments(&self) -> [Option<Moment>; 2] {
        match self.stage {
            Stage::Waiting { until } => [Some(until), None],
            Stage::Sending { began, unread: true, .. } => [Some(began + CLAIM_AFTER), Some(began + TIMEOUT)],
            Stage::Sending { began, .. } => [Some(began + TIMEOUT), None],
            _ => [None, None],
        }
    }

    pub fn pass(&mut self, time: Moment) {
        match &mut self.stage {
            Stage::InLine | Stage::Recorded { .. } => {}
            Stage::Waiting { until } => *until = (*until - time).max(-TURN),
            Stage::Got { by } | Stage::Claimed { by } => *by = (*by - time).max(0),
            Stage::Sending { began, by, unread } => {
                *began = (*began - time).max(-TIMEOUT);
                *by = if *unread { (*by - time).max(0) } else { 0 };
            }
            Stage::Answered { next, by } => {
                *by = (*by - time).max(0);
                if let Next::RetryAt(at) = next {
                    *at = (*at - time).max(0);
                }
            }
        }
    }

    /// The database is back: what waits for it is tried again within the pause of whoever tries.
    pub fn database_is_back(&mut self) {
        if let Stage::Sending { by, unread: true, .. } | Stage::Answered { by, .. } = &mut self.stage {
            *by = (*by).max(RETRY_PAUSE + PROMPT);
        }
    }

    /// Its worker goes on after it stood still.
    pub fn thaw(&mut self) {
        match &mut self.stage {
            Stage::Sending { by, unread: true, .. }
            | Stage::Answered { by, .. }
            | Stage::Got { by }
            | Stage::Claimed { by } => *by = (*by).max(PROMPT),
            Stage::Waiting { until } => *until = (*until).max(0),
            _ => {}
        }
    }
}

impl Worker {
    /// Messages whose handler has ended free those that waited for it.
    pub fn move_up(&mut self, sabotage: Sabotage) {
        for index in 0..self.hands.len() {
            let all = self.hands;
            let Some(hand) = all.get(index).filter(|hand| hand.stage == Stage::InLine) else { continue };
            let is_held = |other: &Hand| other.is_in_hand() && other.message.is_of_same_attempt(&hand.message);
            if !all.as_slice().iter().any(is_held) {
                let until = patience(&hand.message, sabotage);
                self.hands.as_mut_slice()[index].stage = Stage::Waiting { until };
            }
        }
        self.hands.sort();
    }
}

/// Until when a message that came back waits before it claims.
pub fn patience(message: &Message, sabotage: Sabotage) -> Moment {
    match (units(wait_before_claim(&message.wake())), sabotage) {
        (0, _) | (_, Sabotage::NoPatience) => 0,
        (_, Sabotage::ShortPatience) => SHORT_PATIENCE,
        (patience, _) => patience,
    }
}

impl Default for Hand {
    fn default() -> Self {
        Self { message: Message::default(), attached: false, excused: false, stage: Stage::InLine }
    }
}

impl Item for Hand {
    fn key(&self) -> u128 {
        let (kind, flag, one, two): (u128, bool, Moment, Moment) = match self.stage {
            Stage::InLine => (0, false, 0, 0),
            Stage::Waiting { until } => (1, false, until, 0),
            Stage::Got { by } => (2, false, by, 0),
            Stage::Claimed { by } => (3, false, by, 0),
            Stage::Sending { began, unread, by } => (4, unread, began, by),
            Stage::Answered { next: Next::Delivered, by } => (5, false, 0, by),
            Stage::Answered { next: Next::RetryAt(at), by } => (6, false, at, by),
            Stage::Answered { next: Next::Dead(reason), by } => (7, false, reason as Moment, by),
            Stage::Recorded { dead } => (8, dead, 0, 0),
        };
        let flags = u128::from(flag) | u128::from(self.attached) << 1 | u128::from(self.excused) << 2;
        self.message.key() | flags << 48 | kind << 52 | u128::from(one as u16) << 64 | u128::from(two as u16) << 80
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moment::PATIENCE;

    #[test]
    fn a_message_waits_for_as_long_as_the_product_does() {
        let came_back = Message::first(0, 0).again();
        assert_eq!(patience(&came_back, Sabotage::None), PATIENCE);
        assert_eq!(patience(&Message { attempt: 2, ..came_back }, Sabotage::None), 0);
    }
}
