//! Bringing a fault about, and lifting it.

use std::time::Duration;

use futures_util::future::try_join_all;
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio_postgres::Client;

use crate::error::Result;
use crate::fault::kind::Kind;
use crate::load::sender::Sender;
use crate::world::World;
use crate::world::services::Service;

const LOCKED: [&str; 4] = ["outbox", "deliveries", "events", "subscription_runtime"];
/// How long queues still have no room when there is somebody again who takes from them.
const NARROW_AFTERWARDS: Duration = Duration::from_secs(1);
const STATEMENT_DELAY: Duration = Duration::from_millis(200);
/// Within what clocks may disagree: 5 s.
const CLOCK_STEP: i64 = 3;

/// A fault that lasts.
pub struct Strike {
    pub kind: Kind,
    /// What exactly was hit.
    pub detail: String,
    /// How long it is to last.
    pub hold: Duration,
    undo: Undo,
}

/// What lifts it.
enum Undo {
    Nothing,
    Start(Vec<usize>),
    Thaw(Vec<usize>),
    StartBroker,
    ThawBroker,
    /// These take from the queues again.
    Widen(Vec<usize>),
    EndAlarm,
    StartDatabase,
    ThawDatabase,
    /// Sessions that end.
    Disconnect(Vec<Client>),
    MakeRoom,
    Pass,
    SetClock,
}

/// What a fault may use.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    pub world: &'a World,
    pub sender: &'a std::sync::Arc<Sender>,
    /// Longest time that a process stays frozen. Beyond 20 s the broker gives a client up.
    pub longest: f64,
}

impl Means<'_> {
    pub async fn strike(self, kind: Kind, rng: &mut StdRng) -> Result<Strike> {
        let world = self.world;
        let library = world.library();
        let mut detail = String::new();
        let (least, most) = self.duration(kind);
        let hold = rng.random_range(least..=most.max(least));
        let undo = match kind {
            Kind::KillOne(service) => self.kill(vec![one_of(service, rng)], &mut detail).await?,
            Kind::KillAll(service) => self.kill(service.replicas().to_vec(), &mut detail).await?,
            Kind::FreezeOne(service) => self.freeze(vec![one_of(service, rng)], &mut detail).await?,
            Kind::FreezeAll(service) => self.freeze(service.replicas().to_vec(), &mut detail).await?,
            Kind::RollingRestart => {
                self.restart_all(&mut detail).await?;
                Undo::Nothing
            }
            Kind::KillScheduler => {
                detail = self.await_statement("subscription_runtime").await?;
                self.kill(Service::Dispatcher.replicas().to_vec(), &mut detail).await?
            }
            Kind::KillClerk => {
                self.let_many_die(rng);
                detail = self.await_statement("dead_letters").await?;
                self.kill(Service::Dispatcher.replicas().to_vec(), &mut detail).await?
            }
            Kind::StepClock => {
                let step = if rng.random_bool(0.5) { CLOCK_STEP } else { -CLOCK_STEP };
                detail = format!("{step:+} s");
                world.services.set_clock(step).await?;
                Undo::SetClock
            }
            Kind::KillBroker => {
                world.broker.kill(library)?;
                Undo::StartBroker
            }
            Kind::LoseBrokerData => {
                world.broker.kill(library)?;
                library.call("stop_node", &[]).await?;
                world.broker.lose_data(library).await?;
                Undo::StartBroker
            }
            Kind::FreezeBroker => {
                world.broker.freeze(library)?;
                Undo::ThawBroker
            }
            Kind::SilenceBroker => {
                world.broker_wire.silence();
                Undo::Pass
            }
            Kind::CutBroker => {
                world.broker_wire.cut();
                Undo::Nothing
            }
            Kind::CutDatabase => {
                world.database_wire.cut();
                Undo::Nothing
            }
            Kind::CloseBrokerConnections => {
                detail = format!("{} of them", world.broker.close_connections().await?);
                Undo::Nothing
            }
            Kind::FillQueues => {
                // A queue is full only while nobody takes from it.
                let consumers = if rng.random_bool(0.5) { Service::Dispatcher } else { Service::Worker };
                world.broker.narrow().await?;
                self.freeze(consumers.replicas().to_vec(), &mut detail).await?;
                Undo::Widen(consumers.replicas().to_vec())
            }
            Kind::MemoryAlarm => {
                world.broker.raise_alarm(library).await?;
                Undo::EndAlarm
            }
            Kind::KillDatabase => {
                world.database.kill(library)?;
                Undo::StartDatabase
            }
            Kind::RestartDatabase => {
                world.database.stop(library).await?;
                Undo::StartDatabase
            }
            Kind::FreezeDatabase => {
                world.database.freeze(library)?;
                Undo::ThawDatabase
            }
            Kind::SilenceDatabase => {
                world.database_wire.silence();
                Undo::Pass
            }
            Kind::SlowDatabase => {
                world.database_wire.delay(STATEMENT_DELAY);
                Undo::Pass
            }
            Kind::CloseDatabaseConnections => {
                let client = world.database.connect().await?;
                detail = format!("{} of them", world.database.disconnect_services(&client).await?);
                Undo::Nothing
            }
            Kind::LockTable => {
                let table = LOCKED[rng.random_range(0..LOCKED.len())];
                table.clone_into(&mut detail);
                let client = world.database.connect().await?;
                client.batch_execute(&format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")).await?;
                Undo::Disconnect(vec![client])
            }
            Kind::ExhaustConnections => Undo::Disconnect(self.take_all_connections(&mut detail).await?),
            Kind::FillDisk => {
                world.database.fill_up().await?;
                Undo::MakeRoom
            }
            Kind::Overload => {
                world.database_wire.delay(STATEMENT_DELAY);
                let flooded = self.flood(rng, &mut detail).await;
                world.database_wire.pass();
                flooded?;
                Undo::Nothing
            }
            Kind::Migrate => {
                self.migrate().await?;
                Undo::Nothing
            }
            Kind::Upgrade => {
                world.services.set_programs(world.place.binaries.clone());
                world.migrate().await?;
                self.restart_all(&mut detail).await?;
                Undo::Nothing
            }
        };
        Ok(Strike { kind, detail, hold: Duration::from_secs_f64(hold), undo })
    }

    /// Ends it. What was started is not waited for: that is the recovery.
    pub async fn lift(self, strike: &mut Strike) -> Result<()> {
        let world = self.world;
        let library = world.library();
        match std::mem::replace(&mut strike.undo, Undo::Nothing) {
            Undo::Nothing => Ok(()),
            Undo::Start(replicas) => {
                for replica in replicas {
                    world.services.start(replica).await?;
                }
                Ok(())
            }
            Undo::Thaw(replicas) => self.thaw(replicas).await,
            Undo::StartBroker => world.broker.start_again(library, &world.place).await,
            Undo::ThawBroker => world.broker.thaw(library),
            Undo::Widen(consumers) => {
                self.thaw(consumers).await?;
                tokio::time::sleep(NARROW_AFTERWARDS).await;
                world.broker.widen().await
            }
            Undo::EndAlarm => world.broker.end_alarm(library).await,
            Undo::StartDatabase => world.database.start_again(library).await,
            Undo::ThawDatabase => world.database.thaw(library),
            Undo::Disconnect(clients) => {
                drop(clients);
                Ok(())
            }
            Undo::MakeRoom => world.database.make_room().await,
            Undo::Pass => {
                world.database_wire.pass();
                world.broker_wire.pass();
                Ok(())
            }
            Undo::SetClock => world.services.set_clock(0).await,
        }
    }

    /// How long a fault of this kind lasts: at least and at most, in seconds.
    fn duration(self, kind: Kind) -> (f64, f64) {
        match kind {
            Kind::FreezeOne(_) | Kind::FreezeAll(_) | Kind::FreezeBroker | Kind::SilenceBroker => (2.0, self.longest),
            Kind::FreezeDatabase | Kind::SilenceDatabase => (2.0, self.longest.min(15.0)),
            Kind::LockTable => (2.0, 6.0),
            Kind::ExhaustConnections | Kind::FillDisk | Kind::FillQueues | Kind::MemoryAlarm => (3.0, 8.0),
            Kind::SlowDatabase | Kind::StepClock => (5.0, 10.0),
            Kind::RollingRestart
            | Kind::CutBroker
            | Kind::CutDatabase
            | Kind::CloseBrokerConnections
            | Kind::CloseDatabaseConnections
            | Kind::RestartDatabase
            | Kind::Overload
            | Kind::Migrate
            | Kind::Upgrade => (0.0, 0.0),
            Kind::KillOne(_)
            | Kind::KillAll(_)
            | Kind::KillScheduler
            | Kind::KillClerk
            | Kind::KillBroker
            | Kind::LoseBrokerData
            | Kind::KillDatabase => (0.0, 5.0),
        }
    }

    async fn kill(self, replicas: Vec<usize>, detail: &mut String) -> Result<Undo> {
        let services = &self.world.services;
        try_join_all(replicas.iter().map(|replica| services.kill(*replica))).await?;
        self.name(&replicas, detail);
        Ok(Undo::Start(replicas))
    }

    async fn freeze(self, replicas: Vec<usize>, detail: &mut String) -> Result<Undo> {
        let services = &self.world.services;
        try_join_all(replicas.iter().map(|replica| services.freeze(*replica))).await?;
        self.name(&replicas, detail);
        Ok(Undo::Thaw(replicas))
    }

    async fn thaw(self, replicas: Vec<usize>) -> Result<()> {
        for replica in replicas {
            self.world.services.thaw(replica).await?;
        }
        Ok(())
    }

    fn name(self, replicas: &[usize], detail: &mut String) {
        for replica in replicas {
            detail.push_str(if detail.is_empty() { "" } else { " " });
            detail.push_str(self.world.services.name(*replica));
        }
    }
}

fn one_of(service: Service, rng: &mut StdRng) -> usize {
    service.replicas()[rng.random_range(0..2)]
}
