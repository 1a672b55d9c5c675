//! From a long story to one in which every step is needed.
//!
//! Numbers in a step choose among what there is, so they are of no use once another step is gone. While it is made
//! shorter, a story therefore says what each step is about.

use super::{Failure, Prints, leave_alone};
use crate::broken::Broken;
use crate::sabotage::Sabotage;
use crate::step::Step;
use crate::world::{Left, World};

/// Which message or hand a step is about: its delivery, generation, attempt, and what else can be said of it.
type About = Option<(u8, u8, u8, u8)>;

/// Takes out steps, many at first and then each, as long as the same promise is broken.
pub fn shrink<const N: usize>(failure: Failure<N>) -> Failure<N> {
    let Failure { broken, steps, left, sabotage } = failure;
    let mut known = steps.clone();
    let mut story = meant::<N>(&steps, left, sabotage);
    let mut size = story.len().max(1);
    loop {
        let mut at = 0;
        let mut shorter = false;
        while at < story.len() {
            let end = (at + size).min(story.len());
            let fewer: Vec<_> = story[..at].iter().chain(&story[end..]).copied().collect();
            match replay::<N>(&fewer, left, sabotage) {
                Some((what, taken)) if what == broken && taken.len() < known.len() => {
                    story = meant::<N>(&taken, left, sabotage);
                    known = taken;
                    shorter = true;
                }
                _ => at += size,
            }
        }
        match (shorter, size) {
            (false, 1) => return Failure { broken, steps: known, left, sabotage },
            (true, _) => {}
            (false, _) => size = size.div_ceil(2),
        }
    }
}

/// The steps, each with what it is about.
fn meant<const N: usize>(steps: &[Step], left: Left, sabotage: Sabotage) -> Vec<(Step, About)> {
    let mut world = World::<N>::begin(left, sabotage);
    let mut meant = Vec::new();
    for step in steps {
        meant.push((*step, about(&world, *step)));
        if let Ok(next) = world.take(*step, sabotage) {
            world = next;
        }
    }
    meant
}

/// Takes the steps that are possible when it is their turn. What is broken by then, or afterwards when all is left alone,
/// and the steps that lead there.
fn replay<const N: usize>(story: &[(Step, About)], left: Left, sabotage: Sabotage) -> Option<(Broken, Vec<Step>)> {
    let mut world = World::<N>::begin(left, sabotage);
    let (mut possible, mut taken) = (Vec::new(), Vec::new());
    for (step, meant) in story {
        world.steps(sabotage, &mut possible);
        world.pauses(&mut possible);
        let is_it = |other: &&Step| is_alike(**other, *step) && about(&world, **other) == *meant;
        let Some(step) = possible.iter().find(|other| *other == step && is_it(other)).or(possible.iter().find(is_it))
        else {
            continue;
        };
        taken.push(*step);
        world = match world.take(*step, sabotage) {
            Ok(world) => world,
            Err(broken) => return Some((broken, taken)),
        };
    }
    let (broken, rest) = leave_alone(&world, sabotage, &mut Prints::default()).err()?;
    taken.extend(rest);
    Some((broken, taken))
}

fn about<const N: usize>(world: &World<N>, step: Step) -> About {
    if let Some((worker, hand)) = step.hand() {
        let hand = world.workers.get(usize::from(worker))?.hands.get(hand.into())?;
        let message = hand.message;
        return Some((message.delivery, message.generation, message.attempt, hand.stage.number()));
    }
    let (message, number) = match step {
        Step::Deliver { message, .. } | Step::Lose { message } | Step::OverLimit { message } => {
            let message = world.deliveries.get(message.into())?;
            (message, u8::from(message.redelivered))
        }
        Step::File { dead, .. } | Step::LoseDead { dead } => {
            let dead = world.dead.get(dead.into())?;
            (dead.message, u8::from(dead.over_limit))
        }
        _ => return None,
    };
    Some((message.delivery, message.generation, message.attempt, number))
}

/// Whether two steps are the same but for the numbers that choose a message, a hand, a fan-out.
fn is_alike(one: Step, other: Step) -> bool {
    one.with_numbers_of(other) == other
}
