//! `posthorn-model`: explores the life of a delivery and tells what it looked at, or the story in which a promise is broken.

// It is a program that prints, and nothing else.
#![allow(clippy::print_stdout)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use posthorn_model::{Bounds, Explored, Failure, Left, Sabotage, Scene, Walks, deepening, random};

#[derive(Debug, Parser)]
#[command(about = "Explores the life of a delivery under every order of events, with crashes")]
struct Arguments {
    /// Seed of the walks.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Walks in each round.
    #[arg(long, default_value_t = 20_000)]
    walks: u64,
    /// Steps of a walk.
    #[arg(long, default_value_t = 120)]
    length: u32,
    /// Walks go on, round after round with further seeds, for this long.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Different worlds that are looked at breadth first, at most.
    #[arg(long, default_value_t = 5_000_000)]
    states: usize,
    /// Detours in a story that is followed breadth first.
    #[arg(long, default_value_t = 5)]
    detours: u8,
    /// Faults in a story that is followed breadth first.
    #[arg(long, default_value_t = 3)]
    faults: u8,
    /// Steps of people in such a story.
    #[arg(long, default_value_t = 1)]
    people: u8,
    /// What to take out of the protocol.
    #[arg(long, default_value = "none", value_parser = Sabotage::parse)]
    without: Sabotage,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    println!("{:<60} {:>11} {:>12} {:>6} {:>8}", "", "states", "transitions", "depth", "seconds");
    let told = everything(&arguments);
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(story) => {
            println!("\n{story}");
            ExitCode::FAILURE
        }
    }
}

fn everything(arguments: &Arguments) -> Result<(), String> {
    let left = Left { faults: arguments.faults, people: arguments.people };
    let bounds = Bounds { scene: Scene::Accepted, left, detours: arguments.detours, states: arguments.states };
    let mut began = Instant::now();
    deepening::<1>(&bounds, arguments.without, |scene, explored| {
        let Bounds { left, detours, .. } = bounds;
        row(&format!("from {scene}: {detours} detours, {} faults", left.faults), explored, began.elapsed());
        began = Instant::now();
    })
    .map_err(story)?;
    walk::<1>(arguments)?;
    walk::<2>(arguments)?;
    walk::<3>(arguments)
}

fn walk<const N: usize>(arguments: &Arguments) -> Result<(), String> {
    let began = Instant::now();
    let mut all = Explored::default();
    for round in 0.. {
        let walks = Walks {
            seed: arguments.seed + round,
            walks: arguments.walks,
            length: arguments.length,
            left: Left { faults: 8, people: 3 },
        };
        let explored = random::<N>(&walks, arguments.without).map_err(story)?;
        all.states += explored.states;
        all.transitions += explored.transitions;
        all.depth = all.depth.max(explored.depth);
        if began.elapsed() >= Duration::from_secs(arguments.seconds) {
            break;
        }
    }
    row(&format!("walks from seed {}, {N} deliveries, 8 faults", arguments.seed), &all, began.elapsed());
    Ok(())
}

fn row(name: &str, explored: &Explored, took: Duration) {
    let Explored { states, transitions, depth, complete } = explored;
    let all = if *complete { " (all)" } else { "" };
    println!("{name:<60} {states:>11} {transitions:>12} {depth:>6} {:>8.1}{all}", took.as_secs_f64());
}

fn story<const N: usize>(failure: Box<Failure<N>>) -> String {
    failure.to_string()
}
