//! Subscriptions and what is asked about their deliveries: secrets, tests, statistics, explanations.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use posthorn_core::signature::standard::{self, SigningSecret};
use posthorn_store::snapshot::Subscriptions;
use posthorn_testkit::{World, eventually};
use rcgen::KeyPair;
use reqwest::Method;
use ring::signature::{ED25519, UnparsedPublicKey};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

fn path(subscription: &Value, operation: &str) -> String {
    format!("/v1/subscriptions/{}{operation}", subscription["id"].as_str().unwrap())
}

fn secret(view: &Value) -> SigningSecret {
    SigningSecret::parse(view["secret"].as_str().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_secrets_sign_while_one_takes_the_place_of_the_other() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await;
    let subscription = api.subscribe(&tenant, &receiver.url(""), &["*"], json!({})).await;
    let stripe = world.stripe_for(&tenant).await;

    let rotated = api.post(&path(&subscription, "/rotate-secret"), json!({ "overlap_seconds": 600 })).await;

    assert_ne!(rotated["secret"], subscription["secret"]);
    assert!(api.get(&path(&subscription, "")).await.get("secret").is_none(), "shown once");
    let both = eventually("both sign", || async {
        stripe.send("invoice.paid", json!({})).await;
        let received = receiver.received().last().cloned()?;
        (received.header("webhook-signature").split(' ').count() == 2).then_some(received)
    })
    .await;
    for view in [&subscription, &rotated] {
        standard::verify(&secret(view), &both.headers, &both.body, both.at).expect("a signature that holds");
    }
    let last = api.post(&path(&subscription, "/rotate-secret"), json!({ "overlap_seconds": 0 })).await;
    let tested = api.post(&path(&subscription, "/test"), json!({})).await;
    assert_eq!(tested["success"], true, "{tested}");
    let received = receiver.received().last().cloned().unwrap();
    standard::verify(&secret(&last), &received.headers, &received.body, received.at).unwrap();
    assert!(standard::verify(&secret(&rotated), &received.headers, &received.body, received.at).is_err());
    let (status, answer) =
        api.call(Method::POST, &path(&subscription, "/rotate-secret"), Some(&json!({ "secret": "whsec_short" }))).await;
    assert_eq!((status, &answer["errors"][0]["pointer"]), (422, &json!("/secret")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asymmetric_signature_stands_beside_the_symmetric_one() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await;
    let schemes = json!({ "signatures": [{ "scheme": "standard" }, { "scheme": "standard_ed25519" }] });
    let subscription = api.subscribe(&tenant, &receiver.url(""), &["*"], schemes).await;
    let shown = api.get(&path(&subscription, "/public-key")).await;
    let key = STANDARD.decode(shown["public_key"].as_str().unwrap().strip_prefix("whpk_").unwrap()).unwrap();

    world.stripe_for(&tenant).await.send("invoice.paid", json!({})).await;

    let received = &receiver.attempts(1).await[0];
    standard::verify(&secret(&subscription), &received.headers, &received.body, received.at).unwrap();
    let tag = received.header("webhook-signature").split(' ').find_map(|tag| tag.strip_prefix("v1a,")).unwrap();
    let message = [
        received.header("webhook-id").as_bytes(),
        b".",
        received.header("webhook-timestamp").as_bytes(),
        b".",
        &received.body,
    ]
    .concat();
    let key = UnparsedPublicKey::new(&ED25519, key);
    key.verify(&message, &STANDARD.decode(tag).unwrap()).expect("a signature that holds");
    let plain = api.subscribe(&tenant, &receiver.url("plain"), &["*"], json!({})).await;
    assert_eq!(api.call(Method::GET, &path(&plain, "/public-key"), None).await.0, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_is_sent_at_once_marked_and_counted_nowhere() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await.responding([200, 500]);
    let subscription = api.subscribe(&tenant, &receiver.url(""), &["invoice.*"], json!({})).await;
    let entry = json!({ "sample": { "id": "in_1" } });
    api.call(Method::PUT, "/v1/event-types/invoice.paid", Some(&entry)).await;

    let tested = api.post(&path(&subscription, "/test"), json!({ "event_type": "invoice.paid" })).await;
    let failed = api.post(&path(&subscription, "/test"), json!({ "payload": [1, 2] })).await;

    assert_eq!((&tested["success"], &tested["status_code"]), (&json!(true), &json!(200)), "{tested}");
    assert_eq!((&failed["success"], &failed["status_code"]), (&json!(false), &json!(500)), "{failed}");
    assert!(failed["error"].as_str().unwrap().contains("500"));
    let received = receiver.received();
    assert_eq!(received.len(), 2, "not tried again");
    assert_eq!(received[0].json()["data"], json!({ "id": "in_1" }), "the catalogue's sample");
    assert_eq!((&received[1].json()["type"], &received[1].json()["data"]), (&json!("invoice.sample"), &json!([1, 2])));
    assert!(received.iter().all(|received| received.header("webhook-test") == "true"));
    standard::verify(&secret(&subscription), &received[0].headers, &received[0].body, received[0].at).unwrap();
    let stats = api.get(&path(&subscription, "/stats")).await;
    assert_eq!((&stats["attempts"], &stats["last_triggered_at"]), (&json!(0), &Value::Null), "{stats}");
    assert_eq!(api.get("/v1/events").await["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_delivered_and_what_died_is_counted_exactly() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let good = world.receiver().await;
    let bad = world.receiver().await.responding([500]);
    let retries = json!({ "retry_policy": { "kind": "schedule", "delays_seconds": [1] } });
    let delivered = api.subscribe(&tenant, &good.url(""), &["*"], json!({})).await;
    let dead = api.subscribe(&tenant, &bad.url(""), &["invoice.*"], retries).await;
    let stripe = world.stripe_for(&tenant).await;
    for _ in 0..3 {
        stripe.send("invoice.paid", json!({})).await;
    }
    stripe.send("customer.created", json!({})).await;

    let stats = eventually("all have ended", || async {
        let stats = api.get(&path(&dead, "/stats")).await;
        (stats["failed"] == 3 && stats["backlog"]["deliveries"] == 0).then_some(stats)
    })
    .await;
    assert_eq!(
        (&stats["attempts"], &stats["failed_attempts"], &stats["success_rate"]),
        (&json!(6), &json!(6), &json!(0.0))
    );
    let stats = eventually("the good one has all", || async {
        let stats = api.get(&path(&delivered, "/stats")).await;
        (stats["delivered"] == 4).then_some(stats)
    })
    .await;
    assert_eq!((&stats["success_rate"], &stats["attempts"]), (&json!(1.0), &json!(4)), "{stats}");
    assert!(stats["p95_response_time_ms"].as_f64().unwrap() < 30_000.0);
    let all = api.get(&format!("/v1/stats?tenant_id={tenant}")).await;
    assert_eq!(
        (&all["received"]["total"], &all["deliveries"]["delivered"], &all["deliveries"]["failed"]),
        (&json!(4), &json!(4), &json!(3)),
        "{all}"
    );
    assert_eq!(all["received"]["by_event_type"], json!({ "invoice.paid": 3, "customer.created": 1 }));
    assert_eq!(all["deliveries"]["by_event_type"]["invoice.paid"], json!({ "delivered": 3, "failed": 3 }));
    eventually("the failures are listed", || async {
        let all = api.get(&format!("/v1/stats?tenant_id={tenant}")).await;
        (all["last_failures"].as_array().unwrap().len() == 3).then_some(())
    })
    .await;
    let other = api.tenant("bolt").await;
    let none = api.get(&format!("/v1/stats?tenant_id={other}")).await;
    assert_eq!((&none["received"]["total"], &none["success_rate"]), (&json!(0), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_explains_who_got_it_and_is_replayed_also_to_who_did_not() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await;
    let wants = api.subscribe(&tenant, &receiver.url("wants"), &["invoice.*"], json!({})).await;
    let other = api.subscribe(&tenant, &receiver.url("other"), &["customer.*"], json!({})).await;
    let elsewhere = json!({ "sources": ["another-source"] });
    let elsewhere = api.subscribe(&tenant, &receiver.url("elsewhere"), &["*"], elsewhere).await;
    let event = world.stripe_for(&tenant).await.send("invoice.paid", json!({})).await;
    api.delivery_in(&event, "delivered").await;
    let late = api.subscribe(&tenant, &receiver.url("late"), &["*"], json!({})).await;

    let explained = eventually("the new one is known", || async {
        let explained = api.get(&format!("/v1/events/{event}/explain")).await;
        (explained["data"].as_array().unwrap().len() == 4).then_some(explained)
    })
    .await;
    let of = |subscription: &Value| {
        let all = explained["data"].as_array().unwrap();
        all.iter().find(|row| row["subscription_id"] == subscription["id"]).unwrap().clone()
    };
    assert_eq!(
        (&of(&wants)["matched"], &of(&wants)["reason"], &of(&wants)["state"]),
        (&json!(true), &Value::Null, &json!("delivered"))
    );
    assert_eq!((&of(&other)["matched"], &of(&other)["reason"]), (&json!(false), &json!("event_type")));
    assert_eq!((&of(&elsewhere)["matched"], &of(&elsewhere)["reason"]), (&json!(false), &json!("source")));
    assert_eq!((&of(&late)["matched"], &of(&late)["reason"]), (&json!(true), &json!("not_dispatched")));

    let replay = format!("/v1/events/{event}/replay");
    let only = api.post(&replay, json!({ "subscription_id": late["id"] })).await;
    assert_eq!(only["replayed"], 1, "{only}");
    let received = receiver.attempts(2).await;
    assert_eq!((received[1].path.as_str(), received[1].header("webhook-id")), ("/late", event.as_str()));
    let refused = api.call(Method::POST, &replay, Some(&json!({ "subscription_id": other["id"] }))).await;
    assert_eq!(refused.0, 409, "{}", refused.1);
    let all = eventually("both have ended, and go again", || async {
        let all = api.post(&replay, json!({})).await;
        (all["replayed"] == 2).then_some(all)
    })
    .await;
    assert_eq!(all["data"].as_array().unwrap().len(), 2);
    assert!(receiver.attempts(4).await.iter().all(|received| received.header("webhook-id") == event));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_subscription_is_resumed_and_a_cancelled_delivery_never_sent() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await;
    let subscription = api.subscribe(&tenant, &receiver.url(""), &["*"], json!({})).await;
    assert_eq!(api.post(&path(&subscription, "/pause"), json!({})).await["state"], "paused");
    let stripe = world.stripe_for(&tenant).await;
    let (first, second) = (stripe.send("a", json!({})).await, stripe.send("b", json!({})).await);
    let held = api.delivery_in(&first, "held").await;
    api.delivery_in(&second, "held").await;
    let cancel = format!("/v1/deliveries/{}/cancel", held["id"].as_str().unwrap());
    assert_eq!(api.post(&cancel, json!({})).await["state"], "cancelled");
    assert_eq!(api.call(Method::POST, &cancel, Some(&json!({}))).await.0, 409);

    assert_eq!(api.post(&path(&subscription, "/resume"), json!({})).await["state"], "active");

    api.delivery_in(&second, "delivered").await;
    assert_eq!(api.delivery_in(&first, "cancelled").await["attempts"], json!([]));
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_in_the_audit_log_without_its_secrets_and_cannot_be_taken_back() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let receiver = world.receiver().await;
    let subscription = api.subscribe(&tenant, &receiver.url(""), &["*"], json!({ "name": "Old" })).await;
    api.patch(&path(&subscription, ""), json!({ "name": "New" })).await;
    let rotated = api.post(&path(&subscription, "/rotate-secret"), json!({})).await;
    api.post(&path(&subscription, "/pause"), json!({})).await;
    assert_eq!(api.call(Method::DELETE, &path(&subscription, ""), None).await.0, 204);

    let id = subscription["id"].as_str().unwrap();
    let log = api.get(&format!("/v1/audit-log?resource_id={id}")).await;
    let entries = log["data"].as_array().unwrap();
    let actions: Vec<&str> = entries.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["delete", "pause", "rotate_secret", "update", "create"]);
    assert_eq!((&entries[3]["before"]["name"], &entries[3]["after"]["name"]), (&json!("Old"), &json!("New")));
    assert!(entries.iter().all(|entry| entry["actor"] == "operator" && entry["tenant_id"] == json!(tenant)));
    for secret in [&subscription["secret"], &rotated["secret"]] {
        assert!(!log.to_string().contains(secret.as_str().unwrap()));
    }
    let client = world.database.store.client().await.unwrap();
    for statement in ["DELETE FROM audit_log", "UPDATE audit_log SET actor = 'nobody'"] {
        assert!(client.execute(statement, &[]).await.is_err(), "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_somebody_has_not_seen_is_not_overwritten() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let path = format!("/v1/tenants/{tenant}");
    let seen = api.etag(&path).await;
    assert_eq!(api.patch_if(&path, &seen, json!({ "name": "First" })).await, 200);
    assert_eq!(api.patch_if(&path, &seen, json!({ "name": "Second" })).await, 412, "it was changed meanwhile");
    assert_eq!(api.get(&path).await["name"], "First");
    assert_eq!(api.patch_if(&path, &api.etag(&path).await, json!({ "name": "Second" })).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_outside_its_limits_is_refused_by_name() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let subscription = api.subscribe(&tenant, "https://example.com/", &["*"], json!({})).await;
    let refused = [
        (json!({ "rate_limit": {} }), "/rate_limit"),
        (json!({ "rate_limit": { "per_second": 1, "per_minute": 60 } }), "/rate_limit"),
        (json!({ "rate_limit": { "per_minute": 0.05 } }), "/rate_limit/per_minute"),
        (json!({ "rate_limit": { "per_hour": 100_001 } }), "/rate_limit/per_hour"),
        (json!({ "rate_limit": { "per_day": 1 } }), "/rate_limit/per_day"),
        (json!({ "ordered": null }), "/ordered"),
        (json!({ "tls": {} }), "/tls"),
        (json!({ "tls": { "ca_bundle": "no PEM" } }), "/tls/ca_bundle"),
        (json!({ "tls": { "ca_bundle": "x".repeat(65_537) } }), "/tls/ca_bundle"),
        (json!({ "tls": { "client_certificate": "x" } }), "/tls/client_key"),
        (json!({ "tls": { "client_key": "x" } }), "/tls/client_certificate"),
        (json!({ "tls": { "client_key": 1 } }), "/tls/client_key"),
        (json!({ "tls": { "insecure": true } }), "/tls/insecure"),
        (json!({ "ordered_max_block_seconds": 0 }), "/ordered_max_block_seconds"),
        (json!({ "ordered_max_block_seconds": 604_801 }), "/ordered_max_block_seconds"),
    ];
    for (body, pointer) in refused {
        let (status, answer) = api.call(Method::PATCH, &path(&subscription, ""), Some(&body)).await;
        assert_eq!((status, &answer["errors"][0]["pointer"]), (422, &json!(pointer)), "{body}");
    }
    assert_eq!((&subscription["ordered"], &subscription["ordered_max_block_seconds"]), (&json!(false), &json!(3600)));
    let wanted = json!({ "rate_limit": { "per_hour": 30.0 }, "ordered": true, "ordered_max_block_seconds": 60 });
    api.patch(&path(&subscription, ""), wanted.clone()).await;
    let changed = api.get(&path(&subscription, "")).await;
    for (field, value) in wanted.as_object().unwrap() {
        assert_eq!(&changed[field], value, "{field}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_the_deployment_closes_is_refused_at_its_registration() {
    let world = World::start_with(&[
        ("POSTHORN_ALLOW_PRIVATE_NETWORKS", "false"),
        ("POSTHORN_ENDPOINTS_ALLOW", "10.1.0.0/16"),
        ("POSTHORN_ENDPOINTS_DENY", "8.8.8.0/24"),
        ("POSTHORN_ENDPOINTS_PORTS", "443,8443"),
    ])
    .await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    for url in ["https://10.1.2.3/", "https://example.com:8443/"] {
        api.subscribe(&tenant, url, &["*"], json!({})).await;
    }
    for url in ["https://10.2.0.1/", "https://8.8.8.8/", "https://[64:ff9b::8.8.8.8]/", "https://example.com:22/"] {
        let body = json!({ "tenant_id": tenant, "url": url, "event_types": ["*"] });
        let (status, answer) = api.call(Method::POST, "/v1/subscriptions", Some(&body)).await;
        assert_eq!((status, &answer["errors"][0]["pointer"]), (422, &json!("/url")), "{url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_of_a_subscription_is_kept_sealed_and_shown_by_fingerprints() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let own = rcgen::generate_simple_self_signed(["hooks.example.com".to_owned()]).unwrap();
    let (certificate, key) = (own.cert.pem(), own.signing_key.serialize_pem());
    let print = hex::encode(ring::digest::digest(&ring::digest::SHA256, own.cert.der()));
    let tls = json!({ "ca_bundle": certificate, "client_certificate": certificate, "client_key": key });

    let made = api.subscribe(&tenant, "https://example.com/", &["*"], json!({ "tls": tls })).await;

    assert_eq!(made["tls"], json!({ "ca_certificates": [print], "client_certificate": print }));
    let id = made["id"].as_str().unwrap().parse().unwrap();
    let known = Subscriptions::default()
        .fetch(&world.database.store.client().await.unwrap(), world.database.store.sealer(), id)
        .await
        .unwrap()
        .unwrap();
    let identity = known.tls.as_ref().unwrap().identity().unwrap();
    assert_eq!(identity.key.expose_secret(), key);
    let audit = api.get(&format!("/v1/audit-log?tenant_id={tenant}")).await.to_string();
    assert!(audit.contains(&print) && !audit.contains("BEGIN"), "{audit}");
    let of_another = KeyPair::generate().unwrap().serialize_pem();
    let body = json!({ "tls": { "client_certificate": certificate, "client_key": of_another } });
    let (status, answer) = api.call(Method::PATCH, &path(&made, ""), Some(&body)).await;
    assert_eq!((status, &answer["errors"][0]["pointer"]), (422, &json!("/tls/client_key")));
    assert_eq!(api.patch(&path(&made, ""), json!({ "name": "Billing" })).await["tls"], made["tls"], "left alone");
    let replaced = api.patch(&path(&made, ""), json!({ "tls": { "ca_bundle": certificate } })).await;
    assert_eq!(replaced["tls"], json!({ "ca_certificates": [print], "client_certificate": null }), "whole");
    assert_eq!(api.patch(&path(&made, ""), json!({ "tls": null })).await["tls"], Value::Null);
}
