//! How much waits in the broker, so that nobody adds to what is already too long.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

use crate::connection::Broken;
use crate::topology::{EVENTS_QUEUE, SHARDS, deliveries_queue};

/// How often it is asked.
const PAUSE: Duration = Duration::from_millis(250);

/// Messages ready in the work queues, as of a moment ago. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Depth(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    events: AtomicU32,
    shards: [AtomicU32; SHARDS as usize],
    /// Published from here since they were counted.
    since: [AtomicU32; SHARDS as usize],
}

impl Depth {
    pub fn events(&self) -> u32 {
        self.0.events.load(Ordering::Relaxed)
    }

    /// Over all shards.
    pub fn deliveries(&self) -> u32 {
        self.0.shards.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// In one of them, with what was published from here since it was counted: rather too many than too few.
    pub fn in_shard(&self, shard: u8) -> u32 {
        let of = |counts: &[AtomicU32]| counts.get(usize::from(shard)).map_or(0, |count| count.load(Ordering::Relaxed));
        of(&self.0.shards).saturating_add(of(&self.0.since))
    }

    /// Notes that a delivery was published.
    pub fn add(&self, shard: u8) {
        if let Some(count) = self.0.since.get(usize::from(shard)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Asks again and again; ends only with its channel.
pub(crate) async fn probe(channel: Channel, depth: Depth) -> Broken {
    loop {
        match count(&channel, &depth).await {
            Ok(()) => tokio::time::sleep(PAUSE).await,
            Err(error) => return error.into(),
        }
    }
}

async fn count(channel: &Channel, depth: &Depth) -> lapin::Result<()> {
    for (shard, (count, since)) in (0..SHARDS).zip(depth.0.shards.iter().zip(&depth.0.since)) {
        // Before it is counted: what is published meanwhile is counted twice rather than not at all.
        since.store(0, Ordering::Relaxed);
        count.store(ready(channel, &deliveries_queue(shard)).await?, Ordering::Relaxed);
    }
    depth.0.events.store(ready(channel, EVENTS_QUEUE).await?, Ordering::Relaxed);
    Ok(())
}

async fn ready(channel: &Channel, queue: &str) -> lapin::Result<u32> {
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    Ok(channel.queue_declare(queue.into(), options, FieldTable::default()).await?.message_count())
}
