//! How much waits in the broker, so that nobody adds to what is already too long.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use crate::connection::Broken;
use crate::topology::{EVENTS_QUEUE, SHARDS, deliveries_queue};

/// Messages ready in the work queues, as of about a second ago. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Depth(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    events: AtomicU32,
    deliveries: AtomicU32,
}

impl Depth {
    pub fn events(&self) -> u32 {
        self.0.events.load(Ordering::Relaxed)
    }

    /// Over all shards.
    pub fn deliveries(&self) -> u32 {
        self.0.deliveries.load(Ordering::Relaxed)
    }
}

/// Asks again and again; ends only with its channel.
pub(crate) async fn probe(channel: Channel, depth: Depth) -> Broken {
    loop {
        match count(&channel, &depth).await {
            Ok(()) => tokio::time::sleep(Duration::from_secs(1)).await,
            Err(error) => return error.into(),
        }
    }
}

async fn count(channel: &Channel, depth: &Depth) -> lapin::Result<()> {
    let mut deliveries = 0;
    for shard in 0..SHARDS {
        deliveries += ready(channel, &deliveries_queue(shard)).await?;
    }
    depth.0.deliveries.store(deliveries, Ordering::Relaxed);
    depth.0.events.store(ready(channel, EVENTS_QUEUE).await?, Ordering::Relaxed);
    Ok(())
}

async fn ready(channel: &Channel, queue: &str) -> lapin::Result<u32> {
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    Ok(channel.queue_declare(queue.into(), options, FieldTable::default()).await?.message_count())
}
