//! The catalogue of event types, and what it is good for at a source.

use posthorn_testkit::{World, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::sources::{TOKEN, internal, path};

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_holds_samples_to_their_schemas() {
    let world = World::start().await;
    let api = world.api();
    let put =
        async |name: &str, body: Value| api.call(Method::PUT, &format!("/v1/event-types/{name}"), Some(&body)).await;
    let entry = json!({
        "description": "An invoice was paid.",
        "schema": { "type": "object", "required": ["id"] },
        "sample": { "id": "in_1" },
    });
    assert_eq!(put("invoice.paid", entry.clone()).await.0, 201);
    assert_eq!(put("invoice.paid", entry.clone()).await.0, 200, "replaced");
    let shown = api.get("/v1/event-types/invoice.paid").await;
    assert_eq!(
        (&shown["name"], &shown["schema"], &shown["sample"]),
        (&json!("invoice.paid"), &entry["schema"], &entry["sample"])
    );
    for (name, body, pointer) in [
        ("invoice.paid", json!({ "schema": { "type": "objekt" } }), "/schema"),
        ("invoice.paid", json!({ "schema": { "required": ["id"] }, "sample": {} }), "/sample"),
        ("invoice.paid", json!({ "schema": { "$ref": "http://127.0.0.1/" } }), "/schema"),
        ("invoice.paid", json!({ "schemas": {} }), "/schemas"),
        ("posthorn.mine", json!({}), "name"),
        ("...", json!({}), "name"),
    ] {
        let (status, answer) = put(name, body.clone()).await;
        assert_eq!((status, &answer["errors"][0]["pointer"]), (422, &json!(pointer)), "{body} {answer}");
    }
    assert_eq!(put("orders%2Fcreate", json!({ "archived": true })).await.0, 201);
    assert_eq!(api.get("/v1/event-types").await["data"].as_array().unwrap().len(), 1, "archived ones are not offered");
    assert_eq!(api.get("/v1/event-types?archived=true").await["data"].as_array().unwrap().len(), 2);
    assert_eq!(api.call(Method::DELETE, "/v1/event-types/orders%2Fcreate", None).await.0, 204);
    assert_eq!(api.call(Method::GET, "/v1/event-types/orders%2Fcreate", None).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_does_not_fit_its_schema_is_ignored_reported_or_refused() {
    let world = World::start().await;
    let api = world.api();
    let tenant = api.tenant("acme").await;
    let schema = json!({ "schema": { "type": "object", "required": ["pages"], "properties": { "pages": { "type": "integer" } } } });
    assert_eq!(api.call(Method::PUT, "/v1/event-types/report.completed", Some(&schema)).await.0, 201);
    let source = world.source(internal(&tenant, json!({ "validate": "enforce" }))).await;
    let wrong = r#"{"pages":"many"}"#;
    let refused = eventually("it is enforced", || async {
        let answer = world.knock(&source, "report.completed", &[TOKEN], wrong).await;
        (answer.status == 422).then_some(answer)
    })
    .await;
    assert_eq!(refused.json["type"], "/problems/payload-invalid");
    assert_eq!(refused.json["errors"][0]["pointer"], "/pages");
    assert!(!refused.json.to_string().contains("many"), "the payload is not told");
    assert_eq!(world.knock(&source, "report.completed", &[TOKEN], r#"{"pages":3}"#).await.status, 200);
    assert_eq!(world.knock(&source, "report.other", &[TOKEN], wrong).await.status, 200, "of another type");

    api.patch(&path(&source, ""), json!({ "validate": "report" })).await;
    let accepted = eventually("it is reported only", || async {
        let answer = world.knock(&source, "report.completed", &[TOKEN], r#"{"pages":"none"}"#).await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    let event = api.get(&format!("/v1/events/{}", accepted.json["event_id"].as_str().unwrap())).await;
    assert!(event["schema_violation"].as_str().unwrap().starts_with("`/pages`"), "{event}");
    let stats = api.get(&path(&source, "/stats")).await;
    assert_eq!(stats["schema_violations"], 1);

    // Refused for its payload, a request can be looked at again after the schema is mended.
    let list = api.get("/v1/rejected-requests?reason=payload_invalid").await;
    let refused = list["data"][0]["id"].as_str().unwrap().to_owned();
    let answer = api.post(&format!("/v1/rejected-requests/{refused}/reverify"), json!({})).await;
    assert_eq!(answer["accepted"], true, "{answer}");
}
