//! Sources as their owners configure them: what becomes of a genuine request.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use posthorn_core::provider::Provider;
use posthorn_core::request::{Headers, RawRequest};
use posthorn_core::signature::{
    Answer, Material, Need, Occurrence, Refusal, RefusalKind, Verdict, Verifier, split_secrets,
};
use ring::{digest, hmac};
use serde_json::{Value, json};

use crate::world::{Vector, files, own_directory};

const NOW: i64 = 1_782_864_000;
const SECRET: &str = "a secret";

fn source(provider: Provider, config: Value) -> Verifier {
    let (public, secrets) = split_secrets(provider, config).unwrap();
    Verifier::new(provider, &public, secrets).unwrap()
}

fn request(headers: &[(&str, &str)], body: &str) -> RawRequest {
    RawRequest {
        method: "POST".into(),
        target: "/webhooks/a".into(),
        headers: headers.iter().copied().collect::<Headers>(),
        body: body.to_owned().into(),
    }
}

fn judge(source: &Verifier, request: &RawRequest, path_event: Option<&str>) -> Result<Verdict, Refusal> {
    source.judge(request, path_event, Timestamp::from_second(NOW).unwrap(), &Material::default())
}

/// The one event of a request, and which secret matched.
fn event(source: &Verifier, request: &RawRequest, path_event: Option<&str>) -> (Occurrence, Option<usize>) {
    match judge(source, request, path_event) {
        Ok(Verdict::Events { mut occurrences, matched }) if occurrences.len() == 1 => (occurrences.remove(0), matched),
        other => panic!("{other:?}"),
    }
}

fn refusal(source: &Verifier, request: &RawRequest, path_event: Option<&str>) -> RefusalKind {
    judge(source, request, path_event).expect_err("a refusal").kind
}

fn hmac_sha256(text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), text.as_bytes())
}

fn sha256(text: &str) -> String {
    hex::encode(digest::digest(&digest::SHA256, text.as_bytes()))
}

#[test]
fn an_internal_event_is_named_by_its_path_and_told_apart_by_its_key() {
    let source = source(Provider::Internal, json!({ "tokens": ["new", "old"] }));
    let post = |extra: &[(&str, &str)], body: &str, name: &str| {
        let headers = [&[("X-Service-Token", "old")], extra].concat();
        event(&source, &request(&headers, body), Some(name))
    };
    let (plain, matched) = post(&[], r#"{"id":"rep_1"}"#, "report-completed");
    assert_eq!(matched, Some(1), "the older token is still good");
    assert_eq!(plain.event_type.as_str(), "report-completed");
    assert_eq!(plain.provider_event_id.as_deref(), Some("rep_1"));
    assert!(plain.dedup_parts.is_empty(), "without a key each request is an event, since an id may be that of a thing");
    for name in ["Idempotency-Key", "X-Event-Id", "webhook-id"] {
        assert_eq!(post(&[(name, "k1")], "{}", "a").0.dedup_parts, ["a", "k1"], "{name}");
    }
    let strict = json!({ "tokens": ["old"], "dedup": ["{type}", "{body_sha256}"] });
    let strict = self::source(Provider::Internal, strict);
    let (strict, _) = event(&strict, &request(&[("X-Service-Token", "old")], "{}"), Some("a"));
    assert_eq!(strict.dedup_parts, ["a", &sha256("{}")], "a source can have its own rule");
}

#[test]
fn an_internal_request_is_refused_for_what_is_wrong_with_it() {
    let source = source(Provider::Internal, json!({ "tokens": ["token"] }));
    let genuine = |body: &str| request(&[("X-Service-Token", "token")], body);
    assert_eq!(refusal(&source, &request(&[], "{}"), Some("a")), RefusalKind::MissingHeader);
    for wrong in ["toke", "tokens", "Token", ""] {
        let wrong = request(&[("X-Service-Token", wrong)], "{}");
        assert_eq!(refusal(&source, &wrong, Some("a")), RefusalKind::SignatureMismatch);
    }
    assert_eq!(refusal(&source, &genuine("no json"), Some("a")), RefusalKind::MalformedBody);
    assert_eq!(refusal(&source, &genuine("{}"), None), RefusalKind::MissingEventType);
    assert_eq!(event(&source, &genuine("{}"), Some("a b")).0.event_type.as_str(), "a_b");
    let form = |body: &str| {
        let headers = [("X-Service-Token", "token"), ("Content-Type", "application/x-www-form-urlencoded")];
        request(&headers, body)
    };
    for body in [r#"{"n": 1, "note": "1+1=2 & 100%25"}"#, "[]", "n=1&note=a+sentence", "\u{feff}{}"] {
        assert_eq!(event(&source, &form(body), Some("a")).0.event_type.as_str(), "a", "{body}");
    }
    for body in [r#"{"n": 1"#, "hello", "", r#"{"a=b": "#] {
        assert_eq!(refusal(&source, &form(body), Some("a")), RefusalKind::MalformedBody, "{body}");
    }
    assert_eq!(refusal(&source, &genuine("n=1"), Some("a")), RefusalKind::MalformedBody, "not said to be a form");
    assert_eq!(refusal(&source, &genuine("{}"), Some("posthorn.subscription.disabled")), RefusalKind::MissingEventType);
}

#[test]
fn a_delivery_of_its_own_makes_equal_bytes_a_new_event() {
    let body = r#"{"action":"opened"}"#;
    let signature = format!("sha256={}", hex::encode(hmac_sha256(body)));
    let github = source(Provider::Github, json!({ "secrets": [SECRET] }));
    let deliver = |id: &str| {
        let headers =
            [("X-Hub-Signature-256", signature.as_str()), ("X-GitHub-Delivery", id), ("X-GitHub-Event", "issues")];
        event(&github, &request(&headers, body), None).0
    };
    let (one, two) = (deliver("one"), deliver("two"));
    assert_eq!(one.event_type.as_str(), "issues.opened");
    assert_eq!(one.provider_event_id.as_deref(), Some("one"));
    assert_eq!(one.dedup_parts, ["one", &sha256(body)]);
    assert_ne!(one.dedup_parts, two.dedup_parts);
    let without = [("X-Hub-Signature-256", signature.as_str())];
    assert_eq!(event(&github, &request(&without, body), None).0.dedup_parts, ["github.unknown", &sha256(body)]);

    let signature = STANDARD.encode(hmac_sha256(body));
    let shopify = source(Provider::Shopify, json!({ "secrets": [SECRET] }));
    let deliver = |webhook: &str, id: &str, topic: &str| {
        let headers = [
            ("shopify-hmac-sha256", signature.as_str()),
            ("shopify-webhook-id", webhook),
            (if id.is_empty() { "x-none" } else { "X-Shopify-Event-Id" }, id),
            ("shopify-topic", topic),
        ];
        event(&shopify, &request(&headers, body), None).0.dedup_parts
    };
    assert_eq!(deliver("w1", "e1", "orders/paid"), deliver("w2", "e1", "orders/paid"), "the same event again");
    assert_ne!(deliver("w1", "e1", "orders/paid"), deliver("w1", "e2", "orders/paid"));
    assert_eq!(deliver("w1", "", "orders/paid"), deliver("w2", "", "orders/paid"), "without an id its content counts");
    assert_ne!(deliver("w1", "", "orders/paid"), deliver("w1", "", "orders/create"), "both have the order as body");
}

#[test]
fn a_source_can_say_itself_what_makes_an_event_new() {
    let body = r#"{"action":"opened","number":7}"#;
    let signature = format!("sha256={}", hex::encode(hmac_sha256(body)));
    let headers = [("X-Hub-Signature-256", signature.as_str()), ("X-GitHub-Delivery", "d1")];
    let parts = |dedup: Value| {
        let source = source(Provider::Github, json!({ "secrets": [SECRET], "dedup": dedup }));
        event(&source, &request(&headers, body), None).0.dedup_parts
    };
    assert_eq!(parts(json!({ "header": "X-GitHub-Delivery" })), ["d1"]);
    assert_eq!(parts(json!([{ "json": "/number" }, { "json": "$.action" }])), ["7", "opened"]);
    assert_eq!(parts(json!(["{type}", [{ "json": "/nothing" }, "{id}"]])), ["github.unknown", "d1"]);
    assert_eq!(parts(json!({ "json": "/nothing" })), ["github.unknown", &sha256(body)], "missing: by its content");

    let url = "https://mycompany.com/myapp.php";
    let twilio = json!({ "secrets": ["12345"], "public_url": url, "dedup": { "json": "/Digits" } });
    let callback = RawRequest {
        target: "/in?foo=1&bar=2".into(),
        ..request(
            &[("X-Twilio-Signature", "RSOYDt4T1cUTdK1PDd93/VVr8B8=")],
            "CallSid=CA1234567890ABCDE&Digits=1234&From=%2B14158675309&To=%2B18005551212&Caller=%2B14158675309",
        )
    };
    assert_eq!(event(&source(Provider::Twilio, twilio), &callback, None).0.dedup_parts, ["1234"]);
}

#[test]
fn a_scheme_that_verifies_nothing_says_so_and_takes_its_types_from_the_path() {
    let source = source(Provider::Generic, json!({ "scheme": { "algorithm": "none" } }));
    assert!(!source.is_verifying());
    let (event, matched) = event(&source, &request(&[], "whatever"), Some("cron.tick"));
    assert_eq!((event.event_type.as_str(), matched), ("cron.tick", None));
    assert_eq!(event.dedup_parts, ["cron.tick", &sha256("whatever")]);
    assert_eq!(refusal(&source, &request(&[], "whatever"), None), RefusalKind::MissingEventType);
}

#[test]
fn a_path_names_events_of_generic_and_internal_sources_only() {
    let body = "{}";
    let signature = format!("sha256={}", hex::encode(hmac_sha256(body)));
    let github = source(Provider::Github, json!({ "secrets": [SECRET] }));
    let genuine = request(&[("X-Hub-Signature-256", &signature)], body);
    assert_eq!(event(&github, &genuine, Some("push")).0.event_type.as_str(), "github.unknown");
    let generic = source(Provider::Generic, json!({ "preset": "github", "secrets": [SECRET] }));
    assert_eq!(event(&generic, &genuine, Some("push")).0.event_type.as_str(), "push");
}

#[test]
fn an_item_of_a_batch_has_its_own_key_and_its_own_bytes() {
    let scheme = json!({
        "algorithm": "hmac_sha256", "signature": { "header": "X-Sig" }, "signed": "{body}", "batch": "$.events",
        "extract": { "event_id": { "json": "/id" }, "event_type": { "json": "/type" } },
    });
    let source = source(Provider::Generic, json!({ "secrets": [SECRET], "scheme": scheme }));
    let send = |body: &str| {
        let signature = hex::encode(hmac_sha256(body));
        judge(&source, &request(&[("X-Sig", &signature)], body), None)
    };
    let Ok(Verdict::Events { occurrences, .. }) = send(r#"{"events": [ {"id":1,"type":"a","n":1.10}, {"type":"b"} ]}"#)
    else {
        panic!("two events");
    };
    assert_eq!(occurrences[0].body.as_deref(), Some(&br#"{"id":1,"type":"a","n":1.10}"#[..]));
    assert_eq!(occurrences[0].dedup_parts, ["1"]);
    assert_eq!(occurrences[1].dedup_parts, ["b", &sha256(r#"{"type":"b"}"#)]);
    assert!(matches!(send(r#"{"events":[]}"#), Ok(Verdict::Ignore { .. })));
    let none_is_accepted = send(r#"{"events":[{"id":1,"type":"a"},{"id":2}]}"#).unwrap_err();
    assert_eq!(none_is_accepted.kind, RefusalKind::MissingEventType);
    assert_eq!(send(r#"{"events":{}}"#).unwrap_err().kind, RefusalKind::MalformedBody);
}

fn generic(preset: &str, more: &Value) -> Verifier {
    let mut config = json!({ "preset": preset, "secrets": [SECRET] });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    source(Provider::Generic, config)
}

fn handshake(source: &Verifier, request: &RawRequest) -> Option<Answer> {
    match judge(source, request, None) {
        Ok(Verdict::Handshake(answer)) => Some(answer),
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    }
}

fn get(target: &str) -> RawRequest {
    RawRequest { method: "GET".into(), target: target.into(), ..request(&[], "") }
}

#[test]
fn a_challenge_by_get_is_answered_if_the_word_agreed_on_is_right() {
    let meta = generic("meta", &json!({ "verify_token": "hush" }));
    assert_eq!(meta.methods(), ["GET", "HEAD", "POST"]);
    let target = "/webhooks/a?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=hush";
    let answer = handshake(&meta, &get(target)).unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "1158201444"));
    assert!(answer.content_type.starts_with("text/plain"));
    assert_eq!(handshake(&meta, &get(&target.replace("hush", "loud"))), None);
    assert_eq!(handshake(&meta, &get(&target.replace("1158201444", "%3Cscript%3E"))), None);
    assert_eq!(handshake(&meta, &RawRequest { method: "POST".into(), ..get(target) }), None);
    assert_eq!(source(Provider::Stripe, json!({ "secrets": ["a"] })).methods(), ["HEAD", "POST"]);
}

#[test]
fn a_look_by_head_is_answered_200_or_as_the_scheme_declares() {
    let now = Timestamp::from_second(NOW).unwrap();
    let head = RawRequest { method: "HEAD".into(), ..get("/webhooks/a") };
    assert_eq!(source(Provider::Stripe, json!({ "secrets": ["a"] })).head(&head, now).status, 200);
    let scheme = json!({
        "algorithm": "hmac_sha1", "signature": { "header": "X-Trello-Webhook", "encoding": "base64" }, "signed": "{body}",
        "handshake": [{ "method": "HEAD", "when": [], "answer": { "status": 204, "body": "" } }],
    });
    let trello = source(Provider::Generic, json!({ "secrets": ["a"], "scheme": scheme }));
    assert_eq!(trello.head(&head, now).status, 204);
}

#[test]
fn a_challenge_that_wants_an_hmac_gets_one_unless_it_is_a_body() {
    let x = generic("x", &json!({}));
    let answer = handshake(&x, &get("/webhooks/a?crc_token=Zm9v")).unwrap();
    let expected = json!({ "response_token": format!("sha256={}", STANDARD.encode(hmac_sha256("Zm9v"))) });
    assert_eq!(serde_json::from_str::<Value>(&answer.body).unwrap(), expected);
    for body in ["12345", "true", "%7B%7D", "null"] {
        assert_eq!(handshake(&x, &get(&format!("/webhooks/a?crc_token={body}"))), None, "{body}");
    }

    let zoom = generic("zoom", &json!({}));
    let body = r#"{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"}}"#;
    let signature = format!("v0={}", hex::encode(hmac_sha256(&format!("v0:{NOW}:{body}"))));
    let now = NOW.to_string();
    let signed = request(&[("x-zm-signature", &signature), ("x-zm-request-timestamp", &now)], body);
    let answer = handshake(&zoom, &signed).unwrap();
    let token = hex::encode(hmac_sha256("qgg8vlvZRS6UYooatFL8Aw"));
    let expected = json!({ "plainToken": "qgg8vlvZRS6UYooatFL8Aw", "encryptedToken": token });
    assert_eq!(serde_json::from_str::<Value>(&answer.body).unwrap(), expected);
    assert_eq!(answer.content_type, "application/json");
    assert_eq!(handshake(&zoom, &request(&[("x-zm-request-timestamp", &now)], body)), None, "only if it is signed");
}

#[test]
fn a_notification_that_is_like_every_other_is_a_repeat_within_a_minute_only() {
    let dropbox = generic("dropbox", &json!({}));
    let body = r#"{"list_folder":{"accounts":["dbid:1"]}}"#;
    let signed = request(&[("X-Dropbox-Signature", &hex::encode(hmac_sha256(body)))], body);
    let parts =
        |second: i64| match dropbox.judge(&signed, None, Timestamp::from_second(second).unwrap(), &Material::default())
        {
            Ok(Verdict::Events { mut occurrences, .. }) => occurrences.remove(0).dedup_parts,
            other => panic!("{other:?}"),
        };
    assert_eq!(parts(NOW), parts(NOW + 59));
    assert_ne!(parts(NOW), parts(NOW + 60));
}

#[test]
fn what_a_callback_by_get_says_is_kept() {
    let url = "https://hooks.example.com/in";
    let twilio = source(Provider::Twilio, json!({ "secrets": [SECRET], "public_url": url }));
    let target = "/webhooks/a?MessageSid=SM1&MessageStatus=sent";
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, SECRET.as_bytes());
    let signature = STANDARD.encode(hmac::sign(&key, format!("{url}?MessageSid=SM1&MessageStatus=sent").as_bytes()));
    let callback = RawRequest { headers: [("X-Twilio-Signature", signature)].into_iter().collect(), ..get(target) };
    let (event, _) = event(&twilio, &callback, None);
    assert_eq!(event.event_type.as_str(), "message.status.sent");
    let body: Value = serde_json::from_slice(&event.body.unwrap()).unwrap();
    assert_eq!(body, json!({ "MessageSid": "SM1", "MessageStatus": "sent" }));
}

#[test]
fn a_refusal_shows_neither_secret_nor_signature() {
    let source = source(Provider::Github, json!({ "secrets": [SECRET] }));
    let right = hex::encode(hmac_sha256("{}"));
    let wrong = request(&[("X-Hub-Signature-256", &format!("sha256={}", "0".repeat(64)))], "{}");
    let refusal = judge(&source, &wrong, None).unwrap_err();
    let shown = format!("{refusal} {refusal:?} {source:?}");
    assert!(!shown.contains(SECRET) && !shown.contains(&right), "{shown}");
}

/// A vector of the repository.
fn vector(provider: &str, name: &str) -> Vector {
    let mut all = files(&own_directory()).into_iter().flat_map(|(_, vectors)| vectors);
    all.find(|vector| vector.provider == provider && vector.name == name).unwrap()
}

#[test]
fn a_source_of_google_asks_for_its_key_set_and_of_amazon_for_a_certificate_of_an_allowed_topic_only() {
    let without_material = |provider: &str, name: &str| {
        let vector = vector(provider, name);
        vector.verifier().unwrap().judge(&vector.request(), None, vector.now(), &Material::default())
    };
    let google = without_material("google_pubsub_oidc", "valid");
    let url = "https://www.googleapis.com/oauth2/v3/certs".to_owned();
    assert_eq!(google, Ok(Verdict::Needs(Need::KeySet { url })));
    let amazon = without_material("ses_sns", "valid-bounce-v2-sha256");
    assert!(matches!(amazon, Ok(Verdict::Needs(Need::Certificate { .. }))), "{amazon:?}");
    let stranger = without_material("ses_sns", "valid-signature-foreign-topic").unwrap_err();
    assert_eq!(stranger.kind, RefusalKind::TopicNotAllowed);
}

#[test]
fn a_push_may_come_without_its_wrapping() {
    let vector = vector("google_pubsub_oidc", "valid");
    let verifier = vector.verifier().unwrap();
    let push = |extra: &[(&str, &str)], body: &'static str| {
        let genuine = vector.request();
        let headers = genuine.headers.iter().chain(extra.iter().copied()).collect();
        let request = RawRequest { headers, body: body.into(), ..genuine.clone() };
        verifier.judge(&request, None, vector.now(), &vector.material(&verifier))
    };
    let Ok(Verdict::Events { occurrences, .. }) = push(&[], r#"{"event":"MESSAGE_DELIVERED"}"#) else {
        panic!("an event");
    };
    assert_eq!(occurrences[0].event_type.as_str(), "MESSAGE_DELIVERED");
    let metadata =
        [("x-goog-pubsub-message-id", "7"), ("x-goog-pubsub-subscription-name", "projects/p/subscriptions/s")];
    let Ok(Verdict::Events { occurrences, .. }) = push(&metadata, "no json") else { panic!("an event") };
    assert_eq!(occurrences[0].dedup_parts, ["projects/p/subscriptions/s", "7"]);
    assert_eq!(push(&[], "no json").unwrap_err().kind, RefusalKind::MalformedBody);
}
