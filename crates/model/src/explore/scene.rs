//! Where a story may begin: later than the beginning, so that what comes after it is followed further.

use std::fmt;

use crate::sabotage::Sabotage;
use crate::step::{Outcome, Step};
use crate::worker::{Hand, Stage};
use crate::world::{Left, World};

/// A moment in the life of a delivery to which nothing has happened yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// The event has been committed.
    Accepted,
    /// A worker has got the first message, and from then on everything is done as late as it may be.
    Late,
    /// A worker has sent the first attempt, unread.
    Sent,
    /// The same, and from then on the endpoint hangs: it answers as late as it may.
    Hanging,
    /// The first attempt failed, and the second is under way.
    Retried,
    /// The receiver has refused it for good, and the record knows.
    Dead,
}

impl Scene {
    pub const ALL: [Self; 6] = [Self::Accepted, Self::Late, Self::Sent, Self::Hanging, Self::Retried, Self::Dead];

    /// The steps that lead there, and the world then.
    pub fn set<const N: usize>(self, left: Left, sabotage: Sabotage) -> (Vec<Step>, World<N>) {
        let mut world = World::begin(left, sabotage);
        let (mut steps, mut possible) = (Vec::new(), Vec::new());
        while !self.is_set(&world) {
            possible.clear();
            world.orderly(sabotage, &mut possible);
            let acknowledging = possible.iter().find(|step| matches!(step, Step::AcknowledgeEvent { .. }));
            let Some(step) = acknowledging.or(possible.first()).map(|step| self.wants(*step)) else { break };
            let Ok(next) = world.take(step, sabotage) else { break };
            steps.push(step);
            world = next;
        }
        (steps, world)
    }

    /// Puts what is best done here first.
    pub fn sort(self, steps: &mut [Step]) {
        match self {
            Self::Late => steps.sort_by_key(|step| *step != Step::Pass),
            Self::Hanging => steps.sort_by_key(|step| matches!(step, Step::Answer { .. })),
            Self::Accepted | Self::Sent | Self::Retried | Self::Dead => {}
        }
    }

    fn is_set<const N: usize>(self, world: &World<N>) -> bool {
        let hands = || world.workers.iter().flat_map(|worker| worker.hands.as_slice());
        let is_sending = |hand: &Hand| matches!(hand.stage, Stage::Sending { .. });
        let published = world.fanning.is_empty() && world.outbox.is_none();
        match self {
            Self::Accepted => true,
            Self::Late => published && hands().any(|hand| matches!(hand.stage, Stage::Got { .. })),
            Self::Sent | Self::Hanging => published && hands().any(is_sending),
            Self::Retried => hands().any(|hand| hand.message.attempt == 2 && is_sending(hand)),
            Self::Dead => hands().any(|hand| hand.stage == Stage::Recorded { dead: true }),
        }
    }

    fn wants(self, step: Step) -> Step {
        let Step::Answer { worker, hand, .. } = step else { return step };
        let outcome = if self == Self::Dead { Outcome::Refused } else { Outcome::Failed };
        Step::Answer { worker, hand, outcome }
    }
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "the commit",
            Self::Late => "the first message, all late",
            Self::Sent => "the first POST",
            Self::Hanging => "the first POST, which hangs",
            Self::Retried => "the second POST",
            Self::Dead => "the death",
        })
    }
}
