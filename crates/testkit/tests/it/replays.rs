//! Jobs that set dead and missing deliveries going again.

use posthorn_testkit::{Api, World, eventually};
use serde_json::{Value, json};

/// A policy without a second attempt.
fn once() -> Value {
    json!({ "retry_policy": { "kind": "schedule", "delays_seconds": [] } })
}

async fn ended(api: &Api, job: &Value) -> Value {
    let path = format!("/v1/replays/{}", job["id"].as_str().unwrap());
    eventually("the job ends", || async {
        let job = api.get(&path).await;
        (!["counting", "running"].contains(&job["state"].as_str().unwrap())).then_some(job)
    })
    .await
}

async fn dead_letters(api: &Api, tenant: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{count} dead letters"), || async {
        let list = api.get(&format!("/v1/dead-letters?tenant_id={tenant}&limit=200")).await;
        let data = list["data"].as_array().cloned().unwrap_or_default();
        (data.len() == count).then_some(data)
    })
    .await
}

#[tokio::test]
async fn a_job_sets_going_what_its_filter_means_and_nothing_else() {
    let world = World::start().await;
    let api = world.api();
    let (one, other) = (api.tenant("one").await, api.tenant("other").await);
    let down = world.receiver().await.responding([500, 500, 500, 500, 500, 500, 200]);
    let healthy = world.receiver().await.responding([500, 200]);
    api.subscribe(&one, &down.url("one"), &["invoice.*"], once()).await;
    api.subscribe(&other, &healthy.url("other"), &["invoice.*"], once()).await;
    let (stripe, others) = (world.stripe_for(&one).await, world.stripe_for(&other).await);
    for _ in 0..6 {
        stripe.send("invoice.paid", json!({})).await;
    }
    others.send("invoice.paid", json!({})).await;
    dead_letters(&api, &one, 6).await;
    dead_letters(&api, &other, 1).await;

    let groups = api.get("/v1/dead-letters/groups").await;
    let counts: Vec<_> = groups["data"].as_array().unwrap().iter().map(|group| group["count"].clone()).collect();
    assert_eq!(counts, [6, 1]);

    let ask =
        json!({ "filter": { "tenant_id": one, "event_type": "invoice.*", "reason": "exhausted" }, "dry_run": true });
    let dry = api.post("/v1/dead-letters/replay", ask).await;
    assert_eq!((&dry["state"], &dry["count"], &dry["done"]), (&json!("completed"), &json!(6), &json!(0)));
    dead_letters(&api, &one, 6).await;

    let job = api.post("/v1/dead-letters/replay", json!({ "filter": { "tenant_id": one } })).await;
    let job = ended(&api, &job).await;
    assert_eq!((&job["state"], &job["done"], &job["failed"]), (&json!("completed"), &json!(6), &json!(0)));
    down.attempts(12).await;
    dead_letters(&api, &one, 0).await;
    dead_letters(&api, &other, 1).await;
    let delivery = eventually("its second generation is delivered", || async {
        let list = api.get(&format!("/v1/deliveries?tenant_id={one}&state=delivered")).await;
        list["data"][0]["id"].as_str().map(str::to_owned)
    })
    .await;
    let delivery = api.get(&format!("/v1/deliveries/{delivery}")).await;
    assert_eq!((&delivery["generation"], &delivery["attempts"][1]["trigger"]), (&json!(2), &json!("replay")));
    world.stop().await;
}

#[tokio::test]
async fn a_slow_job_is_cancelled_where_it_is_and_goes_on_from_there() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let down = world.receiver().await.responding([500]);
    api.subscribe(&tenant, &down.url(""), &["*"], once()).await;
    let stripe = world.stripe_for(&tenant).await;
    for _ in 0..5 {
        stripe.send("invoice.paid", json!({})).await;
    }
    dead_letters(&api, &tenant, 5).await;

    // One at once, and the next in ten seconds.
    let ask = json!({ "filter": {}, "rate_per_second": 0.1 });
    let job = api.post("/v1/dead-letters/replay", ask).await;
    let path = format!("/v1/replays/{}", job["id"].as_str().unwrap());
    eventually("one is done", || async { (api.get(&path).await["done"] == 1).then_some(()) }).await;
    let cancelled = api.post(&format!("{path}/cancel"), json!({})).await;
    assert_eq!((&cancelled["state"], &cancelled["done"]), (&json!("cancelled"), &json!(1)));
    let (status, _) = api.call(reqwest::Method::POST, &format!("{path}/cancel"), Some(&json!({}))).await;
    assert_eq!(status, 409);
    // Four that it did not come to, and the one that died again.
    let left = dead_letters(&api, &tenant, 5).await;

    let resumed = api.post(&format!("{path}/resume"), json!({})).await;
    assert_eq!((&resumed["state"], &resumed["done"]), (&json!("running"), &json!(1)));
    api.post(&format!("{path}/cancel"), json!({})).await;

    let ids: Vec<_> = left.iter().map(|letter| letter["id"].clone()).collect();
    let job = api.post("/v1/dead-letters/replay", json!({ "filter": { "ids": ids } })).await;
    assert_eq!(ended(&api, &job).await["done"], 5);
    world.stop().await;
}

#[tokio::test]
async fn a_subscription_recovers_what_failed_and_what_came_before_it() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let stripe = world.stripe_for(&tenant).await;
    // Whoever gets them has seen them dispatched.
    let witness = world.receiver().await;
    api.subscribe(&tenant, &witness.url(""), &["*"], json!({})).await;
    stripe.send("customer.created", json!({})).await;
    stripe.send("invoice.paid", json!({})).await;
    witness.attempts(2).await;
    let receiver = world.receiver().await.responding([500, 200]);
    let subscription = api.subscribe(&tenant, &receiver.url(""), &["customer.*"], once()).await;
    let path = format!("/v1/subscriptions/{}/recover", subscription["id"].as_str().unwrap());
    stripe.send("customer.updated", json!({})).await;
    dead_letters(&api, &tenant, 1).await;
    stripe.send("customer.updated", json!({})).await;
    receiver.attempts(2).await;

    let since = "2020-01-01T00:00:00Z";
    let count = |include: &'static str| {
        let ask = json!({ "since": since, "include": [include], "dry_run": true });
        let (api, path) = (&api, &path);
        async move { api.post(path, ask).await["count"].as_i64() }
    };
    assert_eq!((count("failed").await, count("missing").await), (Some(1), Some(1)));

    let job = api.post(&path, json!({ "since": since })).await;
    assert_eq!(job["count"], 2);
    let job = ended(&api, &job).await;
    assert_eq!((&job["done"], &job["failed"]), (&json!(2), &json!(0)));
    receiver.attempts(4).await;
    let path_of_all =
        format!("/v1/deliveries?subscription_id={}&state=delivered", subscription["id"].as_str().unwrap());
    let all = eventually("all three are delivered", || async {
        let list = api.get(&path_of_all).await["data"].as_array().cloned().unwrap();
        (list.len() == 3).then_some(list)
    })
    .await;
    let mut triggers = Vec::new();
    for delivery in all {
        let delivery = api.get(&format!("/v1/deliveries/{}", delivery["id"].as_str().unwrap())).await;
        triggers.push(delivery["attempts"].as_array().unwrap().last().unwrap()["trigger"].clone());
    }
    assert_eq!(triggers, ["dispatch", "recover", "recover"], "the newest first");
    assert_eq!(receiver.received().len(), 4, "what was delivered stays so");
    dead_letters(&api, &tenant, 0).await;

    let (status, problem) =
        api.call(reqwest::Method::POST, &path, Some(&json!({ "since": "2099-01-01T00:00:00Z" }))).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/since")));
    world.stop().await;
}
