//! The ingress-gateway: verifies, dedups and durably accepts what providers send.
//!
//! Order is the whole trick: commit, then answer, then publish. A provider gets 2xx only when event,
//! dedup key and outbox row are committed; the broker may be down meanwhile. When the database is
//! down, the answer is 503, never 4xx: providers take 4xx as final and would not send again.

pub mod error;
mod limits;
mod receive;
mod refusals;
mod relay;
mod routes;
pub mod settings;
mod sources;
mod tally;

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use jiff::Timestamp;
use posthorn_bus::Publisher;
use posthorn_core::egress::Egress;
use posthorn_process::keys::Keys;
use posthorn_process::{Service, admin, http, problem, telemetry};
use posthorn_store::batcher::{Batcher, Item, Limits};
use posthorn_store::events::{self, Accepted, NewEvent};
use posthorn_store::rejected_requests::{self, Rejected};
use posthorn_store::seal::Sealer;
use posthorn_store::{Store, partitions};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_actix_web::TracingLogger;

use crate::error::RunError;
use crate::settings::Settings;

/// The events of one request: accepted together or not at all.
#[derive(Clone, Debug)]
struct Submission(Arc<[NewEvent]>);

impl Item for Submission {
    fn bytes(&self) -> usize {
        self.0.iter().map(|event| event.body.len() + 512).sum()
    }
}

#[derive(Clone, Debug)]
struct Rejection(Arc<Rejected>);

impl Item for Rejection {
    fn bytes(&self) -> usize {
        self.0.request.as_ref().map_or(0, Vec::len)
    }
}

/// What handlers work with.
struct Gateway {
    settings: Settings,
    store: Store,
    sources: sources::Sources,
    accepting: Batcher<Submission, Vec<Accepted>, posthorn_store::Error>,
    rejecting: Batcher<Rejection, (), posthorn_store::Error>,
    refusals: limits::RefusalBudget,
    in_flight: limits::InFlight,
    address_rates: limits::AddressRates,
    tally: tally::Tally,
    keys: Keys,
    relay: relay::Relay,
}

/// A gateway that has bound its ports.
pub struct Bound {
    settings: Settings,
    store: Store,
    keys: Keys,
    listener: std::net::TcpListener,
    admin: std::net::TcpListener,
}

/// Reads the settings and binds; takes no work yet.
pub fn bind(settings: Settings) -> Result<Bound, RunError> {
    let sealer = Sealer::parse(&settings.sealing_keys)?;
    let store = Store::new(&settings.database, sealer).map_err(RunError::Database)?;
    settings.broker.check().map_err(RunError::Broker)?;
    let listener = http::bind(&settings.http.host, settings.http.port)?;
    let admin = http::bind(&settings.http.host, settings.http.admin_port)?;
    let keys = Keys::new(&settings.keys, Egress::from(&settings.endpoints))?;
    Ok(Bound { settings, store, keys, listener, admin })
}

impl Bound {
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`, then finishes what is in hand.
    pub async fn run(self, stop: CancellationToken) -> Result<(), RunError> {
        let Self { settings, store, keys, listener, admin } = self;
        let tasks = TaskTracker::new();
        // The background outlives the last request: it still has its event to publish.
        let background = CancellationToken::new();
        let sources = sources::Sources::default();
        let (loaded, is_loaded) = watch::channel(false);
        tasks.spawn(sources::follow(store.clone(), sources.clone(), loaded, background.clone()));
        let tally = tally::Tally::default();
        tasks.spawn(tally.clone().write_down(store.clone(), background.clone()));
        let (publisher, publishing) = posthorn_bus::publisher(settings.broker.clone(), GatewayService::NAME);
        let publishing = tokio::spawn(publishing);
        let relay =
            relay::start(&settings.relay, settings.broker.publish_window, &store, &publisher, &tasks, &background);

        let gateway = web::Data::new(Gateway {
            accepting: accepting(&settings, &store, &tasks),
            rejecting: rejecting(&store, &tasks),
            refusals: limits::RefusalBudget::default(),
            in_flight: limits::InFlight::new(settings.accept.max_in_flight, settings.accept.max_in_flight_bytes),
            address_rates: limits::AddressRates::new(settings.accept.rated_addresses),
            tally,
            keys,
            sources,
            store: store.clone(),
            relay,
            settings: settings.clone(),
        });
        let upkeep = tokio::spawn(telemetry::upkeep());
        let admin_stop = CancellationToken::new();
        let health =
            tokio::spawn(admin::serve(admin, dependencies(&store, &publisher, is_loaded), admin_stop.clone())?);

        let app = gateway.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(app.clone())
                .wrap(from_fn(problem::finish))
                .wrap(TracingLogger::<posthorn_process::http::RequestSpan>::new())
                .configure(routes::configure)
        })
        .workers(settings.http.workers.get())
        .max_connections(settings.http.max_connections.get())
        .client_request_timeout(Duration::from_millis(u64::from(settings.http.head_timeout_ms.get())))
        .keep_alive(Duration::from_secs(u64::from(settings.http.keep_alive_seconds)))
        .shutdown_timeout(settings.shutdown_grace_seconds)
        .disable_signals()
        .shutdown_signal(stop.cancelled_owned())
        .listen(listener)?
        .run();
        server.await?;

        // The batchers' writers end with their last handle, the relay with its token.
        drop(gateway);
        background.cancel();
        drop(publisher);
        tasks.close();
        tasks.wait().await;
        let _ = publishing.await;
        admin_stop.cancel();
        let _ = health.await;
        upkeep.abort();
        Ok(())
    }
}

fn accepting(
    settings: &Settings,
    store: &Store,
    tasks: &TaskTracker,
) -> Batcher<Submission, Vec<Accepted>, posthorn_store::Error> {
    let accept = &settings.accept;
    let limits =
        Limits { queue: accept.queue, items: accept.batch_events, bytes: accept.batch_bytes, writers: accept.writers };
    let store = store.clone();
    Batcher::start(limits, tasks, posthorn_store::Error::is_permanent, move |batch: Vec<Submission>| {
        let store = store.clone();
        async move {
            let all: Vec<NewEvent> = batch.iter().flat_map(|submission| submission.0.iter().cloned()).collect();
            metrics::histogram!("posthorn_accept_batch_events").record(all.len() as f64);
            let mut accepted = events::accept(&store.client().await?, &all, Timestamp::now()).await?.into_iter();
            Ok(batch.iter().map(|submission| accepted.by_ref().take(submission.0.len()).collect()).collect())
        }
    })
}

fn rejecting(store: &Store, tasks: &TaskTracker) -> Batcher<Rejection, (), posthorn_store::Error> {
    let limits = Limits { queue: 1024, items: 100, bytes: 4 << 20, writers: 1 };
    let store = store.clone();
    Batcher::start(limits, tasks, posthorn_store::Error::is_permanent, move |batch: Vec<Rejection>| {
        let store = store.clone();
        async move {
            let rejected: Vec<Rejected> = batch.iter().map(|rejection| Rejected::clone(&rejection.0)).collect();
            rejected_requests::insert(&store.client().await?, &rejected).await?;
            Ok(vec![(); batch.len()])
        }
    })
}

fn dependencies(store: &Store, publisher: &Publisher, is_loaded: watch::Receiver<bool>) -> Vec<admin::Dependency> {
    let (db, ahead, link) = (store.clone(), store.clone(), publisher.link().clone());
    vec![
        admin::dependency("database", true, move || {
            let store = db.clone();
            async move { store.ping().await.map_err(|error| error.to_string()) }
        }),
        admin::dependency("sources", true, move || {
            let loaded = *is_loaded.borrow();
            async move { if loaded { Ok(()) } else { Err("not loaded yet".to_owned()) } }
        }),
        admin::dependency("partitions", true, move || {
            let store = ahead.clone();
            async move { partitions::check(&store, Timestamp::now()).await }
        }),
        // Shown, not required: events are accepted without the broker and relayed later.
        admin::dependency("broker", false, move || {
            let up = link.is_up();
            async move { if up { Ok(()) } else { Err("not connected; events wait in the outbox".to_owned()) } }
        }),
    ]
}

/// The gateway as `main` sees it.
#[derive(Debug)]
pub struct GatewayService;

impl Service for GatewayService {
    const NAME: &'static str = "ingress-gateway";
    const PREFIX: &'static str = "INGRESS_GATEWAY";
    const DEFAULTS: &'static str = settings::DEFAULTS;
    type Settings = Settings;

    fn log(settings: &Settings) -> &telemetry::Settings {
        &settings.log
    }

    fn admin_port(settings: &Settings) -> u16 {
        settings.http.admin_port
    }

    fn grace(settings: &Settings) -> Duration {
        settings.grace()
    }

    async fn run(settings: Settings, stop: CancellationToken) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(bind(settings)?.run(stop).await?)
    }
}
