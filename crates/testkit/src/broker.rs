use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use url::Url;

use crate::{eventually, unique, variable};

/// A vhost of this test's own, deleted when some tests after it have ended.
#[derive(Debug)]
pub struct Broker {
    pub url: String,
    vhost: String,
    management: Url,
    client: Client,
}

impl Broker {
    pub async fn create() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let vhost = format!("test-{}", unique());
        let base: Url = variable("POSTHORN_TEST_BROKER_URL").parse().expect("an AMQP URL");
        let management: Url = variable("POSTHORN_TEST_BROKER_MANAGEMENT_URL").parse().expect("a URL");
        let mut url = base.clone();
        url.set_path(&vhost);
        let broker = Self { url: url.to_string(), vhost, management, client: Client::new() };
        broker.manage(Method::PUT, &format!("vhosts/{}", broker.vhost), None).await;
        let all = json!({ "configure": ".*", "write": ".*", "read": ".*" });
        broker.manage(Method::PUT, &format!("permissions/{}/{}", broker.vhost, base.username()), Some(all)).await;
        broker
    }

    /// The broker's settings for a client in this vhost.
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// The connections to this vhost. The broker tells of new ones after some seconds.
    pub async fn connections(&self) -> Vec<String> {
        let connections = self.manage(Method::GET, &format!("vhosts/{}/connections", self.vhost), None).await;
        let name = |connection: &Value| connection["name"].as_str().map(str::to_owned);
        connections.as_array().into_iter().flatten().filter_map(name).collect()
    }

    /// Ends every connection to this vhost from the broker's side.
    pub async fn close_connections(&self) -> usize {
        let names = self.connections().await;
        for name in &names {
            let mut url = self.management.clone();
            url.path_segments_mut().expect("a base").extend(["api", "connections", name]);
            // One that ended by itself meanwhile is as good.
            let _ = self.client.delete(url).send().await;
        }
        names.len()
    }

    /// Puts a message into the dead-letter queue, as the broker does for `reason`.
    pub async fn bury(&self, routing_key: &str, body: &[u8], reason: &str) {
        let message = json!({
            "routing_key": routing_key,
            "payload": STANDARD.encode(body),
            "payload_encoding": "base64",
            "properties": { "delivery_mode": 2, "headers": { "x-death": [{ "reason": reason }] } },
        });
        let path = format!("exchanges/{}/posthorn.dead/publish", self.vhost);
        // The services may not have declared the exchange yet.
        eventually("the message is in the dead-letter queue", || async {
            let exchanges = self.manage(Method::GET, &format!("exchanges/{}", self.vhost), None).await;
            let is_there = exchanges.as_array().is_some_and(|all| all.iter().any(|one| one["name"] == "posthorn.dead"));
            let routed = is_there && self.manage(Method::POST, &path, Some(message.clone())).await["routed"] == true;
            routed.then_some(())
        })
        .await;
    }

    /// Calls the management API.
    pub async fn manage(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let url = self.management.join(&format!("api/{path}")).expect("a path");
        let mut request = self.client.request(method, url).header("content-type", "application/json");
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let response = request.send().await.expect("the broker's management");
        assert!(response.status().is_success(), "{path}: {}", response.status());
        serde_json::from_str(&response.text().await.expect("a body")).unwrap_or(Value::Null)
    }
}

/// The vhosts of tests that have ended, the oldest first.
static ENDED: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// How many of them are left alone. RabbitMQ 3.10 does not bear that a quorum queue goes in the moment in which it
/// starts: the supervisor of dead-letter workers dies then, for all vhosts.
const LEFT_ALONE: usize = 6;

impl Drop for Broker {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut ended = ENDED.lock().unwrap_or_else(PoisonError::into_inner);
        ended.push_back(std::mem::take(&mut self.vhost));
        // Queues left behind slow the broker down for every test after this one.
        let Some(oldest) = (ended.len() > LEFT_ALONE).then(|| ended.pop_front()).flatten() else { return };
        let mut url = self.management.clone();
        url.path_segments_mut().expect("a base").extend(["api", "vhosts", &oldest]);
        let client = self.client.clone();
        runtime.spawn(async move { client.delete(url).send().await });
    }
}
