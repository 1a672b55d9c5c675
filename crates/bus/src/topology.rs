//! Exchanges and queues, as data. Declared from here alone.
//!
//! Redeclaring a queue with other arguments is refused by the broker, so names carry a version: a
//! change of arguments is a new name. The arguments are the same on RabbitMQ 3.10 and 4.x.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use posthorn_core::id::SubscriptionId;

pub const EVENTS: &str = "posthorn.events";
pub const DELIVERIES: &str = "posthorn.deliveries";
pub const DEAD: &str = "posthorn.dead";

/// Routing keys of [`EVENTS`].
pub const EVENT: &str = "event";
pub const CHUNK: &str = "chunk";

pub const EVENTS_QUEUE: &str = "posthorn.events.v1";
pub const DEAD_QUEUE: &str = "posthorn.dead.v1";

/// Deliveries are spread over this many queues, so that one subscription's trouble fills the
/// prefetch of one of them only.
pub const SHARDS: u8 = 8;

/// How often a message may come back before it is a dead letter. Given explicitly: RabbitMQ 3.10
/// knows no limit of its own, 4.x has 20.
const DELIVERY_LIMIT: i64 = 20;

/// Which of the queues a subscription's deliveries stand in.
pub fn shard(subscription: SubscriptionId) -> u8 {
    subscription.as_uuid().as_bytes()[15] % SHARDS
}

/// The routing key of a shard's deliveries.
pub fn shard_key(shard: u8) -> String {
    format!("s{shard}")
}

pub fn deliveries_queue(shard: u8) -> String {
    format!("posthorn.deliveries.v1.s{shard}")
}

/// Declares everything. Repeating it changes nothing.
pub(crate) async fn declare(channel: &Channel) -> lapin::Result<()> {
    // The dead-letter exchange first: the queues name it.
    for (exchange, kind) in
        [(DEAD, ExchangeKind::Topic), (EVENTS, ExchangeKind::Direct), (DELIVERIES, ExchangeKind::Direct)]
    {
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        channel.exchange_declare(exchange.into(), kind, options, FieldTable::default()).await?;
    }
    queue(channel, DEAD_QUEUE, dead_arguments()).await?;
    bind(channel, DEAD_QUEUE, DEAD, "#").await?;
    queue(channel, EVENTS_QUEUE, work_arguments()).await?;
    bind(channel, EVENTS_QUEUE, EVENTS, EVENT).await?;
    bind(channel, EVENTS_QUEUE, EVENTS, CHUNK).await?;
    for shard in 0..SHARDS {
        let name = deliveries_queue(shard);
        queue(channel, &name, work_arguments()).await?;
        bind(channel, &name, DELIVERIES, &shard_key(shard)).await?;
    }
    Ok(())
}

async fn queue(channel: &Channel, name: &str, arguments: FieldTable) -> lapin::Result<()> {
    let options = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(name.into(), options, arguments).await?;
    Ok(())
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> lapin::Result<()> {
    channel
        .queue_bind(queue.into(), exchange.into(), key.into(), QueueBindOptions::default(), FieldTable::default())
        .await
}

/// All three dead-letter arguments together make dead-lettering at-least-once: with another overflow
/// behaviour the broker silently falls back to at-most-once.
fn work_arguments() -> FieldTable {
    let mut arguments = quorum();
    arguments.insert("x-dead-letter-exchange".into(), text(DEAD));
    arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DELIVERY_LIMIT));
    arguments
}

/// No delivery limit: the clerk never gives a dead letter up.
fn dead_arguments() -> FieldTable {
    let mut arguments = quorum();
    arguments.insert("x-overflow".into(), text("reject-publish"));
    // Said explicitly, since RabbitMQ 4 counts to 20 by itself and would drop.
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DEAD_DELIVERY_LIMIT));
    arguments
}

/// High enough to mean never. Both versions take it, unlike -1, which 3.10 refuses.
const DEAD_DELIVERY_LIMIT: i64 = 1_000_000_000;

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// A name that a user may have had a hand in; those above are short constants.
pub(crate) fn short(value: &str) -> ShortString {
    ShortString::try_new(value).unwrap_or_default()
}
