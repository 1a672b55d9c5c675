//! The six processes of Posthorn: two of each service, and what was done to them when.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;

use crate::clock::{Clock, Millis, seconds};
use crate::error::{Result, unexpected};
use crate::world::process::{Process, Recipe};
use crate::world::{Place, wait_until};

/// Requests that a gateway takes in at the same time.
const MAX_IN_FLIGHT: u32 = 40;
/// Longer than the longest grace period of a service (40 s).
pub const STOP: Duration = Duration::from_secs(45);
const READY: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Gateway,
    Dispatcher,
    Worker,
}

impl Service {
    pub const ALL: [Self; 3] = [Self::Gateway, Self::Dispatcher, Self::Worker];

    fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Dispatcher => "dispatcher",
            Self::Worker => "worker",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Gateway => "ingress-gateway",
            Self::Dispatcher => "dispatcher",
            Self::Worker => "delivery-worker",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Gateway => "INGRESS_GATEWAY",
            Self::Dispatcher => "DISPATCHER",
            Self::Worker => "DELIVERY_WORKER",
        }
    }

    /// Its two replicas.
    pub fn replicas(self) -> [usize; 2] {
        let first = self as usize * 2;
        [first, first + 1]
    }
}

/// How the services reach the servers.
pub struct Wires<'a> {
    pub database: &'a str,
    pub broker: &'a str,
}

/// Something done to a process that may keep it from recording what it had in hand.
#[derive(Clone, Debug)]
pub struct Blow {
    pub replica: usize,
    pub how: &'static str,
    pub from: Millis,
    /// The same for one that was killed.
    pub to: Millis,
}

pub struct Services {
    recipes: Vec<Recipe>,
    admin: Vec<String>,
    processes: Vec<tokio::sync::Mutex<Process>>,
    blows: Mutex<Vec<Blow>>,
    /// What ended although nobody asked, in words.
    incidents: Mutex<Vec<String>>,
    peaks: Mutex<BTreeMap<String, u64>>,
    programs: Mutex<PathBuf>,
    faketime: Option<PathBuf>,
    clock_file: PathBuf,
    client: reqwest::Client,
    clock: Clock,
    pub gateways: Vec<String>,
    pub dispatchers: Vec<String>,
    pub operator_token: String,
}

impl Services {
    pub async fn new(place: &Place, wires: Wires<'_>, client: reqwest::Client, clock: Clock) -> Result<Self> {
        let at = |offset: u16| format!("http://127.0.0.1:{}", place.services_port + offset);
        let operator_token = hex::encode(rand::random::<[u8; 24]>());
        let sealing_key = STANDARD.encode(rand::random::<[u8; 32]>());
        let shared = [
            ("POSTHORN_BROKER_URL", wires.broker.to_owned()),
            ("POSTHORN_OPERATOR_TOKEN", operator_token.clone()),
            ("POSTHORN_SEALING_KEYS", format!("k1:{sealing_key}")),
            ("POSTHORN_GATEWAY_URL", at(0)),
            ("POSTHORN_ALLOW_HTTP", "true".to_owned()),
            ("POSTHORN_ALLOW_PRIVATE_NETWORKS", "true".to_owned()),
            // A breaker opens and closes within the run.
            ("DELIVERY_WORKER_BREAKER__COOLDOWN_SECONDS", "1".to_owned()),
            ("DELIVERY_WORKER_BREAKER__MAX_COOLDOWN_SECONDS", "2".to_owned()),
            // What the clerk cannot have seen, the janitor files after two minutes and this.
            ("DISPATCHER_JANITOR__EVERY_SECONDS", "10".to_owned()),
            // Little enough for a flood of ours to meet it.
            ("INGRESS_GATEWAY_ACCEPT__MAX_IN_FLIGHT", MAX_IN_FLIGHT.to_string()),
            ("INGRESS_GATEWAY_LOG__ERRORS_DIRECTORY", String::new()),
        ];
        let clock_file = place.directory.join("clock");
        let mut recipes = Vec::new();
        for (index, offset) in (0..6usize).zip(0u16..) {
            let service = Service::ALL[index / 2];
            let name = format!("{}-{}", service.name(), index % 2 + 1);
            let prefix = service.prefix();
            let mut environment: Vec<(String, String)> = inherited(prefix);
            let ours = |(name, _): &&(&str, String)| name.starts_with("POSTHORN_") || name.starts_with(prefix);
            environment.extend(shared.iter().filter(ours).map(|(name, value)| ((*name).to_owned(), value.clone())));
            let mut set = |name: &str, value: String| environment.push((name.to_owned(), value));
            set("POSTHORN_DATABASE_URL", format!("{}?application_name=chaos-{name}", wires.database));
            set(&format!("{prefix}_HTTP__HOST"), "127.0.0.1".to_owned());
            set(&format!("{prefix}_HTTP__ADMIN_PORT"), (place.services_port + 4 + offset).to_string());
            if service != Service::Worker {
                set(&format!("{prefix}_HTTP__PORT"), (place.services_port + offset).to_string());
            }
            match &place.faketime {
                Some(faketime) if index % 2 == 1 => {
                    set("FAKETIME_TIMESTAMP_FILE", clock_file.display().to_string());
                    environment.extend(under(faketime));
                }
                Some(faketime) if clock.ahead() != 0 => {
                    set("FAKETIME", format!("{:+}", clock.ahead()));
                    environment.extend(under(faketime));
                }
                _ => {}
            }
            let program = service.program();
            recipes.push(Recipe { name, program, directory: place.directory.clone(), environment });
        }
        let services = Self {
            processes: recipes.iter().map(|_| tokio::sync::Mutex::new(Process::Down)).collect(),
            admin: (4..10).map(at).collect(),
            recipes,
            blows: Mutex::default(),
            incidents: Mutex::default(),
            peaks: Mutex::default(),
            programs: Mutex::new(place.previous.clone().unwrap_or_else(|| place.binaries.clone())),
            faketime: place.faketime.clone(),
            clock_file,
            client,
            clock,
            gateways: vec![at(0), at(1)],
            dispatchers: vec![at(2), at(3)],
            operator_token,
        };
        services.set_clock(0).await?;
        Ok(services)
    }

    /// Where the programs are that are started.
    pub fn programs(&self) -> PathBuf {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on these are started.
    pub fn set_programs(&self, programs: PathBuf) {
        *self.programs.lock().unwrap_or_else(PoisonError::into_inner) = programs;
    }

    /// The environment in which a program sees the world's time.
    pub fn shifted(&self) -> Vec<(String, String)> {
        match &self.faketime {
            Some(faketime) if self.clock.ahead() != 0 => {
                let mut environment = under(faketime);
                environment.push(("FAKETIME".to_owned(), format!("{:+}", self.clock.ahead())));
                environment
            }
            _ => Vec::new(),
        }
    }

    pub fn name(&self, replica: usize) -> &str {
        &self.recipes[replica].name
    }

    /// The delivery-workers, and where their pids stand.
    pub fn workers(&self) -> Vec<(u8, PathBuf)> {
        let file = |replica: usize| self.recipes[replica].pid_path();
        Service::Worker.replicas().map(|replica| (u8::try_from(replica).unwrap_or_default(), file(replica))).to_vec()
    }

    pub fn log_paths(&self) -> impl Iterator<Item = (&str, PathBuf)> {
        self.recipes.iter().map(|recipe| (recipe.name.as_str(), recipe.log_path()))
    }

    /// Starts what does not run, and waits until all are ready.
    pub async fn start_all(&self) -> Result<()> {
        for replica in 0..self.recipes.len() {
            self.start(replica).await?;
        }
        for replica in 0..self.recipes.len() {
            self.await_ready(replica).await?;
        }
        Ok(())
    }

    pub async fn start(&self, replica: usize) -> Result<()> {
        let mut process = self.processes[replica].lock().await;
        if matches!(*process, Process::Down) {
            *process = self.recipes[replica].start(&self.programs())?;
        }
        Ok(())
    }

    pub async fn await_ready(&self, replica: usize) -> Result<()> {
        let ready = wait_until(READY, async || self.is_ready(replica).await).await;
        ready.then_some(()).ok_or_else(|| unexpected(format!("{} did not get ready", self.name(replica))))
    }

    async fn is_ready(&self, replica: usize) -> bool {
        let asked = self.client.get(format!("{}/readyz", self.admin[replica])).timeout(Duration::from_secs(2));
        asked.send().await.is_ok_and(|answer| answer.status().is_success())
    }

    pub async fn kill(&self, replica: usize) -> Result<()> {
        let mut process = self.processes[replica].lock().await;
        self.note_peak(replica, &process);
        let now = self.clock.now();
        process.kill().await?;
        self.strike(Blow { replica, how: "killed", from: now, to: now });
        Ok(())
    }

    pub async fn freeze(&self, replica: usize) -> Result<()> {
        self.processes[replica].lock().await.signal(Signal::STOP)?;
        self.strike(Blow { replica, how: "frozen", from: self.clock.now(), to: Millis::MAX });
        Ok(())
    }

    pub async fn thaw(&self, replica: usize) -> Result<()> {
        self.processes[replica].lock().await.signal(Signal::CONT)?;
        let now = self.clock.now();
        let mut blows = self.blows.lock().unwrap_or_else(PoisonError::into_inner);
        for blow in blows.iter_mut().filter(|blow| blow.replica == replica && blow.to == Millis::MAX) {
            blow.to = now;
        }
        Ok(())
    }

    /// Whoever may still be frozen goes on.
    pub async fn thaw_all(&self) -> Result<()> {
        for replica in 0..self.recipes.len() {
            self.thaw(replica).await?;
        }
        Ok(())
    }

    /// SIGTERM; fails unless it ends with 0, in time.
    pub async fn stop(&self, replica: usize) -> Result<()> {
        let mut process = self.processes[replica].lock().await;
        self.note_peak(replica, &process);
        let began = self.clock.now();
        let ended = process.stop(STOP).await?;
        let took = seconds(self.clock.now() - began);
        let name = self.name(replica);
        ended.success().then_some(()).ok_or_else(|| unexpected(format!("{name} ended with {ended} after {took}")))
    }

    /// SIGTERM to all at once; returns what did not end well, in words.
    pub async fn stop_all(&self) -> Vec<String> {
        let stopped = futures_util::future::join_all((0..self.recipes.len()).map(|replica| self.stop(replica))).await;
        stopped.into_iter().filter_map(|ended| ended.err().map(|error| error.to_string())).collect()
    }

    /// Sets the clock of the second replica of each service, in seconds from the world's.
    pub async fn set_clock(&self, seconds: i64) -> Result<()> {
        let seconds = self.clock.ahead() + seconds;
        // At once: it is read at any moment.
        let new = self.clock_file.with_extension("new");
        tokio::fs::write(&new, format!("{seconds:+}\n")).await?;
        Ok(tokio::fs::rename(&new, &self.clock_file).await?)
    }

    /// Looks after the processes for as long as it is polled: notes who ended by itself and starts it again, as
    /// whatever runs services elsewhere would, and how much memory each has.
    pub async fn watch(&self) {
        loop {
            tokio::time::sleep(Duration::from_millis(250)).await;
            for replica in 0..self.recipes.len() {
                // Somebody is just about to kill or start it.
                let Ok(mut process) = self.processes[replica].try_lock() else { continue };
                self.note_peak(replica, &process);
                if let Some(ended) = process.ended_by_itself() {
                    let when = seconds(self.clock.now());
                    self.incident(format!("{} ended by itself at {when}: {ended}", self.name(replica)));
                    *process = self.recipes[replica].start(&self.programs()).unwrap_or(Process::Down);
                }
            }
        }
    }

    pub fn blows(&self) -> Vec<Blow> {
        self.blows.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn incidents(&self) -> Vec<String> {
        self.incidents.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn incident(&self, what: String) {
        self.incidents.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// The most memory that each process has had, in bytes.
    pub fn peaks(&self) -> BTreeMap<String, u64> {
        self.peaks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_peak(&self, replica: usize, process: &Process) {
        let Some(bytes) = process.peak_memory() else { return };
        let mut peaks = self.peaks.lock().unwrap_or_else(PoisonError::into_inner);
        let peak = peaks.entry(self.name(replica).to_owned()).or_default();
        *peak = bytes.max(*peak);
    }

    fn strike(&self, blow: Blow) {
        self.blows.lock().unwrap_or_else(PoisonError::into_inner).push(blow);
    }
}

/// The environment of a program whose time is libfaketime's. What waits or measures is left alone.
fn under(faketime: &Path) -> Vec<(String, String)> {
    let preload = faketime.display().to_string();
    [("LD_PRELOAD", preload), ("FAKETIME_NO_CACHE", "1".to_owned()), ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned())]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
}

/// Settings of whoever runs this, for trials, and what a program needs to run at all.
fn inherited(prefix: &str) -> Vec<(String, String)> {
    let wanted = |name: &str| matches!(name, "PATH" | "HOME" | "LANG" | "RUST_BACKTRACE") || name.starts_with(prefix);
    std::env::vars().filter(|(name, _)| wanted(name)).collect()
}
