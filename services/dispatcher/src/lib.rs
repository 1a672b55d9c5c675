//! The dispatcher: fans events out to subscriptions, turns due rows into messages, files dead
//! letters, keeps the record tidy, and serves the management API.
//!
//! Everything here may run in several replicas: rows are taken with `SKIP LOCKED`, ids are derived,
//! and whatever one replica leaves half done another finishes.

mod api;
mod clerk;
mod contract;
mod cors;
mod dispatch;
pub mod error;
mod fan_out;
mod janitor;
mod replay;
mod routes;
mod scheduler;
pub mod settings;
mod warden;

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::middleware::{Condition, from_fn};
use actix_web::{App, HttpServer, web};
use jiff::Timestamp;
use moka::future::Cache;
use posthorn_bus::{Consumer, Gate, Handler, Link, Publisher, topology};
use posthorn_core::egress::Egress;
use posthorn_process::http::LoggedRequestSpan;
use posthorn_process::keys::{self, Keys};
use posthorn_process::sender::Sender;
use posthorn_process::{Service, admin, http, problem, telemetry, tls};
use posthorn_store::seal::Sealer;
use posthorn_store::snapshot::Subscriptions;
use posthorn_store::{Store, partitions};
use reqwest::redirect::Policy;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_actix_web::TracingLogger;

use crate::cors::Origins;
use crate::error::RunError;
use crate::settings::Settings;

/// How often the snapshot is loaded anew, in case a notification was missed.
const RELOAD: Duration = Duration::from_secs(20);

/// Longest wait for the gateway's answer to a test.
const GATEWAY_TIMEOUT: Duration = Duration::from_secs(10);

/// What the management API goes out with.
struct Clients {
    keys: Keys,
    gateway: reqwest::Client,
    sender: Sender,
}

/// A dispatcher that has bound its ports.
pub struct Bound {
    settings: Settings,
    store: Store,
    clients: Clients,
    origins: Origins,
    listener: std::net::TcpListener,
    admin: std::net::TcpListener,
}

/// Reads the settings and binds; takes no work yet.
pub fn bind(settings: Settings) -> Result<Bound, RunError> {
    let sealer = Sealer::parse(&settings.sealing_keys)?;
    let store = Store::new(&settings.database, sealer).map_err(RunError::Database)?;
    settings.broker.check().map_err(RunError::Broker)?;
    if operator_tokens(&settings).iter().any(|token| token.expose_secret().len() < 20) {
        return Err(RunError::WeakToken);
    }
    if settings.janitor.keep_dedup_days < 4 {
        return Err(RunError::DedupTooShort);
    }
    let origins = Origins::parse(&settings.api.allowed_origins)?;
    let listener = http::bind(&settings.http.host, settings.http.port)?;
    let admin = http::bind(&settings.http.host, settings.http.admin_port)?;
    let egress = Egress::from(&settings.endpoints);
    let clients = Clients {
        keys: Keys::new(&settings.keys, egress.clone())?,
        gateway: gateway_client()?,
        sender: Sender::new(&settings.sender, egress)?,
    };
    Ok(Bound { settings, store, clients, origins, listener, admin })
}

impl Bound {
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Works until `stop`, then finishes what is in hand.
    pub async fn run(self, stop: CancellationToken) -> Result<(), RunError> {
        let Self { settings, store, clients, origins, listener, admin } = self;
        let tasks = TaskTracker::new();
        let background = CancellationToken::new();
        let subscriptions = Subscriptions::default();
        let (loaded, is_loaded) = watch::channel(false);
        tasks.spawn(subscriptions.clone().follow(store.clone(), RELOAD, loaded, background.clone()));
        let (publisher, publishing) = posthorn_bus::publisher(settings.broker.clone(), DispatcherService::NAME);
        let publishing = tokio::spawn(publishing);
        let upkeep = tokio::spawn(telemetry::upkeep());
        let consuming = Link::default();
        let dependencies = dependencies(&store, &publisher, &consuming, is_loaded.clone());
        let admin_stop = CancellationToken::new();
        let health = tokio::spawn(admin::serve(admin, dependencies, admin_stop.clone())?);

        let scheduler = scheduler::Scheduler {
            settings: settings.scheduler.clone(),
            queue_lease: Duration::from_secs(settings.fan_out.queue_lease_seconds),
            max_ahead: settings.fan_out.max_ahead,
            store: store.clone(),
            publisher: publisher.clone(),
        };
        let scheduling = tokio::spawn(scheduler.run(stop.clone()));
        let replayer = replay::Replayer {
            settings: settings.replay.clone(),
            store: store.clone(),
            subscriptions: subscriptions.clone(),
        };
        let replaying = tokio::spawn(replayer.clone().run(stop.clone()));
        let clerk = clerk::Clerk { store: store.clone(), subscriptions: subscriptions.clone() };
        let cleaning = tokio::spawn(janitor::run(settings.janitor.clone(), clerk.clone(), stop.clone()));
        let watching = tokio::spawn(warden::run(settings.warden.clone(), store.clone(), stop.clone()));
        let fan_out = fan_out::FanOut::start(&settings.fan_out, &store, subscriptions, publisher.clone(), &tasks);
        let consumers = vec![events_consumer(&settings, fan_out), dead_consumer(&settings, clerk)];
        let gate = gate(store.clone(), is_loaded);
        let consumption = tokio::spawn({
            let (broker, stop) = (settings.broker.clone(), stop.clone());
            async move {
                posthorn_bus::consume(broker, DispatcherService::NAME, consumers, gate, consuming, stop).await;
            }
        });

        serve(&settings, clients, origins, replayer, listener, stop)?.await?;
        // Each of these ends by itself after the signal; a panic in one was logged where it happened.
        let _ = tokio::join!(scheduling, replaying, cleaning, watching, consumption);
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

/// At least one: an empty setting is one that is too short.
fn operator_tokens(settings: &Settings) -> Vec<SecretString> {
    settings.operator_token.expose_secret().split(',').map(|token| token.trim().into()).collect()
}

/// The operator says where the gateway is, so it may be anywhere.
fn gateway_client() -> Result<reqwest::Client, RunError> {
    let tls = tls::client_config().map_err(keys::SetUpError::from)?;
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).redirect(Policy::none()).no_proxy();
    Ok(client.timeout(GATEWAY_TIMEOUT).build()?)
}

fn serve(
    settings: &Settings,
    clients: Clients,
    origins: Origins,
    replayer: replay::Replayer,
    listener: std::net::TcpListener,
    stop: CancellationToken,
) -> std::io::Result<Server> {
    let api = web::Data::new(api::Api {
        store: replayer.store.clone(),
        egress: Egress::from(&settings.endpoints),
        gateway_internal_url: match settings.gateway_internal_url.as_str() {
            "" => settings.gateway_url.clone(),
            url => url.to_owned(),
        },
        gateway_url: settings.gateway_url.clone(),
        gateway: clients.gateway,
        keys: clients.keys,
        subscriptions: replayer.subscriptions.clone(),
        replayer,
        disable_after: settings.warden.disable_after(),
        sender: clients.sender,
        tests: Semaphore::new(settings.api.tests_in_flight),
        keep_dedup: Duration::from_secs(settings.janitor.keep_dedup_days.unsigned_abs() * 86_400),
        rates: api::rates::KeyRates::new(settings.api.key_requests_per_second, settings.api.key_cache_entries),
        operator_tokens: operator_tokens(settings),
        max_body_bytes: settings.api.max_body_bytes,
        known_keys: Cache::builder()
            .max_capacity(settings.api.key_cache_entries)
            .time_to_live(Duration::from_secs(settings.api.key_cache_seconds))
            .build(),
    });
    let server = HttpServer::new(move || {
        App::new()
            .app_data(api.clone())
            .wrap(from_fn(api::rates::tell))
            .wrap(from_fn(problem::finish))
            .wrap(Condition::new(origins.lets_any_in(), origins.middleware()))
            .wrap(TracingLogger::<LoggedRequestSpan>::new())
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
    Ok(server)
}

fn events_consumer(settings: &Settings, fan_out: Arc<fan_out::FanOut>) -> Consumer {
    let handler: Handler = Arc::new(move |message| Box::pin(Arc::clone(&fan_out).handle(message)));
    Consumer { queue: topology::EVENTS_QUEUE.to_owned(), prefetch: settings.fan_out.prefetch, handler }
}

fn dead_consumer(settings: &Settings, clerk: clerk::Clerk) -> Consumer {
    let handler: Handler = Arc::new(move |message| Box::pin(clerk.clone().handle(message)));
    Consumer { queue: topology::DEAD_QUEUE.to_owned(), prefetch: settings.clerk.prefetch, handler }
}

/// Opens once the subscriptions are known and the database answers.
fn gate(store: Store, is_loaded: watch::Receiver<bool>) -> Gate {
    Arc::new(move || {
        let (store, mut is_loaded) = (store.clone(), is_loaded.clone());
        Box::pin(async move {
            // Fails only when the process ends.
            let _ = is_loaded.wait_for(|loaded| *loaded).await;
            store.recovered().await;
        })
    })
}

fn dependencies(
    store: &Store,
    publisher: &Publisher,
    consuming: &Link,
    is_loaded: watch::Receiver<bool>,
) -> Vec<admin::Dependency> {
    let (db, ahead) = (store.clone(), store.clone());
    let (publishing, consuming) = (publisher.link().clone(), consuming.clone());
    vec![
        admin::dependency("database", true, move || {
            let store = db.clone();
            async move { store.ping().await.map_err(|error| error.to_string()) }
        }),
        admin::dependency("subscriptions", true, move || {
            let loaded = *is_loaded.borrow();
            async move { if loaded { Ok(()) } else { Err("not loaded yet".to_owned()) } }
        }),
        admin::dependency("partitions", true, move || {
            let store = ahead.clone();
            async move { partitions::check(&store, Timestamp::now()).await }
        }),
        // Shown, not required: the API answers without the broker.
        admin::dependency("broker", false, move || {
            let up = publishing.is_up() && consuming.is_up();
            async move { if up { Ok(()) } else { Err("not connected; deliveries wait".to_owned()) } }
        }),
    ]
}

/// The dispatcher as `main` sees it.
#[derive(Debug)]
pub struct DispatcherService;

impl Service for DispatcherService {
    const NAME: &'static str = "dispatcher";
    const PREFIX: &'static str = "DISPATCHER";
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
