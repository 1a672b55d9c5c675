//! Sources: their secrets and limits, and what becomes of the requests that they refuse.

use jiff::Timestamp;
use posthorn_core::id::SourceId;
use posthorn_store::source_stats::{self, Refusals};
use posthorn_testkit::{Database, World, eventually};
use reqwest::Method;
use ring::hmac;
use serde_json::{Value, json};
use uuid::Uuid;

fn github(routing: Value, secret: &str) -> Value {
    json!({ "provider": "github", "routing": routing, "config": { "secrets": [secret] }, "slug": "github" })
}

pub fn internal(tenant: &str, more: Value) -> Value {
    let mut source = json!({
        "provider": "internal", "slug": "internal", "config": { "tokens": ["a token"] },
        "routing": { "kind": "tenant", "tenant_id": tenant },
    });
    source.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    source
}

pub const TOKEN: (&str, &str) = ("x-service-token", "a token");

fn to(tenant: &str) -> Value {
    json!({ "kind": "tenant", "tenant_id": tenant })
}

/// GitHub's signature of `body`.
fn signed(secret: &str, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("sha256={}", hex::encode(hmac::sign(&key, body.as_bytes())))
}

pub fn path(source: &Value, operation: &str) -> String {
    format!("/v1/sources/{}{operation}", source["id"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_is_good_at_once_and_the_old_one_until_its_time_is_over() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let source = world.source(github(to(&tenant), "old")).await;
    let send = async |secret: &str, body: &str| {
        let signature = signed(secret, body);
        world.knock(&source, "", &[("x-hub-signature-256", &signature)], body).await.status
    };
    assert_eq!(send("old", "{\"n\":1}").await, 200);

    let rotated = api.post(&path(&source, "/rotate-secret"), json!({ "overlap_seconds": 3 })).await;

    let new = rotated["secret"].as_str().unwrap();
    assert_eq!(rotated["secrets"].as_array().unwrap().len(), 2);
    assert!(rotated["secrets"][0]["expires_at"].is_null() && rotated["secrets"][1]["expires_at"].is_string());
    eventually("the new secret is good", || async { (send(new, "{\"n\":2}").await == 200).then_some(()) }).await;
    assert_eq!(send("old", "{\"n\":3}").await, 200, "both are good meanwhile");
    eventually("the old one is not", || async { (send("old", "{\"n\":4}").await == 401).then_some(()) }).await;
    assert_eq!(send(new, "{\"n\":5}").await, 200);
    // Which of them matched is counted, so that one sees when the old one can go.
    eventually("the matches are counted", || async {
        let shown = api.get(&path(&source, "")).await;
        (shown["secrets"][0]["matched"].as_i64() >= Some(2)).then_some(())
    })
    .await;
    assert!(api.get(&path(&source, "")).await["secrets"][0]["last_matched_at"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_the_provider_gives_out_is_not_made_up() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let stripe =
        json!({ "provider": "stripe", "slug": "s", "routing": to(&tenant), "config": { "secrets": ["whsec_1"] } });
    let source = api.post("/v1/sources", stripe).await;
    for (body, pointer) in [
        (json!({}), "/secret"),
        (json!({ "secret": "whsec_1" }), "/secret"),
        (json!({ "secret": "whsec_2", "overlap_seconds": 604_801 }), "/overlap_seconds"),
        (json!({ "secret": "whsec_2", "overlap_seconds": -1 }), "/overlap_seconds"),
        (json!({ "secrets": ["whsec_2"] }), "/secrets"),
    ] {
        let (status, answer) = api.call(Method::POST, &path(&source, "/rotate-secret"), Some(&body)).await;
        assert_eq!((status, &answer["errors"][0]["pointer"]), (422, &json!(pointer)), "{body} {answer}");
    }
    let rotated =
        api.post(&path(&source, "/rotate-secret"), json!({ "secret": "whsec_2", "overlap_seconds": 0 })).await;
    assert_eq!(rotated["secrets"].as_array().unwrap().len(), 1, "none of the old ones stays");
    assert!(rotated.get("secret").is_none(), "only what was made here is shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_refused_events_are_delivered_once_each_after_the_secret_is_mended() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await;
    api.subscribe(&tenant, &receiver.url(""), &["*"], json!({})).await;
    let source = world.source(github(to(&tenant), "wrong")).await;
    for number in 0..10 {
        let body = format!("{{\"number\":{number}}}");
        let signature = signed("right", &body);
        let headers = [("x-hub-signature-256", signature.as_str()), ("x-github-event", "push")];
        assert_eq!(world.knock(&source, "", &headers, &body).await.status, 401);
    }
    let list = format!("/v1/rejected-requests?source_id={}", source["id"].as_str().unwrap());
    let refused = eventually("ten of them are kept", || async {
        let data = api.get(&list).await["data"].as_array().unwrap().clone();
        (data.len() >= 11).then_some(data)
    })
    .await;
    // One more came when the world waited for the source, without a signature.
    let refused: Vec<&Value> = refused.iter().filter(|refused| refused["reason"] == "signature_mismatch").collect();
    assert_eq!(refused.len(), 10);
    let reverify = async |id: &Value| {
        let path = format!("/v1/rejected-requests/{}/reverify", id.as_str().unwrap());
        api.call(Method::POST, &path, Some(&json!({}))).await
    };
    let (status, still) = reverify(&refused[0]["id"]).await;
    assert_eq!((status, &still["accepted"], &still["reason"]), (200, &json!(false), &json!("signature_mismatch")));

    api.patch(&path(&source, ""), json!({ "config": { "secrets": ["right"] } })).await;
    for refused in &refused {
        let (status, answer) = reverify(&refused["id"]).await;
        assert_eq!((status, &answer["accepted"], &answer["duplicate"]), (200, &json!(true), &json!(false)), "{answer}");
        assert_eq!(reverify(&refused["id"]).await.0, 404, "it is settled");
    }

    let received = receiver.attempts(10).await;
    let mut numbers: Vec<i64> = received.iter().map(|r| r.json()["data"]["number"].as_i64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..10).collect::<Vec<_>>());
    let left = api.get(&list).await;
    assert!(left["data"].as_array().unwrap().iter().all(|left| left["reason"] != "signature_mismatch"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_nobody_is_listed_and_can_be_given_to_a_tenant_later() {
    let world = World::start().await;
    let api = world.api();
    let source = github(json!({ "kind": "pointer", "pointer": "/account" }), "hush");
    let source = world.source(source).await;
    let body = r#"{"account":"acme"}"#;
    let signature = signed("hush", body);
    let answer = world.knock(&source, "", &[("x-hub-signature-256", &signature)], body).await;
    let event = answer.json["event_id"].as_str().unwrap().to_owned();
    let unrouted = api.get("/v1/events?routed=unrouted").await;
    assert_eq!((&unrouted["data"][0]["id"], &unrouted["data"][0]["tenant_id"]), (&json!(event), &Value::Null));
    let route = format!("/v1/events/{event}/route");
    assert_eq!(api.call(Method::POST, &route, Some(&json!({}))).await.0, 409, "there is no such tenant yet");

    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await;
    api.subscribe(&tenant, &receiver.url(""), &["*"], json!({})).await;
    eventually("it is routed", || async {
        // Until the broker was told of it for the first time, it is 409 as well.
        (api.call(Method::POST, &route, Some(&json!({}))).await.0 == 202).then_some(())
    })
    .await;

    assert_eq!(receiver.attempts(1).await[0].header("webhook-id"), event);
    assert_eq!(api.get(&format!("/v1/events/{event}")).await["tenant_id"], json!(tenant));
    assert_eq!(api.get("/v1/events?routed=unrouted").await["data"], json!([]));
    assert_eq!(api.call(Method::POST, &route, Some(&json!({ "tenant_id": tenant }))).await.0, 409, "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_counts_what_came_and_says_how_it_does() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let source = api.post("/v1/sources", github(to(&tenant), "hush")).await;
    assert_eq!(api.get(&path(&source, "/health")).await["status"], "silent");
    let send = async |secret: &str, event: &str| {
        let body = format!("{{\"event\":\"{event}\"}}");
        let signature = signed(secret, &body);
        let headers = [("x-hub-signature-256", signature.as_str()), ("x-github-event", event)];
        world.knock(&source, "", &headers, &body).await.status
    };
    eventually("the gateway knows it", || async { (send("hush", "push").await == 200).then_some(()) }).await;
    for _ in 0..3 {
        assert_eq!(send("hush", "issues").await, 200);
    }
    for _ in 0..7 {
        assert_eq!(send("wrong", "push").await, 401);
    }
    let stats = eventually("the refusals are counted", || async {
        let stats = api.get(&path(&source, "/stats?window_seconds=3600")).await;
        (stats["rejected"]["by_reason"]["signature_mismatch"] == 7).then_some(stats)
    })
    .await;
    assert_eq!((&stats["received"], &stats["duplicates"]), (&json!(2), &json!(2)), "{stats}");
    assert_eq!(stats["received_by_event_type"], json!({ "push": 1, "issues": 1 }));
    let rate = stats["success_rate"].as_f64().unwrap();
    assert!((rate - 4.0 / 11.0).abs() < 1e-9 || stats["rejected"]["total"] != 7, "{stats}");
    let health = api.get(&path(&source, "/health")).await;
    assert_eq!((&health["status"], &health["secrets_set"]), (&json!("rejecting"), &json!(true)), "{health}");
    assert!(health["detail"].as_str().unwrap().contains("signature_mismatch"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_goes_through_the_sources_own_door_and_is_delivered() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await;
    api.subscribe(&tenant, &receiver.url(""), &["*"], json!({})).await;
    let stripe =
        json!({ "provider": "stripe", "slug": "s", "routing": to(&tenant), "config": { "secrets": ["whsec_1"] } });
    let source = api.post("/v1/sources", stripe).await;

    let tested = api.post(&path(&source, "/test"), json!({ "event_type": "customer.created" })).await;

    assert_eq!((&tested["success"], &tested["status_code"]), (&json!(true), &json!(200)), "{tested}");
    let received = &receiver.attempts(1).await[0];
    assert_eq!(
        (received.header("webhook-id"), &received.json()["type"]),
        (tested["event_id"].as_str().unwrap(), &json!("customer.created"))
    );
    let payload = json!({ "id": "evt_mine", "type": "invoice.paid", "data": { "object": { "total": 42 } } });
    let tested = api.post(&path(&source, "/test"), json!({ "payload": payload })).await;
    assert_eq!(receiver.attempts(2).await[1].json()["data"], payload, "{tested}");

    let key = format!("{}=", "A".repeat(43));
    let telnyx = json!({ "provider": "telnyx", "routing": to(&tenant), "config": { "public_keys": [key] } });
    let telnyx = api.post("/v1/sources", telnyx).await;
    assert_eq!(api.call(Method::POST, &path(&telnyx, "/test"), Some(&json!({}))).await.0, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_and_a_source_have_their_rates_and_are_told_when_to_come_back() {
    let world = World::start().await;
    let tenant = world.api().tenant("acme").await;
    let limit = json!({ "rate_limit": { "per_second": 1000, "per_address_per_second": 2 } });
    let source = world.source(internal(&tenant, limit)).await;
    let limited = eventually("an address has had its share", || async {
        let answer = world.knock(&source, "a", &[TOKEN], "{}").await;
        (answer.status == 429).then_some(answer)
    })
    .await;
    assert_eq!(limited.json["type"], "/problems/rate-limited");
    assert_eq!(limited.headers["retry-after"], "1");
    let path = path(&source, "");
    let (status, answer) = world.api().call(Method::PATCH, &path, Some(&json!({ "rate_limit": {} }))).await;
    assert_eq!((status, &answer["errors"][0]["pointer"]), (422, &json!("/rate_limit")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_says_itself_what_makes_an_event_new() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let body = r#"{"action":"opened","number":7}"#;
    let other = r#"{"action":"closed","number":7}"#;
    let mut github = github(to(&tenant), "hush");
    let send = async |source: &Value, body: &str, id: &str| {
        let signature = signed("hush", body);
        let headers = [("x-hub-signature-256", signature.as_str()), ("x-github-delivery", id)];
        let answer = world.knock(source, "", &headers, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json["duplicate"] == true
    };
    let source = world.source(github.clone()).await;
    assert!(!send(&source, body, "one").await);
    assert!(!send(&source, body, "two").await, "a delivery of its own makes equal bytes a new event");
    assert!(send(&source, body, "one").await);

    for (number, (dedup, (same_body, other_body))) in [
        (json!({ "header": "X-GitHub-Delivery" }), (false, true)),
        (json!({ "json": "/number" }), (true, true)),
        (json!([{ "json": "/number" }, { "json": "/action" }]), (true, false)),
        (json!({ "json": "/nothing" }), (true, false)),
    ]
    .into_iter()
    .enumerate()
    {
        github["slug"] = json!(format!("github-{number}"));
        github["config"]["dedup"] = dedup.clone();
        let source = world.source(github.clone()).await;
        assert!(!send(&source, body, "one").await);
        assert_eq!(send(&source, body, "two").await, same_body, "{dedup}: the same under another id");
        assert_eq!(send(&source, other, "two").await, other_body, "{dedup}: another under a known id");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_there_is_room_for_is_asked_to_come_back() {
    let world = World::start_with(&[("INGRESS_GATEWAY_ACCEPT__MAX_IN_FLIGHT_BYTES", "1000")]).await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let source = world.source(internal(&tenant, json!({}))).await;
    let large = json!({ "text": "x".repeat(2000) }).to_string();
    let answer = world.knock(&source, "a", &[TOKEN], &large).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(world.knock(&source, "a", &[TOKEN], "{}").await.status, 200, "and the room is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_senders_show_in_a_header_is_kept_nowhere() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let scheme = json!({ "algorithm": "token", "signature": { "header": "X-My-Hook-Key" } });
    let config = json!({ "scheme": scheme, "secrets": ["supersecrettoken"] });
    let source = json!({ "provider": "generic", "slug": "mine", "routing": to(&tenant), "config": config });
    let source = world.source(source).await;
    let answer = world.knock(&source, "a", &[("x-my-hook-key", "supersecrettoken")], "{}").await;
    let event = api.get(&format!("/v1/events/{}", answer.json["event_id"].as_str().unwrap())).await;
    assert_eq!(event["headers"]["x-my-hook-key"], "[redacted]", "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_told_by_its_field_and_a_test_of_a_source_leaves_no_trail_of_refusals() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let scheme = json!({ "algorithm": "hmac_sha256", "signature": { "header": "X-Sig" }, "signed": "\0{body}" });
    let source =
        json!({ "provider": "generic", "routing": to(&tenant), "config": { "scheme": scheme, "secrets": ["a"] } });
    let (status, answer) = api.call(Method::POST, "/v1/sources", Some(&source)).await;
    assert_eq!((status, &answer["errors"][0]["pointer"]), (422, &json!("/config/scheme/signed")), "{answer}");

    let source = world.source(internal(&tenant, json!({ "allowed_ips": ["203.0.113.1"] }))).await;
    eventually("the change is old", || async {
        let began = std::time::Instant::now();
        let tested = api.post(&path(&source, "/test"), json!({})).await;
        assert_eq!((&tested["success"], &tested["status_code"]), (&json!(false), &json!(403)), "{tested}");
        (began.elapsed() < std::time::Duration::from_millis(500)).then_some(())
    })
    .await;
    let (status, _) = api.call(Method::POST, &path(&source, "/test"), Some(&json!({ "event_type": ".." }))).await;
    assert_eq!(status, 422);
}

#[tokio::test]
async fn counts_of_a_source_that_is_deleted_meanwhile_are_dropped() {
    let database = Database::create().await;
    let mut client = database.store.client().await.unwrap();
    let id = SourceId::from_uuid(Uuid::from_u128(7));
    client
        .execute(
            "INSERT INTO sources (id, token, provider, routing, config, created_at, updated_at)
             VALUES ($1, 'token', 'stripe', '{\"kind\": \"broadcast\"}', '{}', now(), now())",
            &[id.as_uuid()],
        )
        .await
        .unwrap();
    let deleting = client.transaction().await.unwrap();
    deleting.execute("DELETE FROM sources WHERE id = $1", &[id.as_uuid()]).await.unwrap();
    let refused = Refusals { source_id: id, reason: "rate_limited", count: 3, last_at: Timestamp::now() };
    let counting = database.store.client().await.unwrap();
    source_stats::count_refusals(&counting, &[refused]).await.unwrap();
    deleting.commit().await.unwrap();
    let left = counting.query_one("SELECT count(*) FROM refusal_stats", &[]).await.unwrap();
    assert_eq!(left.get::<_, i64>(0), 0);
}
