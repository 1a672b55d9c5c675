//! A delivery twice: its row in the record, and the row of the model. Each statement is given to both, and what they
//! answer and what they leave behind has to be the same.

use std::time::Duration;

use jiff::Timestamp;
use posthorn_core::delivery::{DeadReason, HeldReason, Next, State, Trigger};
use posthorn_core::id::{DeadLetterId, SubscriptionId, TenantId};
use posthorn_core::pace::Bucket;
use posthorn_core::time::{earlier, later, whole_micros};
use posthorn_model::row::{self, Row};
use posthorn_store::Client;
use posthorn_store::dead_letters::{self, Death};
use posthorn_store::deliveries::{self, Claim, NewDelivery, Report, Word};
use posthorn_store::schedule::{self, Allowance, Release};
use uuid::Uuid;

use super::Message;
use crate::samples::{delivery, now, secs};

/// How long a dead delivery may go without a dead letter.
const CLERK_HEAD_START: u64 = 120;

/// The states from which a person sets a delivery going.
const FROM: [State; 4] = [State::Held, State::Dead, State::Delivered, State::Cancelled];

pub struct Twin {
    client: Client,
    tenant: TenantId,
    pub new: NewDelivery,
    /// Its moments are seconds from `began`.
    pub row: Row,
    began: Timestamp,
    pub now: Timestamp,
}

impl Twin {
    /// A delivery that is queued under a lease of `lease`.
    pub async fn insert(client: Client, tenant: TenantId, subscription: SubscriptionId, lease: Duration) -> Self {
        let now = now();
        let new = delivery(tenant, subscription, None, whole_micros(later(now, lease)));
        deliveries::insert(&client, std::slice::from_ref(&new), &[], now).await.unwrap();
        let mut twin = Self { client, tenant, row: Row::insert(None, 0, 0), new, began: now, now };
        twin.row.due_at = Some(twin.moment(twin.new.due_at));
        twin.compare().await;
        twin
    }

    pub async fn claim(&mut self, message: &Message, new_lease: Timestamp) -> bool {
        let &Message { generation, attempt, lease_until, .. } = message;
        let claim = Claim { id: self.new.id, generation, attempt, lease_until, new_lease };
        let taken = !deliveries::claim(&self.client, &[claim]).await.unwrap().is_empty();
        let believed = self.row.claim(&row::Claim {
            generation: small(generation),
            attempt: small(attempt),
            lease: self.moment(lease_until),
            new_lease: self.moment(new_lease),
        });
        assert_eq!(taken, believed, "a claim: {message:?}");
        taken
    }

    pub async fn record(&mut self, report: &Report) -> bool {
        let recorded = deliveries::record(&self.client, std::slice::from_ref(report), self.now).await.unwrap();
        let moved = recorded.is_moved(self.new.id);
        let word = match &report.word {
            Word::Attempted(made) => row::Word::Attempted(match made.next {
                Next::Delivered => row::Next::Delivered,
                Next::RetryAt(at) | Next::NotNow(at) => row::Next::RetryAt(self.moment(at)),
                Next::Dead(reason) => row::Next::Dead(reason),
            }),
            Word::PutBack(reason, until) => row::Word::PutBack(*reason, self.moment(*until)),
            Word::Cancelled => row::Word::Cancelled,
            Word::Expired => row::Word::Expired,
        };
        let told = row::Report {
            generation: small(report.generation),
            attempt: small(report.attempt),
            lease: report.lease_until.map(|lease| self.moment(lease)),
            word,
        };
        let now = self.moment(self.now);
        assert_eq!(moved, self.row.record(&told, now), "a report: {report:?}");
        moved
    }

    /// What the scheduler does in a round, and the messages that it publishes.
    pub async fn schedule(&mut self, lease: Duration) -> Vec<Message> {
        let lease_until = whole_micros(later(self.now, lease));
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

        let (until, now) = (self.moment(lease_until), self.moment(self.now));
        let expected = [self.row.release(until, now), self.row.renew_lost(until, now)];
        let ours = released.iter().chain(&lost).filter(|release| release.id == self.new.id);
        let messages: Vec<Message> = ours.map(Message::from).collect();
        let seen = |message: &Message| {
            let &Message { generation, attempt, lease_until, trigger, .. } = message;
            (small(generation), small(attempt), self.moment(lease_until), trigger)
        };
        let expected: Vec<_> =
            expected.into_iter().flatten().map(|m| (m.generation, m.attempt, m.lease, m.trigger)).collect();
        assert_eq!(messages.iter().map(seen).collect::<Vec<_>>(), expected, "what the scheduler publishes");
        messages
    }

    pub async fn give_back(&mut self, message: &Message) {
        let lease = message.lease_until;
        schedule::give_back(&self.client, &[(self.new.id, lease)], self.now).await.unwrap();
        let (lease, now) = (self.moment(lease), self.moment(self.now));
        self.row.give_back(lease, now);
    }

    pub async fn set_going(&mut self) {
        let ids = [self.new.id];
        let tenant = Some(self.tenant);
        let going = deliveries::set_going(&self.client, tenant, &ids, &FROM, Trigger::Manual, self.now).await.unwrap();
        let now = self.moment(self.now);
        assert_eq!(!going.is_empty(), self.row.set_going(&FROM, Trigger::Manual, now), "a person sets it going");
    }

    pub async fn cancel(&mut self) {
        let cancelled = deliveries::cancel(&self.client, Some(self.tenant), self.new.id, self.now).await.unwrap();
        let now = self.moment(self.now);
        assert_eq!(cancelled, self.row.cancel(now), "a person cancels it");
    }

    /// The clerk gets `message` from the dead-letter queue, where it came because it went round too often, or because a
    /// worker rejected it.
    pub async fn file(&mut self, message: &Message, over_limit: bool) {
        let &Message { generation, attempt, lease_until, .. } = message;
        let fallback = over_limit.then_some(DeadReason::DeliveryLimit);
        self.file_death(&Death { delivery: self.new.id, generation, attempt, lease_until, fallback }).await;
    }

    /// The janitor looks for what the clerk has not heard of.
    pub async fn tidy(&mut self) {
        let since = earlier(self.began, secs(86_400));
        let settled_before = earlier(self.now, secs(CLERK_HEAD_START));
        let untold = dead_letters::untold(&self.client, since, settled_before, 500).await.unwrap();
        let ours = untold.into_iter().find(|(_, death)| death.delivery == self.new.id);
        assert_eq!(ours.is_some(), self.row.is_untold(self.moment(settled_before)), "a death that is untold");
        if let Some((_, death)) = ours {
            self.file_death(&death).await;
        }
    }

    /// The row of the record has to be the model's.
    pub async fn compare(&self) {
        assert_eq!(self.recorded().await, self.row, "the record, and the model");
    }

    async fn file_death(&mut self, death: &Death) {
        let id = DeadLetterId::new(self.now, Uuid::new_v4().as_bytes()[..10].try_into().unwrap());
        let written = dead_letters::of_delivery(&self.client, id, death, self.now).await.unwrap();
        let told = row::Death {
            generation: small(death.generation),
            attempt: small(death.attempt),
            // The janitor knows none, and needs none.
            lease: death.fallback.map_or(0, |_| self.moment(death.lease_until)),
            fallback: death.fallback,
        };
        let now = self.moment(self.now);
        assert_eq!(written.is_some(), self.row.file(&told, now), "a dead letter: {death:?}");
    }

    async fn recorded(&self) -> Row {
        const ROW: &str = "
            SELECT state, held_reason, dead_reason, trigger, generation, attempt, attempts_made, due_at, told_generation,
                   updated_at, (SELECT array_agg(generation) FROM dead_letters l WHERE l.delivery_id = d.id) AS letters
            FROM deliveries d WHERE id = $1";
        let row = self.client.query_one(ROW, &[self.new.id.as_uuid()]).await.unwrap();
        let number = |column: &str| u8::try_from(row.get::<_, i32>(column)).unwrap();
        let letters: Option<Vec<i32>> = row.get("letters");
        Row {
            state: State::parse(row.get("state")).unwrap(),
            held_reason: row.get::<_, Option<&str>>("held_reason").map(|name| HeldReason::parse(name).unwrap()),
            dead_reason: row.get::<_, Option<&str>>("dead_reason").map(|name| DeadReason::parse(name).unwrap()),
            trigger: Trigger::parse(row.get("trigger")).unwrap(),
            generation: number("generation"),
            attempt: number("attempt"),
            attempts_made: number("attempts_made"),
            due_at: row.get::<_, Option<Timestamp>>("due_at").map(|at| self.moment(at)),
            told_generation: row.get::<_, Option<i32>>("told_generation").map(|told| u8::try_from(told).unwrap()),
            updated_at: self.moment(row.get("updated_at")),
            letters: letters.into_iter().flatten().map(|generation| 1 << generation).sum(),
        }
    }

    fn moment(&self, at: Timestamp) -> i16 {
        i16::try_from(at.duration_since(self.began).as_secs()).unwrap()
    }
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

fn small(number: u32) -> u8 {
    u8::try_from(number).unwrap()
}
