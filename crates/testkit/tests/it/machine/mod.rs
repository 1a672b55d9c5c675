//! The life of a delivery under every order of events: messages lost and doubled, workers that die at any point,
//! leases that run out, people who retry and cancel.
//!
//! The real record, and a clock, a broker and workers that are values. Each case is one delivery, and each statement of
//! its record is given to the model's row as well (`twin`): so what `posthorn-model` finds out holds for the real thing.

mod twin;

use std::time::Duration;

use jiff::Timestamp;
use posthorn_core::delivery::{Admission, DeadReason, HeldReason, Next, Trigger, Wake, admit};
use posthorn_core::id::{SubscriptionId, TenantId};
use posthorn_core::time::{later, whole_micros};
use posthorn_store::Client;
use posthorn_store::deliveries::{Made, Report, Word};
use posthorn_testkit::Database;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use crate::samples::{report, secs, subscribed};
use twin::Twin;

const TIMEOUT: Duration = Duration::from_secs(10);
const MARGIN: Duration = Duration::from_secs(5);
/// A queue's, and the timeout.
const LEASE: Duration = Duration::from_secs(30);

/// One thing that happens. Numbers choose among the messages, attempts or reports that there are.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A worker gets a message.
    Deliver(usize),
    /// A message is lost with the broker.
    Lose(usize),
    /// The broker never took a message, and its lease is given back.
    GiveBack(usize),
    /// An attempt that was begun unread lasts, and its row is claimed.
    ClaimLate(usize),
    /// An attempt under way ends.
    Answer(usize, Outcome),
    /// What an attempt came to is recorded.
    Record(usize),
    /// What was recorded is recorded again.
    Repeat(usize),
    /// A connection is lost: the message of an attempt comes back, and the attempt goes on.
    Disconnect(usize),
    /// A worker dies with an attempt, or with what it came to: the broker gives its message out again.
    Die(usize),
    /// A message is not attempted.
    Decline(usize, Decline),
    /// A message becomes a dead letter: one that is there goes round too often, or one that was is rejected.
    File(usize, bool),
    /// The janitor looks for deaths without a dead letter.
    Tidy,
    Pass(u64),
    Schedule,
    SetGoing,
    Cancel,
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Accepted,
    Failed,
    Permanent,
}

#[derive(Clone, Copy, Debug)]
enum Decline {
    /// There is no room.
    PutBack,
    /// Its subscription is gone.
    Cancelled,
    /// Its event is gone.
    Expired,
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![Just(Outcome::Accepted), Just(Outcome::Failed), Just(Outcome::Permanent)];
    let decline = prop_oneof![4 => Just(Decline::PutBack), 1 => Just(Decline::Cancelled), 1 => Just(Decline::Expired)];
    prop_oneof![
        6 => any::<usize>().prop_map(Step::Deliver),
        1 => any::<usize>().prop_map(Step::Lose),
        1 => any::<usize>().prop_map(Step::GiveBack),
        2 => any::<usize>().prop_map(Step::ClaimLate),
        6 => (any::<usize>(), outcome).prop_map(|(index, outcome)| Step::Answer(index, outcome)),
        6 => any::<usize>().prop_map(Step::Record),
        1 => any::<usize>().prop_map(Step::Repeat),
        2 => any::<usize>().prop_map(Step::Disconnect),
        2 => any::<usize>().prop_map(Step::Die),
        2 => (any::<usize>(), decline).prop_map(|(index, decline)| Step::Decline(index, decline)),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(index, over_limit)| Step::File(index, over_limit)),
        1 => Just(Step::Tidy),
        4 => prop_oneof![1u64..5, 10u64..60, 120u64..130].prop_map(Step::Pass),
        6 => Just(Step::Schedule),
        2 => Just(Step::SetGoing),
        1 => Just(Step::Cancel),
    ]
}

#[derive(Clone, Debug)]
struct Message {
    generation: u32,
    attempt: u32,
    lease_until: Timestamp,
    trigger: Trigger,
    has_content: bool,
    redelivered: bool,
}

/// An attempt under way, and the message that stays unsettled meanwhile.
#[derive(Clone, Debug)]
struct Attempt {
    message: Message,
    began: Timestamp,
    /// Its message came back meanwhile.
    disconnected: bool,
}

struct World {
    twin: Twin,
    messages: Vec<Message>,
    under_way: Vec<Attempt>,
    unrecorded: Vec<(Report, Message)>,
    recorded: Vec<Report>,
    /// Messages that were settled.
    spent: Vec<Message>,
}

impl World {
    async fn begin(client: Client, tenant: TenantId, subscription: SubscriptionId) -> Self {
        let twin = Twin::insert(client, tenant, subscription, LEASE).await;
        let first = Message {
            generation: 1,
            attempt: 1,
            lease_until: twin.new.due_at,
            trigger: Trigger::Dispatch,
            has_content: true,
            redelivered: false,
        };
        let (under_way, unrecorded, recorded, spent) = Default::default();
        Self { twin, messages: vec![first], under_way, unrecorded, recorded, spent }
    }

    async fn take(&mut self, step: Step) {
        let before = self.twin.row;
        match step {
            Step::Deliver(index) => {
                if let Some(message) = pick(&mut self.messages, index) {
                    self.deliver(message).await;
                }
            }
            Step::Lose(index) => drop(pick(&mut self.messages, index)),
            Step::GiveBack(index) => {
                if let Some(message) = pick(&mut self.messages, index) {
                    self.twin.give_back(&message).await;
                }
            }
            Step::ClaimLate(index) => {
                if let Some(Attempt { message, began, .. }) = any_of(&self.under_way, index) {
                    self.twin.claim(&message, lease_of_attempt(began)).await;
                }
            }
            Step::Answer(index, outcome) => {
                if let Some(attempt) = pick(&mut self.under_way, index) {
                    self.unrecorded.push((self.report(&attempt, outcome), attempt.message));
                }
            }
            Step::Record(index) => {
                if let Some((report, message)) = pick(&mut self.unrecorded, index) {
                    self.twin.record(&report).await;
                    self.recorded.push(report);
                    self.spent.push(message);
                }
            }
            Step::Repeat(index) => {
                if let Some(report) = any_of(&self.recorded, index) {
                    self.twin.record(&report).await;
                }
            }
            Step::Disconnect(index) => {
                if let Some(attempt) = any_mut(&mut self.under_way, index).filter(|attempt| !attempt.disconnected) {
                    attempt.disconnected = true;
                    self.messages.push(Message { redelivered: true, ..attempt.message.clone() });
                }
            }
            Step::Die(index) => {
                let dead = pick(&mut self.under_way, index).filter(|attempt| !attempt.disconnected);
                let dead = dead.map(|attempt| attempt.message);
                let dead = dead.or_else(|| pick(&mut self.unrecorded, index).map(|(_, message)| message));
                self.messages.extend(dead.map(|message| Message { redelivered: true, ..message }));
            }
            Step::Decline(index, decline) => self.decline(index, decline).await,
            Step::File(index, true) => {
                if let Some(message) = pick(&mut self.messages, index) {
                    self.twin.file(&message, true).await;
                }
            }
            Step::File(index, false) => {
                if let Some(message) = any_of(&self.spent, index) {
                    self.twin.file(&message, false).await;
                }
            }
            Step::Tidy => self.twin.tidy().await,
            Step::Pass(seconds) => {
                self.twin.now = whole_micros(later(self.twin.now, secs(seconds)));
                // Nothing is sent for longer than the timeout; what came of it may be recorded whenever.
                let over: Vec<Attempt> =
                    self.under_way.extract_if(.., |a| later(a.began, TIMEOUT) <= self.twin.now).collect();
                let over = over.into_iter().map(|attempt| (self.report(&attempt, Outcome::Failed), attempt.message));
                self.unrecorded.extend(over.collect::<Vec<_>>());
            }
            Step::Schedule => self.messages.extend(self.twin.schedule(LEASE).await),
            Step::SetGoing => self.twin.set_going().await,
            Step::Cancel => self.twin.cancel().await,
        }
        self.twin.compare().await;
        let after = self.twin.row;
        if before.has_ended() && !matches!(step, Step::SetGoing) {
            assert_eq!((before.state, before.generation), (after.state, after.generation), "it had ended: {step:?}");
        }
        assert!(after.generation >= before.generation, "{step:?}");
    }

    async fn deliver(&mut self, message: Message) {
        let is_same = |other: &Message| (other.generation, other.attempt) == (message.generation, message.attempt);
        if self.under_way.iter().any(|attempt| attempt.disconnected && is_same(&attempt.message)) {
            // Whoever gets it waits, and whoever is at it takes the row or records what came of it meanwhile.
            self.messages.push(message);
            return;
        }
        let wake = Wake {
            attempt: message.attempt,
            trigger: message.trigger,
            redelivered: message.redelivered,
            has_content: message.has_content,
            lease_until: message.lease_until,
        };
        let now = self.twin.now;
        if admit(&wake, TIMEOUT, MARGIN, now) == Admission::Claim
            && !self.twin.claim(&message, lease_of_attempt(now)).await
        {
            self.spent.push(message);
            return;
        }
        let twice = self.under_way.iter().any(|attempt| is_same(&attempt.message));
        assert!(!twice, "it is being attempted already: {message:?}");
        self.under_way.push(Attempt { message, began: now, disconnected: false });
    }

    async fn decline(&mut self, index: usize, decline: Decline) {
        let Some(message) = pick(&mut self.messages, index) else { return };
        let lease = Some(message.lease_until);
        let (word, lease_until) = match decline {
            Decline::PutBack => (Word::PutBack(HeldReason::Slow, whole_micros(later(self.twin.now, secs(1)))), lease),
            Decline::Cancelled => (Word::Cancelled, lease),
            // Found out only when the row is claimed.
            Decline::Expired if !self.twin.claim(&message, lease_of_attempt(self.twin.now)).await => return,
            Decline::Expired => (Word::Expired, None),
        };
        let &Message { generation, attempt, .. } = &message;
        let of_first = report(&self.twin.new, attempt, Next::Delivered);
        self.twin.record(&Report { generation, lease_until, word, ..of_first }).await;
        self.spent.push(message);
    }

    fn report(&self, attempt: &Attempt, outcome: Outcome) -> Report {
        let next = match outcome {
            Outcome::Accepted => Next::Delivered,
            Outcome::Permanent => Next::Dead(DeadReason::Permanent),
            Outcome::Failed if attempt.message.attempt >= 3 => Next::Dead(DeadReason::Exhausted),
            Outcome::Failed => Next::RetryAt(whole_micros(later(self.twin.now, secs(5)))),
        };
        let of_first = report(&self.twin.new, attempt.message.attempt, next);
        let Word::Attempted(made) = of_first.word.clone() else { unreachable!("a report of an attempt") };
        let made = Made { started_at: attempt.began, ..*made };
        Report { generation: attempt.message.generation, word: Word::Attempted(Box::new(made)), ..of_first }
    }

    /// Whatever was left, the delivery comes to an end by itself, and a dead one has one dead letter.
    async fn finish(&mut self) {
        for _ in 0..20 {
            if self.twin.row.has_ended() {
                break;
            }
            while !self.under_way.is_empty() {
                self.take(Step::Answer(0, Outcome::Accepted)).await;
            }
            while !self.unrecorded.is_empty() {
                self.take(Step::Record(0)).await;
            }
            self.take(Step::Pass(40)).await;
            self.take(Step::Schedule).await;
            while !self.messages.is_empty() {
                self.take(Step::Deliver(0)).await;
            }
        }
        assert!(self.twin.row.has_ended(), "it never ends: {:?}", self.twin.row);
        self.take(Step::Pass(121)).await;
        self.take(Step::Tidy).await;
        let dead = self.twin.row.state == posthorn_core::delivery::State::Dead;
        assert_eq!(self.twin.row.has_letter(), dead, "a dead letter for each death: {:?}", self.twin.row);
    }
}

/// The lease of whoever makes an attempt that begins at `began`.
fn lease_of_attempt(began: Timestamp) -> Timestamp {
    whole_micros(later(later(began, TIMEOUT), MARGIN))
}

fn pick<T>(all: &mut Vec<T>, index: usize) -> Option<T> {
    (!all.is_empty()).then(|| all.swap_remove(index % all.len()))
}

fn any_mut<T>(all: &mut [T], index: usize) -> Option<&mut T> {
    let count = all.len().max(1);
    all.get_mut(index % count)
}

fn any_of<T: Clone>(all: &[T], index: usize) -> Option<T> {
    (!all.is_empty()).then(|| all[index % all.len()].clone())
}

#[tokio::test]
async fn no_order_of_events_loses_a_delivery_revives_one_attempts_it_twice_at_once_or_parts_record_and_model() {
    const CASES: u32 = 150;
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let (tenant, subscription) = subscribed(&client).await;
    let seed = std::env::var("POSTHORN_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut runner = TestRunner::new(Config { rng_seed: RngSeed::Fixed(seed), ..Config::default() });
    for case in 0..CASES {
        let steps = proptest::collection::vec(step(), 0..40).new_tree(&mut runner).unwrap().current();
        let client = database.store.client().await.unwrap();
        let mut world = World::begin(client, tenant, subscription).await;
        println!("case {case}: {steps:?}");
        for step in steps {
            world.take(step).await;
        }
        world.finish().await;
    }
}
