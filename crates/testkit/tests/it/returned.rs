//! Messages that come back while somebody is still at their attempt.

use std::time::Duration;

use posthorn_testkit::{World, eventually};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_is_not_made_again_by_another_worker_when_the_broker_ends_the_connections() {
    let mut world = World::start().await;
    world.add_worker();
    let api = world.api();
    let tenant = api.tenant("acme").await;
    // Some attempts are over before their worker would claim them, some are not.
    let quick = world.receiver().await.taking(Duration::from_millis(400));
    let slow = world.receiver().await.taking(Duration::from_secs(4));
    for receiver in [&quick, &slow] {
        let roomy = json!({ "max_in_flight": 100 });
        api.subscribe(&tenant, &receiver.url(""), &["invoice.*"], roomy).await;
    }
    let stripe = world.stripe_for(&tenant).await;
    eventually("the broker tells of five connections", || async {
        (world.broker.connections().await.len() >= 5).then_some(())
    })
    .await;
    let mut events = Vec::new();
    for number in 0..20 {
        events.push(stripe.send("invoice.paid", json!({ "number": number })).await);
    }
    quick.attempts(20).await;

    world.broker.close_connections().await;

    for event in &events {
        for delivery in api.deliveries(event, 2).await {
            let path = format!("/v1/deliveries/{}", delivery["id"].as_str().unwrap());
            eventually("it is delivered", || async { (api.get(&path).await["state"] == "delivered").then_some(()) })
                .await;
        }
    }
    assert_eq!((quick.received().len(), slow.received().len()), (20, 20), "each once");
}
