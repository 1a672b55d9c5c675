//! A task holds one connection to the database at most.

use posthorn_testkit::World;
use reqwest::Method;
use serde_json::json;

/// With more requests than connections, each that held one while it waited for another would starve the rest.
#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_connections_are_all_answered() {
    let settings = [("DISPATCHER_DATABASE__MAX_CONNECTIONS", "6")];
    let world = World::start_with(&settings).await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await;
    let subscription = api.subscribe(&tenant, &receiver.url(""), &["*"], json!({})).await;
    let id = subscription["id"].as_str().unwrap().to_owned();
    let event = world.stripe_for(&tenant).await.send("invoice.paid", json!({})).await;
    api.delivery_in(&event, "delivered").await;

    let replay = (format!("/v1/events/{event}/replay"), json!({ "subscription_id": id }));
    let test = (format!("/v1/subscriptions/{id}/test"), json!({}));
    let recover =
        (format!("/v1/subscriptions/{id}/recover"), json!({ "since": "2026-01-01T00:00:00Z", "include": ["missing"] }));
    for (path, body) in [replay, test, recover] {
        let asked = (0..40).map(|_| api.call(Method::POST, &path, Some(&body)));
        let answers = futures_util::future::join_all(asked).await;
        let refused: Vec<_> = answers.iter().filter(|(status, _)| *status >= 500).collect();
        assert!(refused.is_empty(), "{path}: {refused:?}");
    }
}
