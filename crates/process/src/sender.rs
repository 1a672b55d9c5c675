//! One attempt: sign the exact bytes, POST them, read the answer within its bounds.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use moka::future::Cache;
use posthorn_core::egress::Egress;
use posthorn_core::envelope::{self, Payload, Rendered};
use posthorn_core::id::{EventId, SubscriptionId};
use posthorn_core::outcome::{Attempted, Fault, NoAnswer, classify, error_code};
use posthorn_core::redact;
use posthorn_core::request::Headers;
use posthorn_core::signing;
use posthorn_core::subscription::{self, Subscription};
use posthorn_core::tls::Version;
use reqwest::dns::Resolve;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rustls::ClientConfig;
use rustls::client::Resumption;
use secrecy::SecretString;
use serde::Deserialize;

use crate::dialled::{self, Noted};
use crate::egress::{self, ProxyUrl, ResolveError, SystemResolver};
use crate::keys::SetUpError;
use crate::{telemetry, tls};

/// How attempts are made.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Bytes read of an answer.
    pub max_response_bytes: usize,
    /// Longest wait for a connection, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Idle connections kept for each host.
    pub idle_connections: usize,
    /// How long an idle connection is kept, in seconds.
    pub idle_seconds: u64,
    /// Subscriptions with TLS of their own whose clients are kept.
    pub tls_clients: u64,
    /// An HTTP proxy for deliveries, such as `http://proxy:3128`; empty goes directly. Its password is never logged.
    pub proxy_url: ProxyUrl,
}

/// Characters of an answer that are kept.
const KEPT_CHARS: usize = 1000;

const USER_AGENT: &str = concat!("Posthorn/", env!("CARGO_PKG_VERSION"));

/// Sends. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    way: Arc<Way>,
    clients: Clients,
    /// For subscriptions with TLS of their own: connections are shared with nobody.
    own_clients: Cache<(SubscriptionId, Version), Clients>,
}

/// The clients of one kind of TLS.
#[derive(Clone)]
struct Clients {
    /// Keeps connections.
    usual: reqwest::Client,
    /// Makes a connection for each request.
    fresh: reqwest::Client,
}

/// How all clients go out.
struct Way {
    settings: Settings,
    egress: Egress,
    resolver: Arc<dyn Resolve>,
}

/// What to send, and for whom.
#[derive(Clone, Copy, Debug)]
pub struct Shipment<'a> {
    pub event_id: EventId,
    pub subscription: &'a Subscription,
    /// Newest first; all of them sign.
    pub secrets: &'a [SecretString],
    pub payload: Payload<'a>,
    pub traceparent: &'a str,
    /// A test: the receiver is told.
    pub is_test: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Answered {
    pub attempted: Attempted,
    pub started_at: Timestamp,
    pub took: Duration,
    pub status: Option<u16>,
    /// A code, then a sentence.
    pub error: Option<(&'static str, String)>,
    /// The first 1000 characters.
    pub response: Option<String>,
    pub response_headers: Option<serde_json::Value>,
    pub request_headers: serde_json::Value,
}

impl Sender {
    pub fn new(settings: &Settings, egress: Egress) -> Result<Self, SetUpError> {
        Self::resolving_by(Arc::new(SystemResolver), settings, egress)
    }

    /// One that asks `resolver` for the addresses of names.
    pub fn resolving_by(resolver: Arc<dyn Resolve>, settings: &Settings, egress: Egress) -> Result<Self, SetUpError> {
        let mut tls = tls::client_config()?;
        // Many hosts: the default of 256 would make most connections start with a full handshake.
        tls.resumption = Resumption::in_memory_sessions(4096);
        let way = Way { settings: settings.clone(), egress, resolver };
        Ok(Self { clients: way.clients(&tls)?, own_clients: Cache::new(settings.tls_clients), way: Arc::new(way) })
    }

    /// Makes one attempt, which ends within the subscription's timeout.
    pub async fn send(&self, shipment: &Shipment<'_>) -> Answered {
        let rendered = envelope::render(shipment.subscription.payload_format, &shipment.payload);
        let started_at = Timestamp::now();
        let headers = headers(shipment, &rendered, started_at);
        let body = rendered.body;
        let request_headers = visible_request(&headers).into();
        let began = Instant::now();
        let exchange =
            tokio::time::timeout(shipment.subscription.timeout, self.exchange(shipment, headers, body)).await;
        let took = began.elapsed();
        let unanswered = |reason: NoAnswer, detail: String| Answered {
            attempted: Attempted::Failed(Fault::NoAnswer(reason)),
            started_at,
            took,
            status: None,
            error: Some((reason.as_str(), detail)),
            response: None,
            response_headers: None,
            request_headers: serde_json::Value::Null,
        };
        let answered = match exchange {
            Err(_) => {
                let seconds = shipment.subscription.timeout.as_secs();
                unanswered(NoAnswer::Timeout, format!("no complete answer within {seconds} s"))
            }
            Ok(Err((reason, detail))) => unanswered(reason, detail),
            Ok(Ok(answer)) => answer.judged(started_at, took),
        };
        Answered { request_headers, ..answered }
    }

    async fn exchange(
        &self,
        shipment: &Shipment<'_>,
        headers: HeaderMap,
        body: bytes::Bytes,
    ) -> Result<Answer, (NoAnswer, String)> {
        let endpoint = &shipment.subscription.endpoint;
        // Also for names: whether plain http is allowed, and what is local by name.
        endpoint.permit(&self.way.egress).map_err(|refused| (NoAnswer::Address, chain(&refused)))?;
        let clients = self.clients_of(shipment.subscription).await?;
        let request = |client: &reqwest::Client| {
            client.post(endpoint.as_url().clone()).headers(headers.clone()).body(body.clone()).send()
        };
        let mut response = match dialled::noted(request(&clients.usual)).await {
            (Ok(response), _) => response,
            (Err(error), is_new) if dialled::is_unprocessed(&error, is_new) => {
                metrics::counter!("posthorn_attempts_reconnected_total").increment(1);
                request(&clients.fresh).await.map_err(|error| self.no_answer(&error))?
            }
            (Err(error), _) => return Err(self.no_answer(&error)),
        };
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        let mut body = Vec::new();
        let max_bytes = self.way.settings.max_response_bytes;
        while body.len() < max_bytes {
            match response.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(error) => return Err(self.no_answer(&error)),
            }
        }
        body.truncate(max_bytes);
        Ok(Answer { status, headers, body })
    }

    async fn clients_of(&self, subscription: &Subscription) -> Result<Clients, (NoAnswer, String)> {
        let Some(own) = &subscription.tls else { return Ok(self.clients.clone()) };
        let building = async { self.way.clients(&tls::client_config_for(own)?) };
        let clients = self.own_clients.try_get_with((subscription.id, own.version()), building).await;
        clients.map_err(|error: Arc<SetUpError>| (NoAnswer::Tls, chain(&*error)))
    }

    fn no_answer(&self, error: &reqwest::Error) -> (NoAnswer, String) {
        let (reason, detail) = no_answer(error);
        match reason {
            // It is the proxy that refuses, or whose name is not known; the endpoint was not asked.
            NoAnswer::Refused | NoAnswer::Dns if self.way.settings.proxy_url.is_given() => (NoAnswer::Connect, detail),
            _ => (reason, detail),
        }
    }
}

impl Way {
    fn clients(&self, tls: &ClientConfig) -> Result<Clients, SetUpError> {
        let usual = self.client(tls.clone(), self.settings.idle_connections)?;
        Ok(Clients { usual, fresh: self.client(tls.clone(), 0)? })
    }

    /// Nothing is followed, since the signature is for the endpoint that the tenant named; and an attempt is one
    /// request, since the retry policy is the subscription's.
    fn client(&self, tls: ClientConfig, idle_connections: usize) -> Result<reqwest::Client, SetUpError> {
        /// Header lines of an answer that are read; most servers take that many themselves.
        const MAX_HEADERS: usize = 1000;
        let client = egress::client(&self.settings.proxy_url, &self.egress, Arc::clone(&self.resolver))?
            .tls_backend_preconfigured(tls)
            .connector_layer(Noted)
            // Answers of old servers: RFC 9112 §5.2 has a user agent read folded lines, §5.1 a proxy remove such blanks.
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .http1_allow_spaces_after_header_name_in_responses(true)
            .http1_max_headers(MAX_HEADERS)
            .connect_timeout(Duration::from_millis(self.settings.connect_timeout_ms))
            .pool_max_idle_per_host(idle_connections)
            .pool_idle_timeout(Duration::from_secs(self.settings.idle_seconds));
        Ok(client.build()?)
    }
}

/// A complete answer, or its first part.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn judged(self, started_at: Timestamp, took: Duration) -> Answered {
        let retry_after = self.headers.get("retry-after").and_then(|value| value.to_str().ok());
        let attempted = classify(self.status, retry_after, Timestamp::now());
        let error = match &attempted {
            Attempted::Accepted => None,
            Attempted::Failed(fault) => Some((error_code(fault), format!("the endpoint answered {}", self.status))),
        };
        let text = String::from_utf8_lossy(&self.body);
        Answered {
            attempted,
            started_at,
            took,
            status: Some(self.status),
            error,
            // PostgreSQL keeps no NUL in text.
            response: Some(text.chars().take(KEPT_CHARS).filter(|c| *c != '\0').collect()),
            response_headers: Some(visible(&self.headers).into()),
            request_headers: serde_json::Value::Null,
        }
    }
}

fn headers(shipment: &Shipment<'_>, rendered: &Rendered, now: Timestamp) -> HeaderMap {
    let subscription = shipment.subscription;
    let id = shipment.event_id.to_string();
    let mut headers: HeaderMap = subscription.headers.iter().filter_map(|(name, value)| own(name, value)).collect();
    let mut put = |name: &str, value: &str| {
        // They are Posthorn's own, or were checked when the subscription was made.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    };
    put("content-type", &rendered.content_type);
    if !rendered.content_encoding.is_empty() {
        put("content-encoding", &rendered.content_encoding);
    }
    put("user-agent", USER_AGENT);
    put("webhook-id", &id);
    put("webhook-timestamp", &now.as_second().to_string());
    for (name, value) in
        signing::headers(&subscription.signatures, shipment.secrets, &id, now.as_second(), &rendered.body)
    {
        put(&name, &value);
    }
    put("traceparent", shipment.traceparent);
    if shipment.is_test {
        put("webhook-test", "true");
    }
    headers
}

/// A header of the subscription's own, marked as sensitive where it is a secret. The API checked both parts.
fn own(name: &str, value: &subscription::HeaderValue) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::try_from(name).ok()?;
    let mut text = HeaderValue::from_str(value.expose()).ok()?;
    text.set_sensitive(matches!(value, subscription::HeaderValue::Secret(_)));
    Some((name, text))
}

/// The headers of a request without the values of those that are sensitive or look like credentials.
fn visible_request(headers: &HeaderMap) -> serde_json::Map<String, serde_json::Value> {
    let is_secret = |name: &str, value: &HeaderValue| {
        value.is_sensitive() || redact::is_secret_header(name, &String::from_utf8_lossy(value.as_bytes()))
    };
    let secret = headers.iter().filter(|(name, value)| is_secret(name.as_str(), value));
    let secret: Vec<String> = secret.map(|(name, _)| name.to_string()).collect();
    redact::visible_but(&readable(headers), &secret)
}

fn visible(headers: &HeaderMap) -> serde_json::Map<String, serde_json::Value> {
    redact::visible(&readable(headers))
}

/// The first hundred headers, each cut to what is kept.
fn readable(headers: &HeaderMap) -> Headers {
    headers
        .iter()
        .take(100)
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            (name.as_str(), value.chars().take(KEPT_CHARS).collect::<String>())
        })
        .collect()
}

/// Why there was no answer, from the chain of causes.
fn no_answer(error: &reqwest::Error) -> (NoAnswer, String) {
    let mut reason = if error.is_timeout() {
        NoAnswer::Timeout
    } else if error.is_connect() {
        NoAnswer::Connect
    } else {
        NoAnswer::Protocol
    };
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(inner) = cause {
        if let Some(resolve) = inner.downcast_ref::<ResolveError>() {
            reason = match resolve {
                ResolveError::Refused(_) | ResolveError::PastProxy => NoAnswer::Address,
                ResolveError::Dns(_) | ResolveError::Empty => NoAnswer::Dns,
            };
        } else if is_tls(inner) {
            reason = NoAnswer::Tls;
        } else if reason == NoAnswer::Connect && is_refusal(inner) {
            reason = NoAnswer::Refused;
        }
        cause = inner.source();
    }
    // The URL may carry a token in its query.
    let detail = error.source().map_or_else(|| error.to_string(), chain);
    (reason, detail)
}

/// rustls tells of its errors inside of I/O errors, and the client puts those into I/O errors again. None
/// of them names what it holds as its source.
fn is_tls(error: &(dyn Error + 'static)) -> bool {
    let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>() || held.is_some_and(|held| is_tls(held))
}

fn is_refusal(error: &(dyn Error + 'static)) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// PostgreSQL keeps no NUL in text.
fn chain(error: &(dyn Error + 'static)) -> String {
    telemetry::chain(error).replace('\0', "")
}
