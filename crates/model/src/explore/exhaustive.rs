//! Every order of events within bounds, breadth first: the first story found is a shortest one.
//!
//! What bounds a story is not its length but how far it strays: a few detours, each at any moment, find what many would.

use std::collections::VecDeque;

use super::{Explored, Failure, PrintMap, Prints, Scene, leave_alone, shrink};
use crate::broken::Broken;
use crate::sabotage::Sabotage;
use crate::step::Step;
use crate::world::Left;

/// How far to look.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// From where.
    pub scene: Scene,
    pub left: Left,
    /// How often something else happens than what is best done next, faults and people included. What is best done costs
    /// nothing, so stories go on to their end.
    pub detours: u8,
    /// Different worlds; what was found beyond it is not gone on with.
    pub states: usize,
}

/// Every order of events from every scene, with no detour at first and then with one more each time: what is found has as
/// few as can be. What the last round looked at, scene by scene, is given to `told`.
pub fn deepening<const N: usize>(
    bounds: &Bounds,
    sabotage: Sabotage,
    mut told: impl FnMut(Scene, &Explored),
) -> Result<(), Box<Failure<N>>> {
    for detours in 0..=bounds.detours {
        for scene in Scene::ALL {
            let explored = exhaustive::<N>(&Bounds { scene, detours, ..*bounds }, sabotage)?;
            if detours == bounds.detours {
                told(scene, &explored);
            }
        }
    }
    Ok(())
}

/// A world's way here: the one before it, and the step from there.
#[derive(Clone, Copy)]
struct Way {
    from: u32,
    step: Step,
}

pub fn exhaustive<const N: usize>(bounds: &Bounds, sabotage: Sabotage) -> Result<Explored, Box<Failure<N>>> {
    let (before, begin) = bounds.scene.set::<N>(bounds.left, sabotage);
    // With how many detours left, and one more.
    let mut met = PrintMap::<u8>::default();
    let mut good = Prints::default();
    let mut ways = vec![Way { from: 0, step: Step::Pass }];
    let mut ahead = VecDeque::from([(begin, 0_u32, 0_u32, bounds.detours)]);
    let mut possible = Vec::new();
    let mut explored = Explored { complete: true, ..Explored::default() };
    met.insert(begin.fingerprint(true), bounds.detours + 1);
    let failure = |broken: Broken, steps: Vec<Step>| {
        let steps = before.iter().copied().chain(steps).collect();
        Box::new(shrink(Failure { broken, steps, left: bounds.left, sabotage }))
    };
    while let Some((world, id, depth, detours)) = ahead.pop_front() {
        explored.depth = explored.depth.max(depth);
        explored.transitions += leave_alone(&world, sabotage, &mut good).map_err(|(broken, rest)| {
            let steps = story(&ways, id).into_iter().chain(rest).collect();
            failure(broken, steps)
        })?;
        if ways.len() >= bounds.states {
            explored.complete = false;
            continue;
        }
        world.steps(sabotage, &mut possible);
        bounds.scene.sort(&mut possible);
        for (rank, step) in possible.iter().enumerate() {
            let Some(detours) = detours.checked_sub(u8::from(rank > 0)) else { break };
            explored.transitions += 1;
            let next = world.take(*step, sabotage).map_err(|broken| {
                let steps = story(&ways, id).into_iter().chain([*step]).collect();
                failure(broken, steps)
            })?;
            let known = met.entry(next.fingerprint(true)).or_insert_with(|| {
                explored.states += 1;
                0
            });
            if *known <= detours {
                *known = detours + 1;
                let way = u32::try_from(ways.len()).unwrap_or(u32::MAX);
                ways.push(Way { from: id, step: *step });
                ahead.push_back((next, way, depth + 1, detours));
            }
        }
    }
    Ok(explored)
}

/// The steps from the beginning to the world `id`.
fn story(ways: &[Way], mut id: u32) -> Vec<Step> {
    let mut steps = Vec::new();
    while let Some(way) = ways.get(id as usize).filter(|_| id > 0) {
        steps.push(way.step);
        id = way.from;
    }
    steps.reverse();
    steps
}
