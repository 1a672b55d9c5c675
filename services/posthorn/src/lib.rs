//! The command line of Posthorn, for operators and developers.
//!
//! Everything but `migrate` and `keys` goes through the same HTTP surface as everybody else's programs.

mod api;
mod apply;
mod bench;
mod demo;
mod diff;
mod dlq;
mod error;
mod event_types;
mod keys;
mod migrate;
mod receive;
mod refusal;
mod replay;
mod send;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use posthorn_process::telemetry::chain;

use crate::error::CliError;

#[derive(Debug, Parser)]
#[command(name = "posthorn", version, about = "Posthorn: webhooks in, webhooks out, none lost")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring the database to this version's schema; safe to repeat, and to run from several places.
    Migrate(migrate::Migrate),
    /// Send an event to the gateway, signed as its provider would, and print the answer.
    #[command(subcommand)]
    Send(send::Send),
    /// Receive webhooks, print what arrives and whether its signature holds.
    Receive(receive::Receive),
    /// Look at dead letters, set them going again, or forget them.
    #[command(subcommand)]
    Dlq(dlq::Dlq),
    /// See how far replay jobs are, and stop them.
    #[command(subcommand)]
    Replay(replay::Replay),
    /// Keep tenants, sources, event types and subscriptions as a file says them; safe to repeat.
    Apply(apply::Apply),
    /// Keep the catalogue of event types as a file says it.
    #[command(subcommand)]
    EventTypes(event_types::EventTypes),
    /// See which keys seal the secrets in the database, and seal with the newest what an older one sealed.
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Make a tenant, sources and a subscription to try things with; safe to repeat.
    Demo(demo::Demo),
    /// Measure events accepted and deliveries made in a second.
    Bench(bench::Bench),
}

/// Runs the command of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // One provider for all TLS of the process. Fails only if it was set before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ran = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::Io)
        .and_then(|runtime| runtime.block_on(run(cli.command)));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "posthorn: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::Migrate(migrate) => migrate.run().await,
        Command::Send(send) => send.run().await,
        Command::Receive(receive) => receive.run().await,
        Command::Dlq(dlq) => dlq.run().await,
        Command::Replay(replay) => replay.run().await,
        Command::Apply(apply) => apply.run().await,
        Command::EventTypes(event_types) => event_types.run().await,
        Command::Keys(keys) => keys.run().await,
        Command::Demo(demo) => demo.run().await,
        Command::Bench(bench) => bench.run().await,
    }
}

/// JSON for a person.
fn pretty(value: &serde_json::Value) -> Result<String, CliError> {
    Ok(serde_json::to_string_pretty(value)?)
}

/// Writes a line to standard output. A reader that went away (`| head`) is no error of ours.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
