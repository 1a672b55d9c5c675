//! Ordered subscriptions: one delivery at a time, in the order of their events.

use posthorn_testkit::{Received, World};
use serde_json::json;

fn ids(received: &[Received]) -> Vec<String> {
    received.iter().map(|received| received.header("webhook-id").to_owned()).collect()
}

#[tokio::test]
async fn a_failing_head_is_tried_again_before_any_other_goes() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await.responding([200, 200, 500, 500, 200]);
    let ordered = json!({ "ordered": true, "retry_policy": { "kind": "schedule", "delays_seconds": [1, 1, 1] } });
    api.subscribe(&tenant, &receiver.url(""), &["*"], ordered).await;
    let other = world.receiver().await;
    api.subscribe(&tenant, &other.url(""), &["*"], json!({})).await;
    let stripe = world.stripe_for(&tenant).await;
    let mut sent = Vec::new();
    for _ in 0..12 {
        sent.push(stripe.send("invoice.paid", json!({})).await);
    }

    other.attempts(12).await;
    assert!(receiver.received().len() < 12, "it blocks its own subscription alone");
    let received = ids(&receiver.attempts(14).await);

    let third = sent[2].clone();
    sent.splice(2..2, [third.clone(), third]);
    assert_eq!(received, sent);
    world.stop().await;
}

#[tokio::test]
async fn one_that_stepped_aside_probes_an_endpoint_that_was_left_alone() {
    let settings =
        [("DELIVERY_WORKER_BREAKER__WINDOW_ATTEMPTS", "2"), ("DELIVERY_WORKER_BREAKER__COOLDOWN_SECONDS", "2")];
    let world = World::start_with(&settings).await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await.responding([500, 500, 200]);
    let ordered = json!({
        "ordered": true,
        "ordered_max_block_seconds": 1,
        "retry_policy": { "kind": "schedule", "delays_seconds": vec![1; 10] },
    });
    api.subscribe(&tenant, &receiver.url(""), &["*"], ordered).await;
    let stripe = world.stripe_for(&tenant).await;

    let event = stripe.send("invoice.paid", json!({})).await;

    let delivery = api.delivery_in(&event, "delivered").await;
    assert_eq!(delivery["attempts"].as_array().unwrap().last().unwrap()["trigger"], "probe");
    world.stop().await;
}

#[tokio::test]
async fn when_the_head_is_cancelled_the_next_one_goes_at_once() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await.responding([500, 200]);
    let ordered = json!({ "ordered": true, "retry_policy": { "kind": "schedule", "delays_seconds": [600] } });
    api.subscribe(&tenant, &receiver.url(""), &["*"], ordered).await;
    let stripe = world.stripe_for(&tenant).await;
    let head = stripe.send("invoice.paid", json!({})).await;
    receiver.attempts(1).await;
    let next = stripe.send("invoice.paid", json!({})).await;
    let head = api.delivery_in(&head, "held").await;
    let waiting = api.delivery_in(&next, "held").await;
    assert_eq!(waiting["held_reason"], "order");

    api.post(&format!("/v1/deliveries/{}/cancel", head["id"].as_str().unwrap()), json!({})).await;

    api.delivery_in(&next, "delivered").await;
    world.stop().await;
}

#[tokio::test]
async fn a_head_that_fails_for_too_long_steps_aside() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await.responding([500, 200]);
    let ordered = json!({
        "ordered": true,
        "ordered_max_block_seconds": 1,
        "retry_policy": { "kind": "schedule", "delays_seconds": [5] },
    });
    api.subscribe(&tenant, &receiver.url(""), &["*"], ordered).await;
    let stripe = world.stripe_for(&tenant).await;
    let first = stripe.send("invoice.paid", json!({})).await;
    receiver.attempts(1).await;
    let second = stripe.send("invoice.paid", json!({})).await;

    let received = ids(&receiver.attempts(3).await);

    assert_eq!(received, [first.clone(), second, first], "and goes on by itself");
    world.stop().await;
}
