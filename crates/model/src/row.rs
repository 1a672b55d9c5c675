//! A delivery's row in the record: what each statement of the store does to it.
//!
//! The statements are `store::deliveries` (`INSERT`, `CLAIM`, `RECORD`, `set_going`, `cancel`), `store::schedule` (`release`,
//! `renew_lost`, `give_back`) and `store::dead_letters` (`of_delivery`, `untold`). The testkit's `machine` gives the same steps to
//! them and to these functions and compares the rows. Nothing here has an opinion of its own.

use posthorn_core::delivery::{DeadReason, HeldReason, State, Trigger};

use crate::message::Message;
use crate::moment::Moment;

/// One row, and its dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub state: State,
    pub held_reason: Option<HeldReason>,
    /// Of what is dead.
    pub dead_reason: Option<DeadReason>,
    pub trigger: Trigger,
    pub generation: u8,
    /// Recorded in this generation.
    pub attempt: u8,
    /// Recorded in all generations.
    pub attempts_made: u8,
    /// When a held one may go on; of a queued one, the lease.
    pub due_at: Option<Moment>,
    /// Of which generation the clerk has heard that it is dead.
    pub told_generation: Option<u8>,
    pub updated_at: Moment,
    /// The generations that have a dead letter, one bit each. Another table, which only these functions touch.
    pub letters: u64,
}

/// What a message believes of its row, and the lease of whoever makes the attempt.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub generation: u8,
    pub attempt: u8,
    pub lease: Moment,
    pub new_lease: Moment,
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Delivered,
    RetryAt(Moment),
    Dead(DeadReason),
}

/// What a worker has to say of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Attempted(Next),
    PutBack(HeldReason, Moment),
    Cancelled,
    Expired,
}

#[derive(Clone, Copy, Debug)]
pub struct Report {
    pub generation: u8,
    pub attempt: u8,
    /// Of what was not attempted: the lease under which its message went.
    pub lease: Option<Moment>,
    pub word: Word,
}

/// What is known of a delivery that no longer moves.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    pub generation: u8,
    pub attempt: u8,
    pub lease: Moment,
    /// The reason where the row did not die by itself; `None` leaves such a row alone.
    pub fallback: Option<DeadReason>,
}

impl Row {
    /// `held` is `None` for what is queued at once.
    pub fn insert(held: Option<HeldReason>, due_at: Moment, now: Moment) -> Self {
        Self {
            state: if held.is_some() { State::Held } else { State::Queued },
            held_reason: held,
            dead_reason: None,
            trigger: Trigger::Dispatch,
            generation: 1,
            attempt: 0,
            attempts_made: 0,
            due_at: Some(due_at),
            told_generation: None,
            updated_at: now,
            letters: 0,
        }
    }

    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Delivered | State::Dead | State::Cancelled)
    }

    /// Whether the generation that it is in has its dead letter.
    pub fn has_letter(&self) -> bool {
        self.letters >> u32::from(self.generation).min(63) & 1 == 1
    }

    pub fn claim(&mut self, claim: &Claim) -> bool {
        let is_as_believed = self.state == State::Queued
            && self.generation == claim.generation
            && self.attempt + 1 == claim.attempt
            && self.due_at == Some(claim.lease);
        if is_as_believed {
            self.due_at = Some(claim.new_lease);
        }
        is_as_believed
    }

    pub fn record(&mut self, report: &Report, now: Moment) -> bool {
        let made = matches!(report.word, Word::Attempted(_));
        let counts = self.generation == report.generation
            && self.attempt + 1 == report.attempt
            && (self.state == State::Queued || (made && self.state == State::Held))
            && (made || report.lease.is_none() || self.due_at == report.lease);
        if !counts {
            return self.arrive_late(report, now);
        }
        (self.held_reason, self.due_at, self.dead_reason) = (None, None, None);
        match report.word {
            Word::Attempted(Next::Delivered) => self.state = State::Delivered,
            Word::Attempted(Next::RetryAt(at)) => {
                self.hold(HeldReason::Retry, at);
                self.trigger = Trigger::Retry;
            }
            Word::Attempted(Next::Dead(reason)) => self.die(reason),
            Word::PutBack(reason, at) => self.hold(reason, at),
            Word::Cancelled => self.state = State::Cancelled,
            Word::Expired => self.die(DeadReason::Expired),
        }
        if made {
            self.attempt = report.attempt;
            self.attempts_made += 1;
        }
        self.updated_at = now;
        true
    }

    /// An endpoint's yes counts as one attempt more, where its own number is on record with another end.
    fn arrive_late(&mut self, report: &Report, now: Moment) -> bool {
        let arrived = matches!(report.word, Word::Attempted(Next::Delivered));
        let is_open = self.generation == report.generation && matches!(self.state, State::Queued | State::Held);
        if !arrived || !is_open {
            return false;
        }
        (self.held_reason, self.due_at, self.dead_reason) = (None, None, None);
        self.state = State::Delivered;
        self.attempt += 1;
        self.attempts_made += 1;
        self.updated_at = now;
        true
    }

    /// The message to publish, where it was held and due.
    pub fn release(&mut self, lease: Moment, now: Moment) -> Option<Message> {
        if self.state != State::Held || self.due_at.is_none_or(|due| due > now) {
            return None;
        }
        (self.state, self.held_reason, self.due_at, self.updated_at) = (State::Queued, None, Some(lease), now);
        Some(self.message(lease))
    }

    /// The message to publish again, where a lease has run out.
    pub fn renew_lost(&mut self, lease: Moment, now: Moment) -> Option<Message> {
        if self.state != State::Queued || self.due_at.is_none_or(|due| due > now) {
            return None;
        }
        self.due_at = Some(lease);
        Some(self.message(lease))
    }

    /// Ends the lease of what the broker never got.
    pub fn give_back(&mut self, lease: Moment, now: Moment) {
        if self.state == State::Queued && self.due_at == Some(lease) {
            self.due_at = Some(now);
        }
    }

    /// What had ended begins anew; what waits only stops waiting.
    pub fn set_going(&mut self, from: &[State], trigger: Trigger, now: Moment) -> bool {
        if !from.contains(&self.state) {
            return false;
        }
        if self.state == State::Held {
            self.due_at = self.due_at.map(|due| due.min(now));
        } else {
            self.hold(HeldReason::Replay, now);
            (self.generation, self.attempt) = (self.generation + 1, 0);
        }
        (self.dead_reason, self.trigger, self.updated_at, self.letters) = (None, trigger, now, 0);
        true
    }

    pub fn cancel(&mut self, now: Moment) -> bool {
        if self.state != State::Held {
            return false;
        }
        (self.state, self.held_reason, self.due_at, self.updated_at) = (State::Cancelled, None, None, now);
        true
    }

    /// Writes the dead letter of a death, once for each. True if it was written now.
    pub fn file(&mut self, death: &Death, now: Moment) -> bool {
        if self.generation != death.generation {
            return false;
        }
        let is_lost =
            self.state == State::Queued && self.attempt + 1 == death.attempt && self.due_at == Some(death.lease);
        match death.fallback {
            Some(reason) if is_lost => {
                (self.held_reason, self.due_at, self.updated_at) = (None, None, now);
                self.die(reason);
            }
            _ if self.state == State::Dead => {}
            _ => return false,
        }
        self.told_generation = Some(death.generation);
        let is_new = !self.has_letter();
        self.letters |= 1 << u32::from(self.generation).min(63);
        is_new
    }

    /// Whether it died before `settled_before` and the clerk has not heard of it.
    pub fn is_untold(&self, settled_before: Moment) -> bool {
        self.state == State::Dead && self.updated_at < settled_before && self.told_generation != Some(self.generation)
    }

    fn hold(&mut self, reason: HeldReason, due_at: Moment) {
        (self.state, self.held_reason, self.due_at) = (State::Held, Some(reason), Some(due_at));
    }

    fn die(&mut self, reason: DeadReason) {
        (self.state, self.dead_reason) = (State::Dead, Some(reason));
    }

    fn message(&self, lease: Moment) -> Message {
        Message {
            delivery: 0,
            generation: self.generation,
            attempt: self.attempt + 1,
            lease,
            trigger: self.trigger,
            has_content: false,
            redelivered: false,
        }
    }
}
