//! What was attempted goes into the record, in batches.

use std::time::Duration;

use jiff::Timestamp;
use posthorn_store::batcher::{Batcher, Item, Limits, Refused};
use posthorn_store::deliveries::{self, Claim, Report};
use posthorn_store::{Error, Store};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::settings::Record as Settings;

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

/// Pause before a batch that failed is tried again.
const PAUSE: Duration = Duration::from_millis(500);

impl Recorder {
    /// `stop` is set when nobody waits for the database any more.
    pub fn start(settings: &Settings, store: &Store, tasks: &TaskTracker, stop: CancellationToken) -> Self {
        // Whoever submits is bounded by the prefetch, so the queues need no bound of their own.
        let limits = Limits { queue: 65_536, items: settings.batch, bytes: 4 << 20, writers: settings.writers };
        let db = store.clone();
        let claims = Batcher::start(limits, tasks, Error::is_permanent, move |batch: Vec<Claiming>| {
            let store = db.clone();
            async move {
                let claims: Vec<Claim> = batch.iter().map(|claiming| claiming.0).collect();
                let taken = deliveries::claim(&store.client().await?, &claims).await?;
                Ok(claims.iter().map(|claim| taken.contains(&claim.id)).collect())
            }
        });
        let db = store.clone();
        let records = Batcher::start(limits, tasks, Error::is_permanent, move |batch: Vec<Recording>| {
            let store = db.clone();
            async move {
                metrics::histogram!("posthorn_record_batch_results").record(batch.len() as f64);
                let reports: Vec<Report> = batch.into_iter().map(|recording| recording.0).collect();
                let moved = deliveries::record(&store.client().await?, &reports, Timestamp::now()).await?;
                Ok(reports.iter().map(|report| moved.contains(&report.id)).collect())
            }
        });
        Self { claims, records, stop }
    }

    /// Takes a row for an attempt. False: it is no longer as the message believes.
    pub async fn claim(&self, claim: Claim) -> Result<bool, Refused<Error>> {
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
