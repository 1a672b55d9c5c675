use std::collections::HashMap;
use std::net::SocketAddr;

use posthorn_process::{Service, settings, telemetry};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{Api, Broker, Database, Receiver, SEALING_KEYS, Stripe, contract, eventually, unique};

const OPERATOR_TOKEN: &str = "the-operators-token-in-tests";

/// What a service answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
    /// Null where the text is none.
    pub json: Value,
}

impl Answer {
    /// A header's text; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub(crate) fn media_type(&self) -> String {
        self.header("content-type").split(';').next().unwrap_or_default().trim().to_lowercase()
    }
}

/// The three services in this process, on a database and a broker of their own.
#[derive(Debug)]
pub struct World {
    pub database: Database,
    pub broker: Broker,
    client: Client,
    gateway: SocketAddr,
    dispatcher: SocketAddr,
    environment: HashMap<String, String>,
    stop: CancellationToken,
    services: Vec<JoinHandle<()>>,
}

impl World {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With further settings, as the environment would give them.
    pub async fn start_with(more: &[(&str, &str)]) -> Self {
        let (database, broker) = tokio::join!(Database::create(), Broker::create());
        let mut environment = environment(&database.url, &broker.url);
        environment.extend(more.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        log();
        let stop = CancellationToken::new();

        let gateway = ingress_gateway::bind(load::<ingress_gateway::GatewayService>(&environment)).expect("a gateway");
        let gateway_address = gateway.address().expect("an address");
        environment.insert("POSTHORN_GATEWAY_URL".to_owned(), format!("http://{gateway_address}"));
        let dispatcher = dispatcher::bind(load::<dispatcher::DispatcherService>(&environment)).expect("a dispatcher");
        let worker = delivery_worker::bind(load::<delivery_worker::DeliveryWorkerService>(&environment));
        let worker = worker.expect("a worker");
        let dispatcher_address = dispatcher.address().expect("an address");
        let services = vec![
            spawn(gateway.run(stop.clone())),
            spawn(dispatcher.run(stop.clone())),
            spawn(worker.run(stop.clone())),
        ];
        let client = Client::new();
        Self {
            database,
            broker,
            client,
            gateway: gateway_address,
            dispatcher: dispatcher_address,
            environment,
            stop,
            services,
        }
    }

    /// Starts one more delivery-worker.
    pub fn add_worker(&mut self) {
        let worker = delivery_worker::bind(load::<delivery_worker::DeliveryWorkerService>(&self.environment));
        self.services.push(spawn(worker.expect("a worker").run(self.stop.clone())));
    }

    pub fn api(&self) -> Api {
        Api::new(self.client.clone(), self.dispatcher, OPERATOR_TOKEN)
    }

    /// A new source as the API shows it. `body` is the request's.
    pub async fn source(&self, body: Value) -> Value {
        let source = self.api().post("/v1/sources", body).await;
        // 503 is that of a gateway which knows no source yet.
        eventually("the gateway knows the source", || async {
            let answer = self.knock(&source, "", &[], "").await;
            (![404, 503].contains(&answer.status)).then_some(())
        })
        .await;
        source
    }

    /// A POST to a source, or to `/{event}` below it.
    pub async fn knock(&self, source: &Value, event: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let url = source["url"].as_str().expect("a URL");
        let url = if event.is_empty() { url.to_owned() } else { format!("{url}/{event}") };
        let request = self.client.post(url).body(body.to_owned());
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        contract::exchange(request).await
    }

    pub async fn receiver(&self) -> Receiver {
        Receiver::start().await
    }

    /// An operator's source of Stripe events with this routing, and Stripe.
    pub async fn stripe(&self, routing: Value) -> Stripe {
        let secret = format!("whsec_{}", unique());
        let slug = format!("stripe-{}", unique());
        let source = json!({
            "slug": slug,
            "provider": "stripe",
            "routing": routing,
            "config": { "secrets": [secret] },
        });
        self.api().post("/v1/sources", source).await;
        let stripe =
            Stripe { client: self.client.clone(), url: format!("http://{}/webhooks/{slug}", self.gateway), secret };
        eventually("the gateway knows the source", || async {
            let (status, _) = stripe.post_signed("{}", "").await;
            (![404, 503].contains(&status)).then_some(())
        })
        .await;
        stripe
    }

    /// Stops the services as a signal would, and waits until they have.
    pub async fn stop(mut self) -> (Database, Broker) {
        self.stop.cancel();
        for service in std::mem::take(&mut self.services) {
            service.await.expect("a service that stops");
        }
        (self.database, self.broker)
    }
}

/// What the services log, for whoever sets `POSTHORN_TEST_LOG` to a filter.
fn log() {
    if let Ok(filter) = std::env::var("POSTHORN_TEST_LOG") {
        let settings = telemetry::Settings {
            format: telemetry::Format::Human,
            filter,
            errors_directory: String::new(),
            errors_files: 1,
            otlp_endpoint: String::new(),
        };
        std::mem::forget(telemetry::start("world", &settings));
    }
}

fn spawn<E: std::fmt::Debug + Send + 'static>(
    service: impl Future<Output = Result<(), E>> + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(async move { service.await.expect("a service that runs") })
}

fn load<S: Service>(environment: &HashMap<String, String>) -> S::Settings {
    settings::load(S::DEFAULTS, S::PREFIX, environment).expect("settings")
}

/// A gateway alone, whose database and broker are not there. Runs until the test ends.
pub async fn gateway_without_database() -> SocketAddr {
    // One provider for all TLS of the process. Fails only if it was set before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Nothing listens on the discard port.
    let environment = environment("postgres://nobody@127.0.0.1:9/nothing", "amqp://127.0.0.1:9");
    let gateway = ingress_gateway::bind(load::<ingress_gateway::GatewayService>(&environment)).expect("a gateway");
    let address = gateway.address().expect("an address");
    spawn(gateway.run(CancellationToken::new()));
    address
}

fn environment(database_url: &str, broker_url: &str) -> HashMap<String, String> {
    let mut environment: HashMap<String, String> = [
        ("POSTHORN_DATABASE_URL", database_url),
        ("POSTHORN_BROKER_URL", broker_url),
        ("POSTHORN_SEALING_KEYS", SEALING_KEYS),
        ("POSTHORN_OPERATOR_TOKEN", OPERATOR_TOKEN),
        ("POSTHORN_ALLOW_HTTP", "true"),
        ("POSTHORN_ALLOW_PRIVATE_NETWORKS", "true"),
        ("INGRESS_GATEWAY_LOG__ERRORS_DIRECTORY", ""),
        ("INGRESS_GATEWAY_HTTP__PORT", "0"),
        ("DISPATCHER_HTTP__PORT", "0"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    for service in ["INGRESS_GATEWAY", "DISPATCHER", "DELIVERY_WORKER"] {
        environment.insert(format!("{service}_HTTP__HOST"), "127.0.0.1".to_owned());
        environment.insert(format!("{service}_HTTP__ADMIN_PORT"), "0".to_owned());
    }
    environment
}
