//! Endpoints that fail: breakers, warnings, the end, and what tenants hear of it.

use posthorn_testkit::{Api, World, eventually};
use serde_json::{Value, json};

/// A policy whose attempts come quickly and end late.
fn insistent() -> Value {
    json!({ "retry_policy": { "kind": "schedule", "delays_seconds": vec![1; 20] } })
}

async fn breaker(api: &Api, subscription: &Value) -> Value {
    api.get(&path(subscription)).await["breaker"].clone()
}

fn path(subscription: &Value) -> String {
    format!("/v1/subscriptions/{}", subscription["id"].as_str().unwrap())
}

#[tokio::test]
async fn an_endpoint_that_fails_is_left_alone_until_a_probe_finds_it_well() {
    let world = World::start_with(&[("DELIVERY_WORKER_BREAKER__COOLDOWN_SECONDS", "2")]).await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await.responding([500]);
    let subscription = api.subscribe(&tenant, &receiver.url(""), &["*"], insistent()).await;
    let stripe = world.stripe_for(&tenant).await;
    for _ in 0..12 {
        stripe.send("invoice.paid", json!({})).await;
    }
    eventually("the breaker opens", || async { (breaker(&api, &subscription).await["state"] == "open").then_some(()) })
        .await;
    let event = stripe.send("invoice.paid", json!({})).await;
    let held = api.delivery_in(&event, "held").await;
    assert_eq!((&held["held_reason"], &held["attempts_made"]), (&json!("breaker"), &json!(0)));

    receiver.clone().responding([200]);

    let list = format!("/v1/deliveries?tenant_id={tenant}&state=delivered&limit=200");
    let delivered = eventually("all are delivered", || async {
        let data = api.get(&list).await["data"].as_array().cloned().unwrap();
        (data.len() == 13).then_some(data)
    })
    .await;
    assert_eq!(breaker(&api, &subscription).await, json!({ "state": "closed", "until": null }));
    let mut triggers = Vec::new();
    for delivery in delivered {
        let delivery = api.get(&format!("/v1/deliveries/{}", delivery["id"].as_str().unwrap())).await;
        let attempts = delivery["attempts"].as_array().unwrap();
        triggers.extend(attempts.iter().filter(|attempt| attempt["status_code"] == 200).map(|a| a["trigger"].clone()));
    }
    assert_eq!(
        triggers.iter().filter(|trigger| **trigger == "probe").count(),
        3,
        "most of five found out: {triggers:?}"
    );
    world.stop().await;
}

#[tokio::test]
async fn a_subscription_that_fails_for_long_is_warned_and_disabled_and_begins_anew() {
    let settings = [
        ("DISPATCHER_WARDEN__DISABLE_AFTER_SECONDS", "6"),
        ("DISPATCHER_WARDEN__POLL_MS", "100"),
        ("DELIVERY_WORKER_BREAKER__COOLDOWN_SECONDS", "1"),
        ("DELIVERY_WORKER_BREAKER__MAX_COOLDOWN_SECONDS", "1"),
    ];
    let world = World::start_with(&settings).await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let (receiver, console) = (world.receiver().await.responding([500]), world.receiver().await);
    let subscription = api.subscribe(&tenant, &receiver.url(""), &["*"], insistent()).await;
    api.subscribe(&tenant, &console.url(""), &["posthorn.*"], json!({})).await;
    let stripe = world.stripe_for(&tenant).await;
    stripe.send("invoice.paid", json!({})).await;

    let told = eventually("the tenant hears that it is disabled", || async {
        let told: Vec<Value> = console.received().iter().map(posthorn_testkit::Received::json).collect();
        let ends = told.last().is_some_and(|last| last["type"] == "posthorn.subscription.disabled");
        ends.then_some(told)
    })
    .await;
    // One that was reached together with the next is not given any more.
    let percents: Vec<_> =
        told[..told.len() - 1].iter().map(|told| told["data"]["percent"].as_i64().unwrap()).collect();
    assert!(percents.is_sorted() && percents.ends_with(&[90]), "{percents:?}");
    assert!(told.iter().all(|told| told["data"]["subscription_id"] == subscription["id"]));
    let disabled = api.get(&path(&subscription)).await;
    assert_eq!((&disabled["state"], &disabled["disabled_reason"]), (&json!("disabled"), &json!("failing")));
    assert_eq!(disabled["failing"]["warned_percent"], 90);
    let since = disabled["recover_since"].as_str().unwrap().to_owned();
    let missed = stripe.send("invoice.paid", json!({})).await;

    receiver.clone().responding([200]);
    // Whichever way it leaves that state.
    api.post(&format!("{}/pause", path(&subscription)), json!({})).await;
    let active = api.post(&format!("{}/resume", path(&subscription)), json!({})).await;
    assert_eq!(
        (&active["state"], &active["failing"], &active["breaker"]["state"]),
        (&json!("active"), &Value::Null, &json!("closed"))
    );
    api.post(&format!("{}/recover", path(&subscription)), json!({ "since": since })).await;
    api.delivery_in(&missed, "delivered").await;
    assert_eq!(api.get(&path(&subscription)).await["recover_since"], Value::Null);
    world.stop().await;
}

#[tokio::test]
async fn a_tenant_hears_of_a_delivery_that_died_and_of_its_arrival_after_all() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let (receiver, console) = (world.receiver().await.responding([500, 200]), world.receiver().await);
    let once = json!({ "retry_policy": { "kind": "schedule", "delays_seconds": [] } });
    api.subscribe(&tenant, &receiver.url(""), &["*"], once).await;
    api.subscribe(&tenant, &console.url(""), &["posthorn.delivery.*"], json!({})).await;
    let stripe = world.stripe_for(&tenant).await;
    let event = stripe.send("invoice.paid", json!({})).await;

    let exhausted = console.attempts(1).await[0].json();
    assert_eq!(
        (&exhausted["type"], &exhausted["data"]["reason"]),
        (&json!("posthorn.delivery.exhausted"), &json!("exhausted"))
    );
    assert_eq!(exhausted["data"]["event_id"], json!(event));
    let delivery = exhausted["data"]["delivery_id"].as_str().unwrap().to_owned();
    api.post(&format!("/v1/deliveries/{delivery}/retry"), json!({})).await;

    let recovered = console.attempts(2).await[1].json();
    assert_eq!(
        (&recovered["type"], &recovered["data"]["delivery_id"]),
        (&json!("posthorn.delivery.recovered"), &json!(delivery))
    );
    world.stop().await;
}
