//! Counts that need not be exact to the request: refusals, and which secrets match.
//!
//! They are kept in memory, bounded by the number of sources, and added to the record every moment.
//! Accepted events are counted where they are accepted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use posthorn_core::id::{SecretId, SourceId};
use posthorn_store::Store;
use posthorn_store::source_stats::{self, Matches, Refusals};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How often counts are written down.
const EVERY: Duration = Duration::from_secs(2);

/// Counts since they were last written down. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    refusals: HashMap<(SourceId, &'static str), (i64, Timestamp)>,
    matches: HashMap<SecretId, (i64, Timestamp)>,
}

impl Tally {
    pub fn refused(&self, source: SourceId, reason: &'static str, now: Timestamp) {
        add(&mut self.counts().refusals, (source, reason), 1, now);
    }

    pub fn matched(&self, secret: SecretId, now: Timestamp) {
        add(&mut self.counts().matches, secret, 1, now);
    }

    /// Writes down until `stop`, and once more then.
    pub async fn write_down(self, store: Store, stop: CancellationToken) {
        loop {
            let ends = stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none();
            let counts = std::mem::take(&mut *self.counts());
            if let Err(error) = write(&store, &counts).await {
                warn!(error = &error as &dyn std::error::Error, "counts of sources have to wait for the database");
                self.put_back(counts);
            }
            if ends {
                return;
            }
        }
    }

    fn put_back(&self, counts: Counts) {
        let mut since = self.counts();
        for (key, (count, at)) in counts.refusals {
            add(&mut since.refusals, key, count, at);
        }
        for (key, (count, at)) in counts.matches {
            add(&mut since.matches, key, count, at);
        }
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, (i64, Timestamp)>, key: K, count: i64, at: Timestamp) {
    let entry = counts.entry(key).or_insert((0, at));
    *entry = (entry.0 + count, entry.1.max(at));
}

async fn write(store: &Store, counts: &Counts) -> posthorn_store::Result<()> {
    let refusals: Vec<Refusals> = counts
        .refusals
        .iter()
        .map(|(&(source_id, reason), &(count, last_at))| Refusals { source_id, reason, count, last_at })
        .collect();
    let matches: Vec<Matches> =
        counts.matches.iter().map(|(&secret_id, &(count, last_at))| Matches { secret_id, count, last_at }).collect();
    if refusals.is_empty() && matches.is_empty() {
        return Ok(());
    }
    // Both or neither: what failed is counted again.
    let mut client = store.client().await?;
    let transaction = client.transaction().await?;
    source_stats::count_refusals(&transaction, &refusals).await?;
    source_stats::count_matches(&transaction, &matches).await?;
    transaction.commit().await?;
    Ok(())
}
