//! One event becomes one delivery for each subscription that wants it.
//!
//! Invariant: an event's outbox row goes in the statement that inserts its deliveries. Until then its message comes
//! again, from the broker or from the outbox; after it, a message that comes inserts nothing, since a delivery's id is
//! derived from event and subscription. Rows that were there already are left alone: either their message is on
//! its way, or their lease runs out and the scheduler publishes it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use posthorn_bus::topology::{CHUNK, EVENT, EVENTS, SHARDS, shard};
use posthorn_bus::{Disposition, Message, Outgoing, Publisher};
use posthorn_core::crowd::Crowd;
use posthorn_core::delivery::{HeldReason, Trigger};
use posthorn_core::event_type::{self, EventType};
use posthorn_core::id::{DeliveryId, EventId, SourceId, SubscriptionId, TenantId};
use posthorn_core::message::{self, Chunk, Content, Event, NotAnId, Routed};
use posthorn_core::subscription::{Audience, EventFacts, targets};
use posthorn_core::time::{later, whole_micros};
use posthorn_process::trace;
use posthorn_store::batcher::{Batcher, Item, Limits};
use posthorn_store::deliveries::{self, FannedOut, NewDelivery};
use posthorn_store::events::{self, Part};
use posthorn_store::snapshot::{Entry, Subscriptions};
use posthorn_store::{Error, Store};
use prost::Message as _;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, debug, info_span, warn};

use crate::dispatch::{self, Wake, lease};
use crate::settings::FanOut as Settings;

/// How long an ordered delivery waits for earlier ones that are dispatched at the same time.
const SETTLING: Duration = Duration::from_millis(200);

/// The deliveries of one message, and what it carried.
#[derive(Clone, Debug)]
struct Insert {
    deliveries: Arc<[NewDelivery]>,
    fanned_out: FannedOut,
}

impl Item for Insert {
    // A batch is bounded by rows, so rows are what is weighed.
    fn bytes(&self) -> usize {
        self.deliveries.len()
    }
}

/// What fans out.
pub struct FanOut {
    settings: Settings,
    store: Store,
    subscriptions: Subscriptions,
    inserting: Batcher<Insert, Vec<bool>, Error>,
    publisher: Publisher,
    /// Of each shard.
    crowds: Mutex<[Crowd; SHARDS as usize]>,
}

/// An event as fan-out knows it.
#[derive(Debug)]
pub struct Known {
    pub id: EventId,
    source_id: SourceId,
    pub audience: Audience,
    pub event_type: EventType,
    event: Event,
    /// A chunk is not all of it.
    pub part: Part,
}

impl FanOut {
    pub fn start(
        settings: &Settings,
        store: &Store,
        subscriptions: Subscriptions,
        publisher: Publisher,
        tasks: &TaskTracker,
    ) -> Arc<Self> {
        let limits = Limits {
            queue: usize::from(settings.prefetch),
            items: usize::from(settings.prefetch),
            bytes: settings.batch_deliveries,
            writers: settings.writers,
        };
        let db = store.clone();
        let inserting = Batcher::start(limits, tasks, Error::is_permanent, move |batch: Vec<Insert>| {
            let store = db.clone();
            async move {
                let all = each_once(&batch);
                let fanned_out: Vec<FannedOut> = batch.iter().map(|insert| insert.fanned_out).collect();
                metrics::histogram!("posthorn_fan_out_batch_deliveries").record(all.len() as f64);
                let new = deliveries::insert(&store.client().await?, &all, &fanned_out, Timestamp::now()).await?;
                Ok(tell(&batch, new))
            }
        });
        let crowds = Mutex::default();
        Arc::new(Self { settings: settings.clone(), store: store.clone(), subscriptions, inserting, publisher, crowds })
    }

    /// Handles one message of the events queue.
    pub async fn handle(self: Arc<Self>, message: Message) -> Disposition {
        let known = match Known::read(&message) {
            Ok(known) => known,
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "a message that cannot be read becomes a dead letter");
                return Disposition::DeadLetter;
            }
        };
        let span = info_span!("fan_out", event.id = %known.id, event.r#type = %known.event_type);
        if let Some(content) = &known.event.content {
            trace::continue_from(&span, &content.traceparent);
        }
        self.fan_out(known).instrument(span).await
    }

    async fn fan_out(&self, known: Known) -> Disposition {
        let matches = self.matches(&known);
        debug!(matches = matches.len(), "event {} is for {} subscriptions", known.id, matches.len());
        if known.part.is_whole() && matches.len() > self.settings.chunk {
            return self.split(&known, &matches).await;
        }
        let now = Timestamp::now();
        let new: Arc<[NewDelivery]> = matches.iter().map(|entry| self.new_delivery(&known, entry, now)).collect();
        let fanned_out = FannedOut { event_id: known.id, part: known.part, audience: known.audience };
        let insert = Insert { deliveries: Arc::clone(&new), fanned_out };
        let inserted = match self.inserting.submit_patiently(insert).await {
            Ok(inserted) => inserted,
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "fan-out has to wait for the database");
                return Disposition::Stall;
            }
        };
        let content = self.content(&known, matches.len());
        let wakes = new
            .iter()
            .zip(inserted)
            .filter(|(delivery, inserted)| *inserted && delivery.held.is_none())
            .map(|(delivery, _)| wake(delivery, content.clone()));
        dispatch::publish(&self.store, &self.publisher, wakes).await;
        Disposition::Done
    }

    fn matches(&self, known: &Known) -> Vec<Arc<Entry>> {
        let facts = EventFacts {
            event_type: &known.event_type,
            source_id: known.source_id,
            source_slug: &known.event.source_slug,
            audience: known.audience,
        };
        let candidates = match known.audience {
            Audience::Tenant(tenant) => self.subscriptions.of_tenant(tenant),
            Audience::Everyone => self.subscriptions.all(),
            Audience::Nobody => Vec::new(),
        };
        targets(facts, candidates.iter().map(Target))
            .map(|target| Arc::clone(target.0))
            .filter(|entry| known.part.contains(entry.id))
            .collect()
    }

    /// A wide event becomes chunks, so that several dispatchers share it and a repeat costs little.
    /// A relay publishes those that the broker does not get from here.
    async fn split(&self, known: &Known, matches: &[Arc<Entry>]) -> Disposition {
        let part = |chunk: &[Arc<Entry>]| Some(Part { first: chunk.first()?.id, last: chunk.last()?.id });
        let parts: Vec<Part> = matches.chunks(self.settings.chunk).filter_map(part).collect();
        if let Err(error) = self.note(known.id, &parts).await {
            warn!(error = &error as &dyn std::error::Error, "fan-out has to wait for the database");
            return Disposition::Stall;
        }
        let publishing = parts.iter().map(|&Part { first, last }| {
            let body = message::chunk(known.event.clone(), first.as_uuid(), last.as_uuid());
            self.publisher.publish(Outgoing {
                exchange: EVENTS,
                routing_key: CHUNK.to_owned(),
                message_id: format!("{}/{first}", known.id),
                traceparent: String::new(),
                body: body.encode_to_vec(),
            })
        });
        let published = futures_util::future::join_all(publishing).await;
        let failed = published.iter().filter(|published| published.is_err()).count();
        if failed > 0 {
            warn!(failed, "parts of event {} wait in the outbox: the broker did not take their messages", known.id);
        }
        Disposition::Done
    }

    async fn note(&self, id: EventId, parts: &[Part]) -> posthorn_store::Result<()> {
        events::split(&self.store.client().await?, id, parts).await
    }

    fn new_delivery(&self, known: &Known, entry: &Entry, now: Timestamp) -> NewDelivery {
        let held = entry.holds(now).or_else(|| self.stands_back(entry, now));
        let queue = Duration::from_secs(self.settings.queue_lease_seconds);
        NewDelivery {
            id: DeliveryId::derive(known.id, entry.id),
            event_id: known.id,
            subscription_id: entry.id,
            tenant_id: entry.tenant_id,
            event_type: known.event_type.to_string(),
            held,
            due_at: match held {
                None => lease(queue, entry.timeout, now),
                // Its place in the line.
                Some(_) if entry.ordered => whole_micros(later(known.id.time(), SETTLING)),
                Some(_) => whole_micros(now),
            },
        }
    }

    /// Whether a delivery waits for its turn in the database, because its tenant has filled the queue.
    fn stands_back(&self, entry: &Entry, now: Timestamp) -> Option<HeldReason> {
        let shard = shard(entry.id);
        let mut crowds = self.crowds.lock().unwrap_or_else(PoisonError::into_inner);
        let crowd = crowds.get_mut(usize::from(shard))?;
        crowd.note(entry.tenant_id, now);
        let ahead = self.publisher.depth().in_shard(shard);
        crowd.must_wait(entry.tenant_id, ahead, self.settings.max_ahead).then_some(HeldReason::Slow)
    }

    /// What rides along: everything, or all but the body where it would be copied too often.
    fn content(&self, known: &Known, fan_out: usize) -> Option<Content> {
        let mut content = known.event.content.clone()?;
        let small = content.body.as_ref().is_some_and(|body| body.len() <= self.settings.inline_bytes);
        if !small || fan_out > self.settings.inline_fan_out {
            content.body = None;
        }
        Some(content)
    }
}

/// An event's message may come twice, and both may be in one batch: the first one makes the deliveries.
fn each_once(batch: &[Insert]) -> Vec<NewDelivery> {
    let mut seen = HashSet::new();
    let deliveries = batch.iter().flat_map(|insert| insert.deliveries.iter());
    deliveries.filter(|delivery| seen.insert(delivery.id)).cloned().collect()
}

/// Tells of each delivery whether it is new, and that to the first one only: whoever is told publishes it.
fn tell(batch: &[Insert], mut new: HashSet<DeliveryId>) -> Vec<Vec<bool>> {
    batch.iter().map(|insert| insert.deliveries.iter().map(|delivery| new.remove(&delivery.id)).collect()).collect()
}

fn wake(delivery: &NewDelivery, content: Option<Content>) -> Wake {
    Wake {
        id: delivery.id,
        event_id: delivery.event_id,
        subscription_id: delivery.subscription_id,
        tenant_id: delivery.tenant_id,
        generation: 1,
        attempt: 1,
        not_now: 0,
        lease_until: delivery.due_at,
        trigger: Trigger::Dispatch.as_str(),
        event_type: delivery.event_type.clone(),
        content,
    }
}

/// Lets `core` look at an entry without copying it.
struct Target<'a>(&'a Arc<Entry>);

impl std::ops::Deref for Target<'_> {
    type Target = posthorn_core::subscription::Subscription;

    fn deref(&self) -> &Self::Target {
        &self.0.subscription
    }
}

/// Why a message is no event.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("not an event message")]
    Wire(#[from] prost::DecodeError),
    #[error(transparent)]
    Id(#[from] NotAnId),
    #[error("the event type is none")]
    EventType(#[from] event_type::Error),
    #[error("`{0}` is missing")]
    Missing(&'static str),
    #[error("the routing key `{0}` is unknown")]
    RoutingKey(String),
}

impl Known {
    /// Fails where the message is no event's.
    pub fn read(message: &Message) -> Result<Self, Unreadable> {
        match message.routing_key.as_str() {
            EVENT => Self::of(Event::decode(message.body.as_slice())?, Part::whole()),
            CHUNK => {
                let chunk = Chunk::decode(message.body.as_slice())?;
                let bound = |field, bytes: &[u8]| message::uuid(field, bytes).map(SubscriptionId::from_uuid);
                let first = bound("first_subscription_id", &chunk.first_subscription_id)?;
                let last = bound("last_subscription_id", &chunk.last_subscription_id)?;
                Self::of(chunk.event.ok_or(Unreadable::Missing("event"))?, Part { first, last })
            }
            other => Err(Unreadable::RoutingKey(other.to_owned())),
        }
    }

    fn of(event: Event, part: Part) -> Result<Self, Unreadable> {
        let audience = match (event.routed(), &event.tenant_id) {
            (Routed::Broadcast, _) => Audience::Everyone,
            (Routed::Unrouted, _) => Audience::Nobody,
            (Routed::Tenant, Some(tenant)) => {
                Audience::Tenant(TenantId::from_uuid(message::uuid("tenant_id", tenant)?))
            }
            (Routed::Tenant | Routed::Unspecified, _) => return Err(Unreadable::Missing("tenant_id")),
        };
        Ok(Self {
            id: EventId::from_uuid(message::uuid("event_id", &event.event_id)?),
            source_id: SourceId::from_uuid(message::uuid("source_id", &event.source_id)?),
            event_type: EventType::parse(&event.event_type)?,
            audience,
            part,
            event,
        })
    }
}

#[cfg(test)]
mod tests {
    use posthorn_core::time::to_micros;
    use uuid::Uuid;

    use super::*;

    /// What a message for two subscriptions would insert, under a lease that ends at `lease`.
    fn insert(lease: i64) -> Insert {
        let event_id = EventId::from_uuid(Uuid::from_u128(1));
        let delivery = |number| {
            let subscription_id = SubscriptionId::from_uuid(Uuid::from_u128(number));
            NewDelivery {
                id: DeliveryId::derive(event_id, subscription_id),
                event_id,
                subscription_id,
                tenant_id: TenantId::from_uuid(Uuid::from_u128(2)),
                event_type: "invoice.paid".to_owned(),
                held: None,
                due_at: Timestamp::from_microsecond(lease).unwrap_or_default(),
            }
        };
        let fanned_out = FannedOut { event_id, part: Part::whole(), audience: Audience::Everyone };
        Insert { deliveries: [delivery(10), delivery(11)].into(), fanned_out }
    }

    #[test]
    fn of_two_messages_of_one_event_in_a_batch_one_makes_its_deliveries_and_publishes_them() {
        let batch = [insert(1), insert(2)];
        let all = each_once(&batch);
        assert_eq!(all.iter().map(|delivery| to_micros(delivery.due_at)).collect::<Vec<_>>(), [1, 1]);
        let new = all.iter().map(|delivery| delivery.id).collect();
        assert_eq!(tell(&batch, new), [[true, true], [false, false]]);
    }
}
