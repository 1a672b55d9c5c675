//! What was attempted goes into the record, in batches, with what follows from it for the subscriptions.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use posthorn_core::breaker::{Limits as BreakerLimits, Window};
use posthorn_core::delivery::{Next, Trigger};
use posthorn_core::hold::Hold;
use posthorn_core::id::{DeliveryId, SubscriptionId, TenantId};
use posthorn_core::operational::{Kind, Notice, Parcel};
use posthorn_core::time::whole_micros;
use posthorn_store::batcher::{Batcher, Item, Limits, Refused};
use posthorn_store::deliveries::{self, Claim, Recorded, Report, Word};
use posthorn_store::snapshot::Subscriptions;
use posthorn_store::{Client, Error, Result, Store, health, notices};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::settings::Settings;

#[derive(Clone, Debug)]
struct Claiming(Claim);
impl Item for Claiming {}

#[derive(Clone, Debug)]
struct Recording(Report);
impl Item for Recording {
    fn bytes(&self) -> usize {
        4096
    }
}

/// Claims rows and records what came of them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder {
    claims: Batcher<Claiming, bool, Error>,
    records: Batcher<Recording, bool, Error>,
    stop: CancellationToken,
}

/// Why a subscription is disabled whose endpoint answered 410.
const GONE: &str = "gone";

/// Pause before a batch that failed is tried again.
const PAUSE: Duration = Duration::from_millis(500);

impl Recorder {
    /// `stop` is set when nobody waits for the database any more.
    pub fn start(
        settings: &Settings,
        store: &Store,
        subscriptions: &Subscriptions,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        // Whoever submits is bounded by the prefetch, so the queues need no bound of their own.
        let limits =
            Limits { queue: 65_536, items: settings.record.batch, bytes: 4 << 20, writers: settings.record.writers };
        let db = store.clone();
        let claims = Batcher::start(limits, tasks, Error::is_permanent, move |batch: Vec<Claiming>| {
            let store = db.clone();
            async move {
                let claims: Vec<Claim> = batch.iter().map(|claiming| claiming.0).collect();
                let mut taken = deliveries::claim(&store.client().await?, &claims).await?;
                // Of two claims for one attempt in a batch, the first has it.
                Ok(claims.iter().map(|claim| taken.remove(&claim.id)).collect())
            }
        });
        let writer = Writer {
            store: store.clone(),
            subscriptions: subscriptions.clone(),
            breaker: BreakerLimits::from(&settings.breaker),
            windows: Cache::builder()
                .max_capacity(settings.breaker.windows)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
        };
        let records = Batcher::start(limits, tasks, Error::is_permanent, move |batch: Vec<Recording>| {
            let writer = writer.clone();
            async move {
                metrics::histogram!("posthorn_record_batch_results").record(batch.len() as f64);
                let reports: Vec<Report> = batch.into_iter().map(|recording| recording.0).collect();
                let moved = writer.write(&reports).await?;
                Ok(reports.iter().map(|report| moved.contains(&report.id)).collect())
            }
        });
        Self { claims, records, stop }
    }

    /// Takes a row for an attempt. False: it is no longer as the message believes.
    pub async fn claim(&self, claim: Claim) -> std::result::Result<bool, Refused<Error>> {
        self.claims.submit_patiently(Claiming(claim)).await
    }

    /// Records a report, however long the database is away: what was sent must not be forgotten. True
    /// if it moved its row. `None` when the worker stops before it could be recorded; then the message
    /// goes back, and the attempt is made again.
    pub async fn record(&self, report: Report) -> Option<bool> {
        loop {
            match self.records.submit_patiently(Recording(report.clone())).await {
                Ok(moved) => return Some(moved),
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, delivery.id = %report.id, "not recorded yet");
                    self.stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await?;
                }
            }
        }
    }
}

/// Writes a batch.
#[derive(Clone)]
struct Writer {
    store: Store,
    subscriptions: Subscriptions,
    breaker: BreakerLimits,
    /// The attempts of the last while. Each worker counts its own: a share of them shows an endpoint as well as all do.
    /// One that is forgotten, as its subscription was the longest without an attempt, begins anew.
    windows: Cache<SubscriptionId, Arc<Mutex<Window>>>,
}

impl Writer {
    async fn write(&self, reports: &[Report]) -> Result<HashSet<DeliveryId>> {
        let now = whole_micros(Timestamp::now());
        let recovered = self.recovered(reports);
        // Sorted: recorders that disable the same subscriptions must not deadlock.
        let gone: BTreeSet<SubscriptionId> =
            reports.iter().filter(|r| r.disables()).map(|r| r.subscription_id).collect();
        let mut client = self.store.client().await?;
        let recorded = if recovered.is_empty() && gone.is_empty() {
            deliveries::record(&client, reports, now).await?
        } else {
            let transaction = client.transaction().await?;
            let mut disabled = Vec::new();
            for id in gone {
                let tenant = health::mark_disabled(&transaction, id, GONE, None, now).await?;
                disabled.extend(tenant.map(|tenant| (tenant, id)));
            }
            let recorded = deliveries::record(&transaction, reports, now).await?;
            for (tenant, id) in disabled {
                health::tell_disabled(&transaction, tenant, id, GONE, now).await?;
                info!(subscription.id = %id, "{id} is disabled: its endpoint answered 410");
            }
            let moved: Vec<_> =
                recovered.into_iter().filter(|(_, parcel)| recorded.is_moved(parcel.delivery_id)).collect();
            let ids: Vec<_> = moved.iter().map(|(_, parcel)| (parcel.delivery_id, parcel.generation)).collect();
            let failed_before = deliveries::had_failed(&transaction, &ids).await?;
            let notices: Vec<_> = moved
                .into_iter()
                .filter(|(_, parcel)| failed_before.contains(&parcel.delivery_id))
                .map(|(tenant, parcel)| (tenant, Notice::DeliveryRecovered(parcel)))
                .collect();
            notices::tell(&transaction, &notices, now).await?;
            transaction.commit().await?;
            recorded
        };
        // What was sent is recorded. Should this fail, the next attempt leads to the same.
        if let Err(error) = self.follow_up(&client, &recorded, reports, now).await {
            warn!(error = &error as &dyn std::error::Error, "breakers and holds wait for the database");
        }
        Ok(recorded.moved)
    }

    /// Deliveries that arrived in a later generation, where their tenant wants to hear of it.
    fn recovered(&self, reports: &[Report]) -> Vec<(TenantId, Parcel)> {
        let arrived_again = reports.iter().filter(|report| report.generation > 1 && report.has_arrived());
        arrived_again
            .filter(|report| !report.event_type.is_operational())
            .filter(|report| self.subscriptions.want(report.tenant_id, Kind::DeliveryRecovered))
            .map(|report| {
                let parcel = Parcel {
                    delivery_id: report.id,
                    generation: report.generation,
                    subscription_id: report.subscription_id,
                    event_id: report.event_id,
                    event_type: report.event_type.clone(),
                };
                (report.tenant_id, parcel)
            })
            .collect()
    }

    async fn follow_up(&self, client: &Client, recorded: &Recorded, reports: &[Report], now: Timestamp) -> Result<()> {
        let probes: HashMap<SubscriptionId, bool> = reports.iter().filter_map(probe).collect();
        let asked = asked_for_time(reports);
        let failing = self.failing(recorded, reports, now);
        for vitals in &recorded.vitals {
            let id = vitals.subscription_id;
            let next = vitals.breaker.after(failing.contains(&id), probes.get(&id).copied(), &self.breaker, now);
            if next != vitals.breaker && health::turn(client, id, &vitals.breaker, &next, now).await? {
                metrics::counter!("posthorn_breaker_turns_total", "to" => next.state.as_str()).increment(1);
                info!(subscription.id = %id, "the breaker of {id} is {}", next.state.as_str());
            }
            if let Some(until) = asked.get(&id) {
                let hold = Hold::after(vitals.hold, *until, now);
                if vitals.hold != Some(hold) {
                    health::hold_back(client, id, vitals.hold.as_ref(), &hold).await?;
                }
            }
        }
        Ok(())
    }

    /// Counts what was attempted, and tells which of the subscriptions that may be failing are.
    fn failing(&self, recorded: &Recorded, reports: &[Report], now: Timestamp) -> HashSet<SubscriptionId> {
        for (id, failed) in reports.iter().filter_map(health_of) {
            let window = self.windows.get_with(id, Arc::default);
            window.lock().unwrap_or_else(PoisonError::into_inner).note(failed, &self.breaker, now);
        }
        let is_failing = |closed_at, window: &Mutex<Window>| {
            let window = window.lock().unwrap_or_else(PoisonError::into_inner);
            window.is_failing(&self.breaker, closed_at, now)
        };
        let failing = recorded.vitals.iter().filter(|vitals| {
            self.windows.get(&vitals.subscription_id).is_some_and(|window| is_failing(vitals.closed_at, &window))
        });
        failing.map(|vitals| vitals.subscription_id).collect()
    }
}

/// Whether a report shows an endpoint failing. One that asked for time shows nothing.
fn health_of(report: &Report) -> Option<(SubscriptionId, bool)> {
    match &report.word {
        Word::Attempted(made) if !matches!(made.next, Next::NotNow(_)) => {
            Some((report.subscription_id, made.error.is_some()))
        }
        _ => None,
    }
}

/// Until when endpoints want nothing, the longest of what each asked for.
fn asked_for_time(reports: &[Report]) -> HashMap<SubscriptionId, Timestamp> {
    let mut asked: HashMap<SubscriptionId, Timestamp> = HashMap::new();
    for report in reports {
        if let Some(until) = report.asks_for_time() {
            let longest = asked.entry(report.subscription_id).or_insert(until);
            *longest = until.max(*longest);
        }
    }
    asked
}

/// Whose endpoint a report says was probed, and whether it is well. One that asks for time is.
fn probe(report: &Report) -> Option<(SubscriptionId, bool)> {
    match &report.word {
        Word::Attempted(made) if made.trigger == Trigger::Probe => {
            Some((report.subscription_id, matches!(made.next, Next::Delivered | Next::NotNow(_))))
        }
        _ => None,
    }
}
