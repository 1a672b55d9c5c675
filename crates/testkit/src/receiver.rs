use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use jiff::Timestamp;
use posthorn_core::request::Headers;
use tokio::sync::Notify;

use crate::eventually;

/// A tenant's endpoint that remembers what came and answers as it is told.
#[derive(Clone, Debug)]
pub struct Receiver {
    address: std::net::SocketAddr,
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    received: Mutex<Vec<Received>>,
    /// What to answer, in order; the last one again and again.
    script: Mutex<Vec<u16>>,
    headers: Mutex<HashMap<String, String>>,
    delay: Mutex<Duration>,
    news: Notify,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Received {
    pub path: String,
    pub headers: Headers,
    pub body: Bytes,
    pub at: Timestamp,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_default()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let inner = Arc::new(Inner { script: Mutex::new(vec![200]), ..Inner::default() });
        let data = Data::from(Arc::clone(&inner));
        let app = move || {
            let largest = web::PayloadConfig::new(8 << 20);
            App::new().app_data(data.clone()).app_data(largest).default_service(web::to(receive))
        };
        let server = HttpServer::new(app).workers(1).disable_signals().listen(listener).expect("a listener").run();
        tokio::spawn(server);
        Self { address, inner }
    }

    /// Answers with these statuses in turn, and with the last one from then on.
    pub fn responding(self, statuses: impl IntoIterator<Item = u16>) -> Self {
        *self.inner.script.lock().expect("a lock") = statuses.into_iter().collect();
        self
    }

    /// Adds a header to every answer.
    pub fn with_header(self, name: &str, value: &str) -> Self {
        self.inner.headers.lock().expect("a lock").insert(name.to_owned(), value.to_owned());
        self
    }

    /// Takes this long for every answer.
    pub fn taking(self, delay: Duration) -> Self {
        *self.inner.delay.lock().expect("a lock") = delay;
        self
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    pub fn received(&self) -> Vec<Received> {
        self.inner.received.lock().expect("a lock").clone()
    }

    /// Waits until at least `count` requests have come; returns all that have.
    pub async fn attempts(&self, count: usize) -> Vec<Received> {
        eventually(&format!("{count} requests at the receiver"), || async {
            let received = self.received();
            (received.len() >= count).then_some(received)
        })
        .await
    }
}

async fn receive(inner: Data<Inner>, request: HttpRequest, body: Bytes) -> HttpResponse {
    let received = Received {
        path: request.uri().path().to_owned(),
        headers: request
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect(),
        body,
        at: Timestamp::now(),
    };
    let status = {
        let mut all = inner.received.lock().expect("a lock");
        all.push(received);
        let script = inner.script.lock().expect("a lock");
        script.get(all.len() - 1).or(script.last()).copied().unwrap_or(200)
    };
    inner.news.notify_waiters();
    let delay = *inner.delay.lock().expect("a lock");
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let mut response = HttpResponse::build(StatusCode::from_u16(status).expect("a status"));
    for (name, value) in inner.headers.lock().expect("a lock").iter() {
        response.insert_header((name.as_str(), value.as_str()));
    }
    response.body("as told")
}
