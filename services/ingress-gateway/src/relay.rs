//! From the outbox to the broker.
//!
//! What was just committed is handed over and published at once. Its outbox row stays until the dispatcher has made
//! the deliveries; whatever is still there a few seconds later (the broker was away or lost it, a process died, the
//! hand-over was full) is published again from there. A message published twice changes nothing: delivery ids are
//! derived from the event.

use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use posthorn_bus::topology::{CHUNK, EVENT, EVENTS};
use posthorn_bus::{Outgoing, Publisher};
use posthorn_core::message::{self, Content, Routed};
use posthorn_core::subscription::Audience;
use posthorn_core::time::to_micros;
use posthorn_store::Store;
use posthorn_store::events::{self, NewEvent, Part, Relayable};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::settings::Relay as Settings;

/// How soon it is looked again whether the broker may have more.
const AGAIN: Duration = Duration::from_millis(250);

/// Where the gateway hands over what it accepted. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Relay {
    queue: mpsc::Sender<Outgoing>,
    inline_bytes: usize,
}

impl Relay {
    /// Hands an accepted event over. Full or stopped, the event simply stays in the outbox.
    pub fn hand_over(&self, event: &NewEvent, audience: Audience) {
        let relayable = Relayable {
            id: event.id,
            source_id: event.source_id,
            source_slug: event.source_slug.clone(),
            audience,
            event_type: event.event_type.to_string(),
            occurred_at: event.occurred_at,
            received_at: event.received_at,
            content_type: event.content_type.clone(),
            content_encoding: event.content_encoding().to_owned(),
            traceparent: event.traceparent.clone(),
            body: (event.body.len() <= self.inline_bytes).then(|| event.body.clone()),
            part: Part::whole(),
        };
        let _ = self.queue.try_send(outgoing(&relayable));
    }
}

/// Starts the relay on `tasks`; it ends when `stop` is set and what was handed over is published.
pub fn start(
    settings: &Settings,
    window: usize,
    store: &Store,
    publisher: &Publisher,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Relay {
    let (queue, handed_over) = mpsc::channel(settings.queue);
    tasks.spawn(publish_handed_over(handed_over, window, publisher.clone(), stop.clone()));
    tasks.spawn(publish_left_over(settings.clone(), store.clone(), publisher.clone(), stop.clone()));
    Relay { queue, inline_bytes: settings.inline_bytes }
}

async fn publish_handed_over(
    mut handed_over: mpsc::Receiver<Outgoing>,
    window: usize,
    publisher: Publisher,
    stop: CancellationToken,
) {
    let until = async {
        stop.cancelled().await;
    };
    let events = async_stream(&mut handed_over).take_until(until);
    events
        .for_each_concurrent(window, |message| {
            let publisher = publisher.clone();
            async move { publish(message, &publisher).await }
        })
        .await;
}

fn async_stream<T>(receiver: &mut mpsc::Receiver<T>) -> impl futures_util::Stream<Item = T> + '_ {
    futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx))
}

async fn publish_left_over(settings: Settings, store: Store, publisher: Publisher, stop: CancellationToken) {
    let pause = Duration::from_millis(settings.poll_ms);
    while !stop.is_cancelled() {
        if let Err(error) = measure(&store).await {
            warn!(error = &error as &dyn std::error::Error, "the outbox cannot be measured");
        }
        // Without a connection, taking rows would only put them off. In a long queue what is left over stands already.
        let may_publish = publisher.link().is_up() && publisher.depth().events() <= settings.max_depth;
        let taken = if may_publish { take(&settings, &store).await } else { Ok(Vec::new()) };
        match taken {
            Ok(due) if !due.is_empty() => {
                metrics::counter!("posthorn_relay_left_over_total").increment(due.len() as u64);
                futures_util::future::join_all(due.iter().map(|event| publish(outgoing(event), &publisher))).await;
                continue;
            }
            Ok(_) => {}
            Err(error) => warn!(error = &error as &dyn std::error::Error, "the outbox cannot be read"),
        }
        let pause = if may_publish { pause } else { pause.min(AGAIN) };
        let _ = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}

/// Also without the broker: that is when it matters.
async fn measure(store: &Store) -> posthorn_store::Result<()> {
    let (backlog, oldest) = events::outbox_backlog(&store.client().await?).await?;
    metrics::gauge!("posthorn_outbox_rows").set(backlog as f64);
    metrics::gauge!("posthorn_outbox_oldest_age_seconds").set(oldest);
    Ok(())
}

async fn take(settings: &Settings, store: &Store) -> posthorn_store::Result<Vec<Relayable>> {
    let client = store.client().await?;
    let inline = i32::try_from(settings.inline_bytes).unwrap_or(i32::MAX);
    events::take_due(&client, settings.batch, f64::from(settings.lease_seconds), inline).await
}

/// Failing is no loss: the row stays, and a relay takes it again.
async fn publish(message: Outgoing, publisher: &Publisher) {
    let id = message.message_id.clone();
    if let Err(error) = publisher.publish(message).await {
        metrics::counter!("posthorn_relay_failures_total").increment(1);
        tracing::debug!(error = &error as &dyn std::error::Error, message.id = id, "not published yet");
    }
}

fn outgoing(event: &Relayable) -> Outgoing {
    let timestamp: Timestamp = event.occurred_at.unwrap_or(event.received_at);
    let (routed, tenant_id) = match event.audience {
        Audience::Tenant(tenant) => (Routed::Tenant, Some(message::bytes(tenant.as_uuid()))),
        Audience::Everyone => (Routed::Broadcast, None),
        Audience::Nobody => (Routed::Unrouted, None),
    };
    let whole = message::Event {
        event_id: message::bytes(event.id.as_uuid()),
        source_id: message::bytes(event.source_id.as_uuid()),
        source_slug: event.source_slug.clone(),
        routed: routed.into(),
        tenant_id,
        event_type: event.event_type.clone(),
        content: Some(Content {
            timestamp_us: to_micros(timestamp),
            content_type: event.content_type.clone(),
            body: event.body.clone(),
            traceparent: event.traceparent.clone(),
            content_encoding: event.content_encoding.clone(),
        }),
    };
    let (routing_key, message_id, body) = if event.part.is_whole() {
        (EVENT, event.id.to_string(), whole.encode_to_vec())
    } else {
        let Part { first, last } = event.part;
        let chunk = message::chunk(whole, first.as_uuid(), last.as_uuid());
        (CHUNK, format!("{}/{first}", event.id), chunk.encode_to_vec())
    };
    Outgoing {
        exchange: EVENTS,
        routing_key: routing_key.to_owned(),
        message_id,
        traceparent: event.traceparent.clone(),
        body,
    }
}
