//! Events wait in the outbox until their deliveries are made, whatever the broker loses.

use jiff::Timestamp;
use posthorn_core::id::{EventId, SubscriptionId, TenantId};
use posthorn_core::message::{self, Routed};
use posthorn_core::subscription::Audience;
use posthorn_store::Client;
use posthorn_store::deliveries::{self, FannedOut};
use posthorn_store::events::{self, Assigned, Part};
use posthorn_testkit::{Database, World, eventually};
use prost::Message as _;
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use crate::samples::{delivery, event, now, subscribed};

/// The parts of an event in the outbox, from where and whether it is due.
async fn parts(client: &Client, id: EventId) -> Vec<(Uuid, bool)> {
    let rows = client
        .query(
            "SELECT first_subscription_id, due_at <= now() FROM outbox WHERE event_id = $1 ORDER BY 1",
            &[id.as_uuid()],
        )
        .await
        .unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn fanned_out(event_id: EventId, part: Part, audience: Audience) -> FannedOut {
    FannedOut { event_id, part, audience }
}

fn subscription(number: u128) -> SubscriptionId {
    SubscriptionId::from_uuid(Uuid::from_u128(number))
}

#[tokio::test]
async fn a_wide_event_leaves_the_outbox_part_by_part() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let new = event("wide", now());
    events::accept(&client, std::slice::from_ref(&new), now()).await.unwrap();
    let low = Part { first: subscription(1), last: subscription(5) };
    let high = Part { first: subscription(6), last: subscription(9) };

    // Twice, as when the event's message comes again.
    for _ in 0..2 {
        events::split(&client, new.id, &[high, low]).await.unwrap();
    }

    let first = |part: &Part| *part.first.as_uuid();
    assert_eq!(parts(&client, new.id).await, [(first(&low), false), (first(&high), false)]);
    client.execute("UPDATE outbox SET due_at = now()", &[]).await.unwrap();
    let mut due = events::take_due(&client, 10, 30.0, 8192).await.unwrap();
    due.sort_by_key(|event| event.part.first);
    assert_eq!(due.iter().map(|event| event.part).collect::<Vec<_>>(), [low, high], "each is published by itself");
    deliveries::insert(&client, &[], &[fanned_out(new.id, low, Audience::Everyone)], now()).await.unwrap();
    assert_eq!(parts(&client, new.id).await, [(first(&high), false)]);
    events::give_up(&client, new.id, high).await.unwrap();
    assert_eq!(parts(&client, new.id).await, []);
}

#[tokio::test]
async fn a_message_that_says_nobody_does_not_settle_an_event_that_somebody_routed() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let (tenant, _) = subscribed(&client).await;
    let new = event("lost", now());
    events::accept(&client, std::slice::from_ref(&new), now()).await.unwrap();
    let to_nobody = fanned_out(new.id, Part::whole(), Audience::Nobody);
    deliveries::insert(&client, &[], &[to_nobody], now()).await.unwrap();
    assert_eq!(events::assign(&client, new.id, tenant).await.unwrap(), Assigned::Done);

    // The first message, a second time.
    deliveries::insert(&client, &[], &[to_nobody], now()).await.unwrap();

    assert_eq!(parts(&client, new.id).await.len(), 1, "the tenant still waits for it");
    let to_tenant = fanned_out(new.id, Part::whole(), Audience::Tenant(tenant));
    deliveries::insert(&client, &[], &[to_tenant], now()).await.unwrap();
    assert_eq!(parts(&client, new.id).await, []);
}

#[tokio::test]
async fn dispatchers_that_make_the_same_deliveries_in_opposite_order_do_not_deadlock() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let (tenant, subscription) = subscribed(&client).await;
    let new: Vec<_> = (0..200).map(|_| delivery(tenant, subscription, None, now())).collect();
    let events: Vec<_> =
        new.iter().map(|new| fanned_out(new.event_id, Part::whole(), Audience::Tenant(tenant))).collect();
    for id in &events {
        client
            .execute("INSERT INTO outbox (event_id, due_at) VALUES ($1, now())", &[id.event_id.as_uuid()])
            .await
            .unwrap();
    }
    let run = |reversed: bool| {
        let (store, mut new, mut events) = (database.store.clone(), new.clone(), events.clone());
        if reversed {
            new.reverse();
            events.reverse();
        }
        async move {
            let client = store.client().await.unwrap();
            deliveries::insert(&client, &new, &events, Timestamp::now()).await.unwrap().len()
        }
    };

    let made = futures_util::future::join_all((0..8).map(|number| run(number % 2 == 0))).await;

    assert_eq!(made.iter().sum::<usize>(), 200, "each once");
    assert_eq!(events::outbox_backlog(&client).await.unwrap().0, 0);
}

#[tokio::test]
async fn what_was_planned_while_the_outbox_was_empty_is_quick_when_it_is_full() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let rounds: Vec<_> =
        (0..250).map(|_| fanned_out(event("x", now()).id, Part::whole(), Audience::Everyone)).collect();
    client.batch_execute("VACUUM ANALYZE outbox").await.unwrap();
    // Often enough for the session to keep its plan.
    for _ in 0..10 {
        deliveries::insert(&client, &[], &rounds, now()).await.unwrap();
        events::take_due(&client, 500, 30.0, 8192).await.unwrap();
    }
    let fill = "INSERT INTO outbox (event_id, due_at) SELECT gen_random_uuid(), now() + '1 hour' FROM generate_series(1, 50000)";
    client.batch_execute(fill).await.unwrap();
    for f in &rounds {
        client
            .execute("INSERT INTO outbox (event_id, due_at) VALUES ($1, now())", &[f.event_id.as_uuid()])
            .await
            .unwrap();
    }

    let began = std::time::Instant::now();
    events::take_due(&client, 500, 30.0, 8192).await.unwrap();
    deliveries::insert(&client, &[], &rounds, now()).await.unwrap();

    assert!(began.elapsed() < std::time::Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(events::outbox_backlog(&client).await.unwrap().0, 50_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_the_broker_confirmed_and_lost_is_delivered() {
    let world = World::start_with(&[("INGRESS_GATEWAY_RELAY__LEASE_SECONDS", "2")]).await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await;
    api.subscribe(&tenant, &receiver.url(""), &["*"], json!({})).await;
    let stripe = world.stripe_for(&tenant).await;
    let client = world.database.store.client().await.unwrap();
    // With this held, deliveries cannot be made, and the message goes back to its queue.
    let mut holder = world.database.store.client().await.unwrap();
    let lock = holder.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE deliveries IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let sent = stripe.send("invoice.paid", json!({})).await;
    let queue = format!("queues/{}/posthorn.events.v1", world.broker.vhost());
    let dispatcher_has_it =
        "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%INTO deliveries%'";
    eventually("fan-out waits", || async { client.query_opt(dispatcher_has_it, &[]).await.unwrap().map(|_| ()) }).await;
    world.broker.manage(Method::DELETE, &queue, None).await;

    lock.rollback().await.unwrap();

    let received = receiver.attempts(1).await;
    assert_eq!(received[0].header("webhook-id"), sent);
    eventually("the outbox is empty", || async {
        (events::outbox_backlog(&client).await.unwrap().0 == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_events_message_that_became_a_dead_letter_names_the_event_and_leaves_the_outbox() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let client = world.database.store.client().await.unwrap();
    let lost = event("poison", now());
    client
        .execute("INSERT INTO outbox (event_id, due_at) VALUES ($1, now() + '1 hour')", &[lost.id.as_uuid()])
        .await
        .unwrap();

    let message = message::Event {
        event_id: message::bytes(lost.id.as_uuid()),
        source_id: message::bytes(lost.source_id.as_uuid()),
        routed: Routed::Tenant.into(),
        tenant_id: Some(message::bytes(tenant.parse::<TenantId>().unwrap().as_uuid())),
        event_type: lost.event_type.to_string(),
        ..message::Event::default()
    };

    world.broker.bury("event", &message.encode_to_vec(), "delivery_limit").await;

    let letter = eventually("a dead letter", || async {
        let letters = api.get("/v1/dead-letters?reason=delivery_limit").await;
        letters["data"].as_array().unwrap().first().cloned()
    })
    .await;
    assert_eq!(letter["event_id"], lost.id.to_string());
    assert_eq!((&letter["tenant_id"], &letter["delivery_id"]), (&json!(tenant), &json!(null)));
    assert_eq!(parts(&client, lost.id).await, [], "it would kill the next one");
}
