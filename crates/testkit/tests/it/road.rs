//! The way of an event, from a provider's POST to a tenant's endpoint.

use std::time::Duration;

use posthorn_core::signature::standard::{self, SigningSecret};
use posthorn_testkit::{World, eventually, gateway_without_database};
use serde_json::{Value, json};

/// Retries that a test can wait for.
fn quick_retries(max_attempts: u32) -> Value {
    json!({ "retry_policy": {
        "kind": "exponential", "base_seconds": 0.1, "factor": 1, "max_delay_seconds": 1, "max_attempts": max_attempts
    }})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_reaches_every_subscription_that_asked_for_it_and_no_other() {
    let world = World::start().await;
    let api = world.api();
    let (acme, bolt) = (api.tenant("acme").await, api.tenant("bolt").await);
    let receiver = world.receiver().await;
    let first = api.subscribe(&acme, &receiver.url("acme"), &["invoice.*"], json!({})).await;
    let second = api.subscribe(&bolt, &receiver.url("bolt"), &["*"], json!({})).await;
    api.subscribe(&bolt, &receiver.url("other"), &["customer.*"], json!({})).await;
    let stripe = world.stripe(json!({ "kind": "broadcast" })).await;

    let event = stripe.send("invoice.paid", json!({ "total": 42 })).await;

    let deliveries = api.deliveries(&event, 2).await;
    assert_eq!(deliveries.len(), 2);
    for received in receiver.attempts(2).await {
        let subscription = match received.path.as_str() {
            "/acme" => &first,
            "/bolt" => &second,
            other => panic!("{other} did not ask for it"),
        };
        let secret = SigningSecret::parse(subscription["secret"].as_str().unwrap()).unwrap();
        standard::verify(&secret, &received.headers, &received.body, received.at).expect("a signature that holds");
        assert_eq!(received.header("webhook-id"), event);
        assert_eq!(received.json()["type"], "invoice.paid");
        assert_eq!(received.json()["data"]["data"]["object"]["total"], 42);
        assert!(received.header("traceparent").starts_with("00-"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_delivery_is_retried_until_the_endpoint_accepts_it() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await.responding([503, 503, 200]);
    api.subscribe(&tenant, &receiver.url(""), &["invoice.*"], quick_retries(5)).await;

    let event = world.stripe_for(&tenant).await.send("invoice.paid", json!({})).await;

    let received = receiver.attempts(3).await;
    assert!(received.iter().all(|r| r.header("webhook-id") == event), "stable across retries");
    assert!(received.iter().all(|r| r.body == received[0].body), "the same bytes every time");
    let delivery = api.delivery_in(&event, "delivered").await;
    let attempts = delivery["attempts"].as_array().unwrap();
    let told: Vec<_> = attempts.iter().map(|a| (a["trigger"].as_str().unwrap(), a["status_code"].as_u64())).collect();
    assert_eq!(told, [("dispatch", Some(503)), ("retry", Some(503)), ("retry", Some(200))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_delivery_becomes_a_dead_letter_and_a_replay_delivers_it() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await.responding([500, 500, 200]);
    api.subscribe(&tenant, &receiver.url(""), &["*"], quick_retries(2)).await;

    let event = world.stripe_for(&tenant).await.send("invoice.paid", json!({})).await;

    let delivery = api.delivery_in(&event, "dead").await;
    let letter = eventually("a dead letter", || async {
        let list = api.get(&format!("/v1/dead-letters?tenant_id={tenant}")).await;
        list["data"].get(0).cloned()
    })
    .await;
    assert_eq!((&letter["reason"], &letter["delivery_id"]), (&json!("exhausted"), &delivery["id"]));
    assert_eq!(letter["error"], "the endpoint answered 500");

    api.post(&format!("/v1/dead-letters/{}/replay", letter["id"].as_str().unwrap()), json!({})).await;

    let delivery = api.delivery_in(&event, "delivered").await;
    let last = delivery["attempts"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["generation"], &last["number"], &last["trigger"]), (&json!(2), &json!(1), &json!("replay")));
    assert_eq!(delivery["attempts_made"], 3);
    let list = api.get(&format!("/v1/dead-letters?tenant_id={tenant}")).await;
    assert_eq!(list["data"], json!([]), "a replayed dead letter is settled");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_event_at_once_and_again_is_delivered_once() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await;
    api.subscribe(&tenant, &receiver.url(""), &["*"], json!({})).await;
    let stripe = world.stripe_for(&tenant).await;
    let body = stripe.event("invoice.paid", json!({}));

    let answers = futures_util::future::join_all((0..50).map(|_| stripe.post(&body))).await;

    assert!(answers.iter().all(|(status, _)| *status == 200));
    let ids: std::collections::HashSet<&str> = answers.iter().map(|(_, a)| a["event_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(answers.iter().filter(|(_, a)| a["duplicate"] == false).count(), 1);
    let event = ids.into_iter().next().unwrap();
    api.delivery_in(event, "delivered").await;
    assert_eq!(receiver.received().len(), 1);
    assert_eq!(api.get(&format!("/v1/events/{event}")).await["duplicates"], 49);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_gone_is_left_alone() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await.responding([410]);
    let subscription = api.subscribe(&tenant, &receiver.url(""), &["*"], quick_retries(5)).await;
    let stripe = world.stripe_for(&tenant).await;

    let event = stripe.send("invoice.paid", json!({})).await;

    api.delivery_in(&event, "dead").await;
    let path = format!("/v1/subscriptions/{}", subscription["id"].as_str().unwrap());
    let disabled = api.get(&path).await;
    assert_eq!((&disabled["state"], &disabled["disabled_reason"]), (&json!("disabled"), &json!("gone")));
    assert_eq!(disabled["stats"]["failed"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_subscription_holds_its_deliveries_until_it_is_active_again() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await;
    let subscription = api.subscribe(&tenant, &receiver.url(""), &["*"], json!({})).await;
    let path = format!("/v1/subscriptions/{}", subscription["id"].as_str().unwrap());
    api.patch(&path, json!({ "state": "paused" })).await;
    let stripe = world.stripe_for(&tenant).await;

    let event = stripe.send("invoice.paid", json!({})).await;

    let held = api.delivery_in(&event, "held").await;
    assert_eq!((&held["held_reason"], &held["due_at"]), (&json!("paused"), &Value::Null));
    api.patch(&path, json!({ "state": "active" })).await;
    api.delivery_in(&event, "delivered").await;
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_deleted_subscription_is_cancelled() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await.responding([500]);
    let subscription = api.subscribe(&tenant, &receiver.url(""), &["*"], json!({})).await;
    let event = world.stripe_for(&tenant).await.send("invoice.paid", json!({})).await;
    api.delivery_in(&event, "held").await;

    let path = format!("/v1/subscriptions/{}", subscription["id"].as_str().unwrap());
    let (status, _) = api.call(reqwest::Method::DELETE, &path, None).await;

    assert_eq!(status, 204);
    api.delivery_in(&event, "cancelled").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_holds_over_a_burst() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await;
    let limit = json!({ "rate_limit": { "per_second": 5 } });
    api.subscribe(&tenant, &receiver.url(""), &["*"], limit).await;
    let stripe = world.stripe_for(&tenant).await;

    let sending = (0..15).map(|number| stripe.send("invoice.paid", json!({ "number": number })));
    futures_util::future::join_all(sending).await;

    let received = receiver.attempts(15).await;
    let took = received[14].at.duration_since(received[0].at).as_secs_f64();
    // One second's worth at once, then five a second: fifteen take two seconds at least.
    assert!(took > 1.5, "{took} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_by_the_minute_is_spread_over_it() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await;
    let limit = json!({ "rate_limit": { "per_minute": 60 } });
    api.subscribe(&tenant, &receiver.url(""), &["*"], limit).await;
    let stripe = world.stripe_for(&tenant).await;

    let sending = (0..3).map(|number| stripe.send("invoice.paid", json!({ "number": number })));
    futures_util::future::join_all(sending).await;

    let received = receiver.attempts(3).await;
    let took = received[2].at.duration_since(received[0].at).as_secs_f64();
    assert!(took > 1.5, "{took} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_too_large_for_a_message_arrives_whole() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await;
    api.subscribe(&tenant, &receiver.url(""), &["*"], json!({ "payload_format": "raw" })).await;
    let stripe = world.stripe_for(&tenant).await;
    let body = stripe.event("invoice.paid", json!({ "note": "x".repeat(300_000) }));

    let (status, _) = stripe.post(&body).await;

    assert_eq!(status, 200);
    assert_eq!(receiver.attempts(1).await[0].body, body);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_the_broker_closes_are_built_anew_and_nothing_is_lost() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await;
    api.subscribe(&tenant, &receiver.url(""), &["*"], json!({})).await;
    let stripe = world.stripe_for(&tenant).await;
    let before = stripe.send("invoice.paid", json!({})).await;
    api.delivery_in(&before, "delivered").await;

    // The broker's management learns of connections every few seconds.
    let closed = eventually("connections to close", || async {
        let closed = world.broker.close_connections().await;
        (closed > 0).then_some(closed)
    })
    .await;
    let mut events = Vec::new();
    for number in 0..20 {
        events.push(stripe.send("invoice.paid", json!({ "number": number, "closed": closed })).await);
    }

    for event in &events {
        api.delivery_in(event, "delivered").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_does_not_know_its_sources_yet_asks_providers_to_come_back() {
    let gateway = gateway_without_database().await;

    let request = reqwest::Client::new().post(format!("http://{gateway}/webhooks/stripe")).body("{}");
    let answer = request.send().await.unwrap();

    // Never 404: providers take 4xx as final.
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_finishes_the_attempt_in_hand() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await.taking(Duration::from_secs(2));
    api.subscribe(&tenant, &receiver.url(""), &["*"], json!({})).await;
    world.stripe_for(&tenant).await.send("invoice.paid", json!({})).await;
    receiver.attempts(1).await;

    let (database, _broker) = world.stop().await;

    let client = database.store.client().await.unwrap();
    let filter = posthorn_store::deliveries::Filter::default();
    let page = posthorn_store::page::Page { before: None, limit: 10 };
    let deliveries = posthorn_store::deliveries::list(&client, &filter, page).await.unwrap();
    assert_eq!(deliveries[0].state, posthorn_core::delivery::State::Delivered);
}
