//! Looking for a story in which a promise is broken.

mod exhaustive;
mod random;
mod scene;
mod shrink;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use crate::broken::Broken;
use crate::sabotage::Sabotage;
use crate::step::Step;
use crate::story::Story;
use crate::world::{Left, World};

pub use exhaustive::{Bounds, deepening, exhaustive};
pub use random::{Walks, random};
pub use scene::Scene;
pub use shrink::shrink;

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Explored {
    /// Different worlds; of walks, those that were not met within the same walk.
    pub states: u64,
    /// Steps taken, those of the continuations included.
    pub transitions: u64,
    /// Steps of the longest story.
    pub depth: u32,
    /// Nothing within the bounds was left out.
    pub complete: bool,
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, transitions, depth, complete } = self;
        let all = if *complete { ", all there are" } else { "" };
        write!(f, "{states} states{all}, {transitions} transitions, {depth} steps deep")
    }
}

/// A promise that was broken, and the steps that lead there.
#[derive(Clone, Debug)]
pub struct Failure<const N: usize> {
    pub broken: Broken,
    pub steps: Vec<Step>,
    pub left: Left,
    pub sabotage: Sabotage,
}

impl<const N: usize> fmt::Display for Failure<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let story = Story::<N> { left: self.left, sabotage: self.sabotage, steps: &self.steps };
        write!(f, "{story}=> {}", self.broken)
    }
}

/// Steps that a delivery needs at most to come to its end from wherever it is.
const PATIENCE: usize = 400;

/// Lets the world go on without faults and people. Where all comes to its end, how many steps that took; otherwise the
/// steps and what was broken. What is known to end well is remembered in `good`.
pub fn leave_alone<const N: usize>(
    from: &World<N>,
    sabotage: Sabotage,
    good: &mut Prints,
) -> Result<u64, (Broken, Vec<Step>)> {
    let (mut world, mut taken, mut possible) = (*from, Vec::new(), Vec::new());
    let mut passed = Vec::new();
    while !world.has_ended() {
        let print = world.fingerprint(false);
        if good.contains(&print) {
            break;
        }
        passed.push(print);
        possible.clear();
        world.orderly(sabotage, &mut possible);
        let next = possible.first().filter(|_| taken.len() < PATIENCE);
        let Some(step) = next else { return Err((Broken::Lost, Vec::new())) };
        taken.push(*step);
        world = world.take(*step, sabotage).map_err(|broken| (broken, taken.clone()))?;
    }
    good.extend(passed);
    Ok(taken.len() as u64)
}

/// Fingerprints are hashes already.
pub type Prints = HashSet<u64, BuildHasherDefault<AsItIs>>;

pub type PrintMap<V> = HashMap<u64, V, BuildHasherDefault<AsItIs>>;

#[derive(Clone, Copy, Debug, Default)]
pub struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}
