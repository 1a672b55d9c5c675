//! A row that cannot be read is never taken for one without limits, and keeps no other from its work.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use posthorn_testkit::{World, eventually};
use serde_json::json;

use crate::sources::{TOKEN, internal};

#[tokio::test(flavor = "multi_thread")]
async fn a_source_with_a_field_that_cannot_be_read_answers_503_and_others_go_on() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let source = world.source(internal(&tenant, json!({ "rate_limit": { "per_second": 1000 } }))).await;
    let other = world.source(internal(&tenant, json!({ "slug": "other" }))).await;
    let client = world.database.store.client().await.unwrap();
    let status = async |source| world.knock(source, "a", &[TOKEN], "{}").await.status;
    for (field, unreadable) in [
        ("rate_limit", r#"'{"per_second": "5"}'"#),
        ("rate_limit", r#"'{"per_minute": 5}'"#),
        ("rate_limit", r#"'{"per_second": -1}'"#),
        ("response", r#"'{"status": "200"}'"#),
        ("max_body_bytes", "-1"),
        ("allowed_ips", "'{nowhere}'"),
        ("routing", r#"'{"kind": "of a later version"}'"#),
        ("provider", "'of-a-later-version'"),
    ] {
        let read = format!("SELECT {field}::text FROM sources WHERE slug = 'internal'");
        let good: Option<String> = client.query_one(&read, &[]).await.unwrap().get(0);
        let good = good.map_or("NULL".to_owned(), |good| format!("'{good}'"));
        let put = async |value: &str| {
            let sql = format!("UPDATE sources SET {field} = {value} WHERE slug = 'internal'");
            client.batch_execute(&sql).await.unwrap();
        };
        put(unreadable).await;
        eventually(&format!("{field} = {unreadable} is refused as our fault"), || async {
            (status(&source).await == 503).then_some(())
        })
        .await;
        assert_eq!(status(&other).await, 200, "{field} = {unreadable}");
        put(&good).await;
        eventually("it takes requests again", || async { (status(&source).await == 200).then_some(()) }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_with_a_field_that_cannot_be_read_is_held_until_it_is_mended_and_others_go_on() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let (held, other) = (world.receiver().await, world.receiver().await);
    let subscription = api.subscribe(&tenant, &held.url(""), &["*"], json!({})).await;
    // Every delivery of the other one goes through the scheduler.
    let limited = json!({ "rate_limit": { "per_second": 1000 } });
    api.subscribe(&tenant, &other.url(""), &["*"], limited).await;
    let stripe = world.stripe_for(&tenant).await;
    let client = world.database.store.client().await.unwrap();
    let id = subscription["id"].as_str().unwrap().trim_start_matches("sub_").to_owned();
    let sent = AtomicUsize::new(0);
    let send = async || {
        sent.fetch_add(1, Relaxed);
        stripe.send("invoice.paid", json!({})).await
    };
    for (field, unreadable, good) in [
        ("rate_limit", r#"'{"per_second": "5"}'"#, "NULL"),
        ("retry_policy", r#"'{"kind": "of a later version"}'"#, r#"'{"kind": "schedule", "delays_seconds": []}'"#),
        ("headers", "'[]'", "'{}'"),
        ("max_in_flight", "-1", "8"),
    ] {
        let put = async |value: &str| {
            let sql = format!("UPDATE subscriptions SET {field} = {value} WHERE id = '{id}'");
            client.batch_execute(&sql).await.unwrap();
        };
        put(unreadable).await;
        // The notice of it is there before that of anything later.
        let event = eventually("the change is known", || async {
            let event = send().await;
            let made = api.deliveries(&event, 2).await;
            let made = made.iter().find(|made| made["subscription_id"] == subscription["id"]).unwrap();
            (made["state"] == "held").then_some(event)
        })
        .await;
        other.attempts(sent.load(Relaxed)).await;
        let before = held.received().len();
        let woken = format!("UPDATE subscription_runtime SET next_due_at = now() WHERE subscription_id = '{id}'");
        client.batch_execute(&woken).await.unwrap();
        // Another round of the scheduler has come and gone.
        send().await;
        other.attempts(sent.load(Relaxed)).await;
        assert_eq!(held.received().len(), before, "{field} = {unreadable}");

        put(good).await;
        client.batch_execute(&woken).await.unwrap();
        eventually("it is sent", || async {
            client.batch_execute(&woken).await.unwrap();
            held.received().iter().any(|received| received.header("webhook-id") == event).then_some(())
        })
        .await;
    }
}
