//! The delivery-worker: sends signed webhooks and records what came of them.
//!
//! A message is a wake-up that names a row, a generation and an attempt. Only the first attempt of a
//! fresh delivery is made without asking the row; all others claim it first, so that of several
//! messages for one attempt only one is obeyed. What was sent is recorded before its message is
//! settled.

mod deliver;
pub mod error;
mod in_hand;
mod lanes;
mod pulse;
mod recorder;
mod routes;
pub mod settings;
mod slots;

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use posthorn_bus::{Consumer, Gate, Handler, Link, topology};
use posthorn_core::egress::Egress;
use posthorn_core::id::EventId;
use posthorn_process::sender::Sender;
use posthorn_process::{Service, admin, http, telemetry};
use posthorn_store::Store;
use posthorn_store::events::Content;
use posthorn_store::seal::Sealer;
use posthorn_store::snapshot::Subscriptions;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::RunError;
use crate::settings::Settings;

/// How often the snapshot is loaded anew, in case a notification was missed.
const RELOAD: Duration = Duration::from_secs(20);

/// What handlers work with.
struct Worker {
    settings: Settings,
    store: Store,
    subscriptions: Subscriptions,
    lanes: lanes::Lanes,
    slots: slots::Slots,
    in_hand: in_hand::InHand,
    pulse: pulse::Pulse,
    sender: Sender,
    recorder: recorder::Recorder,
    /// By event; `None` is remembered too.
    contents: Cache<EventId, Option<Arc<Content>>>,
}

/// A worker that has bound its port.
pub struct Bound {
    settings: Settings,
    store: Store,
    sender: Sender,
    admin: std::net::TcpListener,
}

/// Reads the settings and binds; takes no work yet.
pub fn bind(settings: Settings) -> Result<Bound, RunError> {
    let sealer = Sealer::parse(&settings.sealing_keys)?;
    let store = Store::new(&settings.database, sealer).map_err(RunError::Database)?;
    settings.broker.check().map_err(RunError::Broker)?;
    let sender = Sender::new(&settings.sender, Egress::from(&settings.endpoints))?;
    let admin = http::bind(&settings.http.host, settings.http.admin_port)?;
    Ok(Bound { settings, store, sender, admin })
}

impl Bound {
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Delivers until `stop`, then finishes what is in hand.
    pub async fn run(self, stop: CancellationToken) -> Result<(), RunError> {
        let Self { settings, store, sender, admin } = self;
        let tasks = TaskTracker::new();
        let background = CancellationToken::new();
        let subscriptions = Subscriptions::default();
        let (loaded, is_loaded) = watch::channel(false);
        tasks.spawn(subscriptions.clone().follow(store.clone(), RELOAD, loaded, background.clone()));
        let upkeep = tokio::spawn(telemetry::upkeep());
        let consuming = Link::default();
        let dependencies = routes::dependencies(&store, &consuming, is_loaded.clone());
        let admin_stop = CancellationToken::new();
        let health = tokio::spawn(admin::serve(admin, dependencies, admin_stop.clone())?);

        let (pulse, feeling) = pulse::Pulse::of(store.clone(), background.clone());
        tasks.spawn(feeling);
        let worker = Arc::new(Worker {
            recorder: recorder::Recorder::start(&settings, &store, &subscriptions, &tasks, stop.clone()),
            contents: Cache::builder()
                .max_capacity(settings.delivery.body_cache_bytes)
                .weigher(|_, content: &Option<Arc<Content>>| {
                    let bytes = content.as_ref().map_or(0, |content| content.body.len());
                    u32::try_from(bytes + 512).unwrap_or(u32::MAX)
                })
                .time_to_live(Duration::from_secs(60))
                .build(),
            lanes: lanes::Lanes::default(),
            slots: slots::Slots::new(settings.delivery.share()),
            in_hand: in_hand::InHand::default(),
            pulse,
            subscriptions,
            sender,
            store: store.clone(),
            settings: settings.clone(),
        });
        let consumers = consumers(&worker);
        let gate = gate(store, is_loaded);
        posthorn_bus::consume(settings.broker, DeliveryWorkerService::NAME, consumers, gate, consuming, stop).await;

        drop(worker);
        background.cancel();
        tasks.close();
        tasks.wait().await;
        admin_stop.cancel();
        let _ = health.await;
        upkeep.abort();
        Ok(())
    }
}

fn consumers(worker: &Arc<Worker>) -> Vec<Consumer> {
    let worker = Arc::clone(worker);
    let prefetch = worker.settings.delivery.prefetch;
    let handler: Handler = Arc::new(move |message| Box::pin(deliver::deliver(Arc::clone(&worker), message)));
    (0..topology::SHARDS)
        .map(|shard| Consumer { queue: topology::deliveries_queue(shard), prefetch, handler: Arc::clone(&handler) })
        .collect()
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

/// The worker as `main` sees it.
#[derive(Debug)]
pub struct DeliveryWorkerService;

impl Service for DeliveryWorkerService {
    const NAME: &'static str = "delivery-worker";
    const PREFIX: &'static str = "DELIVERY_WORKER";
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
