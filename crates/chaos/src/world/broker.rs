//! The world's RabbitMQ: its management API, and what can be done to it from outside.

use reqwest::{Client, Method};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::error::{ChaosError, Result};
use crate::world::library::Library;
use crate::world::{Place, tree};

const VHOST: &str = "posthorn";
const POLICY: &str = "chaos-full";

pub struct Broker {
    client: Client,
    password: String,
    management: String,
    epmd_port: String,
}

/// Messages of a queue.
#[derive(Clone, Debug)]
pub struct Queue {
    pub name: String,
    pub ready: u64,
    pub unacknowledged: u64,
}

impl Broker {
    pub async fn start(library: &Library, place: &Place, client: Client) -> Result<Self> {
        let password = library.call("rabbitmq_password", &[]).await?.trim().to_owned();
        let management = format!("http://127.0.0.1:{}/api", place.management_port);
        let broker = Self { client, password, management, epmd_port: place.epmd_port.to_string() };
        broker.start_again(library, place).await?;
        Ok(broker)
    }

    /// Sees to it that the node runs.
    pub async fn start_again(&self, library: &Library, place: &Place) -> Result<()> {
        let ports = [place.amqp_port, place.management_port, place.metrics_port, place.dist_port, place.epmd_port];
        let ports = ports.map(|port| port.to_string());
        let arguments: Vec<&str> = ports.iter().map(String::as_str).chain([VHOST]).collect();
        library.call("start_rabbitmq", &arguments).await.map(drop)
    }

    pub fn url_through(&self, port: u16) -> String {
        format!("amqp://posthorn:{}@127.0.0.1:{port}/{VHOST}", self.password)
    }

    pub fn kill(&self, library: &Library) -> Result<()> {
        tree::signal_all(library.running("rabbitmq")?, Signal::KILL)
    }

    pub fn freeze(&self, library: &Library) -> Result<()> {
        tree::signal_all(library.running("rabbitmq")?, Signal::STOP)
    }

    pub fn thaw(&self, library: &Library) -> Result<()> {
        library.pid("rabbitmq").map_or(Ok(()), |pid| tree::signal_all(pid, Signal::CONT))
    }

    /// Forgets every message and queue of a node that does not run.
    pub async fn lose_data(&self, library: &Library) -> Result<()> {
        library.call("lose_rabbitmq_data", &[]).await.map(drop)
    }

    /// From now on the node has too little memory, and lets nobody publish.
    pub async fn raise_alarm(&self, library: &Library) -> Result<()> {
        self.set_watermark(library, r#"{absolute, "1MB"}"#).await
    }

    pub async fn end_alarm(&self, library: &Library) -> Result<()> {
        self.set_watermark(library, "0.4").await
    }

    /// From now on the work queues take next to nothing, and reject the rest.
    pub async fn narrow(&self) -> Result<()> {
        let policy = json!({
            "pattern": r"^posthorn\.(events|deliveries)\.", "apply-to": "queues", "definition": { "max-length": 1 },
        });
        self.call(Method::PUT, &format!("policies/{VHOST}/{POLICY}"), Some(&policy)).await.map(drop)
    }

    pub async fn widen(&self) -> Result<()> {
        match self.call(Method::DELETE, &format!("policies/{VHOST}/{POLICY}"), None).await {
            Ok(_) | Err(ChaosError::Refused { status: 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Closes every connection, from the broker's side; returns how many.
    pub async fn close_connections(&self) -> Result<usize> {
        let listed = self.call(Method::GET, "connections?columns=name", None).await?;
        let names: Vec<&str> = listed.as_array().into_iter().flatten().filter_map(|one| one["name"].as_str()).collect();
        for name in &names {
            let name: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
            let closed = self.call(Method::DELETE, &format!("connections/{}", name.replace('+', "%20")), None).await;
            match closed {
                // It may have closed by itself, because of another.
                Ok(_) | Err(ChaosError::Refused { status: 404, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(names.len())
    }

    pub async fn queues(&self) -> Result<Vec<Queue>> {
        let columns = "name,messages_ready,messages_unacknowledged";
        let listed = self.call(Method::GET, &format!("queues/{VHOST}?columns={columns}"), None).await?;
        let read = |queue: &Value| Queue {
            name: queue["name"].as_str().unwrap_or_default().to_owned(),
            ready: queue["messages_ready"].as_u64().unwrap_or_default(),
            unacknowledged: queue["messages_unacknowledged"].as_u64().unwrap_or_default(),
        };
        Ok(listed.as_array().into_iter().flatten().map(read).collect())
    }

    async fn set_watermark(&self, library: &Library, to: &str) -> Result<()> {
        let call = format!("vm_memory_monitor set_vm_memory_high_watermark [{to}]");
        library.call("call_rabbitmq", &[&self.epmd_port, &call]).await.map(drop)
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let url = format!("{}/{path}", self.management);
        let mut request = self.client.request(method, url).basic_auth("posthorn", Some(&self.password));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().await?;
        let status = response.status();
        let text = response.text().await?;
        if !status.is_success() {
            return Err(ChaosError::Refused { what: path.to_owned(), status: status.as_u16(), body: text });
        }
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }
}
