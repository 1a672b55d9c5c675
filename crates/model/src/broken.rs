//! What must hold, and how it is told when it does not.

use std::fmt;

use posthorn_core::delivery::{DeadReason, State};

use crate::act::ATTEMPTS;
use crate::message::Message;
use crate::row::Row;
use crate::worker::Stage;
use crate::world::{Seen, World};

/// A promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Left alone, it does not come to an end.
    Lost,
    DeliveredUnseen,
    ExhaustedEarly,
    /// The receiver had accepted this generation, and whoever knew of it lives.
    SentAfterAccepted,
    SentTwiceAtOnce,
    Revived,
    GenerationFell,
    /// A dead letter without a death, or a death with another number of them than one.
    Letters,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "left alone from here, a delivery never comes to an end",
            Self::DeliveredUnseen => "the record says delivered, and the receiver has accepted nothing",
            Self::ExhaustedEarly => "the record says exhausted, and attempts of the schedule were not made",
            Self::SentAfterAccepted => "a POST after the receiver's 2xx, although the worker that has it lives",
            Self::SentTwiceAtOnce => "two POSTs of one attempt are under way at once",
            Self::Revived => "what had ended goes on, and nobody asked for it",
            Self::GenerationFell => "a generation came back",
            Self::Letters => "dead letters and deaths are not the same",
        })
    }
}

/// What holds for a row and what the receiver saw, at any moment.
pub fn check(before: Option<&Row>, after: Option<&Row>, seen: &Seen, by_hand: bool) -> Result<(), Broken> {
    let Some(after) = after else { return Ok(()) };
    if let Some(before) = before {
        if after.generation < before.generation {
            return Err(Broken::GenerationFell);
        }
        let is_as_it_was = (after.state, after.generation) == (before.state, before.generation);
        if before.has_ended() && !is_as_it_was && !by_hand {
            return Err(Broken::Revived);
        }
    }
    if after.state == State::Delivered && !seen.has_accepted(after.generation) {
        return Err(Broken::DeliveredUnseen);
    }
    if after.dead_reason == Some(DeadReason::Exhausted) && after.attempt != ATTEMPTS {
        return Err(Broken::ExhaustedEarly);
    }
    let letters = after.letters.count_ones();
    if letters > 1 || (letters == 1 && !(after.state == State::Dead && after.has_letter())) {
        return Err(Broken::Letters);
    }
    Ok(())
}

/// What holds when a worker that never stood still begins a POST, which is not yet in its hand.
pub fn check_post<const N: usize>(world: &World<N>, message: &Message) -> Result<(), Broken> {
    let hands = world.workers.iter().flat_map(|worker| worker.hands.as_slice());
    let mut living = hands.filter(|hand| !hand.excused && matches!(hand.stage, Stage::Sending { .. }));
    if living.any(|hand| hand.message.is_of_same_attempt(message)) {
        return Err(Broken::SentTwiceAtOnce);
    }
    match world.seen.get(usize::from(message.delivery)) {
        // After a worker stood still, two may have made the same attempt, and the first to record it is believed.
        Some(seen) if seen.is_known(message.generation) && !seen.doubtful => Err(Broken::SentAfterAccepted),
        _ => Ok(()),
    }
}
