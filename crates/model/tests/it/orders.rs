//! Every order of events within bounds, and walks beyond them.

use std::time::Instant;

use posthorn_model::{Bounds, Explored, Left, Sabotage, Scene, Walks, exhaustive, random};

#[test]
fn no_order_of_events_with_three_faults_and_a_person_breaks_a_promise() {
    let left = Left { faults: 3, people: 1 };
    let began = Instant::now();
    let mut states = 0;
    for scene in Scene::ALL {
        // Where much happens late, there is much that can happen before.
        let detours = if matches!(scene, Scene::Hanging | Scene::Late) { 4 } else { 5 };
        let bounds = Bounds { scene, left, detours, states: usize::MAX };
        let explored = exhaustive::<1>(&bounds, Sabotage::None)
            .unwrap_or_else(|failure| panic!("a promise is broken:\n{failure}"));
        println!("from {scene}, {detours} detours: {explored}, {:.1} s by now", began.elapsed().as_secs_f64());
        assert!(explored.complete, "nothing within the bounds is left out");
        states += explored.states;
    }
    assert!(states > 1_000_000, "only {states} states");
}

/// Another seed, other walks: `POSTHORN_TEST_SEED`.
fn seed() -> u64 {
    std::env::var("POSTHORN_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

fn walk<const N: usize>() {
    let walks = Walks { seed: seed(), walks: 10_000, length: 150, left: Left { faults: 8, people: 3 } };
    let began = Instant::now();
    let explored: Explored = random::<N>(&walks, Sabotage::None)
        .unwrap_or_else(|failure| panic!("seed {}: a promise is broken:\n{failure}", walks.seed));
    println!("{N} deliveries, seed {}: {explored}, {:.1} s", walks.seed, began.elapsed().as_secs_f64());
}

#[test]
fn no_walk_of_one_delivery_with_eight_faults_breaks_a_promise() {
    walk::<1>();
}

#[test]
fn no_walk_of_three_deliveries_of_one_event_breaks_a_promise() {
    walk::<3>();
}

#[test]
fn the_same_seed_walks_the_same_way() {
    let walks = |seed| Walks { seed, walks: 50, length: 100, left: Left { faults: 4, people: 1 } };
    let explored = |seed| random::<1>(&walks(seed), Sabotage::None).unwrap();
    assert_eq!(explored(7), explored(7));
    assert_ne!(explored(7), explored(8));
}
