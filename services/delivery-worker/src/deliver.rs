//! A message, from the queue to its settlement.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use posthorn_bus::{Disposition, Message};
use posthorn_core::delivery::{
    Admission, CLAIM_AFTER, Flow, HeldReason, Next, Trigger, Wake, admit, after_attempt, hold, may_begin,
    wait_before_claim,
};
use posthorn_core::envelope::Payload;
use posthorn_core::event_type::EventType;
use posthorn_core::id::{DeliveryId, EventId, SubscriptionId, TenantId};
use posthorn_core::message;
use posthorn_core::outcome::{Attempted, Fault};
use posthorn_core::share::is_late;
use posthorn_core::subscription::State;
use posthorn_core::time::{from_micros, later, since, whole_micros};
use posthorn_process::sender::{Answered, Shipment};
use posthorn_process::trace;
use posthorn_store::deliveries::{self, Claim, Made, Report, Word};
use posthorn_store::events::{self, Content};
use posthorn_store::snapshot::Entry as Subscriber;
use prost::Message as _;
use tracing::{Instrument as _, error, info_span, warn};

use crate::Worker;
use crate::lanes::Entry;

/// What a lease outlasts an attempt by: enough to record it.
const MARGIN: Duration = Duration::from_secs(5);

/// How long a delivery waits when its tenant has its share of the slots.
const NO_SLOT_PAUSE: Duration = Duration::from_secs(1);

/// A message, read.
#[derive(Debug)]
struct Order {
    id: DeliveryId,
    event_id: EventId,
    subscription_id: SubscriptionId,
    tenant_id: TenantId,
    generation: u32,
    attempt: u32,
    not_now: u32,
    lease_until: Timestamp,
    trigger: Trigger,
    event_type: EventType,
    content: Option<message::Content>,
}

/// Handles one message of a deliveries queue.
pub async fn deliver(worker: Arc<Worker>, message: Message) -> Disposition {
    let order = match Order::read(&message.body) {
        Ok(order) => order,
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, "a message that cannot be read becomes a dead letter");
            return Disposition::DeadLetter;
        }
    };
    let span = info_span!(
        "deliver",
        tenant.id = %order.tenant_id,
        subscription.id = %order.subscription_id,
        event.id = %order.event_id,
        delivery.id = %order.id,
        attempt.number = order.attempt,
    );
    if let Some(content) = &order.content {
        trace::continue_from(&span, &content.traceparent);
    }
    worker.handle(order, message.redelivered).instrument(span).await.unwrap_or_else(|stalled| stalled)
}

impl Worker {
    /// `Err` is a fault of ours: the message goes back.
    async fn handle(&self, order: Order, redelivered: bool) -> Result<Disposition, Disposition> {
        let key = (order.id, order.generation, order.attempt);
        if redelivered {
            self.in_hand.free(key).await;
            self.pulse.steady_for(wait_before_claim(&order.wake(redelivered))).await;
        }
        let _in_hand = self.in_hand.take(key);
        // What cannot be sent takes no turn from others.
        let subscriber = match self.standing(&order, None).await? {
            Standing::Ready(subscriber) => subscriber,
            Standing::Stays(word) => return self.report(&order, word).await,
        };
        let patience = Duration::from_millis(self.settings.delivery.patience_ms);
        let permit = match self.lanes.enter(order.subscription_id, subscriber.max_in_flight, patience).await {
            Entry::Go(permit) => permit,
            Entry::Hold(wait) => {
                metrics::counter!("posthorn_put_back_total").increment(1);
                let until = later(Timestamp::now(), wait);
                return self.report(&order, Word::PutBack(HeldReason::Slow, until)).await;
            }
        };
        let late = is_late(order.generation, order.attempt, order.trigger);
        let Some(_slot) = self.slots.enter(order.tenant_id, late, patience).await else {
            metrics::counter!("posthorn_put_back_total").increment(1);
            let until = later(Timestamp::now(), NO_SLOT_PAUSE);
            return self.report(&order, Word::PutBack(HeldReason::Slow, until)).await;
        };
        // The turn may have come long after the message: what is true at the moment of sending decides.
        let subscriber = match self.standing(&order, permit.held_until()).await? {
            Standing::Ready(subscriber) => subscriber,
            Standing::Stays(word) => return self.report(&order, word).await,
        };
        // Only now: waiting for a turn takes time from the lease.
        let now = Timestamp::now();
        let admission = admit(&order.wake(redelivered), subscriber.timeout, MARGIN, now);
        if admission == Admission::Claim && !self.claim(&order, subscriber.timeout, now).await? {
            return self.settled_before(&order, redelivered).await;
        }
        let Some(content) = self.content(&order).await? else {
            return self.report(&order, Word::Expired).await;
        };
        if !may_begin(now, MARGIN, Timestamp::now()) {
            warn!("not attempted: too late for its lease");
            return Ok(Disposition::Done);
        }
        let sending = self.send(&order, &subscriber, &content);
        let answered = match admission {
            Admission::Claim => sending.await,
            Admission::Send => self.and_claim_if_long(sending, &order, subscriber.timeout, now).await,
        };
        let made = self.judge(&order, &subscriber, answered);
        if let Next::NotNow(until) = made.next {
            // Those that wait for a turn hear of it before the record does.
            permit.hold_until(until);
        }
        self.report(&order, Word::Attempted(Box::new(made))).await
    }

    /// Whether a delivery may be sent now. `held_until`: this worker's endpoint asked for time.
    async fn standing(&self, order: &Order, held_until: Option<Timestamp>) -> Result<Standing, Disposition> {
        let Some(subscriber) = self.subscriber(order.subscription_id).await? else {
            return Ok(Standing::Stays(Word::Cancelled));
        };
        let now = Timestamp::now();
        let flow = Flow {
            is_active: subscriber.state == State::Active,
            flows: subscriber.flows,
            can_sign: subscriber.can_sign(now),
            not_before: subscriber.hold.map(|hold| hold.until).max(held_until),
        };
        if !flow.can_sign {
            // Which secret does not open is logged where it is read.
            error!(
                "nothing can be sent: the subscription has no secret that opens, or its client certificate or a header does not"
            );
        }
        Ok(match hold(&flow, order.trigger, order.event_id.time(), now) {
            Some((reason, until)) => Standing::Stays(Word::PutBack(reason, until)),
            None => Standing::Ready(subscriber),
        })
    }

    /// `None`: deleted. A subscription that is not in the snapshot may be newer than it.
    async fn subscriber(&self, id: SubscriptionId) -> Result<Option<Arc<Subscriber>>, Disposition> {
        match self.subscriptions.find(id) {
            Some(subscriber) => Ok(Some(subscriber)),
            None => {
                let client = self.store.client().await.map_err(stall)?;
                self.subscriptions.fetch(&client, self.store.sealer(), id).await.map_err(stall)
            }
        }
    }

    async fn claim(&self, order: &Order, timeout: Duration, now: Timestamp) -> Result<bool, Disposition> {
        let claim = Claim {
            id: order.id,
            generation: order.generation,
            attempt: order.attempt,
            lease_until: order.lease_until,
            new_lease: whole_micros(later(later(now, timeout), MARGIN)),
        };
        self.recorder.claim(claim).await.map_err(stall)
    }

    /// An attempt that was begun unread, at `began`. Where the claim fails nothing is lost: what was sent is recorded.
    async fn and_claim_if_long(
        &self,
        sending: impl Future<Output = Answered>,
        order: &Order,
        timeout: Duration,
        began: Timestamp,
    ) -> Answered {
        let claiming = async {
            loop {
                tokio::time::sleep(CLAIM_AFTER).await;
                if self.claim(order, timeout, began).await.is_ok() {
                    // Taken, or somebody else's: nothing is left to do but to wait for the answer.
                    return std::future::pending().await;
                }
            }
        };
        tokio::select! {
            answered = sending => answered,
            never = claiming => never,
        }
    }

    /// The row has moved on, so the message is spent. It may have moved to `dead` just before whoever
    /// moved it died: then the message still has to become a dead letter.
    async fn settled_before(&self, order: &Order, redelivered: bool) -> Result<Disposition, Disposition> {
        metrics::counter!("posthorn_claims_refused_total").increment(1);
        if !redelivered {
            return Ok(Disposition::Done);
        }
        let client = self.store.client().await.map_err(stall)?;
        let dead = deliveries::is_dead(&client, order.id, order.generation).await.map_err(stall)?;
        Ok(if dead { Disposition::DeadLetter } else { Disposition::Done })
    }

    /// What the receiver is told; from the message, or from the record where it was too large for one.
    async fn content(&self, order: &Order) -> Result<Option<Arc<Content>>, Disposition> {
        if let Some(message::Content { timestamp_us, content_type, content_encoding, body: Some(body), traceparent }) =
            &order.content
        {
            return Ok(Some(Arc::new(Content {
                event_type: order.event_type.clone(),
                timestamp: from_micros(*timestamp_us),
                content_type: content_type.clone(),
                content_encoding: content_encoding.clone(),
                traceparent: traceparent.clone(),
                body: body.clone(),
            })));
        }
        let read = self.contents.try_get_with(order.event_id, async {
            let client = self.store.client().await?;
            events::content(&client, order.event_id).await.map(|content| content.map(Arc::new))
        });
        read.await.map_err(stall)
    }

    async fn send(&self, order: &Order, subscriber: &Subscriber, content: &Content) -> Answered {
        if order.attempt == 1 && order.trigger == Trigger::Dispatch {
            let waited = since(order.event_id.time(), Timestamp::now());
            metrics::histogram!("posthorn_first_attempt_delay_seconds").record(waited);
        }
        let payload = Payload {
            event_type: &content.event_type,
            timestamp: content.timestamp,
            content_type: &content.content_type,
            content_encoding: &content.content_encoding,
            body: &content.body,
        };
        let shipment = Shipment {
            event_id: order.event_id,
            subscription: subscriber,
            secrets: &subscriber.signing(Timestamp::now()),
            payload,
            traceparent: &content.traceparent,
            is_test: false,
        };
        self.sender.send(&shipment).await
    }

    fn judge(&self, order: &Order, subscriber: &Subscriber, answered: Answered) -> Made {
        let now = Timestamp::now();
        let not_after = later(order.event_id.time(), Duration::from_secs(self.settings.delivery.max_age_seconds));
        let next = after_attempt(
            &subscriber.retry_policy,
            order.attempt.saturating_sub(order.not_now),
            &answered.attempted,
            not_after,
            rand::random(),
            now,
        );
        let outcome = match (&answered.attempted, &next) {
            (Attempted::Accepted, _) => "delivered",
            (_, Next::Dead(_)) => "dead",
            (_, Next::NotNow(_)) => "not_now",
            _ => "failed",
        };
        metrics::counter!("posthorn_attempts_total", "outcome" => outcome).increment(1);
        metrics::histogram!("posthorn_attempt_seconds").record(answered.took);
        if let Some((code, detail)) = &answered.error {
            warn!(
                http.status = answered.status,
                error.code = code,
                duration_ms = answered.took.as_millis() as u64,
                ?next,
                "endpoint refused delivery {}: {detail}",
                order.id
            );
        }
        Made {
            trigger: order.trigger,
            started_at: answered.started_at,
            response_time: answered.took,
            status_code: answered.status,
            disables: answered.attempted == Attempted::Failed(Fault::Gone),
            error: answered.error,
            response: answered.response,
            response_headers: answered.response_headers,
            request_headers: answered.request_headers,
            next,
        }
    }

    /// Records first, settles then: a crash in between repeats work and loses none.
    async fn report(&self, order: &Order, word: Word) -> Result<Disposition, Disposition> {
        // What was claimed is ours, and its lease another one by now.
        let lease_until = match &word {
            Word::PutBack(..) | Word::Cancelled => Some(order.lease_until),
            Word::Attempted(_) | Word::Expired => None,
        };
        let died = match &word {
            Word::Attempted(made) => matches!(made.next, Next::Dead(_)),
            Word::Expired => true,
            Word::PutBack(..) | Word::Cancelled => false,
        };
        let report = Report {
            id: order.id,
            event_id: order.event_id,
            event_type: order.event_type.clone(),
            subscription_id: order.subscription_id,
            tenant_id: order.tenant_id,
            generation: order.generation,
            attempt: order.attempt,
            lease_until,
            word,
        };
        let moved = self.recorder.record(report).await.ok_or(Disposition::Stall)?;
        Ok(if died && moved { Disposition::DeadLetter } else { Disposition::Done })
    }
}

/// Whether a delivery may be sent.
enum Standing {
    Ready(Arc<Subscriber>),
    /// It may not, and that is what the record is to say.
    Stays(Word),
}

impl Order {
    fn read(body: &[u8]) -> Result<Self, Unreadable> {
        let wire = message::Delivery::decode(body)?;
        Ok(Self {
            id: DeliveryId::from_uuid(message::uuid("delivery_id", &wire.delivery_id)?),
            event_id: EventId::from_uuid(message::uuid("event_id", &wire.event_id)?),
            subscription_id: SubscriptionId::from_uuid(message::uuid("subscription_id", &wire.subscription_id)?),
            tenant_id: TenantId::from_uuid(message::uuid("tenant_id", &wire.tenant_id)?),
            generation: wire.generation,
            attempt: wire.attempt,
            not_now: wire.not_now,
            lease_until: from_micros(wire.lease_until_us),
            trigger: Trigger::parse(&wire.trigger).ok_or(Unreadable::Trigger)?,
            event_type: EventType::parse(&wire.event_type)?,
            content: wire.content,
        })
    }

    fn wake(&self, redelivered: bool) -> Wake {
        Wake {
            attempt: self.attempt,
            trigger: self.trigger,
            redelivered,
            has_content: self.content.is_some(),
            lease_until: self.lease_until,
        }
    }
}

/// Why a message is no delivery.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("not a delivery message")]
    Wire(#[from] prost::DecodeError),
    #[error(transparent)]
    Id(#[from] message::NotAnId),
    #[error("the trigger is unknown")]
    Trigger,
    #[error("the event type is none")]
    EventType(#[from] posthorn_core::event_type::Error),
}

/// Our fault, not the message's: it goes back, and consuming waits for the database.
fn stall(error: impl std::error::Error + 'static) -> Disposition {
    warn!(error = &error as &dyn std::error::Error, "a delivery has to wait for the database");
    Disposition::Stall
}
