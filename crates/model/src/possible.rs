//! What can happen next.

use crate::moment::{CLAIM_AFTER, CLERK_HEAD_START, GRID};
use crate::row::Next;
use crate::sabotage::Sabotage;
use crate::step::{Outcome, Publication, Step};
use crate::worker::{Hand, Stage};
use crate::world::{Fanning, World};

/// Events that lie in their queue at most: no relay publishes beyond it.
const LONG: u8 = 1;

impl<const N: usize> World<N> {
    /// All that can happen next, into `steps`.
    pub fn steps(&self, sabotage: Sabotage, steps: &mut Vec<Step>) {
        steps.clear();
        self.orderly(sabotage, steps);
        if self.left.people > 0 {
            for (delivery, row) in (0..).zip(&self.rows) {
                if row.is_some_and(|row| row.has_ended() || row.held_reason.is_some()) {
                    steps.push(Step::SetGoing { delivery });
                }
                if row.is_some_and(|row| row.held_reason.is_some()) {
                    steps.push(Step::Cancel { delivery });
                }
            }
        }
        if self.left.faults > 0 {
            self.faults(sabotage, steps);
        }
    }

    /// What happens where nothing fails and nobody steps in. In the order in which it is best done: whoever takes the
    /// first each time is fair to all.
    pub fn orderly(&self, sabotage: Sabotage, steps: &mut Vec<Step>) {
        if !self.database.up {
            steps.push(Step::DatabaseBack);
        }
        self.of_workers(sabotage, steps);
        if self.database.up {
            steps.extend((0..self.dead.len()).map(|dead| Step::File { dead: index(dead), dies: false }));
        }
        for (fanning, stage) in (0..).zip(self.fanning.as_slice()) {
            match stage {
                Fanning::Got if self.database.up => {
                    steps.push(Step::Insert { fanning, held: false });
                    steps.push(Step::Insert { fanning, held: true });
                }
                Fanning::Got => {}
                Fanning::Inserted { .. } => steps.push(Step::Publish { fanning, publication: Publication::Done }),
                Fanning::Published => steps.push(Step::AcknowledgeEvent { fanning }),
            }
        }
        if self.events > 0 && !self.fanning.is_full() {
            steps.push(Step::Fetch);
        }
        if self.handed_over {
            steps.push(Step::HandOver);
        }
        self.of_schedulers(Publication::Done, sabotage, steps);
        if self.may_relay() {
            steps.push(Step::Relay(Publication::Done));
        }
        if self.database.up && sabotage != Sabotage::NoJanitor {
            let untold = |row: &Option<crate::row::Row>| row.is_some_and(|row| row.is_untold(-CLERK_HEAD_START));
            steps.extend(
                (0..).zip(&self.rows).filter(|(_, row)| untold(row)).map(|(delivery, _)| Step::Tidy { delivery }),
            );
        }
        if self.next().is_some() {
            steps.push(Step::Pass);
        }
    }

    /// Times other than the next that is due, for walks.
    pub fn pauses(&self, steps: &mut Vec<Step>) {
        let slack = self.slack();
        steps.extend([1, 2, 7, 20].map(|n| n * GRID).into_iter().filter(|time| *time <= slack).map(Step::PassSome));
    }

    fn of_workers(&self, sabotage: Sabotage, steps: &mut Vec<Step>) {
        for (worker, each) in (0..).zip(&self.workers) {
            if each.frozen {
                steps.push(Step::Thaw { worker });
                continue;
            }
            for (hand, each) in (0..).zip(each.hands.as_slice()) {
                self.of_hand(worker, hand, each, sabotage, steps);
            }
        }
        let alike = self.workers[0] == self.workers[1];
        for (worker, each) in (0..).zip(&self.workers) {
            // Of two that are alike it makes no difference which one gets it.
            let is_twin = alike && worker > 0;
            if !each.frozen && !each.stalled && !each.hands.is_full() && !is_twin {
                let messages = distinct(self.deliveries.as_slice());
                steps.extend(messages.map(|message| Step::Deliver { worker, message }));
            }
        }
    }

    fn of_hand(&self, worker: u8, hand: u8, each: &Hand, sabotage: Sabotage, steps: &mut Vec<Step>) {
        match each.stage {
            Stage::InLine => {}
            Stage::Waiting { until } if until > 0 => {}
            Stage::Got { .. } | Stage::Waiting { .. } => {
                steps.push(Step::Begin { worker, hand });
            }
            Stage::Claimed { .. } => steps.push(Step::Post { worker, hand }),
            Stage::Sending { began, unread, .. } => {
                let answer = |outcome| Step::Answer { worker, hand, outcome };
                steps.extend([Outcome::Accepted, Outcome::Failed, Outcome::Refused].map(answer));
                let can_claim = self.database.up || sabotage == Sabotage::ClaimOnce;
                if unread && began <= -CLAIM_AFTER && can_claim {
                    steps.push(Step::ClaimLate { worker, hand });
                }
            }
            Stage::Answered { next, .. } => {
                let forgets = sabotage == Sabotage::ForgetfulRecorder && next == Next::Delivered;
                if self.database.up || forgets {
                    steps.push(Step::Record { worker, hand });
                }
            }
            Stage::Recorded { .. } => steps.push(Step::Settle { worker, hand }),
        }
    }

    fn of_schedulers(&self, publication: Publication, sabotage: Sabotage, steps: &mut Vec<Step>) {
        if !self.database.up || self.is_long() {
            return;
        }
        let recorders_had_time =
            self.is_well_for(crate::moment::RECORDERS_FIRST) || sabotage == Sabotage::RecordersLast;
        for (delivery, row) in (0..).zip(&self.rows) {
            let Some(row) = row.filter(|row| row.due_at.is_some_and(|due| due <= 0)) else { continue };
            if row.held_reason.is_some() {
                steps.push(Step::Release { delivery, publication });
            } else if recorders_had_time && sabotage != Sabotage::NoRenewal {
                steps.push(Step::Renew { delivery, publication });
            }
        }
    }

    fn may_relay(&self) -> bool {
        self.database.up && self.outbox.is_some_and(|due| due <= 0) && self.events < LONG
    }

    fn faults(&self, sabotage: Sabotage, steps: &mut Vec<Step>) {
        if self.handed_over {
            steps.push(Step::GatewayDies);
        }
        if self.may_relay() {
            steps.push(Step::Relay(Publication::Never));
        }
        for (fanning, stage) in (0..).zip(self.fanning.as_slice()) {
            steps.push(Step::DispatcherDies { fanning });
            if matches!(stage, Fanning::Inserted { .. }) {
                steps.push(Step::Publish { fanning, publication: Publication::Refused });
            }
        }
        self.of_schedulers(Publication::Never, Sabotage::None, steps);
        self.of_schedulers(Publication::Refused, Sabotage::None, steps);
        if self.database.up {
            steps.extend((0..self.dead.len()).map(|dead| Step::File { dead: index(dead), dies: true }));
        }
        for (worker, each) in (0..).zip(&self.workers) {
            let waits = |hand: &Hand| match hand.stage {
                Stage::Got { .. } => true,
                Stage::Waiting { until } => until <= 0 && !self.has_to_wait_longer(hand, sabotage),
                _ => false,
            };
            if self.database.up && !each.frozen {
                let waiting = (0..).zip(each.hands.as_slice()).filter(|(_, hand)| waits(hand));
                steps.extend(waiting.map(|(hand, _)| Step::PutBack { worker, hand }));
            }
            if !each.hands.is_empty() && !each.frozen {
                steps.extend([Step::WorkerDies { worker }, Step::Freeze { worker }]);
                if each.hands.as_slice().iter().any(|hand| hand.attached) {
                    steps.push(Step::Disconnect { worker });
                }
            }
        }
        if self.events > 0 {
            steps.push(Step::LoseEvent);
        }
        for message in distinct(self.deliveries.as_slice()) {
            steps.push(Step::Lose { message });
            if self.deliveries.as_slice()[usize::from(message)].redelivered {
                steps.push(Step::OverLimit { message });
            }
        }
        steps.extend(distinct(self.dead.as_slice()).map(|dead| Step::LoseDead { dead }));
        if !self.is_empty() {
            steps.push(Step::LoseAll);
        }
        if self.database.up {
            steps.push(Step::DatabaseAway);
        }
    }
}

/// The index of one of each kind.
fn distinct<T: PartialEq>(sorted: &[T]) -> impl Iterator<Item = u8> + '_ {
    let is_first = |at: &usize| *at == 0 || sorted[*at] != sorted[*at - 1];
    (0..sorted.len()).filter(is_first).map(index)
}

fn index(index: usize) -> u8 {
    u8::try_from(index).unwrap_or(u8::MAX)
}
