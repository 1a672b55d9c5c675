//! The kinds of faults, each with what it is in a sentence.

use std::fmt;

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::world::services::Service;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    KillOne(Service),
    KillAll(Service),
    FreezeOne(Service),
    FreezeAll(Service),
    RollingRestart,
    KillScheduler,
    KillClerk,
    StepClock,
    KillBroker,
    FreezeBroker,
    SilenceBroker,
    CutBroker,
    CloseBrokerConnections,
    LoseBrokerData,
    FillQueues,
    MemoryAlarm,
    KillDatabase,
    FreezeDatabase,
    SilenceDatabase,
    CutDatabase,
    CloseDatabaseConnections,
    RestartDatabase,
    LockTable,
    ExhaustConnections,
    FillDisk,
    SlowDatabase,
    Overload,
    Migrate,
    Upgrade,
}

use Kind as K;
use Service::{Dispatcher, Gateway, Worker};

/// Name, kind, and the sentence.
const KINDS: &[(&str, Kind, &str)] = &[
    ("kill-gateway", K::KillOne(Gateway), "one of two gateways gets SIGKILL"),
    ("kill-dispatcher", K::KillOne(Dispatcher), "one of two dispatchers gets SIGKILL"),
    ("kill-worker", K::KillOne(Worker), "one of two delivery-workers gets SIGKILL"),
    ("kill-gateways", K::KillAll(Gateway), "both gateways get SIGKILL"),
    ("kill-dispatchers", K::KillAll(Dispatcher), "both dispatchers get SIGKILL"),
    ("kill-workers", K::KillAll(Worker), "both delivery-workers get SIGKILL"),
    ("freeze-gateway", K::FreezeOne(Gateway), "one gateway gets SIGSTOP, later SIGCONT"),
    ("freeze-dispatcher", K::FreezeOne(Dispatcher), "one dispatcher gets SIGSTOP, later SIGCONT"),
    ("freeze-worker", K::FreezeOne(Worker), "one delivery-worker gets SIGSTOP, later SIGCONT"),
    ("freeze-gateways", K::FreezeAll(Gateway), "both gateways get SIGSTOP, later SIGCONT"),
    ("freeze-dispatchers", K::FreezeAll(Dispatcher), "both dispatchers get SIGSTOP, later SIGCONT"),
    ("freeze-workers", K::FreezeAll(Worker), "both delivery-workers get SIGSTOP, later SIGCONT"),
    ("rolling-restart", K::RollingRestart, "all six get SIGTERM, one after the other, and start again"),
    ("kill-scheduler", K::KillScheduler, "both dispatchers get SIGKILL while a scheduler is within its transaction"),
    ("kill-clerk", K::KillClerk, "both dispatchers get SIGKILL while a clerk files a batch of dead letters"),
    ("step-clock", K::StepClock, "the clocks of three processes step by 3 s, either way"),
    ("kill-broker", K::KillBroker, "RabbitMQ gets SIGKILL and starts again"),
    ("freeze-broker", K::FreezeBroker, "RabbitMQ gets SIGSTOP, later SIGCONT"),
    ("silence-broker", K::SilenceBroker, "nothing passes between the services and RabbitMQ, and nobody is told"),
    ("cut-broker", K::CutBroker, "every connection to RabbitMQ is cut on its way"),
    ("close-broker-connections", K::CloseBrokerConnections, "RabbitMQ closes every connection"),
    ("lose-broker-data", K::LoseBrokerData, "RabbitMQ gets SIGKILL and starts again without its data"),
    (
        "fill-queues",
        K::FillQueues,
        "nobody takes from the events or the deliveries queues, which have room for one message and reject others",
    ),
    ("memory-alarm", K::MemoryAlarm, "RabbitMQ says that it has no memory, and blocks whoever publishes"),
    ("kill-database", K::KillDatabase, "every process of PostgreSQL gets SIGKILL, and it starts again"),
    ("freeze-database", K::FreezeDatabase, "every process of PostgreSQL gets SIGSTOP, later SIGCONT"),
    ("silence-database", K::SilenceDatabase, "nothing passes between the services and PostgreSQL, and nobody is told"),
    ("cut-database", K::CutDatabase, "every connection to PostgreSQL is cut on its way"),
    ("close-database-connections", K::CloseDatabaseConnections, "PostgreSQL ends every session of the services"),
    ("restart-database", K::RestartDatabase, "PostgreSQL is stopped, the fast way, and starts again"),
    ("lock-table", K::LockTable, "somebody holds an ACCESS EXCLUSIVE lock on a hot table"),
    ("exhaust-connections", K::ExhaustConnections, "PostgreSQL has no connection left, and the services lost theirs"),
    ("fill-disk", K::FillDisk, "whatever makes a file of PostgreSQL grow fails with 53100"),
    ("slow-database", K::SlowDatabase, "every statement takes 200 ms longer"),
    (
        "overload",
        K::Overload,
        "hundreds of requests at once for five seconds, while every statement takes 200 ms longer",
    ),
    ("migrate", K::Migrate, "`posthorn migrate` twice at once, and hot tables gain and lose a column"),
    ("upgrade", K::Upgrade, "the new version migrates, and takes the place of the old one, process by process"),
];

impl Kind {
    /// What a run draws from unless it is told: all that Posthorn promises to survive, but what is done once.
    pub fn ordinary() -> Vec<Self> {
        KINDS.iter().map(|(_, kind, _)| *kind).filter(|kind| *kind != K::Upgrade).collect()
    }

    pub fn parse(name: &str) -> Result<Self, String> {
        let found = KINDS.iter().find(|(known, _, _)| *known == name);
        let all = || KINDS.iter().map(|(name, _, _)| *name).collect::<Vec<_>>().join(", ");
        found.map(|(_, kind, _)| *kind).ok_or_else(|| format!("one of: {}", all()))
    }

    pub fn sentence(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> &'static (&'static str, Self, &'static str) {
        // Every kind stands in the table; a test sees to that.
        KINDS.iter().find(|(_, kind, _)| *kind == self).unwrap_or(&KINDS[0])
    }

    /// Whether the database does not record while it lasts: then results wait in the workers.
    pub fn holds_up_records(self) -> bool {
        matches!(
            self,
            K::KillDatabase
                | K::FreezeDatabase
                | K::SilenceDatabase
                | K::CutDatabase
                | K::CloseDatabaseConnections
                | K::RestartDatabase
                | K::LockTable
                | K::ExhaustConnections
                | K::FillDisk
                | K::SlowDatabase
                | K::Overload
                | K::Migrate
                | K::Upgrade
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.row().0)
    }
}

/// Draws kinds so that each occurs as often as any other: all of them once in a random order, then again.
pub struct Bag {
    all: Vec<Kind>,
    left: Vec<Kind>,
}

impl Bag {
    pub fn new(all: Vec<Kind>) -> Self {
        Self { all, left: Vec::new() }
    }

    pub fn draw(&mut self, rng: &mut StdRng) -> Option<Kind> {
        if self.left.is_empty() {
            self.left.clone_from(&self.all);
        }
        if self.left.is_empty() {
            return None;
        }
        Some(self.left.swap_remove(rng.random_range(0..self.left.len())))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn a_name_leads_to_its_kind_and_back() {
        for (name, kind, _) in KINDS {
            assert_eq!(Kind::parse(name), Ok(*kind));
            assert_eq!(kind.to_string(), *name);
        }
    }

    #[test]
    fn every_kind_is_drawn_before_one_is_drawn_again() {
        let mut bag = Bag::new(Kind::ordinary());
        let mut rng = StdRng::seed_from_u64(7);
        let mut drawn: Vec<String> =
            Kind::ordinary().iter().filter_map(|_| Some(bag.draw(&mut rng)?.to_string())).collect();
        drawn.sort();
        drawn.dedup();
        assert_eq!(drawn.len(), Kind::ordinary().len());
    }
}
