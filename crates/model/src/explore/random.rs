//! Walks at random, by seed: further than every order of events can be followed.

use super::{Explored, Failure, Prints, leave_alone, shrink};
use crate::sabotage::Sabotage;
use crate::step::Step;
use crate::world::{Left, World};

/// How many walks, and how far each.
#[derive(Clone, Copy, Debug)]
pub struct Walks {
    pub seed: u64,
    pub walks: u64,
    pub length: u32,
    pub left: Left,
}

pub fn random<const N: usize>(walks: &Walks, sabotage: Sabotage) -> Result<Explored, Box<Failure<N>>> {
    let mut explored = Explored::default();
    let (mut good, mut possible, mut steps) = (Prints::default(), Vec::new(), Vec::new());
    for walk in 0..walks.walks {
        let mut draw = Draw(walks.seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ walk.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut world = World::<N>::begin(walks.left, sabotage);
        steps.clear();
        // Some walks are calm, some are not.
        let faults_in = 2 + draw.below(30);
        let mut last = world.fingerprint(true);
        for _ in 0..walks.length {
            let Some(step) = choose(&world, sabotage, faults_in, &mut draw, &mut possible) else { break };
            steps.push(step);
            explored.transitions += 1;
            world = match world.take(step, sabotage) {
                Ok(world) => world,
                Err(broken) => return Err(told(broken, &steps, walks.left, sabotage)),
            };
            let print = world.fingerprint(true);
            explored.states += u64::from(print != last);
            last = print;
        }
        explored.depth = explored.depth.max(u32::try_from(steps.len()).unwrap_or(u32::MAX));
        match leave_alone(&world, sabotage, &mut good) {
            Ok(taken) => explored.transitions += taken,
            Err((broken, rest)) => {
                steps.extend(rest);
                return Err(told(broken, &steps, walks.left, sabotage));
            }
        }
    }
    Ok(explored)
}

fn told<const N: usize>(
    broken: crate::broken::Broken,
    steps: &[Step],
    left: Left,
    sabotage: Sabotage,
) -> Box<Failure<N>> {
    Box::new(shrink(Failure { broken, steps: steps.to_vec(), left, sabotage }))
}

/// A fault or a person once in so many steps; otherwise anything else.
fn choose<const N: usize>(
    world: &World<N>,
    sabotage: Sabotage,
    faults_in: usize,
    draw: &mut Draw,
    possible: &mut Vec<Step>,
) -> Option<Step> {
    world.steps(sabotage, possible);
    world.pauses(possible);
    let disturbs = |step: &Step| step.is_fault() || step.is_by_hand();
    let wanted = draw.below(faults_in) == 0;
    let count = possible.iter().filter(|step| disturbs(step) == wanted).count();
    if count == 0 {
        let any = draw.below(possible.len().max(1));
        return possible.get(any).copied();
    }
    let chosen = draw.below(count);
    possible.iter().filter(|step| disturbs(step) == wanted).nth(chosen).copied()
}

/// Numbers that look random and are the same everywhere (splitmix64).
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut drawn = self.0;
        drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        drawn ^= drawn >> 31;
        (drawn % bound.max(1) as u64) as usize
    }
}
