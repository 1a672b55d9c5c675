//! A subscription's own headers: the credentials among them are sealed, sent, and shown nowhere.

use posthorn_core::id::SubscriptionId;
use posthorn_store::Client;
use posthorn_store::snapshot::Subscriptions;
use posthorn_testkit::{World, eventually};
use reqwest::Method;
use serde_json::{Value, json};

fn path(subscription: &Value, operation: &str) -> String {
    format!("/v1/subscriptions/{}{operation}", subscription["id"].as_str().unwrap())
}

fn uuid(subscription: &Value) -> uuid::Uuid {
    *subscription["id"].as_str().unwrap().parse::<SubscriptionId>().unwrap().as_uuid()
}

/// Both columns as text: what a reader of the database sees.
async fn row(client: &Client, subscription: &Value) -> String {
    let sql = "SELECT headers::text || coalesce(encode(sealed_headers, 'escape'), '') FROM subscriptions WHERE id = $1";
    client.query_one(sql, &[&uuid(subscription)]).await.unwrap().get(0)
}

/// The first 12 hex digits of the SHA-256.
fn sealed(text: &str) -> Value {
    let hash = hex::encode(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()));
    json!({ "value": "•••", "secret": true, "fingerprint": hash[..12] })
}

fn headers() -> Value {
    json!({
        "Authorization": "Bearer s3cret-1", "X-Customer": { "value": "s3cret-2", "secret": true }, "X-Team": "billing",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_in_headers_are_sealed_sent_and_never_shown() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await;

    let made = api.subscribe(&tenant, &receiver.url(""), &["*"], json!({ "headers": headers() })).await;

    let shown =
        json!({ "Authorization": sealed("Bearer s3cret-1"), "X-Customer": sealed("s3cret-2"), "X-Team": "billing" });
    assert_eq!(made["headers"], shown);
    assert_eq!(api.get(&path(&made, "")).await["headers"], shown);
    let client = world.database.store.client().await.unwrap();
    let row = row(&client, &made).await;
    assert!(row.contains("billing") && !row.contains("s3cret"), "{row}");

    let event = world.stripe_for(&tenant).await.send("invoice.paid", json!({})).await;
    let received = &receiver.attempts(1).await[0];
    let got = ["authorization", "x-customer", "x-team"].map(|name| received.header(name));
    assert_eq!(got, ["Bearer s3cret-1", "s3cret-2", "billing"]);
    let delivery = api.delivery_in(&event, "delivered").await;
    let sent = &delivery["attempts"][0]["request_headers"];
    assert_eq!((&sent["authorization"], &sent["x-customer"]), (&json!("[redacted]"), &json!("[redacted]")), "{sent}");
    assert_eq!(sent["x-team"], "billing");
    let tested = api.post(&path(&made, "/test"), json!({})).await;
    assert_eq!(tested["success"], true);
    assert_eq!(receiver.received().last().unwrap().header("x-customer"), "s3cret-2");
    let log = api.get(&format!("/v1/audit-log?tenant_id={tenant}")).await;
    for told in [&delivery, &tested, &log] {
        assert!(!told.to_string().contains("s3cret"), "{told}");
    }
    let fetched = Subscriptions::default();
    let id = made["id"].as_str().unwrap().parse().unwrap();
    fetched.fetch(&client, world.database.store.sealer(), id).await.unwrap();
    assert!(!format!("{fetched:?}").contains("s3cret"), "{fetched:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_keeps_a_secret_that_comes_back_hidden_and_refuses_one_that_there_is_not() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await;
    let made = api.subscribe(&tenant, &receiver.url(""), &["*"], json!({ "headers": headers() })).await;

    assert_eq!(api.patch(&path(&made, ""), json!({ "name": "A" })).await["headers"], made["headers"], "left alone");
    let back = api.patch(&path(&made, ""), json!({ "headers": made["headers"] })).await;
    assert_eq!(back["headers"], made["headers"], "as it was shown");
    let kept = json!({ "authorization": "•••", "X-Team": { "value": "s3cret-3", "secret": true } });
    let changed = api.patch(&path(&made, ""), json!({ "headers": kept })).await;
    assert_eq!(
        changed["headers"],
        json!({ "authorization": sealed("Bearer s3cret-1"), "X-Team": sealed("s3cret-3") }),
        "replaced whole"
    );
    eventually("the true values are sent", || async {
        api.post(&path(&made, "/test"), json!({})).await;
        let received = receiver.received().last().cloned()?;
        let got = ["authorization", "x-team", "x-customer"].map(|name| received.header(name).to_owned());
        (got == ["Bearer s3cret-1", "s3cret-3", ""]).then_some(())
    })
    .await;

    let refused = [
        (json!({ "X-Other": "•••" }), "/headers/X-Other"),
        (json!({ "X-Other": { "value": "•••", "secret": true } }), "/headers/X-Other"),
        (json!({ "X-Other": { "value": "a", "secret": false } }), "/headers/X-Other"),
        (json!({ "X-Other": { "value": "a" } }), "/headers/X-Other/secret"),
        (json!({ "X-Other": { "value": "ä", "secret": true } }), "/headers/X-Other/value"),
        (json!({ "X-Other": 1 }), "/headers/X-Other"),
    ];
    for (headers, pointer) in refused {
        let body = json!({ "headers": headers });
        let (status, answer) = api.call(Method::PATCH, &path(&made, ""), Some(&body)).await;
        assert_eq!((status, &answer["errors"][0]["pointer"]), (422, &json!(pointer)), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_an_older_version_stored_in_clear_are_hidden_at_once_and_sealed_later() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await;
    let clear = json!({ "Authorization": "Bearer s3cret-1", "X-Team": "billing" });
    let unreadable = api.subscribe(&tenant, &receiver.url("unreadable"), &["*"], json!({})).await;
    let old = api.subscribe(&tenant, &receiver.url(""), &["*"], json!({})).await;
    let gone = api.subscribe(&tenant, &receiver.url("gone"), &["*"], json!({})).await;
    api.call(Method::DELETE, &path(&gone, ""), None).await;
    let client = world.database.store.client().await.unwrap();
    for (subscription, headers) in [(&unreadable, &json!({ "X-Team": 1 })), (&old, &clear), (&gone, &clear)] {
        let sql = "UPDATE subscriptions SET headers = $2, sealed_headers = NULL WHERE id = $1";
        client.execute(sql, &[&uuid(subscription), headers]).await.unwrap();
    }
    let shown = json!({ "Authorization": sealed("Bearer s3cret-1"), "X-Team": "billing" });

    let before = api.get(&path(&old, "")).await;
    assert_eq!(before["headers"], shown, "from the first moment");
    client.execute("UPDATE chores SET due_at = now()", &[]).await.unwrap();
    eventually("the credential is sealed, though a row before it cannot be read", || async {
        let rows = format!("{}{}", row(&client, &old).await, row(&client, &gone).await);
        (!rows.contains("s3cret")).then_some(())
    })
    .await;

    let after = api.get(&path(&old, "")).await;
    assert_eq!((&after["headers"], &after["updated_at"]), (&shown, &before["updated_at"]));
    assert_eq!(row(&client, &gone).await, "{}", "a deleted one needs none");
    world.stripe_for(&tenant).await.send("invoice.paid", json!({})).await;
    assert_eq!(receiver.attempts(1).await[0].header("authorization"), "Bearer s3cret-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_without_a_header_that_does_not_open() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await;
    let made = api.subscribe(&tenant, &receiver.url(""), &["*"], json!({ "headers": headers() })).await;
    let client = world.database.store.client().await.unwrap();
    client.execute("UPDATE subscriptions SET sealed_headers = '\\x00'", &[]).await.unwrap();

    let (status, answer) = api.call(Method::POST, &path(&made, "/test"), Some(&json!({}))).await;
    assert_eq!(status, 409, "{answer}");
    let kept = json!({ "headers": { "Authorization": "•••" } });
    let (status, answer) = api.call(Method::PATCH, &path(&made, ""), Some(&kept)).await;
    assert_eq!((status, &answer["errors"][0]["pointer"]), (422, &json!("/headers/Authorization")));
    let id = made["id"].as_str().unwrap().parse().unwrap();
    let entry = Subscriptions::default().fetch(&client, world.database.store.sealer(), id).await.unwrap().unwrap();
    assert!(!entry.can_sign(jiff::Timestamp::now()), "the worker holds what it would send");
    assert_eq!(receiver.received().len(), 0);
    let given = json!({ "headers": { "Authorization": "Bearer again" } });
    assert_eq!(api.patch(&path(&made, ""), given).await["headers"]["Authorization"], sealed("Bearer again"));
    assert_eq!(api.post(&path(&made, "/test"), json!({})).await["success"], true);
}
