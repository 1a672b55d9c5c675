//! The kill-anywhere proof of Posthorn.
//!
//! Who plays: a **world** (a PostgreSQL, a RabbitMQ, two replicas of every service), **providers** that send a seeded
//! load, **receivers** that are flaky, and a **drill** that does one fault after another to the world. In the end
//! three **ledgers** are compared: what the senders saw accepted, what Posthorn says, what the receivers got.
//!
//! Nothing of Posthorn is linked: it is met as its users meet it, over HTTP, and its record is read beside that. The
//! same seed gives the same load, the same faults and the same bad receivers; what happens in between is up to the
//! machine.
//!
//! `deploy/local/chaos` builds and calls this.
#![allow(clippy::print_stdout, reason = "a command that tells how it goes")]

mod api;
mod clock;
mod error;
mod fault;
mod journal;
mod ledger;
mod load;
mod peer;
mod receiver;
mod table;
mod world;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use clap::Parser;

use crate::api::Api;
use crate::clock::{Clock, Lag, seconds};
use crate::error::Result;
use crate::fault::drill::{Drill, Drilled};
use crate::fault::kind::Kind;
use crate::journal::Journal;
use crate::ledger::Check;
use crate::ledger::books::Books;
use crate::load::nature::Temper;
use crate::load::plan::Plan;
use crate::load::provider::Keys;
use crate::load::sender::Sender;
use crate::load::stage::Stage;
use crate::peer::Peers;
use crate::receiver::Receiver;
use crate::world::{Place, World};

/// A run at least this long has time to leave a process frozen until the broker gives it up.
const LONG_RUN: u32 = 240;
const LONG_FREEZE: f64 = 26.0;
const SHORT_FREEZE: f64 = 8.0;

#[derive(Clone, Debug, Parser)]
#[command(name = "posthorn-chaos", about = "Kills and hinders Posthorn under load, and compares three ledgers")]
struct Arguments {
    /// How long faults are done, in seconds.
    #[arg(long, default_value_t = 300)]
    seconds: u32,
    /// What everything is drawn from; the time of day when left out.
    #[arg(long)]
    seed: Option<u64>,
    /// Only these kinds of faults, separated by commas; `none` is none.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Events a second.
    #[arg(long, default_value_t = 25.0)]
    rate: f64,
    /// Faults at the same time.
    #[arg(long, default_value_t = 1)]
    together: usize,
    /// What time it is in the world when it begins, such as `2026-12-31T23:58:00Z`: services run with clocks that are
    /// ahead (libfaketime), and the run crosses midnight and the end of a month.
    #[arg(long)]
    at: Option<jiff::Timestamp>,
    /// Leave everything running at the end.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    place: Place,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // One provider for all TLS of the process. Fails only if it was set before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ran = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(error::ChaosError::Io)
        .and_then(|runtime| runtime.block_on(until_signalled(arguments)));
    match ran {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(format_args!("the proof could not be made: {error}"));
            say("test result: FAILED. 0 passed; 1 failed");
            ExitCode::FAILURE
        }
    }
}

async fn until_signalled(arguments: Arguments) -> Result<bool> {
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        ran = run(arguments) => ran,
        _ = tokio::signal::ctrl_c() => Err(error::unexpected("interrupted")),
        _ = terminated.recv() => Err(error::unexpected("terminated")),
    }
}

/// Returns whether every check holds.
async fn run(arguments: Arguments) -> Result<bool> {
    let clock = Clock::start(arguments.at);
    if arguments.at.is_some() && arguments.place.faketime.is_none() {
        return Err(error::unexpected("without libfaketime there is one time only"));
    }
    let seed = arguments.seed.unwrap_or_else(|| clock.began_at().as_millisecond().unsigned_abs());
    let kinds = kinds(&arguments)?;
    say(format_args!(
        "seed {seed}, {} s, {} events a second, {} kinds of faults",
        arguments.seconds,
        arguments.rate,
        kinds.len()
    ));
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build()?;
    let world = Arc::new(World::start(arguments.place.clone(), &client, clock).await?);
    let lag = Lag::default();
    tokio::spawn(lag.clone().measure());
    let watch = Arc::clone(&world);
    tokio::spawn(async move { watch.services.watch().await });
    let (sender, api) = set_the_stage(&world, seed, &client).await?;
    say(format_args!("{:>9}  all is up: two replicas of each service, {} subscriptions", seconds(clock.now()), {
        sender.stage.subscriptions.len()
    }));

    let plan = Plan::new(seed, arguments.rate, &sender.stage);
    let sending = tokio::spawn(Arc::clone(&sender).run(plan));
    let drill = Drill {
        world: &world,
        sender: &sender,
        seed,
        kinds,
        together: arguments.together.max(1),
        until: clock.now() + arguments.seconds * 1000,
        upgrades: world.place.previous.is_some(),
        longest: if arguments.seconds >= LONG_RUN { LONG_FREEZE } else { SHORT_FREEZE },
    };
    let drilled = drill.run().await;
    sender.stopped.store(true, Ordering::Relaxed);
    let _ = sending.await;
    world.mend().await?;
    let (checks, repeats, losses) = compare(&world, &sender, &api, &drilled, arguments.keep).await?;

    say("");
    table::faults(&drilled.episodes);
    say("");
    let mut numbers = totals(&world, &sender, losses, repeats.len());
    numbers.push(("Longest that the harness itself was late", seconds(lag.longest())));
    table::totals(&numbers);
    say("");
    table::repeats(&repeats);
    say("");
    checks.iter().for_each(Check::print);
    let failed = checks.iter().filter(|check| !check.holds()).count();
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    if failed > 0 {
        say(format_args!("the same again: --seed {seed} --seconds {} --rate {}", arguments.seconds, arguments.rate));
    }
    say(format_args!("test result: {verdict}. {} passed; {failed} failed", checks.len() - failed));
    Ok(failed == 0)
}

fn kinds(arguments: &Arguments) -> Result<Vec<Kind>> {
    let mut kinds = match arguments.only.as_slice() {
        [] => Kind::ordinary(),
        [none] if none == "none" => Vec::new(),
        names => names.iter().map(|name| Kind::parse(name)).collect::<Result<_, _>>().map_err(error::unexpected)?,
    };
    if arguments.place.faketime.is_none() {
        kinds.retain(|kind| *kind != Kind::StepClock);
    }
    Ok(kinds)
}

/// Receivers, tenants, sources and subscriptions, and who sends to them.
async fn set_the_stage(world: &World, seed: u64, client: &reqwest::Client) -> Result<(Arc<Sender>, Api)> {
    let clock = world.clock;
    let services = &world.services;
    let token = services.operator_token.clone();
    let api = Api { client: client.clone(), urls: services.dispatchers.clone(), token };
    let (listener, address) = receiver::bind().await?;
    let journal = Arc::new(Journal::new(Stage::prompt()));
    let receiver = Receiver {
        endpoints: Stage::endpoints(),
        temper: Temper(seed),
        peers: Peers::watch(services.workers()),
        journal: Arc::clone(&journal),
        clock,
    };
    tokio::spawn(Arc::new(receiver).run(listener));
    let keys = Keys::new(hex::encode(rand::random::<[u8; 16]>()));
    let stage = Arc::new(Stage::build(&api, address.port(), keys).await?);
    // A change of configuration is in force everywhere within a second.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let sender = Sender {
        client: client.clone(),
        gateways: services.gateways.clone(),
        journal,
        stage,
        clock,
        open: AtomicU32::new(0),
        stopped: AtomicBool::new(false),
    };
    Ok((Arc::new(sender), api))
}

/// Waits until all is quiet, reads the ledgers, stops the services, and checks.
async fn compare(
    world: &World,
    sender: &Sender,
    api: &Api,
    drilled: &Drilled,
    keep: bool,
) -> Result<(Vec<Check>, Vec<ledger::repeats::Repeat>, usize)> {
    let clock = world.clock;
    say(format_args!("{:>9}  nothing more is sent or done; waiting until all is quiet", seconds(clock.now())));
    let database = world.database.connect().await?;
    let left = ledger::quiet::wait(world, sender, &database).await?;
    say(format_args!("{:>9}  comparing", seconds(clock.now())));
    let mut books = Books {
        records: std::mem::take(&mut *sender.journal.read()),
        stage: Arc::clone(&sender.stage),
        episodes: drilled.episodes.clone(),
        blows: world.services.blows(),
        replicas: (0..6).map(|replica| world.services.name(replica).to_owned()).collect(),
        events: HashMap::new(),
        deliveries: HashMap::new(),
        foreign: Vec::new(),
        dead_letters: HashMap::new(),
        attempts: HashMap::new(),
    };
    books.read(api, &database, clock.began_at()).await?;

    let mut checks = ledger::accepted::checks(&books);
    let (ends, losses) = ledger::ends::checks(&books);
    checks.extend(ends);
    let (check, repeats) = ledger::repeats::check(&books);
    checks.push(check);
    checks.extend(ledger::attempts::checks(&books));
    checks.push(ledger::accepted::sample(&books, api).await?);
    checks.extend(ledger::counters::checks(&books, &database, api).await?);
    checks.extend(ledger::leftovers::checks(&left, world, &database).await?);
    checks.extend(ledger::answers::recovery(drilled));
    drop(database);
    let badly_stopped = if keep { Vec::new() } else { world.stop().await? };
    checks.extend(ledger::answers::processes(world, &badly_stopped));
    checks.push(ledger::answers::memory(world));
    // For the totals.
    *sender.journal.read() = books.records;
    Ok((checks, repeats, losses))
}

fn totals(world: &World, sender: &Sender, losses: usize, repeats: usize) -> Vec<(&'static str, String)> {
    let records = sender.journal.read();
    let accepted = records.entries.iter().filter(|entry| entry.event_id.is_some());
    let deliveries: usize = accepted.clone().map(|entry| entry.expected.len()).sum();
    let bytes: u64 = accepted.clone().map(|entry| u64::from(entry.bytes)).sum();
    let arrivals: usize = accepted.clone().map(|entry| entry.arrivals.len()).sum();
    let mut rows = vec![
        ("Events", accepted.count().to_string()),
        ("Bytes in them", format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))),
        ("Deliveries", deliveries.to_string()),
        ("Requests at receivers", arrivals.to_string()),
        ("Losses", losses.to_string()),
        ("Repeats, each explained", repeats.to_string()),
    ];
    let peaks = world.services.peaks();
    let peak = |service: &str| {
        let most = peaks.iter().filter(|(name, _)| name.starts_with(service)).map(|(_, bytes)| *bytes).max();
        format!("{} MiB", most.unwrap_or_default() >> 20)
    };
    rows.push(("Most memory of a gateway", peak("gateway")));
    rows.push(("Most memory of a dispatcher", peak("dispatcher")));
    rows.push(("Most memory of a delivery-worker", peak("worker")));
    rows
}

/// Writes a line to standard output. A reader that went away (`| head`) is no error of ours.
fn say(line: impl std::fmt::Display) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{line}");
}
