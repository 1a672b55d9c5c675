//! Subscriptions that have failed for days are warned, and disabled in the end.
//!
//! Any number of dispatchers may look; each warning and each end is given once.

use std::time::Duration;

use jiff::Timestamp;
use posthorn_core::failing::{Consequence, WARNINGS};
use posthorn_core::time::whole_micros;
use posthorn_store::health::{self, Ailing};
use posthorn_store::{Result, Store};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::settings::Warden as Settings;

/// Subscriptions looked at in one round.
const BATCH: i64 = 1000;

/// Runs until `stop`.
pub async fn run(settings: Settings, store: Store, stop: CancellationToken) {
    let pause = Duration::from_millis(settings.poll_ms);
    while !stop.is_cancelled() {
        if let Err(error) = round(&settings, &store).await {
            warn!(error = &error as &dyn std::error::Error, "warnings have to wait for the database");
        }
        let _ = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}

async fn round(settings: &Settings, store: &Store) -> Result<()> {
    let limit = settings.disable_after();
    let client = store.client().await?;
    let ailing = health::failing_for(&client, limit, &WARNINGS, BATCH).await?;
    drop(client);
    for ailing in ailing {
        if let Some(consequence) = ailing.failing.consequence(limit) {
            obey(consequence, &ailing, limit, store).await?;
        }
    }
    Ok(())
}

async fn obey(consequence: Consequence, ailing: &Ailing, limit: Duration, store: &Store) -> Result<()> {
    let now = whole_micros(Timestamp::now());
    let id = ailing.subscription_id;
    let mut client = store.client().await?;
    let transaction = client.transaction().await?;
    match consequence {
        Consequence::Warn(percent) => {
            if health::warn(&transaction, ailing, percent, ailing.failing.disables_at(limit), now).await? {
                info!(subscription.id = %id, percent, "{id} has failed for {percent} % of its time");
            }
        }
        Consequence::Disable => {
            if health::disable(&transaction, id, "failing", Some(ailing.failing.since), now).await? {
                info!(subscription.id = %id, "{id} is disabled: it has failed for too long");
            }
        }
    }
    Ok(transaction.commit().await?)
}
