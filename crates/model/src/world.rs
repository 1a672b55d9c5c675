//! All that there is at one moment: the record, the broker, dispatchers, workers, and what the receiver has seen.
//!
//! Invariant: two worlds in which the same can happen have the same [`fingerprint`](World::fingerprint): moments are relative
//! to now, messages lie in sorted bags, and of a lease that has run out only its being another one than the others is left.

use posthorn_core::delivery::State;

use crate::bag::{Bag, Item};
use crate::message::{Dead, Message};
use crate::moment::{CLERK_HEAD_START, GRID, HEAD_START, MARGIN, Moment, PATIENCE, RECORDERS_FIRST, TIMEOUT};
use crate::row::Row;
use crate::sabotage::Sabotage;
use crate::worker::{Hand, Worker};

/// Messages for each delivery with which the work queue counts as long: nothing is published again meanwhile.
const LONG: usize = 2;

/// The database: whether it answers, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Database {
    pub up: bool,
    pub since: Moment,
}

/// How far a dispatcher is with an event's message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fanning {
    #[default]
    Got,
    /// The deliveries in `new`, a bit each, are queued under this lease and not published.
    Inserted {
        new: u8,
        lease: Moment,
    },
    Published,
}

/// What the receiver has seen of one delivery, and what became of it. Generations from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// A bit for each generation that it accepted.
    pub accepted: u8,
    /// Acceptances that no death excuses: their worker lives, or has recorded them.
    pub known: [u8; GENERATIONS],
    /// A worker stood still with an attempt of it, so that two may have made the same.
    pub doubtful: bool,
}

/// Generations that are told apart; people do no more than begin some.
const GENERATIONS: usize = 6;

/// How much may still go wrong, and how often people may still step in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    pub faults: u8,
    pub people: u8,
}

/// One event with `N` deliveries.
#[derive(Clone, Copy, Debug)]
pub struct World<const N: usize> {
    pub left: Left,
    /// When the outbox row is due.
    pub outbox: Option<Moment>,
    /// The gateway has yet to publish what it accepted.
    pub handed_over: bool,
    pub database: Database,
    pub rows: [Option<Row>; N],
    /// Messages in the events queue.
    pub events: u8,
    pub deliveries: Bag<Message, 8>,
    pub dead: Bag<Dead, 6>,
    pub fanning: Bag<Fanning, 2>,
    pub workers: [Worker; 2],
    pub seen: [Seen; N],
}

impl<const N: usize> World<N> {
    /// An event was committed with its outbox row.
    pub fn begin(left: Left, sabotage: Sabotage) -> Self {
        Self {
            left,
            outbox: (sabotage != Sabotage::NoOutbox).then_some(HEAD_START),
            handed_over: true,
            database: Database { up: true, since: -RECORDERS_FIRST },
            rows: [None; N],
            events: 0,
            deliveries: Bag::default(),
            dead: Bag::default(),
            fanning: Bag::default(),
            workers: [Worker::default(); 2],
            seen: [Seen::default(); N],
        }
    }

    /// Whether nothing more will happen by itself.
    pub fn has_ended(&self) -> bool {
        let is_done = |row: &Option<Row>| {
            row.is_some_and(|row| row.has_ended() && (row.state != State::Dead || row.has_letter()))
        };
        self.rows.iter().all(is_done) && self.is_empty()
    }

    /// No outbox row, no message, nothing in hand.
    pub fn is_empty(&self) -> bool {
        self.outbox.is_none()
            && !self.handed_over
            && self.events == 0
            && self.deliveries.is_empty()
            && self.dead.is_empty()
            && self.fanning.is_empty()
            && self.workers.iter().all(|worker| worker.hands.is_empty())
    }

    pub fn row(&self, delivery: u8) -> Option<&Row> {
        self.rows.get(usize::from(delivery))?.as_ref()
    }

    pub fn row_mut(&mut self, delivery: u8) -> Option<&mut Row> {
        self.rows.get_mut(usize::from(delivery))?.as_mut()
    }

    /// Whether the work queue is so long that nothing is published again.
    pub fn is_long(&self) -> bool {
        self.deliveries.len() >= LONG * N
    }

    /// Whether the database has answered without a break for `time`.
    pub fn is_well_for(&self, time: Moment) -> bool {
        self.database.up && self.database.since <= -time
    }

    /// For how long nobody has to move who lives and can.
    pub fn slack(&self) -> Moment {
        let living = self.workers.iter().filter(|worker| !worker.frozen);
        let limits = living.flat_map(|worker| worker.hands.as_slice()).map(|hand| hand.limit(self.database.up));
        limits.min().unwrap_or(Moment::MAX)
    }

    /// How long until something new can happen, on the grid and within the slack.
    pub fn next(&self) -> Option<Moment> {
        let slack = self.slack();
        let hands = self.workers.iter().flat_map(|worker| worker.hands.as_slice());
        let rows = self.rows.iter().flatten().flat_map(|row| {
            let untold = (row.is_untold(Moment::MAX)).then_some(row.updated_at + CLERK_HEAD_START + GRID);
            [row.due_at, untold]
        });
        let well = self.database.up.then_some(self.database.since + RECORDERS_FIRST);
        let soonest = [self.outbox, well]
            .into_iter()
            .chain(rows)
            .chain(hands.flat_map(Hand::moments))
            .flatten()
            .filter(|at| *at > 0)
            .chain((slack < Moment::MAX).then_some(slack))
            .min()?;
        // A claim's lease lies beside the grid.
        let soonest = (soonest + GRID - 1) / GRID * GRID;
        let time = soonest.min(slack);
        (time > 0).then_some(time)
    }

    pub fn pass(&mut self, time: Moment) {
        self.outbox = self.outbox.map(|due| (due - time).max(0));
        self.database.since = (self.database.since - time).max(-RECORDERS_FIRST.max(PATIENCE));
        for row in self.rows.iter_mut().flatten() {
            row.due_at = row.due_at.map(|due| due - time);
            row.updated_at -= time;
        }
        self.for_each_lease(|lease| *lease -= time);
        for worker in &mut self.workers {
            worker.hands.as_mut_slice().iter_mut().for_each(|hand| hand.pass(time));
        }
    }

    /// Takes away what no longer makes a difference.
    pub fn settle(&mut self) {
        let mut past = [0; 32];
        let mut count = 0;
        let mut note = |lease: &mut Moment| {
            if *lease < 0 && count < past.len() && !past[..count].contains(lease) {
                past[count] = *lease;
                count += 1;
            }
        };
        for row in self.rows.iter_mut().flatten() {
            match row.state {
                State::Queued => row.due_at.iter_mut().for_each(&mut note),
                State::Held => row.due_at = row.due_at.map(|due| due.max(0)),
                _ => {}
            }
            let matters = row.is_untold(Moment::MAX);
            row.updated_at = if matters { row.updated_at.max(-CLERK_HEAD_START - GRID) } else { 0 };
        }
        self.forget_spent();
        self.for_each_lease(&mut note);
        let past = &mut past[..count];
        past.sort_unstable_by(|a, b| b.cmp(a));
        let mut rename = |lease: &mut Moment| {
            if let Some(rank) = past.iter().position(|at| at == lease) {
                *lease = -GRID * Moment::try_from(rank + 1).unwrap_or(Moment::MAX / GRID);
            }
        };
        for row in self.rows.iter_mut().flatten().filter(|row| row.state == State::Queued) {
            row.due_at.iter_mut().for_each(&mut rename);
        }
        self.for_each_lease(&mut rename);
        self.deliveries.sort();
        self.dead.sort();
        self.fanning.sort();
        self.workers.iter_mut().for_each(|worker| worker.hands.sort());
    }

    /// A message whose attempt is recorded says nothing more by its lease, unless it would still be sent unread.
    fn forget_spent(&mut self) {
        let rows = self.rows;
        let forget = |message: &mut Message| {
            let Some(row) = rows.get(usize::from(message.delivery)).copied().flatten() else { return };
            let is_spent = (message.generation, message.attempt) <= (row.generation, row.attempt);
            let may_go_unread = message.has_content && !message.redelivered && message.lease >= TIMEOUT + MARGIN;
            if is_spent && !may_go_unread {
                (message.lease, message.has_content) = (0, false);
            }
        };
        self.deliveries.as_mut_slice().iter_mut().for_each(forget);
        self.dead.as_mut_slice().iter_mut().for_each(|dead| forget(&mut dead.message));
        for worker in &mut self.workers {
            worker.hands.as_mut_slice().iter_mut().for_each(|hand| forget(&mut hand.message));
        }
    }

    fn for_each_lease(&mut self, mut on: impl FnMut(&mut Moment)) {
        self.deliveries.as_mut_slice().iter_mut().for_each(|message| on(&mut message.lease));
        self.dead.as_mut_slice().iter_mut().for_each(|dead| on(&mut dead.message.lease));
        for worker in &mut self.workers {
            worker.hands.as_mut_slice().iter_mut().for_each(|hand| on(&mut hand.message.lease));
        }
        for fanning in self.fanning.as_mut_slice() {
            if let Fanning::Inserted { lease, .. } = fanning {
                on(lease);
            }
        }
    }
}

impl Seen {
    pub fn accept(&mut self, generation: u8) {
        self.accepted |= 1 << generation.min(7);
        if let Some(count) = self.known.get_mut(usize::from(generation)) {
            *count += 1;
        }
    }

    pub fn has_accepted(&self, generation: u8) -> bool {
        self.accepted >> generation.min(7) & 1 == 1
    }

    /// Whoever had its acceptance died before it was recorded.
    pub fn forget(&mut self, generation: u8) {
        if let Some(count) = self.known.get_mut(usize::from(generation)) {
            *count = count.saturating_sub(1);
        }
    }

    pub fn is_known(&self, generation: u8) -> bool {
        self.known.get(usize::from(generation)).is_some_and(|count| *count > 0)
    }
}

impl Item for Fanning {
    fn key(&self) -> u128 {
        match self {
            Self::Got => 1,
            Self::Inserted { new, lease } => 2 | u128::from(*new) << 8 | u128::from(*lease as u16) << 16,
            Self::Published => 3,
        }
    }
}
