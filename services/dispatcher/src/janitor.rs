//! Upkeep: partitions made ahead and dropped by age, deleted tenants erased, leftovers swept.
//!
//! One dispatcher at a time does it ([`posthorn_store::chores`]). It may stop at any point, and another takes over;
//! should two be at it, nothing comes of that.

use std::time::Duration;

use jiff::Timestamp;
use posthorn_core::time::earlier;
use posthorn_store::chores::Chore;
use posthorn_store::{
    Client, Result, chores, dead_letters, delivery_stats, idempotency, partitions, rejected_requests, replays, rollup,
    source_stats, sources, subscriptions, tenants,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clerk::Clerk;
use crate::settings::Janitor as Settings;

/// How long a dead delivery may go without a dead letter: the clerk needs no longer.
const CLERK_HEAD_START: Duration = Duration::from_secs(120);

/// How long upkeep belongs to whoever took it and was not heard of again, and how often others ask for it: together less
/// than half a minute.
const LEASE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_secs(5);

/// Runs until `stop`.
pub async fn run(settings: Settings, clerk: Clerk, stop: CancellationToken) {
    let pause = POLL.min(Duration::from_secs(settings.every_seconds));
    loop {
        let round = stop.run_until_cancelled(round_if_due(&settings, &clerk)).await;
        match round {
            None => return,
            Some(Err(error)) => warn!(error = &error as &dyn std::error::Error, "upkeep has to wait for the database"),
            Some(Ok(())) => {}
        }
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

async fn round_if_due(settings: &Settings, clerk: &Clerk) -> Result<()> {
    let client = clerk.store.client().await?;
    if !chores::take(&client, Chore::Upkeep, LEASE).await? {
        return Ok(());
    }
    round(settings, clerk, &client).await?;
    chores::put_off(&client, Chore::Upkeep, Duration::from_secs(settings.every_seconds)).await
}

async fn round(settings: &Settings, clerk: &Clerk, client: &Client) -> Result<()> {
    let goes_on = || chores::put_off(client, Chore::Upkeep, LEASE);
    let now = Timestamp::now();
    if partitions::days_ahead(client, now).await? < partitions::DAYS_AHEAD {
        partitions::ensure(client, now).await?;
    }
    let dropped = partitions::drop_old(client, settings.keep_days, settings.keep_dedup_days, now).await?;
    if !dropped.is_empty() {
        info!(?dropped, "dropped what is past its retention");
    }
    let days = Duration::from_secs(u64::try_from(settings.keep_rejected_days).unwrap_or_default() * 86_400);
    rejected_requests::drop_old(client, earlier(now, days)).await?;
    rejected_requests::drop_contents(client, settings.rejected_bytes_per_source).await?;
    sources::drop_expired_secrets(client).await?;
    subscriptions::drop_expired_secrets(client).await?;
    let days = Duration::from_secs(u64::try_from(settings.keep_stats_days).unwrap_or_default() * 86_400);
    source_stats::drop_old(client, earlier(now, days)).await?;
    delivery_stats::drop_old(client, earlier(now, days)).await?;
    // Whoever counts in an hour that is over does so within minutes.
    let over = earlier(now, Duration::from_secs(2 * 3600));
    while rollup::merge(client, over, settings.merge_batch).await? {
        goes_on().await?;
    }
    while rollup::add_a_day(client, now).await? {
        goes_on().await?;
    }
    idempotency::drop_old(client, now).await?;
    let days = Duration::from_secs(u64::try_from(settings.keep_replays_days).unwrap_or_default() * 86_400);
    replays::drop_old(client, earlier(now, days)).await?;
    goes_on().await?;
    tell_untold(clerk, now).await?;
    let deleted_before = earlier(now, Duration::from_secs(settings.erase_after_seconds));
    while let Some((tenant, erased)) = tenants::erase_some(client, deleted_before, settings.erase_batch, now).await? {
        goes_on().await?;
        info!(tenant.id = %tenant, erased, "erased history of a deleted tenant");
    }
    Ok(())
}

/// Dead deliveries whose message was lost with the broker still become dead letters.
async fn tell_untold(clerk: &Clerk, now: Timestamp) -> Result<()> {
    let since = earlier(now, Duration::from_secs(2 * 86_400));
    let untold = {
        let client = clerk.store.client().await?;
        dead_letters::untold(&client, since, earlier(now, CLERK_HEAD_START), 500).await?
    };
    for (tenant, death) in untold {
        clerk.file_death(tenant, &death).await?;
    }
    Ok(())
}
