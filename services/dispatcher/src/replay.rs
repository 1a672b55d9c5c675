//! Replay jobs, step by step: dead and missing deliveries become held ones, at the job's rate.
//!
//! Any number of dispatchers may run jobs; a job's row is locked by whoever is at it, and a step that does not
//! commit did not happen.

use std::time::Duration;

use jiff::Timestamp;
use posthorn_core::delivery::{HeldReason, State as DeliveryState, Trigger};
use posthorn_core::id::{DeliveryId, ReplayId, floor};
use posthorn_core::pace;
use posthorn_core::replay::{DeadLetterFilter, Include, Recovery, State, Work};
use posthorn_core::subscription::{EventFacts, State as SubscriptionState, Subscription};
use posthorn_core::time::{later, whole_micros};
use posthorn_store::dead_letters::{self, Narrowed};
use posthorn_store::deliveries::{self, NewDelivery};
use posthorn_store::events::{self, Dispatched};
use posthorn_store::replays::{self, Replay};
use posthorn_store::snapshot::Subscriptions;
use posthorn_store::{GenericClient, Result, Store, Transaction};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::settings::Replay as Settings;

/// How long a job waits whose step failed.
const PUT_OFF: Duration = Duration::from_secs(5);

/// Goes on with jobs.
#[derive(Clone)]
pub struct Replayer {
    pub settings: Settings,
    pub store: Store,
    pub subscriptions: Subscriptions,
}

impl Replayer {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let pause = self.pause();
        while !stop.is_cancelled() {
            let more = match self.step().await {
                Ok(more) => more,
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "replay jobs have to wait for the database");
                    false
                }
            };
            if !more {
                let _ = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
            }
        }
    }

    /// One step of the job that waits longest. True if there was one.
    async fn step(&self) -> Result<bool> {
        let mut client = self.store.client().await?;
        let transaction = client.transaction().await?;
        let now = whole_micros(Timestamp::now());
        let Some(id) = replays::due(&transaction, now).await? else { return Ok(false) };
        match self.go_on(&transaction, id, now).await {
            Ok(()) => transaction.commit().await?,
            Err(error) => {
                // A job that cannot go on does not keep others from it.
                transaction.rollback().await?;
                replays::put_off(&client, id, whole_micros(later(now, PUT_OFF))).await?;
                return Err(error);
            }
        }
        Ok(true)
    }

    async fn go_on(&self, db: &Transaction<'_>, id: ReplayId, now: Timestamp) -> Result<()> {
        let Some(mut job) = replays::find(db, None, id).await? else { return Ok(()) };
        self.advance(db, &mut job, now).await?;
        replays::update(db, &job).await?;
        if !job.state.is_under_way() {
            info!(replay.id = %id, done = job.done, failed = job.failed, "replay {id} is {}", job.state.as_str());
        }
        Ok(())
    }

    fn pause(&self) -> Duration {
        Duration::from_millis(self.settings.poll_ms)
    }

    /// Deals with the next of a job's dead letters or events.
    pub async fn advance(&self, db: &impl GenericClient, job: &mut Replay, now: Timestamp) -> Result<()> {
        job.updated_at = now;
        job.due_at = now;
        match job.work.clone() {
            Work::DeadLetters(filter) => self.replay(db, job, &filter, now).await,
            Work::Recover(subscription, recovery) => {
                let known = match self.subscriptions.find(subscription) {
                    None => self.subscriptions.fetch(db, self.store.sealer(), subscription).await?,
                    known => known,
                };
                match known {
                    // Deleted: nothing goes there any more.
                    None => end(job, now),
                    Some(entry) => self.recover(db, job, &entry.subscription, &recovery, now).await?,
                }
                Ok(())
            }
        }
    }

    async fn replay(
        &self,
        db: &impl GenericClient,
        job: &mut Replay,
        filter: &DeadLetterFilter,
        now: Timestamp,
    ) -> Result<()> {
        let allowed = self.take(job, now);
        let narrowed = Narrowed::new(job.tenant_id, filter);
        let letters = dead_letters::next(db, &narrowed, job.position, job.through, i64::from(allowed)).await?;
        let ids: Vec<DeliveryId> = letters.iter().filter_map(|(_, delivery)| *delivery).collect();
        let from = [DeliveryState::Dead];
        let going = deliveries::set_going(db, job.tenant_id, &ids, &from, Trigger::Replay, now).await?;
        count(job, going.len(), letters.len() - going.len());
        match letters.last() {
            Some((last, _)) => job.position = *last.as_uuid(),
            None if allowed > 0 => end(job, now),
            None => {}
        }
        Ok(())
    }

    async fn recover(
        &self,
        db: &impl GenericClient,
        job: &mut Replay,
        subscription: &Subscription,
        recovery: &Recovery,
        now: Timestamp,
    ) -> Result<()> {
        let allowed = match job.state {
            State::Counting => u32::MAX,
            _ => self.take(job, now),
        };
        if allowed == 0 {
            return Ok(());
        }
        let limit = i64::from(self.settings.batch);
        let events = events::next(db, subscription.tenant_id, job.position, job.through, limit).await?;
        let wanted = wanted(subscription, &events);
        let ids: Vec<DeliveryId> = wanted.iter().map(|event| DeliveryId::derive(event.id, subscription.id)).collect();
        let states = deliveries::states(db, &ids).await?;
        let mut missing = Vec::new();
        let mut failed = Vec::new();
        let mut last = events.last().map(|event| event.id);
        for (event, id) in wanted.into_iter().zip(ids) {
            let kind = match states.get(&id) {
                None => Include::Missing,
                Some(DeliveryState::Dead) => Include::Failed,
                Some(_) => continue,
            };
            if !recovery.includes(kind) {
                continue;
            }
            match kind {
                Include::Missing => missing.push(new_delivery(event, id, subscription, now)),
                Include::Failed => failed.push(id),
            }
            if missing.len() + failed.len() >= usize::try_from(allowed).unwrap_or(usize::MAX) {
                last = Some(event.id);
                break;
            }
        }
        let found = missing.len() + failed.len();
        if job.state == State::Counting {
            job.count += i64::try_from(found).unwrap_or(i64::MAX);
        } else {
            let owner = Some(subscription.tenant_id);
            let from = [DeliveryState::Dead];
            let going = deliveries::replay(db, &missing, false, Trigger::Recover, now).await?.len()
                + deliveries::set_going(db, owner, &failed, &from, Trigger::Recover, now).await?.len();
            give_back(job, allowed, going);
            count(job, going, found - going);
        }
        match (last, job.state) {
            (Some(last), _) => job.position = *last.as_uuid(),
            (None, State::Counting) => counted(job, floor(recovery.since.0), now),
            (None, _) => end(job, now),
        }
        Ok(())
    }

    /// How many may be set going now. What is left over for later waits for its tokens.
    fn take(&self, job: &mut Replay, now: Timestamp) -> u32 {
        // At a high rate, more than a batch: what it may in one pause.
        let in_a_pause = (job.rate_per_second * self.pause().as_secs_f64()) as u32;
        let most = self.settings.batch.max(in_a_pause);
        let (allowed, bucket) = pace::take(&job.bucket, job.rate_per_second, most, now);
        job.bucket = bucket;
        job.due_at = whole_micros(later(now, self.pause()).max(pace::next_token(&bucket, job.rate_per_second, now)));
        allowed
    }
}

/// What was allowed and not needed goes back into the bucket.
fn give_back(job: &mut Replay, allowed: u32, needed: usize) {
    let unused = usize::try_from(allowed).unwrap_or(usize::MAX).saturating_sub(needed);
    job.bucket.tokens += unused as f64;
    if unused > 0 {
        job.due_at = job.updated_at;
    }
}

fn count(job: &mut Replay, done: usize, failed: usize) {
    job.done += i64::try_from(done).unwrap_or(i64::MAX);
    job.failed += i64::try_from(failed).unwrap_or(i64::MAX);
}

/// The count is known: what is no dry run begins, at `first`.
fn counted(job: &mut Replay, first: Uuid, now: Timestamp) {
    job.counted = true;
    job.position = first;
    if job.dry_run { end(job, now) } else { job.state = State::Running }
}

fn end(job: &mut Replay, now: Timestamp) {
    job.state = State::Completed;
    job.finished_at = Some(now);
}

/// The events that a subscription asks for, whatever state it is in.
fn wanted<'a>(subscription: &Subscription, events: &'a [Dispatched]) -> Vec<&'a Dispatched> {
    let active = Subscription { state: SubscriptionState::Active, ..subscription.clone() };
    let wants = |event: &&Dispatched| {
        let facts = EventFacts {
            event_type: &event.event_type,
            source_id: event.source_id,
            source_slug: &event.source_slug,
            audience: event.audience,
        };
        active.wants(&facts).is_ok()
    };
    events.iter().filter(wants).collect()
}

fn new_delivery(event: &Dispatched, id: DeliveryId, subscription: &Subscription, now: Timestamp) -> NewDelivery {
    NewDelivery {
        id,
        event_id: event.id,
        subscription_id: subscription.id,
        tenant_id: subscription.tenant_id,
        event_type: event.event_type.to_string(),
        held: Some(HeldReason::Replay),
        due_at: now,
    }
}
