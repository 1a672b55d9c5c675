//! Publishing with confirms.
//!
//! One task owns the channel and polls its publishes itself: with several tasks on one channel, lapin
//! hands confirms to the wrong publish. Every confirm is awaited, and a message that reached no queue
//! (`mandatory`) is an error although the broker confirms it.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, Event};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::connection::{Broken, Settings, close, connect, pause};
use crate::depth::{self, Depth};
use crate::topology::short;
use crate::{Link, topology};

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub exchange: &'static str,
    pub routing_key: String,
    /// Names the message in logs and dead letters.
    pub message_id: String,
    /// W3C trace context; empty for none.
    pub traceparent: String,
    pub body: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    #[error("there is no connection to the broker")]
    Disconnected,
    #[error("the broker refused the message")]
    Refused,
    #[error("the message reached no queue")]
    Unroutable,
    #[error("the broker did not confirm in time; it may have the message")]
    Unconfirmed,
}

impl PublishError {
    /// Whether the broker may have the message all the same.
    pub fn is_uncertain(self) -> bool {
        self == Self::Unconfirmed
    }
}

struct Pending {
    message: Outgoing,
    answer: oneshot::Sender<Result<(), PublishError>>,
}

/// Publishes. Cheap to clone; the connection is closed when the last one is gone.
#[derive(Clone, Debug)]
pub struct Publisher {
    queue: mpsc::Sender<Pending>,
    link: Link,
    depth: Depth,
}

impl Publisher {
    /// Returns when the broker has the message for good. Without a connection it fails at once.
    pub async fn publish(&self, message: Outgoing) -> Result<(), PublishError> {
        let (answer, confirmed) = oneshot::channel();
        self.queue.send(Pending { message, answer }).await.map_err(|_| PublishError::Disconnected)?;
        // The connection ended with the message on its way.
        confirmed.await.unwrap_or(Err(PublishError::Unconfirmed))
    }

    pub fn link(&self) -> &Link {
        &self.link
    }

    /// How many messages wait in the work queues.
    pub fn depth(&self) -> &Depth {
        &self.depth
    }
}

/// A publisher and the task that does the work, to be spawned. The task ends when every [`Publisher`]
/// is gone and what they handed over is published.
pub fn publisher(settings: Settings, name: &str) -> (Publisher, impl Future<Output = ()> + Send + use<>) {
    let (queue, pending) = mpsc::channel(settings.publish_queue);
    let publisher = Publisher { queue, link: Link::default(), depth: Depth::default() };
    let (link, depth) = (publisher.link.clone(), publisher.depth.clone());
    let name = format!("{name} publish");
    (publisher, async move { supervise(settings, name, pending, link, depth).await })
}

async fn supervise(settings: Settings, name: String, mut pending: mpsc::Receiver<Pending>, link: Link, depth: Depth) {
    loop {
        let connecting = connect(&settings, &name);
        let connected = fail_until(&mut pending, connecting).await;
        let ended = match connected {
            None => return,
            Some(Ok(connection)) => {
                link.set(true);
                info!("publishing");
                let ended = session(&settings, &connection, &mut pending, &depth).await;
                link.set(false);
                close(&connection).await;
                ended
            }
            Some(Err(broken)) => Err(broken),
        };
        match ended {
            Ok(()) => return,
            Err(broken) => warn!(error = &broken as &dyn std::error::Error, "not publishing"),
        }
        if fail_until(&mut pending, tokio::time::sleep(pause())).await.is_none() {
            return;
        }
    }
}

/// Answers whatever comes that there is no connection, until `other` is done. `None` when nobody
/// publishes any more.
async fn fail_until<T>(pending: &mut mpsc::Receiver<Pending>, other: impl Future<Output = T>) -> Option<T> {
    tokio::pin!(other);
    loop {
        tokio::select! {
            done = &mut other => return Some(done),
            next = pending.recv() => {
                let _ = next?.answer.send(Err(PublishError::Disconnected));
            }
        }
    }
}

/// Publishes until everybody has left (`Ok`) or the connection is broken.
async fn session(
    settings: &Settings,
    connection: &Connection,
    pending: &mut mpsc::Receiver<Pending>,
    depth: &Depth,
) -> Result<(), Broken> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let probing = depth::probe(connection.create_channel().await?, depth.clone());
    tokio::pin!(probing);
    let mut events = connection.events_listener();
    let confirm_timeout = Duration::from_millis(settings.confirm_timeout_ms);
    let mut window = FuturesUnordered::new();
    let mut open = true;
    loop {
        if !open && window.is_empty() {
            return Ok(());
        }
        tokio::select! {
            Some(unconfirmed) = window.next() => {
                // The broker may have it or not: with a new channel nothing can be mistaken for it.
                if unconfirmed { return Err(Broken::Timeout); }
            }
            next = pending.recv(), if open && window.len() < settings.publish_window => match next {
                None => open = false,
                Some(pending) if connection.status().blocked() => {
                    let _ = pending.answer.send(Err(PublishError::Disconnected));
                }
                Some(pending) => window.push(publish_one(&channel, pending, confirm_timeout)),
            },
            Some(event) = events.next() => match event {
                Event::Error(error) => return Err(error.into()),
                Event::ConnectionBlocked(reason) => warn!(reason, "the broker is in alarm and takes nothing"),
                Event::ConnectionUnblocked => info!("the broker takes messages again"),
                _ => {}
            },
            ended = &mut probing => return Err(ended),
        }
    }
}

/// Publishes one message and tells its publisher. True if the broker left it open what became of it.
async fn publish_one(channel: &Channel, pending: Pending, timeout: Duration) -> bool {
    let Pending { message, answer } = pending;
    let started = std::time::Instant::now();
    let confirmed = match tokio::time::timeout(timeout, send(channel, &message)).await {
        Err(_) => Err(PublishError::Unconfirmed),
        Ok(Err(error)) => {
            warn!(error = &error as &dyn std::error::Error, message.id = message.message_id, "not published");
            Err(PublishError::Unconfirmed)
        }
        Ok(Ok(Confirmation::Ack(None))) => Ok(()),
        Ok(Ok(Confirmation::Ack(Some(_)))) => Err(PublishError::Unroutable),
        Ok(Ok(Confirmation::Nack(_))) => Err(PublishError::Refused),
        // The channel is in confirm mode, so this would be a bug of the client: not a success.
        Ok(Ok(Confirmation::NotRequested)) => Err(PublishError::Unconfirmed),
    };
    metrics::histogram!("posthorn_publish_confirm_seconds").record(started.elapsed());
    let unconfirmed = confirmed == Err(PublishError::Unconfirmed);
    let _ = answer.send(confirmed);
    unconfirmed
}

async fn send(channel: &Channel, message: &Outgoing) -> lapin::Result<Confirmation> {
    let mut properties = BasicProperties::default().with_delivery_mode(2).with_message_id(short(&message.message_id));
    if !message.traceparent.is_empty() {
        let mut headers = FieldTable::default();
        headers.insert("traceparent".into(), AMQPValue::LongString(message.traceparent.as_str().into()));
        properties = properties.with_headers(headers);
    }
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let key = topology::short(&message.routing_key);
    channel.basic_publish(message.exchange.into(), key, options, &message.body, properties).await?.await
}
