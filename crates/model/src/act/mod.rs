//! What each step does to the world.

mod work;

use posthorn_core::delivery::{DeadReason, HeldReason, State, Trigger};

use crate::broken::{self, Broken};
use crate::message::{Dead, Message};
use crate::moment::{CLERK_HEAD_START, LEASE, RELAY_LEASE, RENEWED_LEASE};
use crate::row::{Death, Row};
use crate::sabotage::Sabotage;
use crate::step::{Publication, Step};
use crate::worker::{Hand, Stage};
use crate::world::{Fanning, World};

/// Attempts that the schedule has.
pub const ATTEMPTS: u8 = 2;

impl<const N: usize> World<N> {
    /// What is after `step`, which has to be [possible](World::steps).
    pub fn take(&self, step: Step, sabotage: Sabotage) -> Result<Self, Broken> {
        let mut after = *self;
        after.left.faults = after.left.faults.saturating_sub(step.is_fault().into());
        after.left.people = after.left.people.saturating_sub(step.is_by_hand().into());
        after.act(step, sabotage)?;
        after.workers.iter_mut().for_each(|worker| worker.move_up(sabotage));
        after.settle();
        for (delivery, seen) in after.seen.iter().enumerate() {
            let row = |world: &Self| world.rows[delivery];
            broken::check(row(self).as_ref(), row(&after).as_ref(), seen, step.is_by_hand())?;
        }
        Ok(after)
    }

    fn act(&mut self, step: Step, sabotage: Sabotage) -> Result<(), Broken> {
        match step {
            Step::Pass => self.pass(self.next().unwrap_or_default()),
            Step::PassSome(time) => self.pass(time),
            Step::HandOver => {
                self.handed_over = false;
                self.publish_event(sabotage);
            }
            Step::Relay(publication) => {
                self.outbox = Some(RELAY_LEASE);
                if publication == Publication::Done {
                    self.publish_event(sabotage);
                }
            }
            Step::Fetch => {
                self.events -= 1;
                self.fanning.push(Fanning::Got);
            }
            Step::Insert { fanning, held } => self.insert(fanning, held),
            Step::Publish { fanning, publication } => self.publish_first(fanning, publication),
            Step::AcknowledgeEvent { fanning } => drop(self.fanning.remove(fanning.into())),
            Step::Release { delivery, publication } => {
                let message = self.row_mut(delivery).and_then(|row| row.release(LEASE, 0));
                self.publish(message, delivery, publication);
            }
            Step::Renew { delivery, publication } => {
                let message = self.row_mut(delivery).and_then(|row| row.renew_lost(RENEWED_LEASE, 0));
                self.publish(message, delivery, publication);
            }
            Step::File { dead, dies } => self.file(dead, dies),
            Step::Tidy { delivery } => {
                if let Some(row) = self.row_mut(delivery)
                    && row.is_untold(-CLERK_HEAD_START)
                {
                    let (generation, attempt) = (row.generation, row.attempt);
                    row.file(&Death { generation, attempt, lease: 0, fallback: None }, 0);
                }
            }
            Step::Deliver { worker, message } => {
                if let Some(message) = self.deliveries.remove(message.into()) {
                    self.workers[usize::from(worker)].hands.push(Hand::of(message, sabotage));
                }
            }
            Step::Begin { worker, hand } => self.begin_attempt(worker, hand, sabotage)?,
            Step::PutBack { worker, hand } => self.put_back(worker, hand),
            Step::Post { worker, hand } => self.post(worker, hand, false, sabotage)?,
            Step::ClaimLate { worker, hand } => self.claim_late(worker, hand, sabotage),
            Step::Answer { worker, hand, outcome } => self.answer(worker, hand, outcome),
            Step::Record { worker, hand } => self.record(worker, hand),
            Step::Settle { worker, hand } => {
                let hand = self.workers[usize::from(worker)].hands.remove(hand.into());
                if let Some(Hand { attached: true, message, stage: Stage::Recorded { dead: true }, .. }) = hand {
                    self.dead.push(Dead { message, over_limit: false });
                }
            }
            Step::SetGoing { delivery } => {
                if let Some(row) = self.row_mut(delivery) {
                    row.set_going(&[State::Held, State::Dead, State::Delivered, State::Cancelled], Trigger::Manual, 0);
                }
            }
            Step::Cancel { delivery } => {
                if let Some(row) = self.row_mut(delivery) {
                    row.cancel(0);
                }
            }
            Step::GatewayDies => self.handed_over = false,
            Step::DispatcherDies { fanning } => {
                self.fanning.remove(fanning.into());
                self.events += 1;
            }
            Step::WorkerDies { worker } => self.worker_dies(worker),
            Step::Disconnect { worker } => self.disconnect(worker),
            Step::Freeze { worker } => {
                self.disconnect(worker);
                self.excuse(worker);
                self.workers[usize::from(worker)].frozen = true;
                for hand in self.workers[usize::from(worker)].hands.as_slice() {
                    self.seen[usize::from(hand.message.delivery)].doubtful = true;
                }
            }
            Step::Thaw { worker } => {
                let worker = &mut self.workers[usize::from(worker)];
                worker.frozen = false;
                worker.hands.as_mut_slice().iter_mut().for_each(Hand::thaw);
            }
            Step::LoseEvent => self.events -= 1,
            Step::Lose { message } => drop(self.deliveries.remove(message.into())),
            Step::LoseDead { dead } => drop(self.dead.remove(dead.into())),
            Step::LoseAll => self.lose_all(),
            Step::OverLimit { message } => {
                if let Some(message) = self.deliveries.remove(message.into()) {
                    self.dead.push(Dead { message, over_limit: true });
                }
            }
            Step::DatabaseAway => (self.database.up, self.database.since) = (false, 0),
            Step::DatabaseBack => {
                (self.database.up, self.database.since) = (true, 0);
                for worker in &mut self.workers {
                    worker.stalled = false;
                    worker.hands.as_mut_slice().iter_mut().for_each(Hand::database_is_back);
                }
            }
        }
        Ok(())
    }

    fn publish_event(&mut self, sabotage: Sabotage) {
        self.events += 1;
        if sabotage == Sabotage::OutboxUntilConfirm {
            self.outbox = None;
        }
    }

    /// The deliveries that are not there yet, and the end of the outbox row, in one statement.
    fn insert(&mut self, fanning: u8, held: bool) {
        let reason = held.then_some(HeldReason::Slow);
        let mut new = 0;
        for (delivery, row) in self.rows.iter_mut().enumerate().filter(|(_, row)| row.is_none()) {
            *row = Some(Row::insert(reason, if held { 0 } else { LEASE }, 0));
            new |= if held { 0 } else { 1 << delivery };
        }
        self.outbox = None;
        let inserted = if new == 0 { Fanning::Published } else { Fanning::Inserted { new, lease: LEASE } };
        self.fanning.as_mut_slice()[usize::from(fanning)] = inserted;
    }

    fn publish_first(&mut self, fanning: u8, publication: Publication) {
        let Some(Fanning::Inserted { new, lease }) = self.fanning.get(fanning.into()) else { return };
        self.fanning.as_mut_slice()[usize::from(fanning)] = Fanning::Published;
        for delivery in (0..8).filter(|delivery| new >> delivery & 1 == 1) {
            self.publish(Some(Message::first(delivery, lease)), delivery, publication);
        }
    }

    fn publish(&mut self, message: Option<Message>, delivery: u8, publication: Publication) {
        let Some(message) = message else { return };
        match publication {
            Publication::Done => self.deliveries.push(Message { delivery, ..message }),
            // Beside the grid: no lease ends at that very moment.
            Publication::Refused if self.database.up => {
                self.row_mut(delivery).into_iter().for_each(|row| row.give_back(message.lease, -1));
            }
            Publication::Refused | Publication::Never => {}
        }
    }

    fn file(&mut self, dead: u8, dies: bool) {
        let Some(Dead { message, over_limit }) = self.dead.get(dead.into()) else { return };
        let Message { delivery, generation, attempt, lease, .. } = message;
        let fallback = over_limit.then_some(DeadReason::DeliveryLimit);
        if let Some(row) = self.row_mut(delivery) {
            row.file(&Death { generation, attempt, lease, fallback }, 0);
        }
        if !dies {
            self.dead.remove(dead.into());
        }
    }

    fn lose_all(&mut self) {
        self.events = 0;
        self.deliveries.clear();
        self.dead.clear();
        // What is in hand goes on, and has nothing to settle.
        let hands = self.workers.iter_mut().flat_map(|worker| worker.hands.as_mut_slice());
        hands.for_each(|hand| hand.attached = false);
    }
}
