//! Ordered subscriptions: one delivery at a time, oldest first.
//!
//! The delivery whose turn it is stands at the head. A head that fails keeps the others waiting while it is
//! tried again, for so long and no longer; then it steps aside and goes on by itself.

use std::time::Duration;

use jiff::Timestamp;

use crate::delivery::State;
use crate::time::later;

/// The delivery at the head, as its row is now.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// `None`: the row is gone.
    pub state: Option<State>,
    /// Of a held one: when it goes on.
    pub due_at: Option<Timestamp>,
    /// Attempts made.
    pub attempts: u32,
    /// When it was first released.
    pub since: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The next one's.
    Next,
    /// The head's again.
    Head,
    /// Nobody's before then.
    Wait(Timestamp),
}

/// Whose turn it is. A head that is under way is waited for until `now` and `patience`: it is looked at again when
/// it is recorded.
pub fn turn(head: Option<&Head>, max_block: Duration, patience: Duration, now: Timestamp) -> Turn {
    let Some(head) = head else { return Turn::Next };
    let aside_at = later(head.since, max_block);
    match (head.state, head.due_at) {
        (Some(State::Queued), _) => Turn::Wait(later(now, patience)),
        // One that was put back and never tried has not failed.
        (Some(State::Held), _) if head.attempts > 0 && aside_at <= now => Turn::Next,
        (Some(State::Held), Some(due_at)) if due_at > now && head.attempts > 0 => Turn::Wait(due_at.min(aside_at)),
        (Some(State::Held), Some(due_at)) if due_at > now => Turn::Wait(due_at),
        (Some(State::Held), _) => Turn::Head,
        (Some(State::Delivered | State::Dead | State::Cancelled) | None, _) => Turn::Next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: Duration = Duration::from_secs(600);
    const PATIENCE: Duration = Duration::from_secs(30);

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(1_782_864_000 + secs).unwrap()
    }

    fn turn_of(state: State, due: i64, now: i64) -> Turn {
        let head = Head { state: Some(state), due_at: Some(at(due)), attempts: 1, since: at(0) };
        turn(Some(&head), BLOCK, PATIENCE, at(now))
    }

    #[test]
    fn the_next_goes_when_the_head_has_ended_and_not_before() {
        assert_eq!(turn(None, BLOCK, PATIENCE, at(0)), Turn::Next);
        assert_eq!(turn_of(State::Delivered, 0, 1), Turn::Next);
        assert_eq!(turn_of(State::Dead, 0, 1), Turn::Next);
        assert_eq!(turn_of(State::Queued, 0, 1), Turn::Wait(at(31)));
        assert_eq!(turn_of(State::Queued, 0, 9999), Turn::Wait(at(10_029)), "never two at a time");
    }

    #[test]
    fn a_failing_head_is_tried_again_and_steps_aside_in_the_end() {
        assert_eq!(turn_of(State::Held, 60, 1), Turn::Wait(at(60)));
        assert_eq!(turn_of(State::Held, 60, 60), Turn::Head);
        assert_eq!(turn_of(State::Held, 900, 61), Turn::Wait(at(600)));
        assert_eq!(turn_of(State::Held, 900, 600), Turn::Next);
        let untried = Head { state: Some(State::Held), due_at: Some(at(900)), attempts: 0, since: at(0) };
        assert_eq!(turn(Some(&untried), BLOCK, PATIENCE, at(800)), Turn::Wait(at(900)), "it has not failed");
        assert_eq!(turn(Some(&untried), BLOCK, PATIENCE, at(900)), Turn::Head);
    }
}
