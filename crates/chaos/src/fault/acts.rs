//! Faults that take more than one step.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio_postgres::Client;

use crate::error::{Result, unexpected};
use crate::fault::strike::Means;
use crate::load::plan::{Planned, Repeat};
use crate::world::services::Service;
use crate::world::wait_until;

/// A flood: so many events every so often, so many times.
const FLOOD: usize = 15;
const FLOOD_EVERY: Duration = Duration::from_millis(50);
const FLOODS: u32 = 100;
/// Longest that a flood may take to be accepted.
const FLOOD_LIMIT: Duration = Duration::from_secs(60);

const ALTERED: [&str; 5] = ["events", "deliveries", "attempts", "outbox", "subscription_runtime"];
/// Events of which a quarter dies at once.
const BURST: usize = 90;
const BURST_BYTES: u32 = 300;

impl Means<'_> {
    /// SIGTERM for all, one after the other; each is ready again before the next goes.
    pub async fn restart_all(self, detail: &mut String) -> Result<()> {
        let services = &self.world.services;
        for replica in Service::ALL.iter().flat_map(|service| service.replicas()) {
            let began = tokio::time::Instant::now();
            if let Err(error) = services.stop(replica).await {
                services.incident(format!("on SIGTERM, {error}"));
            }
            detail.push_str(&format!("{} {:.1} s ", services.name(replica), began.elapsed().as_secs_f64()));
            services.start(replica).await?;
            services.await_ready(replica).await?;
        }
        Ok(())
    }

    /// Waits until a dispatcher is within a statement or transaction that has to do with `table`, or was a moment ago;
    /// says whether it was.
    pub async fn await_statement(self, table: &str) -> Result<String> {
        let client = self.world.database.connect().await?;
        let within = client
            .prepare(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'chaos-dispatcher%'
                 AND (state <> 'idle' OR state_change > clock_timestamp() - interval '20 ms') AND query LIKE '%' || $1 || '%'",
            )
            .await?;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(6);
        while tokio::time::Instant::now() < deadline {
            let count: i64 = client.query_one(&within, &[&table]).await?.get(0);
            if count > 0 {
                return Ok(format!("within {table}:"));
            }
        }
        Ok(format!("not within {table}:"))
    }

    /// Sends a burst of events to a subscription that calls a quarter of them dead at once.
    pub fn let_many_die(self, rng: &mut StdRng) {
        let flavour = self.sender.stage.strict;
        for _ in 0..BURST {
            let fate = rng.random();
            self.sender.start(Planned {
                flavour,
                fate,
                bytes: BURST_BYTES,
                repeat: Repeat::Never,
                pause: Duration::ZERO,
            });
        }
    }

    /// Sends far more than the gateways hold, until all of it is accepted: some are told to come back, and nobody is left
    /// without an answer.
    pub async fn flood(self, rng: &mut StdRng, detail: &mut String) -> Result<()> {
        let (unavailable, unanswered) = self.sender.journal.turned_away();
        let probe = self.sender.stage.probe;
        let mut numbers = Vec::new();
        let mut tick = tokio::time::interval(FLOOD_EVERY);
        for _ in 0..FLOODS {
            tick.tick().await;
            for _ in 0..FLOOD {
                let (fate, repeat) = (rng.random(), Repeat::Never);
                numbers.push(self.sender.start(Planned {
                    flavour: probe,
                    fate,
                    bytes: BURST_BYTES,
                    repeat,
                    pause: Duration::ZERO,
                }));
            }
        }
        let left = || self.sender.journal.unaccepted(&numbers);
        let accepted = wait_until(FLOOD_LIMIT, async || left() == 0).await;
        let (unavailable_now, unanswered_now) = self.sender.journal.turned_away();
        let told = unavailable_now - unavailable;
        *detail = format!("{} events, {told} times 503", FLOOD * FLOODS as usize);
        match (accepted, unanswered_now - unanswered) {
            (true, 0) => Ok(()),
            (true, unanswered) => Err(unexpected(format!("{unanswered} requests had no answer in time"))),
            (false, _) => Err(unexpected(format!("{} events are not accepted after a minute", left()))),
        }
    }

    /// Ends the services' sessions and takes their places, until nobody gets one.
    pub async fn take_all_connections(self, detail: &mut String) -> Result<Vec<Client>> {
        let database = &self.world.database;
        let mut taken = vec![database.connect().await?];
        for _ in 0..8 {
            database.disconnect_services(&taken[0]).await?;
            let asked = (0..40).map(|_| database.connect());
            taken.extend(futures_util::future::join_all(asked).await.into_iter().flatten());
        }
        *detail = format!("{} taken", taken.len());
        Ok(taken)
    }

    /// What an upgrade does while the services run.
    pub async fn migrate(self) -> Result<()> {
        tokio::try_join!(self.world.migrate(), self.world.migrate())?;
        let client = self.world.database.connect().await?;
        client.batch_execute("SET lock_timeout = '1s'").await?;
        for table in ALTERED {
            for change in ["ADD COLUMN chaos_spare integer", "DROP COLUMN chaos_spare"] {
                // Behind a long transaction it would hold up everybody: it gives way, and comes back.
                while client.batch_execute(&format!("ALTER TABLE {table} {change}")).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        Ok(())
    }
}
