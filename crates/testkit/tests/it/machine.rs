//! The life of a delivery under every order of events: messages lost and doubled, workers that die at any point,
//! leases that run out, people who retry and cancel.
//!
//! The real record, and a clock, a broker and workers that are values. Each case is one delivery.

use std::time::Duration;

use jiff::Timestamp;
use posthorn_core::delivery::{Admission, DeadReason, HeldReason, Next, State, Trigger, Wake, admit};
use posthorn_core::id::{SubscriptionId, TenantId};
use posthorn_core::pace::Bucket;
use posthorn_core::time::{later, whole_micros};
use posthorn_store::Client;
use posthorn_store::deliveries::{self, Claim, Made, NewDelivery, Report, Word};
use posthorn_store::schedule::{self, Allowance, Release};
use posthorn_testkit::Database;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use crate::record::{delivery, now, report, secs, subscribed};

const TIMEOUT: Duration = Duration::from_secs(10);
const MARGIN: Duration = Duration::from_secs(5);
const QUEUE: Duration = Duration::from_secs(20);

/// One thing that happens. Numbers choose among the messages, attempts or reports that there are.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A worker gets a message.
    Deliver(usize),
    /// A message is lost with the broker.
    Lose(usize),
    /// An attempt under way ends.
    Answer(usize, Outcome),
    /// What an attempt came to is recorded.
    Record(usize),
    /// A worker dies with an attempt, or with what it came to: the broker gives its message out again.
    Die(usize),
    /// A message is put back: there is no room.
    PutBack(usize),
    Pass(u64),
    Schedule,
    Retry,
    Cancel,
}

#[derive(Clone, Copy, Debug)]
enum Outcome {
    Accepted,
    Failed,
    Permanent,
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![Just(Outcome::Accepted), Just(Outcome::Failed), Just(Outcome::Permanent)];
    prop_oneof![
        6 => any::<usize>().prop_map(Step::Deliver),
        1 => any::<usize>().prop_map(Step::Lose),
        6 => (any::<usize>(), outcome).prop_map(|(index, outcome)| Step::Answer(index, outcome)),
        6 => any::<usize>().prop_map(Step::Record),
        2 => any::<usize>().prop_map(Step::Die),
        1 => any::<usize>().prop_map(Step::PutBack),
        4 => prop_oneof![1u64..5, 10u64..60].prop_map(Step::Pass),
        6 => Just(Step::Schedule),
        2 => Just(Step::Retry),
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

impl From<&Release> for Message {
    fn from(release: &Release) -> Self {
        Self {
            generation: release.generation,
            attempt: release.attempt,
            lease_until: release.lease_until,
            trigger: release.trigger,
            has_content: false,
            redelivered: false,
        }
    }
}

/// An attempt under way, and the message that stays unsettled meanwhile.
#[derive(Clone, Debug)]
struct Attempt {
    message: Message,
    began: Timestamp,
}

struct World {
    client: Client,
    tenant: TenantId,
    now: Timestamp,
    new: NewDelivery,
    messages: Vec<Message>,
    under_way: Vec<Attempt>,
    unrecorded: Vec<(Report, Message)>,
}

impl World {
    async fn begin(client: Client, tenant: TenantId, subscription: SubscriptionId) -> Self {
        let now = now();
        let lease = whole_micros(later(later(now, QUEUE), TIMEOUT));
        let new = delivery(tenant, subscription, None, lease);
        deliveries::insert(&client, std::slice::from_ref(&new), &[], now).await.unwrap();
        let first = Message {
            generation: 1,
            attempt: 1,
            lease_until: lease,
            trigger: Trigger::Dispatch,
            has_content: true,
            redelivered: false,
        };
        let (under_way, unrecorded) = (Vec::new(), Vec::new());
        Self { client, tenant, now, new, messages: vec![first], under_way, unrecorded }
    }

    async fn take(&mut self, step: Step) {
        let before = self.row().await;
        match step {
            Step::Deliver(index) => {
                if let Some(message) = pick(&mut self.messages, index) {
                    self.deliver(message).await;
                }
            }
            Step::Lose(index) => drop(pick(&mut self.messages, index)),
            Step::Answer(index, outcome) => {
                if let Some(attempt) = pick(&mut self.under_way, index) {
                    self.unrecorded.push((self.report(&attempt, outcome), attempt.message));
                }
            }
            Step::Record(index) => {
                if let Some((report, _)) = pick(&mut self.unrecorded, index) {
                    deliveries::record(&self.client, &[report], self.now).await.unwrap();
                }
            }
            Step::Die(index) => {
                let dead = pick(&mut self.under_way, index).map(|attempt| attempt.message);
                let dead = dead.or_else(|| pick(&mut self.unrecorded, index).map(|(_, message)| message));
                self.messages.extend(dead.map(|message| Message { redelivered: true, ..message }));
            }
            Step::PutBack(index) => {
                if let Some(message) = pick(&mut self.messages, index) {
                    let word = Word::PutBack(HeldReason::Slow, whole_micros(later(self.now, secs(1))));
                    let report = Report {
                        generation: message.generation,
                        attempt: message.attempt,
                        lease_until: Some(message.lease_until),
                        word,
                        ..report(&self.new, message.attempt, Next::Delivered)
                    };
                    deliveries::record(&self.client, &[report], self.now).await.unwrap();
                }
            }
            Step::Pass(seconds) => {
                self.now = whole_micros(later(self.now, secs(seconds)));
                // Nothing is sent for longer than the timeout; what came of it may be recorded whenever.
                let over: Vec<Attempt> =
                    self.under_way.extract_if(.., |a| later(a.began, TIMEOUT) <= self.now).collect();
                let over = over.into_iter().map(|attempt| (self.report(&attempt, Outcome::Failed), attempt.message));
                self.unrecorded.extend(over.collect::<Vec<_>>());
            }
            Step::Schedule => self.schedule().await,
            Step::Retry => {
                let from = [State::Held, State::Dead, State::Delivered];
                let tenant = Some(self.tenant);
                deliveries::set_going(&self.client, tenant, &[self.new.id], &from, Trigger::Manual, self.now)
                    .await
                    .unwrap();
            }
            Step::Cancel => {
                deliveries::cancel(&self.client, Some(self.tenant), self.new.id, self.now).await.unwrap();
            }
        }
        let after = self.row().await;
        if before.has_ended() && !matches!(step, Step::Retry) {
            assert_eq!((before.state, before.generation), (after.state, after.generation), "it had ended: {step:?}");
        }
        assert!(after.generation >= before.generation, "{step:?}");
    }

    async fn deliver(&mut self, message: Message) {
        let wake = Wake {
            attempt: message.attempt,
            trigger: message.trigger,
            redelivered: message.redelivered,
            has_content: message.has_content,
            lease_until: message.lease_until,
        };
        if admit(&wake, TIMEOUT, MARGIN, self.now) == Admission::Claim {
            let claim = Claim {
                id: self.new.id,
                generation: message.generation,
                attempt: message.attempt,
                lease_until: message.lease_until,
                new_lease: whole_micros(later(later(self.now, TIMEOUT), MARGIN)),
            };
            if deliveries::claim(&self.client, &[claim]).await.unwrap().is_empty() {
                return;
            }
        }
        let is_same = |other: &Message| (other.generation, other.attempt) == (message.generation, message.attempt);
        let twice = self.under_way.iter().any(|attempt| is_same(&attempt.message));
        assert!(!twice, "it is being attempted already: {message:?}");
        self.under_way.push(Attempt { message, began: self.now });
    }

    fn report(&self, attempt: &Attempt, outcome: Outcome) -> Report {
        let next = match outcome {
            Outcome::Accepted => Next::Delivered,
            Outcome::Permanent => Next::Dead(DeadReason::Permanent),
            Outcome::Failed if attempt.message.attempt >= 3 => Next::Dead(DeadReason::Exhausted),
            Outcome::Failed => Next::RetryAt(whole_micros(later(self.now, secs(5)))),
        };
        let of_first = report(&self.new, attempt.message.attempt, next);
        let Word::Attempted(made) = of_first.word.clone() else { unreachable!("a report of an attempt") };
        let made = Made { started_at: attempt.began, ..*made };
        Report { generation: attempt.message.generation, word: Word::Attempted(Box::new(made)), ..of_first }
    }

    /// What the scheduler does in a round.
    async fn schedule(&mut self) {
        let lease_until = whole_micros(later(later(self.now, QUEUE), TIMEOUT));
        let transaction = self.client.transaction().await.unwrap();
        let due = schedule::due_subscriptions(&transaction, 10, self.now).await.unwrap();
        let allowances: Vec<Allowance> = due
            .iter()
            .map(|due| Allowance {
                subscription_id: due.subscription_id,
                limit: 10,
                lease_until,
                bucket: Bucket { tokens: 0.0, at: None },
                not_before: self.now,
                sleep: false,
                probe: false,
            })
            .collect();
        let released = schedule::release(&transaction, &allowances, self.now).await.unwrap();
        transaction.commit().await.unwrap();
        let lost = schedule::renew_lost(&self.client, 10, lease_until, self.now).await.unwrap();
        let ours = released.iter().chain(&lost).filter(|release| release.id == self.new.id);
        self.messages.extend(ours.map(Message::from));
    }

    /// Whatever was left, the delivery comes to an end by itself.
    async fn finish(&mut self) {
        for _ in 0..20 {
            if self.row().await.has_ended() {
                return;
            }
            self.take(Step::Pass(40)).await;
            self.take(Step::Schedule).await;
            while !self.messages.is_empty() {
                self.take(Step::Deliver(0)).await;
            }
            while !self.under_way.is_empty() {
                self.take(Step::Answer(0, Outcome::Accepted)).await;
            }
            while !self.unrecorded.is_empty() {
                self.take(Step::Record(0)).await;
            }
        }
        assert!(self.row().await.has_ended(), "it never ends: {:?}", self.row().await);
    }

    async fn row(&self) -> deliveries::Delivery {
        deliveries::find(&self.client, None, self.new.id).await.unwrap().unwrap()
    }
}

fn pick<T>(all: &mut Vec<T>, index: usize) -> Option<T> {
    (!all.is_empty()).then(|| all.swap_remove(index % all.len()))
}

#[tokio::test]
async fn no_order_of_events_loses_a_delivery_revives_one_or_attempts_it_twice_at_once() {
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
