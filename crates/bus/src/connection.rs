use std::time::Duration;

use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

/// How to reach RabbitMQ.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `amqp://user:password@host:port/vhost`, or `amqps://`.
    pub url: SecretString,
    /// Publishes whose confirm is awaited at the same time.
    pub publish_window: usize,
    /// Publishes that may wait for a place in the window.
    pub publish_queue: usize,
    /// Longest wait for a confirm, in milliseconds; then the connection counts as broken.
    pub confirm_timeout_ms: u64,
}

impl Settings {
    /// Fails, with the reason, where the URL is none; connects to nothing.
    pub fn check(&self) -> Result<(), String> {
        match self.url.expose_secret() {
            "" => Err("it is not set".to_owned()),
            url => url.parse::<AMQPUri>().map(|_| ()),
        }
    }
}

/// Longest wait for a connection to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for the broker's answer to a goodbye.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Pause between two tries, with a random part so that processes do not come back in step.
pub(crate) fn pause() -> Duration {
    Duration::from_millis(rand::random_range(200..1_500))
}

/// Opens a connection and declares the topology on it.
pub(crate) async fn connect(settings: &Settings, name: &str) -> Result<Connection, Broken> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let url = with_heartbeat(settings.url.expose_secret());
    let connection = tokio::time::timeout(CONNECT_TIMEOUT, Connection::connect(&url, properties))
        .await
        .map_err(|_| Broken::Timeout)??;
    let channel = connection.create_channel().await?;
    crate::topology::declare(&channel).await?;
    channel.close(200, "declared".into()).await?;
    Ok(connection)
}

/// Why a connection has to be built anew.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the broker did not answer in time")]
    Timeout,
    #[error("the broker ended it")]
    Amqp(#[from] lapin::Error),
    #[error("a consumer ended")]
    ConsumerEnded,
}

/// Says goodbye, without waiting long for a broker that no longer listens.
pub(crate) async fn close(connection: &Connection) {
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close(200, "bye".into())).await;
}

/// Ten seconds: a broker that froze is noticed after twice that.
fn with_heartbeat(url: &str) -> String {
    match url {
        url if url.contains("heartbeat=") => url.to_owned(),
        url if url.contains('?') => format!("{url}&heartbeat=10"),
        url => format!("{url}?heartbeat=10"),
    }
}
