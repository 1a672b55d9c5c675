//! A private world: a PostgreSQL and a RabbitMQ of its own, two replicas of every service, and a wire between them
//! that can be cut.
//!
//! The servers are started by the same functions as those of `deploy/local/up`; the services are our children. What
//! the harness itself asks of the database and the broker does not go over the wires.

pub mod broker;
pub mod database;
pub mod library;
pub mod process;
pub mod services;
pub mod tree;
pub mod wire;

use std::path::PathBuf;
use std::time::Duration;

use crate::clock::Clock;
use crate::error::{Result, unexpected};
use crate::world::broker::Broker;
use crate::world::database::Database;
use crate::world::library::Library;
use crate::world::services::Services;
use crate::world::wire::Wire;

/// Where everything is, as the script says it.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// The checkout, for `deploy/local/lib.sh`.
    #[arg(long)]
    pub root: PathBuf,
    /// The state directory.
    #[arg(long)]
    pub directory: PathBuf,
    /// Where the services' programs are.
    #[arg(long)]
    pub binaries: PathBuf,
    /// Programs of an older version: the world begins with those, and is upgraded under traffic.
    #[arg(long)]
    pub previous: Option<PathBuf>,
    /// libfaketime, for steps of the clock; without it there are none.
    #[arg(long)]
    pub faketime: Option<PathBuf>,
    #[arg(long, env = "POSTHORN_CHAOS_POSTGRES_PORT")]
    pub postgres_port: u16,
    #[arg(long, env = "POSTHORN_CHAOS_AMQP_PORT")]
    pub amqp_port: u16,
    #[arg(long, env = "POSTHORN_CHAOS_BROKER_MANAGEMENT_PORT")]
    pub management_port: u16,
    #[arg(long, env = "POSTHORN_CHAOS_BROKER_METRICS_PORT")]
    pub metrics_port: u16,
    #[arg(long, env = "POSTHORN_CHAOS_BROKER_DIST_PORT")]
    pub dist_port: u16,
    #[arg(long, env = "POSTHORN_CHAOS_EPMD_PORT")]
    pub epmd_port: u16,
    /// The first of ten: four of HTTP, six of administration.
    #[arg(long, env = "POSTHORN_CHAOS_SERVICES_PORT")]
    pub services_port: u16,
}

pub struct World {
    pub place: Place,
    pub clock: Clock,
    pub database: Database,
    pub broker: Broker,
    pub services: Services,
    pub database_wire: Wire,
    pub broker_wire: Wire,
    library: Library,
}

impl World {
    /// Starts the servers, migrates, and starts the services; returns when all of them are ready.
    pub async fn start(place: Place, client: &reqwest::Client, clock: Clock) -> Result<Self> {
        let library = Library::new(&place.root, &place.directory);
        let (database, broker) = tokio::try_join!(
            Database::start(&library, place.postgres_port),
            Broker::start(&library, &place, client.clone())
        )?;
        let database_wire = Wire::lay(place.postgres_port).await?;
        let broker_wire = Wire::lay(place.amqp_port).await?;
        let services = Services::new(
            &place,
            services::Wires {
                database: &database.url_through(database_wire.port()),
                broker: &broker.url_through(broker_wire.port()),
            },
            client.clone(),
            clock,
        )
        .await?;
        let world = Self { place, clock, database, broker, services, database_wire, broker_wire, library };
        world.migrate().await?;
        world.services.start_all().await?;
        Ok(world)
    }

    /// `posthorn migrate` of the version that runs, straight to the database.
    pub async fn migrate(&self) -> Result<()> {
        let output = tokio::process::Command::new(self.services.programs().join("posthorn"))
            .arg("migrate")
            .env("POSTHORN_DATABASE_URL", self.database.url())
            .envs(self.services.shifted())
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        if output.status.success() {
            return Ok(());
        }
        Err(unexpected(format!("posthorn migrate: {}", String::from_utf8_lossy(&output.stderr))))
    }

    /// Whatever a fault may have left: afterwards everything runs, and nothing is in its way.
    pub async fn mend(&self) -> Result<()> {
        self.database_wire.pass();
        self.broker_wire.pass();
        self.services.set_clock(0).await?;
        self.services.thaw_all().await?;
        self.database.thaw(&self.library)?;
        self.broker.thaw(&self.library)?;
        self.database.start_again(&self.library).await?;
        self.broker.start_again(&self.library, &self.place).await?;
        self.database.make_room().await?;
        self.broker.widen().await?;
        self.services.start_all().await
    }

    pub fn library(&self) -> &Library {
        &self.library
    }

    /// Stops the services as an operator would, then the servers. Returns the services that did not end well.
    pub async fn stop(&self) -> Result<Vec<String>> {
        let bad = self.services.stop_all().await;
        self.library.call("stop_rabbitmq", &[]).await?;
        self.library.call("stop_postgres", &[]).await?;
        Ok(bad)
    }
}

/// Asks every 100 ms until `condition` holds; false when the time is up.
pub async fn wait_until(limit: Duration, mut condition: impl AsyncFnMut() -> bool) -> bool {
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        if condition().await {
            return true;
        }
        if tokio::time::Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
