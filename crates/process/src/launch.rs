//! Start in order, stop in order.

use std::collections::HashMap;
use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{settings, telemetry};

/// A service as `main` sees it.
pub trait Service {
    const NAME: &'static str;
    /// The beginning of its variables.
    const PREFIX: &'static str;
    const DEFAULTS: &'static str;
    type Settings: DeserializeOwned + std::fmt::Debug + Send;

    fn log(settings: &Self::Settings) -> &telemetry::Settings;
    fn admin_port(settings: &Self::Settings) -> u16;
    /// How long work in hand may take after the signal to stop.
    fn grace(settings: &Self::Settings) -> Duration;
    /// Connects, binds and works until `stop`, then finishes what is in hand.
    fn run(
        settings: Self::Settings,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<(), Box<dyn Error + Send + Sync>>> + Send;
}

/// Runs a service until it is signalled or fails. `--check-health` asks a running one instead.
pub fn main<S: Service>() -> ExitCode {
    let environment: HashMap<String, String> = std::env::vars().collect();
    let loaded = settings::load::<S::Settings>(S::DEFAULTS, S::PREFIX, &environment);
    let settings = match loaded {
        Ok(settings) => settings,
        Err(error) => return refuse(S::NAME, &error),
    };
    match std::env::args().nth(1).as_deref() {
        None => {}
        Some("--check-health") => return check_health(S::admin_port(&settings)),
        Some("--version") => {
            let _ = writeln!(std::io::stdout(), "{} {}", S::NAME, env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Some(other) => return refuse(S::NAME, &Argument(other.to_owned())),
    }
    // One provider for all TLS of the process. Fails only if it was set before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(S::NAME, &error),
    };
    let _entered = runtime.enter();
    let _telemetry = match telemetry::start(S::NAME, S::log(&settings)) {
        Ok(guard) => guard,
        Err(error) => return refuse(S::NAME, &error),
    };
    info!(version = env!("CARGO_PKG_VERSION"), ?settings, "{} starts", S::NAME);
    let code = runtime.block_on(supervise::<S>(settings));
    runtime.shutdown_timeout(Duration::from_millis(500));
    code
}

async fn supervise<S: Service>(settings: S::Settings) -> ExitCode {
    let grace = S::grace(&settings);
    let stop = CancellationToken::new();
    let service = S::run(settings, stop.clone());
    tokio::pin!(service);
    let ended = tokio::select! {
        ended = &mut service => ended,
        () = signalled() => {
            info!(grace_secs = grace.as_secs(), "stopping: finishing what is in hand");
            stop.cancel();
            tokio::select! {
                ended = tokio::time::timeout(grace, &mut service) => match ended {
                    Ok(ended) => ended,
                    Err(_) => {
                        warn!("the grace period is over; what was in hand goes back");
                        return ExitCode::FAILURE;
                    }
                },
                () = signalled() => {
                    warn!("stopping at once");
                    return ExitCode::FAILURE;
                }
            }
        }
    };
    match ended {
        Ok(()) => {
            info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            error!(error = error.as_ref() as &dyn Error, "{} failed: {}", S::NAME, chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Resolves on SIGTERM or SIGINT.
async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without handlers the signals end the process, which is all that is left.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Asks the admin port of a running service whether it is alive.
fn check_health(port: u16) -> ExitCode {
    let ask = || -> std::io::Result<bool> {
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        connection.set_read_timeout(Some(Duration::from_secs(3)))?;
        connection.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        connection.take(4096).read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200"))
    };
    if ask().unwrap_or(false) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says on stderr why a service does not start: there is no log yet.
fn refuse(name: &str, error: &(dyn Error + 'static)) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{name}: {}", chain(error));
    ExitCode::FAILURE
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not an argument; there are --check-health and --version")]
struct Argument(String);
