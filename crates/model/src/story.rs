//! A story as people read it: a line for each step, with the time since the event was accepted.

use std::fmt;

use posthorn_core::delivery::State;

use crate::message::Message;
use crate::row::{Next, Row};
use crate::sabotage::Sabotage;
use crate::step::{Outcome, Publication, Step};
use crate::worker::Stage;
use crate::world::{Left, World};

/// The steps from the beginning.
pub struct Story<'a, const N: usize> {
    pub left: Left,
    pub sabotage: Sabotage,
    pub steps: &'a [Step],
}

impl<const N: usize> fmt::Display for Story<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut world = World::<N>::begin(self.left, self.sabotage);
        let mut now: i32 = 0;
        let mut number = 0;
        for step in self.steps {
            match step {
                Step::Pass => now += i32::from(world.next().unwrap_or_default()),
                Step::PassSome(time) => now += i32::from(*time),
                _ => {
                    number += 1;
                    let seconds = f64::from(now) / 20.0;
                    writeln!(
                        f,
                        "{number:>3}. {seconds:>6.2} s  {}",
                        Sentence { world: &world, step: *step, sabotage: self.sabotage }
                    )?;
                }
            }
            match world.take(*step, self.sabotage) {
                Ok(next) => world = next,
                Err(_) => break,
            }
        }
        Ok(())
    }
}

/// A step as a sentence about the world before it.
struct Sentence<'a, const N: usize> {
    world: &'a World<N>,
    step: Step,
    sabotage: Sabotage,
}

impl<const N: usize> fmt::Display for Sentence<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            Step::Pass | Step::PassSome(_) => f.write_str("Time passes."),
            Step::HandOver => f.write_str("The gateway publishes the event that it has committed."),
            Step::Relay(Publication::Done) => f.write_str("A relay publishes the event from the outbox."),
            Step::Relay(_) => f.write_str("A relay takes the outbox row and dies before it publishes."),
            Step::Fetch => f.write_str("A dispatcher gets the event's message."),
            Step::Insert { held, .. } => {
                let how = if held { "held" } else { "queued" };
                let is_new = self.world.rows.iter().any(Option::is_none);
                let what = if is_new { how } else { "which were there already" };
                write!(f, "The dispatcher commits the deliveries ({what}) and the end of the outbox row.")
            }
            Step::Publish { publication, .. } => write!(f, "The dispatcher {}.", of(publication, "the first message")),
            Step::AcknowledgeEvent { .. } => f.write_str("The dispatcher acknowledges the event's message."),
            Step::Release { delivery, publication } => {
                write!(f, "The scheduler releases {} and {}.", name::<N>(delivery), of(publication, "its message"))
            }
            Step::Renew { delivery, publication } => {
                let name = name::<N>(delivery);
                write!(f, "The lease of {name} has run out: the scheduler {}.", of(publication, "its message again"))
            }
            Step::File { dies, .. } => {
                f.write_str("The clerk files a dead letter")?;
                f.write_str(if dies { " and dies before it acknowledges the message." } else { "." })
            }
            Step::Tidy { delivery } => write!(f, "The janitor files the dead letter of {}.", name::<N>(delivery)),
            Step::Deliver { worker, message } => {
                let message = self.world.deliveries.get(message.into()).unwrap_or_default();
                write!(f, "Worker {} gets {}.", letter(worker), Named::<N>(message))
            }
            Step::Begin { worker, hand } => self.begin(f, worker, hand),
            Step::PutBack { worker, hand } => {
                write!(f, "Worker {} has no room and puts {} back.", letter(worker), self.message(worker, hand))
            }
            Step::Post { worker, hand } => {
                write!(f, "Worker {} sends attempt {}.", letter(worker), self.attempt(worker, hand))
            }
            Step::ClaimLate { worker, hand } => {
                let result = if self.world.database.up { "" } else { " and cannot: the database is away" };
                let attempt = self.attempt(worker, hand);
                write!(
                    f,
                    "Worker {} claims the row of attempt {attempt}, which it began unread{result}.",
                    letter(worker)
                )
            }
            Step::Answer { worker, hand, outcome } => {
                let answer = match outcome {
                    Outcome::Accepted => "accepts",
                    Outcome::Failed => "fails",
                    Outcome::Refused => "refuses for good",
                };
                let (worker, attempt) = (letter(worker), self.attempt(worker, hand));
                write!(f, "The receiver {answer} attempt {attempt} of worker {worker}.")
            }
            Step::Record { worker, hand } => self.record(f, worker, hand),
            Step::Settle { worker, hand } => {
                let hand = self.world.workers[usize::from(worker)].hands.get(hand.into()).unwrap_or_default();
                let how = match (hand.attached, hand.stage) {
                    (false, _) => "has nothing to settle: its message went back.",
                    (true, Stage::Recorded { dead: true }) => "rejects its message to the dead-letter queue.",
                    (true, _) => "acknowledges its message.",
                };
                write!(f, "Worker {} {how}", letter(worker))
            }
            Step::SetGoing { delivery } => write!(f, "A person sets {} going.", name::<N>(delivery)),
            Step::Cancel { delivery } => write!(f, "A person cancels {}.", name::<N>(delivery)),
            Step::GatewayDies => f.write_str("The gateway dies before it publishes."),
            Step::DispatcherDies { .. } => f.write_str("The dispatcher dies; the event's message goes back."),
            Step::WorkerDies { worker } => {
                write!(f, "Worker {} dies; what it had in hand goes back.", letter(worker))
            }
            Step::Disconnect { worker } => {
                write!(f, "Worker {} loses its connection: its messages go back, its attempts go on.", letter(worker))
            }
            Step::Freeze { worker } => write!(f, "Worker {} stands still; its messages go back.", letter(worker)),
            Step::Thaw { worker } => write!(f, "Worker {} goes on.", letter(worker)),
            Step::LoseEvent => f.write_str("The broker loses the event's message."),
            Step::Lose { message } => {
                let message = self.world.deliveries.get(message.into()).unwrap_or_default();
                write!(f, "The broker loses {}.", Named::<N>(message))
            }
            Step::LoseDead { .. } => f.write_str("The broker loses a message of the dead-letter queue."),
            Step::LoseAll => f.write_str("The broker loses everything."),
            Step::OverLimit { message } => {
                let message = self.world.deliveries.get(message.into()).unwrap_or_default();
                write!(f, "{} went round too often and becomes a dead letter.", Named::<N>(message))
            }
            Step::DatabaseAway => f.write_str("The database goes away."),
            Step::DatabaseBack => f.write_str("The database is back."),
        }
    }
}

impl<const N: usize> Sentence<'_, N> {
    fn begin(&self, f: &mut fmt::Formatter<'_>, worker: u8, hand: u8) -> fmt::Result {
        let Ok(after) = self.world.take(self.step, self.sabotage) else {
            return write!(f, "Worker {} sends attempt {} unread.", letter(worker), self.attempt(worker, hand));
        };
        let before = &self.world.workers[usize::from(worker)];
        let hands = after.workers[usize::from(worker)].hands;
        let count =
            |stage: fn(&Stage) -> bool, hands: &[crate::worker::Hand]| hands.iter().filter(|h| stage(&h.stage)).count();
        let is_more =
            |stage: fn(&Stage) -> bool| count(stage, hands.as_slice()) > count(stage, before.hands.as_slice());
        let attempt = self.attempt(worker, hand);
        let worker = letter(worker);
        if is_more(|stage| matches!(stage, Stage::Sending { .. })) {
            write!(f, "Worker {worker} sends attempt {attempt} unread.")
        } else if is_more(|stage| matches!(stage, Stage::Claimed { .. })) {
            write!(f, "Worker {worker} claims the row for attempt {attempt}.")
        } else if after.workers.iter().any(|w| w.stalled) && !self.world.database.up {
            write!(f, "Worker {worker} finds the database away: it consumes no more, and its messages go back.")
        } else if hands.len() < before.hands.len() {
            write!(f, "Worker {worker} finds the row of attempt {attempt} moved and drops the message.")
        } else {
            write!(f, "Worker {worker} waits longer with attempt {attempt}: the database was away.")
        }
    }

    fn record(&self, f: &mut fmt::Formatter<'_>, worker: u8, hand: u8) -> fmt::Result {
        let held = self.world.workers[usize::from(worker)].hands.get(hand.into()).unwrap_or_default();
        let Stage::Answered { next, .. } = held.stage else { return Ok(()) };
        if !self.world.database.up {
            return write!(
                f,
                "Worker {} cannot record attempt {} and forgets it.",
                letter(worker),
                self.attempt(worker, hand)
            );
        }
        let what = match next {
            Next::Delivered => "delivered".to_owned(),
            Next::RetryAt(_) => "failed, to be tried again".to_owned(),
            Next::Dead(reason) => format!("dead: {}", reason.as_str()),
        };
        let moves = |row: &Row| {
            (row.generation, row.attempt + 1) == (held.message.generation, held.message.attempt)
                && matches!(row.state, State::Held | State::Queued)
        };
        let moved = self.world.row(held.message.delivery).is_some_and(moves);
        let suffix = if moved { "" } else { "; the row has moved on, and stays as it is" };
        let attempt = self.attempt(worker, hand);
        write!(f, "Worker {} records attempt {attempt} ({what}){suffix}.", letter(worker))
    }

    fn message(&self, worker: u8, hand: u8) -> Named<N> {
        let hand = self.world.workers[usize::from(worker)].hands.get(hand.into()).unwrap_or_default();
        Named(hand.message)
    }

    fn attempt(&self, worker: u8, hand: u8) -> String {
        let Named(message) = self.message(worker, hand);
        let of = if N > 1 { format!(" of {}", name::<N>(message.delivery)) } else { String::new() };
        let generation =
            if message.generation > 1 { format!(" in generation {}", message.generation) } else { String::new() };
        format!("{}{of}{generation}", message.attempt)
    }
}

/// A message as it is spoken of.
struct Named<const N: usize>(Message);

impl<const N: usize> fmt::Display for Named<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(message) = self;
        let again = if message.redelivered { ", redelivered" } else { "" };
        let of = if N > 1 { format!(" of {}", name::<N>(message.delivery)) } else { String::new() };
        let generation =
            if message.generation > 1 { format!(" in generation {}", message.generation) } else { String::new() };
        write!(f, "the message for attempt {}{of}{generation} ({}{again})", message.attempt, message.trigger.as_str())
    }
}

fn name<const N: usize>(delivery: u8) -> String {
    if N > 1 { format!("delivery {}", delivery + 1) } else { "the delivery".to_owned() }
}

fn letter(worker: u8) -> char {
    char::from(b'A' + worker)
}

fn of(publication: Publication, what: &str) -> String {
    match publication {
        Publication::Done => format!("publishes {what}"),
        Publication::Refused => format!("cannot publish {what}: the broker refuses it"),
        Publication::Never => format!("dies before it publishes {what}"),
    }
}
