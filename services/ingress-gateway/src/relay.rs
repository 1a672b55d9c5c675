//! From the outbox to the broker.
//!
//! What was just committed is handed over and published at once. Whatever that misses (the broker was
//! away, the process died, the hand-over was full) stands in the outbox and is published from there.
//! A message published twice changes nothing: delivery ids are derived from the event.

use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use posthorn_bus::topology::{EVENT, EVENTS};
use posthorn_bus::{Outgoing, Publisher};
use posthorn_core::id::EventId;
use posthorn_core::message::{self, Content, Routed};
use posthorn_core::subscription::Audience;
use posthorn_core::time::to_micros;
use posthorn_store::batcher::{Batcher, Item, Limits};
use posthorn_store::events::{self, NewEvent, Relayable};
use posthorn_store::{Error, Store};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::settings::Relay as Settings;

/// Where the gateway hands over what it accepted. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Relay {
    queue: mpsc::Sender<Handed>,
    inline_bytes: usize,
}

/// An event's message and whose outbox row it settles.
#[derive(Debug)]
struct Handed {
    id: EventId,
    message: Outgoing,
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
            traceparent: event.traceparent.clone(),
            body: (event.body.len() <= self.inline_bytes).then(|| event.body.clone()),
        };
        let _ = self.queue.try_send(outgoing(&relayable));
    }
}

#[derive(Clone, Copy)]
struct Settled(EventId);
impl Item for Settled {}

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
    let limits = Limits { queue: settings.queue, items: 500, bytes: usize::MAX, writers: 1 };
    let writer = store.clone();
    let settled = Batcher::<Settled, (), Error>::start(
        limits,
        tasks,
        |_| false,
        move |batch: Vec<Settled>| {
            let store = writer.clone();
            async move {
                let ids: Vec<EventId> = batch.iter().map(|settled| settled.0).collect();
                events::relayed(&store.client().await?, &ids).await?;
                Ok(vec![(); batch.len()])
            }
        },
    );
    tasks.spawn(publish_handed_over(handed_over, window, publisher.clone(), settled.clone(), stop.clone()));
    tasks.spawn(publish_left_over(settings.clone(), store.clone(), publisher.clone(), settled, stop.clone()));
    Relay { queue, inline_bytes: settings.inline_bytes }
}

async fn publish_handed_over(
    mut handed_over: mpsc::Receiver<Handed>,
    window: usize,
    publisher: Publisher,
    settled: Batcher<Settled, (), Error>,
    stop: CancellationToken,
) {
    let until = async {
        stop.cancelled().await;
    };
    let events = async_stream(&mut handed_over).take_until(until);
    events
        .for_each_concurrent(window, |outgoing| {
            let (publisher, settled) = (publisher.clone(), settled.clone());
            async move {
                publish_and_settle(outgoing, &publisher, &settled).await;
            }
        })
        .await;
}

fn async_stream<T>(receiver: &mut mpsc::Receiver<T>) -> impl futures_util::Stream<Item = T> + '_ {
    futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx))
}

async fn publish_left_over(
    settings: Settings,
    store: Store,
    publisher: Publisher,
    settled: Batcher<Settled, (), Error>,
    stop: CancellationToken,
) {
    let pause = Duration::from_millis(settings.poll_ms);
    while !stop.is_cancelled() {
        if let Err(error) = measure(&store).await {
            warn!(error = &error as &dyn std::error::Error, "the outbox cannot be measured");
        }
        // Without a connection, taking rows would only put them off.
        let taken = if publisher.link().is_up() { take(&settings, &store).await } else { Ok(Vec::new()) };
        match taken {
            Ok(due) if !due.is_empty() => {
                metrics::counter!("posthorn_relay_left_over_total").increment(due.len() as u64);
                let published = due.iter().map(|event| publish_and_settle(outgoing(event), &publisher, &settled));
                futures_util::future::join_all(published).await;
                continue;
            }
            Ok(_) => {}
            Err(error) => warn!(error = &error as &dyn std::error::Error, "the outbox cannot be read"),
        }
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

/// The outbox row goes once the broker has the message. Failing either leaves the row, and the relay
/// takes it again.
async fn publish_and_settle(outgoing: Handed, publisher: &Publisher, settled: &Batcher<Settled, (), Error>) {
    match publisher.publish(outgoing.message).await {
        Ok(()) => {
            if let Err(error) = settled.submit_patiently(Settled(outgoing.id)).await {
                warn!(error = &error as &dyn std::error::Error, event.id = %outgoing.id, "an outbox row stays behind");
            }
        }
        Err(error) => {
            metrics::counter!("posthorn_relay_failures_total").increment(1);
            tracing::debug!(error = &error as &dyn std::error::Error, event.id = %outgoing.id, "not published yet");
        }
    }
}

fn outgoing(event: &Relayable) -> Handed {
    let timestamp: Timestamp = event.occurred_at.unwrap_or(event.received_at);
    let (routed, tenant_id) = match event.audience {
        Audience::Tenant(tenant) => (Routed::Tenant, Some(message::bytes(tenant.as_uuid()))),
        Audience::Everyone => (Routed::Broadcast, None),
        Audience::Nobody => (Routed::Unrouted, None),
    };
    let body = message::Event {
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
        }),
    };
    Handed {
        id: event.id,
        message: Outgoing {
            exchange: EVENTS,
            routing_key: EVENT.to_owned(),
            message_id: event.id.to_string(),
            traceparent: event.traceparent.clone(),
            body: body.encode_to_vec(),
        },
    }
}
