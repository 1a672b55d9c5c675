//! What is sent next: drawn from the seed, one event after another.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::load::stage::Stage;

/// A provider that sends an event although it was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    Never,
    /// To both gateways at the same time.
    AtOnce,
    /// So long after the first was accepted.
    Later(Duration),
}

/// One event to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    pub flavour: u8,
    /// See [`crate::journal::Entry::fate`].
    pub fate: u32,
    pub bytes: u32,
    pub repeat: Repeat,
    /// After the event before it.
    pub pause: Duration,
}

pub struct Plan {
    rng: StdRng,
    planned: u32,
    rate: f64,
    weights: Vec<u32>,
    sizes: Vec<(u32, u32)>,
}

/// Share of events that come twice.
const REPEATED: f64 = 0.05;

impl Plan {
    /// `rate` is events a second, on average.
    pub fn new(seed: u64, rate: f64, stage: &Stage) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            planned: 0,
            rate,
            weights: stage.flavours.iter().map(|flavour| flavour.weight).collect(),
            sizes: stage.flavours.iter().map(|flavour| flavour.sizes).collect(),
        }
    }

    pub fn next(&mut self) -> Planned {
        let flavour = self.flavour();
        let bytes = self.bytes(self.sizes[flavour]);
        let repeat = if !self.rng.random_bool(REPEATED) {
            Repeat::Never
        } else if self.rng.random_bool(0.4) {
            Repeat::AtOnce
        } else {
            Repeat::Later(Duration::from_millis(self.rng.random_range(0..3000)))
        };
        // As independent senders come: the pauses of a Poisson process.
        let pause = -(1.0 - self.rng.random::<f64>()).ln() / self.rate;
        let flavour = u8::try_from(flavour).unwrap_or_default();
        self.planned += 1;
        Planned { flavour, fate: self.planned, bytes, repeat, pause: Duration::from_secs_f64(pause.min(5.0)) }
    }

    fn flavour(&mut self) -> usize {
        let all: u32 = self.weights.iter().sum();
        let mut drawn = self.rng.random_range(0..all);
        for (index, weight) in self.weights.iter().enumerate() {
            match drawn.checked_sub(*weight) {
                Some(rest) => drawn = rest,
                None => return index,
            }
        }
        0
    }

    /// Every power of two as likely as the next up to 8 KiB; what is larger is rare.
    fn bytes(&mut self, (least, most): (u32, u32)) -> u32 {
        const ORDINARY: u32 = 8 << 10;
        let (from, to) = if least >= ORDINARY || (most > ORDINARY && self.rng.random_bool(0.04)) {
            (least.max(ORDINARY), most)
        } else {
            (least, most.min(ORDINARY))
        };
        // One in ten of the large ones is as large as it may be.
        if to > ORDINARY && self.rng.random_bool(0.1) {
            return to;
        }
        let power = self.rng.random_range(f64::from(from).ln()..=f64::from(to).ln());
        (power.exp() as u32).clamp(from, to)
    }
}
