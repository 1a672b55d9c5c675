//! `posthorn bench`: how much goes through, from a signed request to its delivery.
//!
//! It is the provider and the receiver at once: it sends signed events over a number of connections
//! and counts them at its own endpoint, so what it tells includes everything in between.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::web::{self, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use clap::Args;
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::json;
use tokio::sync::Notify;

use crate::api::{Api, client};
use crate::error::CliError;
use crate::say;
use crate::send::{new_id, stripe_event, stripe_signature};

#[derive(Debug, Args)]
pub struct Bench {
    #[command(flatten)]
    api: Api,
    /// The gateway's URL.
    #[arg(long, env = "POSTHORN_GATEWAY_URL", default_value = "http://127.0.0.1:8080")]
    gateway_url: String,
    /// Events to send.
    #[arg(long, default_value_t = 10_000)]
    events: usize,
    /// Subscriptions that each event goes to.
    #[arg(long, default_value_t = 1)]
    fan_out: usize,
    /// Requests under way at the same time; 1 measures latency at idle.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Roughly the size of an event, in bytes.
    #[arg(long, default_value_t = 1024)]
    bytes: usize,
    /// The port of the receiver that this command is.
    #[arg(long, default_value_t = 8098)]
    port: u16,
    /// Attempts at the same time for each subscription.
    #[arg(long, default_value_t = 32)]
    max_in_flight: u32,
}

/// What arrived, and when.
#[derive(Debug, Default)]
struct Arrivals {
    by_event: Mutex<HashMap<String, Vec<Instant>>>,
    news: Notify,
}

impl Bench {
    pub async fn run(self) -> Result<(), CliError> {
        let arrivals = Arc::new(Arrivals::default());
        let receiver = self.receiver(&arrivals)?;
        let handle = receiver.handle();
        let receiving = tokio::spawn(receiver);
        let mut made = Vec::new();
        let measured = tokio::select! {
            measured = self.measure(&arrivals, &mut made) => measured,
            _ = tokio::signal::ctrl_c() => Err(CliError::Interrupted),
        };
        handle.stop(false).await;
        let _ = receiving.await;
        // However it ended, nothing of it stays behind. Tenants come last, since their keys and subscriptions go with them.
        for path in made.iter().rev() {
            self.api.delete(path).await?;
        }
        measured
    }

    /// `made` gets the paths of all that it makes.
    async fn measure(&self, arrivals: &Arrivals, made: &mut Vec<String>) -> Result<(), CliError> {
        let secret: SecretString = new_id("whsec").into();
        let slug = self.prepare(&secret, made).await?;
        let began = Instant::now();
        let sent = self.send(&secret, &slug).await?;
        let accepted_in = began.elapsed();
        let missing = self.wait(arrivals, &sent).await;
        let delivered_in = began.elapsed();
        self.tell(&sent, arrivals, accepted_in, delivered_in);
        if missing == 0 { Ok(()) } else { Err(CliError::NotArrived(missing)) }
    }

    fn receiver(&self, arrivals: &Arc<Arrivals>) -> Result<actix_web::dev::Server, CliError> {
        let listener = posthorn_process::http::bind("127.0.0.1", self.port)?;
        let arrivals = Data::from(Arc::clone(arrivals));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(arrivals.clone())
                .app_data(web::PayloadConfig::new(8 << 20))
                .default_service(web::to(arrive))
        });
        Ok(server.workers(1).disable_signals().listen(listener)?.run())
    }

    /// A tenant, a source and subscriptions of this run's own. Returns the source's slug.
    async fn prepare(&self, secret: &SecretString, made: &mut Vec<String>) -> Result<String, CliError> {
        use secrecy::ExposeSecret as _;
        let name = new_id("bench");
        let tenant = self.api.post("/v1/tenants", &json!({ "name": name })).await?;
        let tenant = tenant["id"].as_str().unwrap_or_default();
        made.push(format!("/v1/tenants/{tenant}"));
        let slug = name.replace('_', "-");
        let source = json!({
            "slug": slug,
            "provider": "stripe",
            "routing": { "kind": "tenant", "tenant_id": tenant },
            "config": { "secrets": [secret.expose_secret()] },
        });
        let source = self.api.post("/v1/sources", &source).await?;
        made.push(format!("/v1/sources/{}", source["id"].as_str().unwrap_or_default()));
        for number in 0..self.fan_out {
            let subscription = json!({
                "tenant_id": tenant,
                "url": format!("http://127.0.0.1:{}/{number}", self.port),
                "event_types": ["bench.event"],
                "max_in_flight": self.max_in_flight,
            });
            self.api.post("/v1/subscriptions", &subscription).await?;
        }
        // A change holds in every replica within a second.
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(slug)
    }

    /// Sends everything; returns when each event was sent and accepted, by its id.
    async fn send(&self, secret: &SecretString, slug: &str) -> Result<HashMap<String, (Instant, Duration)>, CliError> {
        let client = client()?;
        let url = format!("{}/webhooks/{slug}", self.gateway_url.trim_end_matches('/'));
        let padding = "x".repeat(self.bytes.saturating_sub(260));
        let sending = (0..self.events).map(|_| {
            let (client, url, padding) = (client.clone(), url.clone(), padding.as_str());
            async move {
                let now = Timestamp::now().as_second();
                let body = stripe_event("bench.event", json!({ "padding": padding }), now).to_string();
                let signature = stripe_signature(secret, now, &body);
                let began = Instant::now();
                let request = client.post(url).header("stripe-signature", signature).body(body);
                let answer = crate::api::answer(request.send().await?).await?;
                let id = answer["event_id"].as_str().unwrap_or_default().to_owned();
                Ok::<_, CliError>((id, (began, began.elapsed())))
            }
        });
        let sent: Vec<_> = stream::iter(sending).buffer_unordered(self.connections).collect().await;
        sent.into_iter().collect()
    }

    /// Waits until every event arrived at every subscription, or nothing came for 30 s. Returns how
    /// many did not.
    async fn wait(&self, arrivals: &Arrivals, sent: &HashMap<String, (Instant, Duration)>) -> usize {
        loop {
            let news = arrivals.news.notified();
            let missing = {
                let by_event = arrivals.by_event.lock().unwrap_or_else(PoisonError::into_inner);
                let arrived = |id: &String| by_event.get(id).is_some_and(|all| all.len() >= self.fan_out);
                sent.keys().filter(|id| !arrived(id)).count()
            };
            if missing == 0 {
                return 0;
            }
            // With thousands missing, counting after each arrival would take longer than the deliveries.
            let pause = Duration::from_millis(if missing > 100 { 50 } else { 0 });
            tokio::time::sleep(pause).await;
            if tokio::time::timeout(Duration::from_secs(30), news).await.is_err() {
                return missing;
            }
        }
    }

    fn tell(
        &self,
        sent: &HashMap<String, (Instant, Duration)>,
        arrivals: &Arrivals,
        accepted_in: Duration,
        delivered_in: Duration,
    ) {
        let by_event = arrivals.by_event.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answers: Vec<Duration> = sent.values().map(|(_, took)| *took).collect();
        let mut travels: Vec<Duration> = Vec::new();
        let mut repeats = 0;
        for (id, (began, _)) in sent {
            let arrived = by_event.get(id).map(Vec::as_slice).unwrap_or_default();
            travels.extend(arrived.iter().map(|at| at.duration_since(*began)));
            repeats += arrived.len().saturating_sub(self.fan_out);
        }
        let deliveries = travels.len();
        let rate = |count: usize, took: Duration| count as f64 / took.as_secs_f64();
        say(format_args!(
            "events     {} accepted in {accepted_in:.2?}: {:.0}/s",
            sent.len(),
            rate(sent.len(), accepted_in)
        ));
        say(format_args!(
            "deliveries {deliveries} made in {delivered_in:.2?}: {:.0}/s, {repeats} repeated",
            rate(deliveries, delivered_in)
        ));
        say(format_args!("answer     {}", percentiles(&mut answers)));
        say(format_args!("arrival    {}", percentiles(&mut travels)));
    }
}

async fn arrive(arrivals: Data<Arrivals>, request: HttpRequest, _body: web::Bytes) -> HttpResponse {
    let id = request.headers().get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    arrivals.by_event.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default().push(Instant::now());
    arrivals.news.notify_waiters();
    HttpResponse::Ok().finish()
}

fn percentiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |share: f64| {
        let index = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
        times.get(index).copied().unwrap_or_default()
    };
    format!("p50 {:.1?}  p99 {:.1?}  max {:.1?}", at(0.5), at(0.99), at(1.0))
}
