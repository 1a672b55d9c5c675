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
