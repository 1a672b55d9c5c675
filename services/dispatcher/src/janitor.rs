//! Upkeep: partitions made ahead and dropped by age, deleted tenants erased, leftovers swept.
//!
//! One dispatcher at a time does it ([`posthorn_store::chores`]). It may stop at any point, and another takes over;
//! should two be at it, nothing comes of that.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use posthorn_core::id::TenantId;
use posthorn_core::time::earlier;
use posthorn_process::telemetry::chain;
use posthorn_store::chores::Chore;
use posthorn_store::{
    Client, Result, chores, dead_letters, delivery_stats, idempotency, partitions, rejected_requests, replays, rollup,
    source_stats, sources, subscriptions, tenants,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::clerk::Clerk;
use crate::settings::Janitor as Settings;

/// How long a dead delivery may go without a dead letter: the clerk needs no longer.
const CLERK_HEAD_START: Duration = Duration::from_secs(120);

/// How long upkeep belongs to whoever took it and was not heard of again, and how often others ask for it: together less
/// than half a minute.
const LEASE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_secs(5);

/// How often headers are looked at: only dispatchers of an older version, which an upgrade replaces, write credentials in
/// clear.
const SEAL_HEADERS_EVERY: Duration = Duration::from_secs(3600);
const SEALED_AT_ONCE: i64 = 200;

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
    if !chores::take(&clerk.store.client().await?, Chore::Upkeep, LEASE).await? {
        return Ok(());
    }
    let round = Round { settings, clerk, now: Timestamp::now() };
    for duty in Duty::ALL {
        round.perform(duty).await?;
    }
    chores::put_off(&clerk.store.client().await?, Chore::Upkeep, Duration::from_secs(settings.every_seconds)).await
}

/// The janitor's duties. One that fails does not keep the others from being done.
#[derive(Clone, Copy, Debug)]
enum Duty {
    MakePartitions,
    DropPartitions,
    ForgetRejectedRequests,
    ForgetExpiredSecrets,
    ForgetStats,
    RollUpStats,
    ForgetIdempotencyKeys,
    ForgetReplays,
    FileDeadLetters,
    EraseTenants,
    SealHeaders,
}

impl Duty {
    /// In the order in which they are done.
    const ALL: [Self; 11] = [
        Self::MakePartitions,
        Self::DropPartitions,
        Self::ForgetRejectedRequests,
        Self::ForgetExpiredSecrets,
        Self::ForgetStats,
        Self::RollUpStats,
        Self::ForgetIdempotencyKeys,
        Self::ForgetReplays,
        Self::FileDeadLetters,
        Self::EraseTenants,
        Self::SealHeaders,
    ];

    /// Its name in metrics, logs and the record.
    fn as_str(self) -> &'static str {
        match self {
            Self::MakePartitions => "make_partitions",
            Self::DropPartitions => "drop_partitions",
            Self::ForgetRejectedRequests => "forget_rejected_requests",
            Self::ForgetExpiredSecrets => "forget_expired_secrets",
            Self::ForgetStats => "forget_stats",
            Self::RollUpStats => "roll_up_stats",
            Self::ForgetIdempotencyKeys => "forget_idempotency_keys",
            Self::ForgetReplays => "forget_replays",
            Self::FileDeadLetters => "file_dead_letters",
            Self::EraseTenants => "erase_tenants",
            Self::SealHeaders => "seal_headers",
        }
    }
}

/// One round of upkeep.
struct Round<'a> {
    settings: &'a Settings,
    clerk: &'a Clerk,
    now: Timestamp,
}

impl Round<'_> {
    /// Does a duty and writes down how it ended. Fails only where that cannot be written: then the database is away.
    async fn perform(&self, duty: Duty) -> Result<()> {
        let name = duty.as_str();
        let began = Instant::now();
        let ended = self.duty(duty).await;
        metrics::histogram!("posthorn_chore_seconds", "chore" => name).record(began.elapsed());
        let outcome = if ended.is_ok() { "succeeded" } else { "failed" };
        metrics::counter!("posthorn_chore_runs_total", "chore" => name, "outcome" => outcome).increment(1);
        let error = ended.err().map(|error| chain(&error));
        match &error {
            None => {
                let seconds = Timestamp::now().as_millisecond() as f64 / 1000.0;
                metrics::gauge!("posthorn_chore_last_success_timestamp_seconds", "chore" => name).set(seconds);
            }
            Some(error) => warn!(chore = name, error, "the chore {name} failed; the others are done all the same"),
        }
        let client = self.clerk.store.client().await?;
        chores::ended(&client, name, error.as_deref()).await?;
        // Each may take its time, and another dispatcher waits for the lease to run out.
        chores::put_off(&client, Chore::Upkeep, LEASE).await
    }

    async fn duty(&self, duty: Duty) -> Result<()> {
        let Self { settings, clerk, now } = *self;
        if let Duty::FileDeadLetters = duty {
            return file_missing_dead_letters(clerk, now).await;
        }
        let client = &clerk.store.client().await?;
        let extend = || chores::put_off(client, Chore::Upkeep, LEASE);
        match duty {
            Duty::MakePartitions => {
                if partitions::days_ahead(client, now).await? < partitions::DAYS_AHEAD {
                    partitions::ensure(client, now).await?;
                }
            }
            Duty::DropPartitions => {
                let dropped = partitions::drop_old(client, settings.keep_days, settings.keep_dedup_days, now).await?;
                if !dropped.is_empty() {
                    info!(?dropped, "dropped partitions past their retention");
                }
            }
            Duty::ForgetRejectedRequests => {
                rejected_requests::drop_old(client, earlier(now, days(settings.keep_rejected_days))).await?;
                rejected_requests::drop_contents(client, settings.rejected_bytes_per_source).await?;
            }
            Duty::ForgetExpiredSecrets => {
                sources::drop_expired_secrets(client).await?;
                subscriptions::drop_expired_secrets(client).await?;
            }
            Duty::ForgetStats => {
                let before = earlier(now, days(settings.keep_stats_days));
                source_stats::drop_old(client, before).await?;
                delivery_stats::drop_old(client, before).await?;
            }
            Duty::RollUpStats => {
                // Counts of an hour that is over come within minutes.
                let over = earlier(now, Duration::from_secs(2 * 3600));
                while rollup::merge(client, over, settings.merge_batch).await? {
                    extend().await?;
                }
                while rollup::add_a_day(client, now).await? {
                    extend().await?;
                }
            }
            Duty::ForgetIdempotencyKeys => idempotency::drop_old(client, now).await.map(drop)?,
            Duty::ForgetReplays => {
                replays::drop_old(client, earlier(now, days(settings.keep_replays_days))).await?;
            }
            // It takes a connection for each.
            Duty::FileDeadLetters => {}
            Duty::EraseTenants => {
                let before = earlier(now, Duration::from_secs(settings.erase_after_seconds));
                let mut failed = None;
                for tenant in tenants::deleted(client, before).await? {
                    // One that cannot be erased keeps no other from it.
                    failed = self.erase(client, tenant).await.err().or(failed);
                }
                return failed.map_or(Ok(()), Err);
            }
            Duty::SealHeaders => {
                if chores::take(client, Chore::SealHeaders, LEASE).await? {
                    self.seal_headers(client).await?;
                    chores::put_off(client, Chore::SealHeaders, SEAL_HEADERS_EVERY).await?;
                }
            }
        }
        Ok(())
    }

    /// Seals the credentials in headers of subscriptions that a dispatcher of an older version stored in clear.
    async fn seal_headers(&self, client: &Client) -> Result<()> {
        let (mut sealed, mut after) = (0, Uuid::nil());
        let sealer = self.clerk.store.sealer();
        while let Some((written, last)) =
            subscriptions::seal_clear_headers(client, sealer, after, SEALED_AT_ONCE).await?
        {
            sealed += written;
            after = last;
            chores::put_off(client, Chore::SealHeaders, LEASE).await?;
            chores::put_off(client, Chore::Upkeep, LEASE).await?;
        }
        if sealed > 0 {
            info!(sealed, "sealed the credentials in headers of {sealed} subscriptions");
        }
        Ok(())
    }

    async fn erase(&self, client: &Client, tenant: TenantId) -> Result<()> {
        loop {
            let erased = tenants::erase_some(client, tenant, self.settings.erase_batch, self.now).await?;
            chores::put_off(client, Chore::Upkeep, LEASE).await?;
            if erased == 0 {
                return Ok(());
            }
            info!(tenant.id = %tenant, erased, "erased history of a deleted tenant");
        }
    }
}

/// Files the dead letters of deliveries whose message was lost with the broker.
async fn file_missing_dead_letters(clerk: &Clerk, now: Timestamp) -> Result<()> {
    let missing = {
        let client = clerk.store.client().await?;
        dead_letters::untold(&client, earlier(now, days(2)), earlier(now, CLERK_HEAD_START), 500).await?
    };
    for (tenant, death) in missing {
        clerk.file_death(tenant, &death).await?;
    }
    Ok(())
}

fn days(count: impl TryInto<u64>) -> Duration {
    Duration::from_secs(count.try_into().unwrap_or_default() * 86_400)
}
