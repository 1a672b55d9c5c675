//! Consuming: messages go to a handler, which says what becomes of them.
//!
//! Work is recorded before its message is settled, so a crash in between repeats work and loses none.
//! Handlers never see an acknowledgement. When the fault is ours, consuming stops and the messages go
//! back once, until the gate opens: a loop of returns would use up the broker's delivery limit and
//! make dead letters of healthy messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, Event};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::Link;
use crate::connection::{Broken, CLOSE_TIMEOUT, Settings, close, connect, pause};

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Recorded: gone for good.
    Done,
    /// To the dead-letter exchange.
    DeadLetter,
    /// Our own fault (the database is away): stop consuming, let the messages go back, and go on when
    /// the gate opens.
    Stall,
}

/// A message as a handler sees it.
#[derive(Clone, Debug)]
pub struct Message {
    pub routing_key: String,
    pub body: Vec<u8>,
    /// It was out before, so somebody may have begun.
    pub redelivered: bool,
    /// Why the broker made a dead letter of it: `rejected`, `delivery_limit`, `expired`, `maxlen`.
    pub death: Option<String>,
}

/// Handles one message. A panic returns the message; twenty make a dead letter of it.
pub type Handler = Arc<dyn Fn(Message) -> BoxFuture<'static, Disposition> + Send + Sync>;

/// Waits until whatever made a handler stall is well again.
pub type Gate = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// One queue, and who handles it.
#[derive(Clone)]
pub struct Consumer {
    pub queue: String,
    /// Messages in hand at the same time.
    pub prefetch: u16,
    pub handler: Handler,
}

/// Pause after a stall: doubled with each, up to the longest. Twenty of them take a quarter of an hour.
const STALL_PAUSE: Duration = Duration::from_millis(500);
const STALL_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Whatever makes a handler stall does so sooner than this; who has consumed for longer was well.
const WELL: Duration = Duration::from_secs(15);

/// Consumes until `stop`, then waits for the messages in hand.
pub async fn consume(
    settings: Settings,
    name: &str,
    consumers: Vec<Consumer>,
    gate: Gate,
    link: Link,
    stop: CancellationToken,
) {
    let name = format!("{name} consume");
    let mut stalls = Stalls::default();
    while !stop.is_cancelled() {
        // Nothing is taken before it can be handled.
        if stop.run_until_cancelled(gate()).await.is_none() {
            return;
        }
        let mut lasted = Duration::ZERO;
        let ended = match stop.run_until_cancelled(connect(&settings, &name)).await {
            None => return,
            Some(Err(broken)) => Err(broken),
            Some(Ok(connection)) => {
                link.set(true);
                info!(queues = consumers.len(), "consuming");
                let began = Instant::now();
                let ended = session(&connection, &consumers, &stop).await;
                link.set(false);
                close(&connection).await;
                lasted = began.elapsed();
                ended
            }
        };
        let pause = match ended {
            Ok(()) => stalls.pause_after(lasted),
            Err(broken) => {
                warn!(error = &broken as &dyn std::error::Error, "not consuming");
                pause()
            }
        };
        let _ = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}

/// Stalls in a row. Each returns messages and counts against their delivery limit, so a fault that the gate does not
/// see must not use that up.
#[derive(Debug, Default)]
struct Stalls(u32);

impl Stalls {
    /// The pause after a stall that ended a session of this length.
    fn pause_after(&mut self, lasted: Duration) -> Duration {
        self.0 = if lasted > WELL { 1 } else { self.0.saturating_add(1) };
        STALL_PAUSE.saturating_mul(1 << self.0.min(9)).min(STALL_PAUSE_MAX)
    }
}

/// Consumes until `stop` or a stall (`Ok`), or until the connection is broken.
async fn session(connection: &Connection, consumers: &[Consumer], stop: &CancellationToken) -> Result<(), Broken> {
    let mut events = connection.events_listener();
    let stalled = CancellationToken::new();
    // Ends the pumps of a session that is over, whatever ended it.
    let over = stop.child_token();
    let _end = over.clone().drop_guard();
    let mut pumps = tokio::task::JoinSet::new();
    for consumer in consumers {
        let channel = connection.create_channel().await?;
        pumps.spawn(pump(channel, consumer.clone(), over.clone(), stalled.clone()));
    }
    loop {
        tokio::select! {
            ended = pumps.join_next() => match ended {
                None => return Ok(()),
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(broken))) => return Err(broken),
                Some(Err(_)) => return Err(Broken::ConsumerEnded),
            },
            () = stalled.cancelled() => {
                warn!("consuming pauses: a handler cannot do its work now");
                return Ok(());
            }
            Some(event) = events.next() => if let Event::Error(error) = event {
                return Err(error.into());
            },
        }
    }
}

/// Hands messages of one queue to its handler. After `over` it waits for those in hand.
async fn pump(
    channel: Channel,
    consumer: Consumer,
    over: CancellationToken,
    stalled: CancellationToken,
) -> Result<(), Broken> {
    channel.basic_qos(consumer.prefetch, BasicQosOptions::default()).await?;
    let mut inbox = channel
        .basic_consume(consumer.queue.as_str().into(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await?;
    let in_hand = TaskTracker::new();
    while let Some(next) = over.run_until_cancelled(inbox.next()).await {
        let delivery = next.ok_or(Broken::ConsumerEnded)??;
        in_hand.spawn(handle_then_settle(Arc::clone(&consumer.handler), delivery, stalled.clone()));
    }
    // What was prefetched and not begun goes back when the channel closes.
    let cancelling = channel.basic_cancel(inbox.tag(), BasicCancelOptions::default());
    tokio::time::timeout(CLOSE_TIMEOUT, cancelling).await.map_err(|_| Broken::Timeout)??;
    in_hand.close();
    in_hand.wait().await;
    Ok(())
}

async fn handle_then_settle(handler: Handler, mut delivery: Delivery, stalled: CancellationToken) {
    let message = Message {
        routing_key: delivery.routing_key.to_string(),
        redelivered: delivery.redelivered,
        death: death(&delivery),
        body: std::mem::take(&mut delivery.data),
    };
    // In a task of its own, so that a panic ends no more than this message's handling.
    let handled = tokio::spawn(async move { handler(message).await }).await;
    let acker = &delivery.acker;
    let settled = match handled {
        Ok(Disposition::Done) => acker.ack(BasicAckOptions::default()).await,
        Ok(Disposition::DeadLetter) => acker.reject(BasicRejectOptions { requeue: false }).await,
        // Left unsettled: the broker takes it back when the channel closes.
        Ok(Disposition::Stall) => {
            stalled.cancel();
            return;
        }
        Err(panic) => {
            error!(error = &panic as &dyn std::error::Error, "a handler panicked; its message goes back");
            acker.nack(BasicNackOptions { requeue: true, ..Default::default() }).await
        }
    };
    match settled {
        Ok(true) => {}
        // The channel went meanwhile. The message comes again and finds its work done.
        Ok(false) => info!("a message could not be settled: its channel is gone"),
        Err(error) => info!(error = &error as &dyn std::error::Error, "a message could not be settled"),
    }
}

/// The newest reason in `x-death`.
fn death(delivery: &Delivery) -> Option<String> {
    let headers = delivery.properties.headers().as_ref()?;
    let AMQPValue::FieldArray(deaths) = headers.inner().get("x-death")? else { return None };
    let AMQPValue::FieldTable(newest) = deaths.as_slice().first()? else { return None };
    match newest.inner().get("reason")? {
        AMQPValue::LongString(reason) => Some(reason.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalls_in_a_row_are_a_quarter_of_an_hour_short_of_the_delivery_limit() {
        let mut stalls = Stalls::default();
        let pauses: Vec<Duration> = (0..20).map(|_| stalls.pause_after(Duration::from_secs(3))).collect();
        assert_eq!(pauses[..3], [1, 2, 4].map(Duration::from_secs));
        assert!(pauses.iter().sum::<Duration>() > Duration::from_secs(14 * 60));
    }

    #[test]
    fn whoever_consumed_for_a_while_was_well_and_waits_no_longer_than_the_first_time() {
        let mut stalls = Stalls::default();
        for _ in 0..10 {
            stalls.pause_after(Duration::ZERO);
        }
        assert_eq!(stalls.pause_after(Duration::from_secs(20)), Duration::from_secs(1));
    }
}
