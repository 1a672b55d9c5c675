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
    use proptest::prelude::*;

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

    proptest! {
        /// Each attempt succeeds or fails, and a failed one is tried again after so many seconds.
        #[test]
        fn of_any_line_one_goes_at_a_time_in_its_order_until_a_head_has_blocked_for_too_long(
            attempts in prop::collection::vec((any::<bool>(), 1i64..400), 1..100),
        ) {
            let (mut now, mut next, mut head) = (0, 0u32, None::<(u32, Head)>);
            for (succeeds, wait) in attempts {
                // Nobody's turn: time passes.
                let gone = loop {
                    match turn(head.as_ref().map(|(_, head)| head), BLOCK, PATIENCE, at(now)) {
                        Turn::Wait(until) => {
                            prop_assert!(until > at(now), "it is looked at later");
                            now = until.as_second() - at(0).as_second();
                        }
                        Turn::Head => break head.map(|(number, head)| (number, head.attempts, head.since)),
                        Turn::Next => {
                            let stepped_aside = head.is_some_and(|(_, head)| head.state == Some(State::Held));
                            let blocked = head.map_or(0, |(_, head)| now - (head.since.as_second() - at(0).as_second()));
                            prop_assert!(!stepped_aside || blocked >= 600);
                            next += 1;
                            break Some((next, 0, at(now)));
                        }
                    }
                };
                let Some((number, attempts, since)) = gone else { unreachable!("a head that is not there") };
                prop_assert_eq!(number, next, "none before the one before it");
                let under_way = Head { state: Some(State::Queued), due_at: None, attempts, since };
                prop_assert!(matches!(turn(Some(&under_way), BLOCK, PATIENCE, at(now)), Turn::Wait(_)), "one at a time");
                let state = if succeeds { State::Delivered } else { State::Held };
                let due_at = (!succeeds).then(|| at(now + wait));
                head = Some((number, Head { state: Some(state), due_at, attempts: attempts + 1, since }));
            }
        }
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
