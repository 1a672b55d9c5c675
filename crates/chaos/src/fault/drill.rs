//! The drill: one fault after another, and after each how long it takes until all is well again.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::clock::{Millis, seconds};
use crate::fault::kind::{Bag, Kind};
use crate::fault::strike::{Means, Strike};
use crate::load::plan::{Planned, Repeat};
use crate::load::sender::Sender;
use crate::world::World;

/// Recovery takes no longer than this, or the proof has failed.
const LIMIT: Duration = Duration::from_secs(90);
const PROBE_EVERY: Duration = Duration::from_millis(500);
const PROBE_BYTES: u32 = 200;
/// How long older programs have the world to themselves.
const OLD_VERSION: Duration = Duration::from_secs(20);
/// A fault that would begin later than this before the end is not begun.
const LAST_SECONDS: Millis = 10_000;

/// What was done, and how it went.
#[derive(Clone, Debug)]
pub struct Episode {
    pub kind: Kind,
    pub detail: String,
    pub from: Millis,
    /// When it was over: what had been killed was started again.
    pub lifted: Millis,
    /// From then until a new event was accepted and had arrived.
    pub door: Option<Millis>,
    /// From then until all that had been accepted by then had arrived once, where nothing but Posthorn holds it up.
    pub caught_up: Option<Millis>,
}

/// All that was done.
#[derive(Debug, Default)]
pub struct Drilled {
    pub episodes: Vec<Episode>,
    /// What could not be done or undone, in words.
    pub failures: Vec<String>,
}

pub struct Drill<'a> {
    pub world: &'a World,
    pub sender: &'a Arc<Sender>,
    pub seed: u64,
    pub kinds: Vec<Kind>,
    /// Faults at the same time.
    pub together: usize,
    /// Whether the world has older programs and is upgraded first.
    pub upgrades: bool,
    /// When it ends.
    pub until: Millis,
    pub longest: f64,
}

impl Drill<'_> {
    /// Returns what was done, and what could not be done or undone.
    pub async fn run(self) -> Drilled {
        // A stream of its own, so that the load is the same with other faults.
        let mut rng = StdRng::seed_from_u64(self.seed ^ 0xFA17);
        let mut bag = Bag::new(self.kinds.clone());
        let mut drilled = Drilled::default();
        let now = || self.world.clock.now();
        if self.upgrades {
            tokio::time::sleep(OLD_VERSION).await;
            self.episode(&[Kind::Upgrade], &mut rng, &mut drilled).await;
        }
        while now() + LAST_SECONDS < self.until {
            tokio::time::sleep(Duration::from_millis(rng.random_range(500..2000))).await;
            let drawn: Vec<Kind> = (0..self.together).filter_map(|_| bag.draw(&mut rng)).collect();
            if drawn.is_empty() {
                break;
            }
            self.episode(&drawn, &mut rng, &mut drilled).await;
        }
        let rest = self.until.saturating_sub(now());
        tokio::time::sleep(Duration::from_millis(rest.into())).await;
        drilled
    }

    async fn episode(&self, kinds: &[Kind], rng: &mut StdRng, drilled: &mut Drilled) {
        let means = Means { world: self.world, sender: self.sender, longest: self.longest };
        let clock = self.world.clock;
        let from = clock.now();
        let mut strikes: Vec<Strike> = Vec::new();
        for kind in kinds {
            match means.strike(*kind, rng).await {
                Ok(strike) => strikes.push(strike),
                // One fault may take from another what it needs.
                Err(error) if kinds.len() > 1 => {
                    crate::say(format_args!("  {kind} could not be brought about: {error}"));
                }
                Err(error) => drilled.failures.push(format!("{kind} at {}: {error}", seconds(from))),
            }
        }
        let hold = strikes.iter().map(|strike| strike.hold).max().unwrap_or_default();
        tokio::time::sleep(hold).await;
        for strike in strikes.iter_mut().rev() {
            if let Err(error) = means.lift(strike).await {
                drilled.failures.push(format!("{} at {}, to be lifted: {error}", strike.kind, seconds(from)));
            }
        }
        let lifted = clock.now();
        let (door, caught_up) = tokio::join!(self.door(lifted), self.caught_up(lifted));
        for Strike { kind, detail, .. } in strikes {
            let told = |time: Option<Millis>| time.map_or("not recovered".to_owned(), seconds);
            crate::say(format_args!(
                "{:>9}  {kind:<26} for {:>9}  door {:>9}  caught up {:>9}  {detail}",
                seconds(from),
                seconds(lifted - from),
                told(door),
                told(caught_up)
            ));
            drilled.episodes.push(Episode { kind, detail, from, lifted, door, caught_up });
        }
    }

    /// Sends new events until one is through.
    async fn door(&self, lifted: Millis) -> Option<Millis> {
        let flavour = self.sender.stage.probe;
        let probe = Planned { flavour, fate: 0, bytes: PROBE_BYTES, repeat: Repeat::Never, pause: Duration::ZERO };
        let deadline = tokio::time::Instant::now() + LIMIT;
        let mut sent = Vec::new();
        let mut next = tokio::time::Instant::now();
        while tokio::time::Instant::now() < deadline {
            if tokio::time::Instant::now() >= next {
                sent.push(self.sender.start(probe));
                next += PROBE_EVERY;
            }
            if sent.iter().any(|number| self.sender.journal.is_through(*number)) {
                return Some(self.world.clock.now() - lifted);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        None
    }

    async fn caught_up(&self, lifted: Millis) -> Option<Millis> {
        let journal = &self.sender.journal;
        let done = crate::world::wait_until(LIMIT, async || journal.missing_of(lifted) == 0).await;
        done.then(|| self.world.clock.now() - lifted)
    }
}
