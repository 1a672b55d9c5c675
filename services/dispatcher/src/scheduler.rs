//! Due rows become messages: the one timer of Posthorn.
//!
//! Retry, resume, rate limit, slow endpoint, replay, "retry now" and the repair of lost messages are
//! all the same here: a row says when it wants attention. Any number of schedulers may run; they
//! take different rows.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use posthorn_bus::Publisher;
use posthorn_bus::topology::shard;
use posthorn_core::breaker::{Admitted, drain_rate};
use posthorn_core::order::{self, Head};
use posthorn_core::subscription::State;
use posthorn_core::time::{later, since, whole_micros};
use posthorn_core::{hold, pace};
use posthorn_store::schedule::ordered::{self, Ordered};
use posthorn_store::schedule::{self, Allowance, Due, Line};
use posthorn_store::{Result, Store};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::dispatch::{self, Wake, lease};
use crate::settings::Scheduler as Settings;

/// Longest timeout of a subscription, for rows whose subscription is not at hand.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// Deliveries of a subscription released in one round although its queue is long: whoever has few is not kept waiting by
/// whoever has many.
const FEW: u32 = 5;

/// Deliveries of deleted subscriptions cancelled in one round.
const CANCEL_BATCH: i64 = 1000;

/// How soon after an ordered delivery the next one may go, and for how long that is looked at so often.
const SHORT_PAUSE: Duration = Duration::from_millis(20);
const ATTENTION: Duration = Duration::from_secs(1);

/// For how long the database has to answer before lost messages are replaced: after an outage, workers record first
/// what they sent meanwhile.
const RECORDERS_FIRST: Duration = Duration::from_secs(5);

/// When the scheduler looks again at a subscription that cannot be read: a row that is mended in SQL wakes nothing.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(30);

/// A round that takes longer met a database that was away.
const LONG_ROUND: Duration = Duration::from_secs(1);

/// What a look at what is due came to.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    /// There may be more at once: a subscription had more than it could be given.
    more: bool,
    /// An ordered subscription was served.
    in_order: bool,
}

pub struct Scheduler {
    pub settings: Settings,
    pub queue_lease: Duration,
    /// Messages in a deliveries queue up to which it is filled.
    pub max_ahead: u32,
    pub store: Store,
    pub publisher: Publisher,
}

impl Scheduler {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let pause = Duration::from_millis(self.settings.poll_ms);
        // When an ordered subscription was last served: the next in its line goes as soon as that is recorded.
        let mut served: Option<Instant> = None;
        // Since when the database answers.
        let mut well = Instant::now();
        while !stop.is_cancelled() {
            let began = Instant::now();
            let round = self.round(well.elapsed() >= RECORDERS_FIRST).await;
            if round.is_err() || began.elapsed() > LONG_ROUND {
                well = Instant::now();
            }
            let more = match round {
                Ok(round) => {
                    if round.in_order {
                        served = Some(Instant::now());
                    }
                    round.more
                }
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "the scheduler has to wait for the database");
                    false
                }
            };
            if !more {
                let soon = served.is_some_and(|served| served.elapsed() < ATTENTION);
                let pause = if soon { pause.min(SHORT_PAUSE) } else { pause };
                let _ = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
            }
        }
    }

    /// One look at what is due, and where `renews` at whose message is lost.
    async fn round(&self, renews: bool) -> Result<Round> {
        let depth = self.publisher.depth().deliveries();
        metrics::gauge!("posthorn_work_queue_messages").set(f64::from(depth));
        // Rows wait as well as messages do, and cheaper: overload is never amplified.
        if !self.publisher.link().is_up() || depth > self.settings.max_depth {
            return Ok(Round::default());
        }
        let now = whole_micros(Timestamp::now());
        let released = self.release_due(now).await?;
        let lost = renews && self.renew_lost(now).await?;
        Ok(Round { more: released.more || lost, ..released })
    }

    /// Releases held deliveries.
    async fn release_due(&self, now: Timestamp) -> Result<Round> {
        let mut client = self.store.client().await?;
        let transaction = client.transaction().await?;
        let due = schedule::due_subscriptions(&transaction, self.settings.subscriptions, now).await?;
        if due.is_empty() {
            return Ok(Round::default());
        }
        let deleted: Vec<_> = due.iter().filter(|due| due.state.is_none()).map(|due| due.subscription_id).collect();
        let mut more_to_cancel = false;
        if !deleted.is_empty() {
            let cancelled = schedule::cancel(&transaction, &deleted, CANCEL_BATCH, now).await?;
            more_to_cancel = cancelled >= CANCEL_BATCH.unsigned_abs();
            info!(cancelled, "cancelled what waited for deleted subscriptions");
        }
        let heads = ordered::heads(&transaction, &due).await?;
        let mut allowances = Vec::new();
        let mut in_order = Vec::new();
        for due in &due {
            let allowance = self.allowance(due, now);
            match due.line {
                Some(line) if allowance.limit > 0 => {
                    let head = heads.get(&due.subscription_id);
                    let released = ordered::release(&transaction, &turn_of(&allowance, &line, head, now), now).await?;
                    in_order.extend(released);
                }
                _ => allowances.push(allowance),
            }
        }
        if more_to_cancel {
            let stay = allowances.iter_mut().filter(|allowance| deleted.contains(&allowance.subscription_id));
            stay.for_each(|allowance| allowance.sleep = false);
        }
        let mut released = schedule::release(&transaction, &allowances, now).await?;
        transaction.commit().await?;
        // Publishing may take as long as the broker does, and one connection of its own.
        drop(client);
        let more = more_to_cancel
            || due.len() as i64 == self.settings.subscriptions
            || released.len() >= usize::try_from(self.settings.per_subscription).unwrap_or(usize::MAX);
        let round = Round { more, in_order: !in_order.is_empty() };
        released.extend(in_order);
        metrics::counter!("posthorn_scheduler_released_total").increment(released.len() as u64);
        self.publish(released).await;
        Ok(round)
    }

    fn allowance(&self, due: &Due, now: Timestamp) -> Allowance {
        let timeout = Duration::from_secs(u64::try_from(due.timeout_secs).unwrap_or_default());
        let lease_until = lease(self.queue_lease, timeout, now);
        let nobody = Allowance {
            subscription_id: due.subscription_id,
            limit: 0,
            lease_until,
            bucket: due.bucket,
            not_before: now,
            sleep: false,
            probe: false,
        };
        if !due.is_readable {
            return Allowance { not_before: later(now, UNREADABLE_PAUSE), ..nobody };
        }
        if due.state != Some(State::Active) {
            return Allowance { sleep: true, ..nobody };
        }
        let held_rate = match due.hold.map_or(hold::Admitted::Freely, |hold| hold.admits(now)) {
            hold::Admitted::NothingUntil(until) => return Allowance { not_before: until, ..nobody },
            hold::Admitted::AtRate(rate) => Some(rate),
            hold::Admitted::Freely => None,
        };
        match due.breaker.admit(now) {
            Admitted::NobodyUntil(until) => return Allowance { not_before: until, ..nobody },
            Admitted::Probe => return Allowance { limit: 1, not_before: lease_until, probe: true, ..nobody },
            Admitted::All => {}
        }
        let ahead = self.publisher.depth().in_shard(shard(due.subscription_id));
        let room = self.max_ahead.saturating_sub(ahead).max(FEW);
        let most = if due.line.is_some() { 1 } else { self.settings.per_subscription.min(room) };
        let drain = drain_rate(due.closed_at, now);
        let rate = due.per_second.into_iter().chain(drain).chain(held_rate).reduce(f64::min);
        let Some(rate) = rate else { return Allowance { limit: i64::from(most), ..nobody } };
        let (limit, bucket) = pace::take(&due.bucket, rate, most, now);
        let not_before = whole_micros(pace::next_token(&bucket, rate, now));
        Allowance { limit: i64::from(limit), bucket, not_before, ..nobody }
    }

    /// Publishes again what was published and never recorded. True if there may be more.
    async fn renew_lost(&self, now: Timestamp) -> Result<bool> {
        let client = self.store.client().await?;
        let lease_until = lease(self.queue_lease, TIMEOUT_MAX, now);
        let lost = schedule::renew_lost(&client, self.settings.lost, lease_until, now).await?;
        drop(client);
        if lost.is_empty() {
            return Ok(false);
        }
        metrics::counter!("posthorn_scheduler_lost_total").increment(lost.len() as u64);
        info!(lost = lost.len(), "published again what nobody recorded");
        let more = lost.len() as i64 == self.settings.lost;
        self.publish(lost).await;
        Ok(more)
    }

    async fn publish(&self, releases: Vec<schedule::Release>) {
        dispatch::publish(&self.store, &self.publisher, releases.into_iter().map(Wake::from)).await;
    }
}

/// Whose turn it is in an ordered subscription that may send.
fn turn_of(allowance: &Allowance, line: &Line, head: Option<&Head>, now: Timestamp) -> Ordered {
    let patience = since(now, allowance.lease_until);
    Ordered {
        subscription_id: allowance.subscription_id,
        turn: order::turn(head, line.max_block, patience, now),
        head: line.head.map(|(head, _)| head),
        lease_until: allowance.lease_until,
        bucket: allowance.bucket,
        probe: allowance.probe,
    }
}
