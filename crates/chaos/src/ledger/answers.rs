//! How the processes themselves did.

use std::path::PathBuf;

use crate::clock::seconds;
use crate::fault::drill::{Drilled, Episode};
use crate::ledger::Check;
use crate::world::World;

/// Every fault was recovered from, in time.
pub fn recovery(drilled: &Drilled) -> Vec<Check> {
    let mut done = Check::new("every fault could be brought about, and lifted");
    drilled.failures.iter().for_each(|failure| done.except(|| failure.clone()));

    let mut check = Check::new("after every fault new events arrive, and what waited has arrived, within 90 s");
    for episode in drilled.episodes.iter().filter(|episode| episode.door.is_none() || episode.caught_up.is_none()) {
        let Episode { kind, detail, from, door, caught_up, .. } = episode;
        check.except(|| format!("{kind} {detail} at {}: door {door:?}, caught up {caught_up:?}", seconds(*from)));
    }
    vec![done, check]
}

/// `badly_stopped` are those that did not end with 0 on the last SIGTERM.
pub fn processes(world: &World, badly_stopped: &[String]) -> Vec<Check> {
    let mut stopped = Check::new("every process that got SIGTERM ended with 0, in time, and none ended by itself");
    badly_stopped.iter().for_each(|one| stopped.except(|| one.clone()));
    world.services.incidents().into_iter().for_each(|incident| stopped.except(|| incident));
    let mut panics = Check::new("no process panicked");
    for (name, path) in world.services.log_paths() {
        panicked(name, path, &mut panics);
    }
    vec![stopped, panics]
}

/// What a process may come to, in MiB, by its limits: `docs/OPERATIONS.md`, Scaling. A worker's by bodies of 1 MiB.
const MOST: [(&str, u64); 3] = [("gateway", 406), ("dispatcher", 106), ("worker", 902)];

pub fn memory(world: &World) -> Check {
    let mut check = Check::new("no process needed more memory than its limits add up to");
    for (name, bytes) in world.services.peaks() {
        let most = MOST.iter().find(|(service, _)| name.starts_with(service)).map_or(0, |(_, most)| *most);
        if bytes >> 20 > most {
            check.except(|| format!("{name} had {} MiB, and {most} are its limit", bytes >> 20));
        }
    }
    check
}

fn panicked(name: &str, log: PathBuf, check: &mut Check) {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    for line in text.lines().filter(|line| line.contains("panicked at")) {
        check.except(|| format!("{name}: {}", line.chars().take(300).collect::<String>()));
    }
}
