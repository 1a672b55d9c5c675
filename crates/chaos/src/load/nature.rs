//! How a receiver behaves: what it answers, decided by the seed alone.

use ring::digest::{SHA256, digest};

use crate::journal::Answer;

/// A receiver is flaky in its first answers to an event only, so that no schedule is used up by chance.
const FLAKY_TIMES: u32 = 3;

/// The seed, where it decides about answers.
#[derive(Clone, Copy, Debug)]
pub struct Temper(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// Always well: what the time until recovery is measured at.
    Steady,
    /// Fails now and then: 5 % are answered 500, 2 % hang, 1 % are reset.
    Flaky,
    /// Answers 422 to a quarter of the events, and its retry policy calls that permanent.
    Strict,
    /// Answers 500 to a seventh of the events for as long as they come: their schedule is used up, and breakers open.
    Failing,
}

impl Nature {
    /// What the request is answered that comes after `times` others of the same event, of which `fate` is told.
    pub fn answer(self, temper: Temper, subscription: u16, fate: u32, times: u32) -> Answer {
        let whole = draw(temper, subscription, fate, u32::MAX);
        match self {
            Self::Steady => return Answer::Status(200),
            Self::Strict if whole < 250 => return Answer::Status(422),
            Self::Failing if whole < 150 => return Answer::Status(500),
            Self::Flaky | Self::Strict | Self::Failing => {}
        }
        if times >= FLAKY_TIMES {
            return Answer::Status(200);
        }
        match draw(temper, subscription, fate, times) {
            0..50 => Answer::Status(500),
            50..70 => Answer::Hang,
            70..80 => Answer::Reset,
            _ => Answer::Status(200),
        }
    }

    /// Whether nothing but Posthorn can hold up the first attempt of its deliveries.
    pub fn is_prompt(self) -> bool {
        matches!(self, Self::Steady | Self::Flaky)
    }
}

/// A draw from 0 to 999.
fn draw(temper: Temper, subscription: u16, fate: u32, times: u32) -> u32 {
    let mut text = temper.0.to_be_bytes().to_vec();
    text.extend(subscription.to_be_bytes());
    text.extend(fate.to_be_bytes());
    text.extend(times.to_be_bytes());
    let digest = digest(&SHA256, &text);
    let first = digest.as_ref().first_chunk::<4>().copied().unwrap_or_default();
    u32::from_be_bytes(first) % 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flaky_receiver_fails_as_often_as_it_says() {
        let answers: Vec<_> = (0..20_000).map(|number| Nature::Flaky.answer(Temper(1), 3, number, 0)).collect();
        let share = |answer| answers.iter().filter(|a| **a == answer).count() as f64 / 20_000.0;
        assert!((share(Answer::Status(500)) - 0.05).abs() < 0.01);
        assert!((share(Answer::Hang) - 0.02).abs() < 0.01);
        assert!((share(Answer::Reset) - 0.01).abs() < 0.005);
    }

    #[test]
    fn chance_alone_uses_up_no_schedule() {
        assert!((0..20_000).all(|number| Nature::Flaky.answer(Temper(1), 3, number, 3) == Answer::Status(200)));
    }

    #[test]
    fn what_is_doomed_stays_doomed() {
        let doomed = (0..1000).filter(|number| Nature::Failing.answer(Temper(1), 3, *number, 9) == Answer::Status(500));
        assert!((100..200).contains(&doomed.count()));
    }
}
