//! What workers do, and what befalls them.

use std::sync::LazyLock;
use std::time::Duration;

use posthorn_core::delivery::{self, Admission, HeldReason, State, admit, after_attempt};
use posthorn_core::outcome::{Attempted, Fault};
use posthorn_core::retry::RetryPolicy;

use crate::broken::{self, Broken};
use crate::message::{Dead, Message};
use crate::moment::{CLAIM_AFTER, MARGIN, Moment, PATIENCE, PROMPT, SLOW, TIMEOUT, claimed_until, moment, timestamp};
use crate::row::{Claim, Next, Report, Row, Word};
use crate::sabotage::Sabotage;
use crate::step::Outcome;
use crate::worker::{Hand, Stage};
use crate::world::World;

/// A status that the subscription calls permanent.
const PERMANENT: u16 = 422;

static POLICY: LazyLock<RetryPolicy> =
    LazyLock::new(|| RetryPolicy::Schedule { delays_seconds: vec![5], permanent_statuses: vec![PERMANENT] });

impl<const N: usize> World<N> {
    pub(super) fn begin_attempt(&mut self, worker: u8, index: u8, sabotage: Sabotage) -> Result<(), Broken> {
        let Some(hand) = self.hand(worker, index) else { return Ok(()) };
        let message = hand.message;
        let admission = admit(&message.wake(), span(TIMEOUT), span(MARGIN), timestamp(0));
        if admission == Admission::Send {
            return self.post(worker, index, true, sabotage);
        }
        if !self.database.up {
            self.stall(worker, index);
            return Ok(());
        }
        if self.has_to_wait_longer(&hand, sabotage) {
            self.put(worker, index, Stage::Waiting { until: self.database.since + PATIENCE });
            return Ok(());
        }
        if self.claim(&message, 0, sabotage) {
            self.put(worker, index, Stage::Claimed { by: PROMPT });
            return Ok(());
        }
        // The row has moved on, so the message is spent, unless whoever moved it to `dead` died just then.
        self.workers[usize::from(worker)].hands.remove(index.into());
        let is_dead = |row: &Row| row.state == State::Dead && row.generation == message.generation;
        if hand.attached && message.redelivered && self.row(message.delivery).is_some_and(is_dead) {
            self.dead.push(Dead { message, over_limit: false });
        }
        Ok(())
    }

    /// Whoever has a first attempt elsewhere could not record it, nor take its row, while the database was away.
    pub fn has_to_wait_longer(&self, hand: &Hand, sabotage: Sabotage) -> bool {
        let waits = matches!(hand.stage, Stage::Waiting { .. }) && hand.message.is_of_first_attempt();
        let trusts = matches!(sabotage, Sabotage::NoPatience | Sabotage::PatienceWithoutDatabase);
        waits && !trusts && !self.is_well_for(PATIENCE)
    }

    pub(super) fn post(&mut self, worker: u8, index: u8, unread: bool, sabotage: Sabotage) -> Result<(), Broken> {
        let Some(hand) = self.hand(worker, index) else { return Ok(()) };
        if !hand.excused {
            broken::check_post(self, &hand.message)?;
        }
        let unread = unread && sabotage != Sabotage::NoLateClaim;
        let by = if unread { CLAIM_AFTER + PROMPT } else { 0 };
        self.put(worker, index, Stage::Sending { began: 0, unread, by });
        if sabotage == Sabotage::AckBeforeRecord {
            self.workers[usize::from(worker)].hands.as_mut_slice()[usize::from(index)].attached = false;
        }
        Ok(())
    }

    pub(super) fn claim_late(&mut self, worker: u8, index: u8, sabotage: Sabotage) {
        let Some(hand) = self.hand(worker, index) else { return };
        let Stage::Sending { began, .. } = hand.stage else { return };
        if self.database.up {
            self.claim(&hand.message, began, sabotage);
        }
        self.put(worker, index, Stage::Sending { began, unread: false, by: 0 });
    }

    fn claim(&mut self, message: &Message, began: Moment, sabotage: Sabotage) -> bool {
        let &Message { generation, attempt, lease, .. } = message;
        let Some(row) = self.row_mut(message.delivery) else { return false };
        let lease = if sabotage == Sabotage::NoFence { row.due_at.unwrap_or(lease) } else { lease };
        row.claim(&Claim { generation, attempt, lease, new_lease: claimed_until(began) })
    }

    pub(super) fn answer(&mut self, worker: u8, index: u8, outcome: Outcome) {
        let Some(hand) = self.hand(worker, index) else { return };
        let attempted = match outcome {
            Outcome::Accepted => Attempted::Accepted,
            Outcome::Failed => Attempted::Failed(Fault::Status { status: 503 }),
            Outcome::Refused => Attempted::Failed(Fault::Status { status: PERMANENT }),
        };
        let not_after = timestamp(Moment::MAX);
        let next = match after_attempt(&POLICY, hand.message.attempt.into(), &attempted, not_after, 0.5, timestamp(0)) {
            delivery::Next::Delivered => Next::Delivered,
            // An endpoint that asks for time moves the row as a retry does.
            delivery::Next::RetryAt(at) | delivery::Next::NotNow(at) => Next::RetryAt(moment(at)),
            delivery::Next::Dead(reason) => Next::Dead(reason),
        };
        if outcome == Outcome::Accepted
            && let Some(seen) = self.seen.get_mut(usize::from(hand.message.delivery))
        {
            seen.accept(hand.message.generation);
            if hand.excused {
                seen.forget(hand.message.generation);
            }
        }
        self.put(worker, index, Stage::Answered { next, by: PROMPT });
        if !self.database.up {
            self.workers[usize::from(worker)].hands.as_mut_slice()[usize::from(index)].database_is_back();
        }
    }

    pub(super) fn record(&mut self, worker: u8, index: u8) {
        let Some(Hand { message, stage: Stage::Answered { next, .. }, .. }) = self.hand(worker, index) else { return };
        if !self.database.up {
            // Only who forgets comes here.
            self.put(worker, index, Stage::Recorded { dead: false });
            return;
        }
        let Message { generation, attempt, .. } = message;
        let report = Report { generation, attempt, lease: None, word: Word::Attempted(next) };
        let moved = self.row_mut(message.delivery).is_some_and(|row| row.record(&report, 0));
        self.put(worker, index, Stage::Recorded { dead: moved && matches!(next, Next::Dead(_)) });
    }

    pub(super) fn put_back(&mut self, worker: u8, index: u8) {
        let Some(Hand { message, .. }) = self.hand(worker, index) else { return };
        let Message { generation, attempt, lease, .. } = message;
        let report = Report { generation, attempt, lease: Some(lease), word: Word::PutBack(HeldReason::Slow, SLOW) };
        if let Some(row) = self.row_mut(message.delivery) {
            row.record(&report, 0);
        }
        self.put(worker, index, Stage::Recorded { dead: false });
    }

    /// A handler finds the database away: it ends, and consuming with it.
    fn stall(&mut self, worker: u8, index: u8) {
        self.disconnect(worker);
        let worker = &mut self.workers[usize::from(worker)];
        worker.hands.remove(index.into());
        worker.stalled = true;
    }

    /// Its messages go back, its handlers go on.
    pub(super) fn disconnect(&mut self, worker: u8) {
        for hand in self.workers[usize::from(worker)].hands.as_mut_slice().iter_mut().filter(|hand| hand.attached) {
            hand.attached = false;
            self.deliveries.push(hand.message.again());
        }
    }

    pub(super) fn worker_dies(&mut self, worker: u8) {
        self.disconnect(worker);
        self.excuse(worker);
        self.workers[usize::from(worker)] = Default::default();
    }

    /// What it knows and has not recorded, nobody knows.
    pub(super) fn excuse(&mut self, worker: u8) {
        for hand in self.workers[usize::from(worker)].hands.as_mut_slice().iter_mut().filter(|hand| !hand.excused) {
            hand.excused = true;
            if let Stage::Answered { next: Next::Delivered, .. } = hand.stage
                && let Some(seen) = self.seen.get_mut(usize::from(hand.message.delivery))
            {
                seen.forget(hand.message.generation);
            }
        }
    }

    fn hand(&self, worker: u8, hand: u8) -> Option<Hand> {
        self.workers[usize::from(worker)].hands.get(hand.into())
    }

    fn put(&mut self, worker: u8, hand: u8, stage: Stage) {
        if let Some(hand) = self.workers[usize::from(worker)].hands.as_mut_slice().get_mut(usize::from(hand)) {
            hand.stage = stage;
        }
    }
}

fn span(moment: Moment) -> Duration {
    Duration::from_millis(50).saturating_mul(moment.unsigned_abs().into())
}
