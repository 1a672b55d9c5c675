//! Whatever is sent or configured, there is an answer and never a panic.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use posthorn_core::provider::Provider;
use posthorn_core::request::{Headers, RawRequest};
use posthorn_core::signature::{Material, Verdict, Verifier, preset_names, split_secrets, standard};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::world::{Vector, files, own_directory};

/// Members that configurations and bodies have.
#[rustfmt::skip]
const NAMES: [&str; 38] = [
    "algorithm", "signature", "signed", "timestamp", "header", "json", "extract", "event_id",
    "event_type", "scheme", "preset", "secrets", "tokens", "public_url", "public_keys",
    "tolerance_seconds", "dedup", "batch", "handshake", "when", "at", "equals", "answer", "format",
    "versions", "signature_key", "kv_key", "body", "id", "type", "data", "Type", "MessageId", "Message",
    "topic_arns", "audience", "service_account_email", "jwks_url",
];

/// Texts that mean something in them.
#[rustfmt::skip]
const VALUES: [&str; 20] = [
    "hmac_sha256", "none", "ed25519", "{timestamp}.{body}", "{json:$.a[0]}", "{id}", "X-Sig", "kv",
    "list", "$.a", "/a/b", "", "stripe", "https://a.example", "Notification", "url_verification",
    "\u{0}", "{", "hex", "arn:aws:sns:x",
];

/// One genuine request of every file.
fn one_of_each() -> Vec<Vector> {
    let valid = |vectors: Vec<Vector>| vectors.into_iter().find(|vector| vector.expect == "ok");
    files(&own_directory()).into_iter().filter_map(|(_, vectors)| valid(vectors)).collect()
}

/// Text as it stands in headers, and what resembles it.
fn header_value() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,80}",
        "[tv][0-9]?=[0-9a-fA-F]{0,70},v1=[0-9a-f]{0,64}",
        "v1a?,[A-Za-z0-9+/]{0,90}=?=?( v1,[A-Za-z0-9+/]{43}=)?",
        "(Bearer|Basic) [A-Za-z0-9_-]{0,40}(\\.[A-Za-z0-9_-]{0,40}){0,3}",
        "[0-9]{0,20}",
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..300),
        document().prop_map(|document| document.to_string().into_bytes()),
        "[A-Za-z%&=+]{0,100}".prop_map(String::into_bytes),
    ]
}

/// JSON made of the words that configurations and bodies use.
fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        proptest::sample::select(&VALUES[..]).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
        ".{0,20}".prop_map(Value::from),
    ];
    let name = proptest::sample::select(&NAMES[..]);
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Array),
            vec((name.clone(), inner), 0..7).prop_map(|members| {
                members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>().into()
            }),
        ]
    })
}

proptest! {
    #[test]
    fn no_request_makes_a_verifier_panic(
        values in vec(header_value(), 8),
        body in body(),
        target in "/[ -~]{0,60}",
        path_event in proptest::option::of(".{0,20}"),
        method in prop_oneof![Just("POST"), Just("GET")],
    ) {
        for vector in one_of_each() {
            let verifier = vector.verifier().unwrap();
            let material = vector.material(&verifier);
            let genuine = vector.request();
            let names = genuine.headers.iter().map(|(name, _)| name);
            let headers: Headers = names.zip(values.iter().cycle().cloned()).collect();
            let mixed = [
                RawRequest { body: body.clone().into(), ..genuine.clone() },
                RawRequest { headers: headers.clone(), ..genuine.clone() },
                RawRequest { method: method.to_owned(), target: target.clone(), headers, body: body.clone().into() },
            ];
            for request in mixed {
                let _ = verifier.judge(&request, path_event.as_deref(), vector.now(), &material);
            }
        }
    }

    #[test]
    fn no_configuration_makes_anything_panic(config in document(), body in body()) {
        for provider in Provider::ALL {
            judge_with(provider, config.clone(), &body);
        }
        judge_with(Provider::Generic, json!({ "scheme": config, "secrets": ["s"] }), &body);
    }

    #[test]
    fn no_unverified_body_makes_the_reading_of_events_panic(
        body in body(),
        path_event in proptest::option::of(".{0,20}"),
    ) {
        let request = post(Headers::default(), body);
        let looking_everywhere = json!({
            "algorithm": "none", "body": "any",
            "extract": { "event_type": "{json:$.type}x", "occurred_at": { "json": "/timestamp" } },
        });
        let in_batches = json!({
            "algorithm": "none", "batch": "/data", "dedup": ["{id}"],
            "extract": { "event_id": { "json": "/id" }, "default_type": "a" },
        });
        for scheme in [looking_everywhere, in_batches] {
            let verifier = Verifier::new(Provider::Generic, &json!({ "scheme": scheme }), vec![]).unwrap();
            let verdict = verifier.judge(&request, path_event.as_deref(), Timestamp::UNIX_EPOCH, &Material::default());
            if let Ok(Verdict::Events { occurrences, .. }) = verdict {
                prop_assert!(occurrences.iter().all(|occurrence| !occurrence.dedup_parts.is_empty()));
            }
        }
    }

    #[test]
    fn no_download_makes_anything_panic(bytes in vec(any::<u8>(), 0..600), at in 0usize..900, text in ".{0,200}") {
        let vector = one_of_each().into_iter().find(|vector| vector.provider == "ses_sns").unwrap();
        let (url, pem) = vector.config["certificates"].as_object().unwrap().iter().next().unwrap();
        let pem = pem.as_str().unwrap();
        let armoured = |inside: &str| format!("-----BEGIN CERTIFICATE-----\n{inside}\n-----END CERTIFICATE-----");
        let truncated = pem.get(..at.min(pem.len())).unwrap_or_default();
        let mut broken = pem.as_bytes().to_vec();
        let position = at % broken.len();
        broken[position] = bytes.first().copied().unwrap_or(b'A') & 0x7f;
        let verifier = vector.verifier().unwrap();
        let broken = String::from_utf8_lossy(&broken).into_owned();
        for pem in [armoured(&STANDARD.encode(&bytes)), armoured(truncated), broken, text.clone()] {
            let material = Material::default().with_certificate(url.as_str(), &pem);
            let material = material.with_key_set("https://k.example", &text);
            let _ = verifier.judge(&vector.request(), None, vector.now(), &material);
        }
    }

    #[test]
    fn no_header_makes_a_receiver_panic(
        values in vec(header_value(), 3),
        body in vec(any::<u8>(), 0..100),
        secret in ".{0,60}",
    ) {
        let _ = standard::SigningSecret::parse(&secret);
        let _ = standard::SigningKey::parse(&secret);
        let secret = standard::SigningSecret::from_bytes(&[7; 24]).unwrap();
        let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
        let headers: Headers = names.into_iter().zip(values).collect();
        prop_assert!(standard::verify(&secret, &headers, &body, Timestamp::UNIX_EPOCH).is_err());
    }
}

fn judge_with(provider: Provider, config: Value, body: &[u8]) {
    let request = post([("X-Sig", "00")].into_iter().collect(), body.to_vec());
    let verifier =
        split_secrets(provider, config).and_then(|(public, secrets)| Verifier::new(provider, &public, secrets));
    if let Ok(verifier) = verifier {
        let _ = verifier.judge(&request, Some("a"), Timestamp::UNIX_EPOCH, &Material::default());
    }
}

fn post(headers: Headers, body: Vec<u8>) -> RawRequest {
    RawRequest { method: "POST".into(), target: "/webhooks/a?b=c".into(), headers, body: body.into() }
}

#[test]
fn every_preset_refuses_an_empty_request() {
    let request =
        RawRequest { method: "POST".into(), target: "/".into(), headers: Headers::default(), body: "".into() };
    for preset in preset_names() {
        let config = json!({ "preset": preset });
        if let Ok(verifier) = Verifier::new(Provider::Generic, &config, vec!["abcdef0123456789".into()]) {
            let outcome = verifier.judge(&request, Some("a"), Timestamp::UNIX_EPOCH, &Material::default());
            assert!(outcome.is_err(), "{preset}");
        }
    }
}
