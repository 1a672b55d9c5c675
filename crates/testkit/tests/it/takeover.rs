//! What a process that stands still had begun is let go, and another goes on with it.

use std::time::{Duration, Instant};

use posthorn_store::chores::{self, Chore};
use posthorn_testkit::{Database, World, eventually};
use serde_json::json;

#[tokio::test]
async fn a_chore_is_one_processes_at_a_time_and_anothers_when_that_is_not_heard_of() {
    let database = Database::create().await;
    let client = database.store.client().await.unwrap();
    let take = |lease| chores::take(&client, Chore::Upkeep, lease);
    let second = Duration::from_secs(1);

    assert!(take(second * 60).await.unwrap());
    assert!(!take(second * 60).await.unwrap(), "somebody is at it");

    // Whoever is at it goes on, and then says no more.
    chores::put_off(&client, Chore::Upkeep, second).await.unwrap();
    assert!(!take(second).await.unwrap());
    eventually("another has it", || async { take(second * 60).await.unwrap().then_some(()) }).await;
    chores::put_off(&client, Chore::Upkeep, second * 3600).await.unwrap();
    assert!(!take(second).await.unwrap(), "done, until the next time");
}

/// A dispatcher that is frozen, or cut off, in the middle of a transaction keeps its locks. Here it is a session that
/// has taken what the scheduler, a relay and a replay job need, and then says no more.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_frozen_dispatcher_has_locked_is_free_again_within_half_a_minute() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await.responding([500, 500, 200]);
    let once = json!({ "retry_policy": { "kind": "schedule", "delays_seconds": [], "permanent_statuses": [] } });
    let subscription = api.subscribe(&tenant, &receiver.url(""), &["*"], once).await;
    let stripe = world.stripe_for(&tenant).await;
    for _ in 0..2 {
        let event = stripe.send("invoice.paid", json!({})).await;
        api.delivery_in(&event, "dead").await;
    }
    eventually("both are dead letters", || async {
        let letters = api.get(&format!("/v1/dead-letters?tenant_id={tenant}")).await;
        (letters["data"].as_array().unwrap().len() == 2).then_some(())
    })
    .await;
    let mut frozen = world.database.store.client().await.unwrap();
    let transaction = frozen.transaction().await.unwrap();
    let id = subscription["id"].as_str().unwrap().trim_start_matches("sub_");
    transaction
        .batch_execute(&format!("SELECT FROM subscription_runtime WHERE subscription_id = '{id}' FOR UPDATE"))
        .await
        .unwrap();
    let began = Instant::now();

    let job =
        api.post("/v1/dead-letters/replay", json!({ "filter": { "tenant_id": tenant }, "rate_per_second": 100 })).await;

    let path = format!("/v1/replays/{}", job["id"].as_str().unwrap());
    eventually("the job ends", || async { (api.get(&path).await["state"] == "completed").then_some(()) }).await;
    receiver.attempts(4).await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert!(transaction.commit().await.is_err(), "the database ended it");
}
