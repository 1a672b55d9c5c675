//! The configuration of a source, for every provider, as a scheme of its own, and as a preset's.

use posthorn_core::provider::Provider;
use posthorn_core::request::RawRequest;
use posthorn_core::signature::{Material, Verdict, Verifier, split_secrets};
use serde_json::{Value, json};

pub fn run(data: &[u8]) {
    let Ok(config) = serde_json::from_slice::<Value>(data) else { return };
    for provider in Provider::ALL {
        judge_with(provider, config.clone());
    }
    judge_with(Provider::Generic, json!({ "scheme": config, "secrets": ["s"] }));
    judge_with(Provider::Generic, json!({ "scheme": config }));
}

fn judge_with(provider: Provider, config: Value) {
    let signs = signs(&config);
    let verifier =
        split_secrets(provider, config).and_then(|(public, secrets)| Verifier::new(provider, &public, secrets));
    let verifier = match verifier {
        Ok(verifier) => verifier,
        Err(error) => {
            assert!(error.pointer.starts_with("/config") && !error.detail.is_empty(), "{error}");
            return;
        }
    };
    for (method, body) in [("POST", r#"{"id":"1","type":"a","timestamp":1782864000,"data":[{"id":"2"}]}"#), ("GET", "")]
    {
        let request = unsigned(method, body);
        match verifier.judge(&request, Some("a"), super::now(), &Material::default()) {
            Ok(Verdict::Events { occurrences, .. }) => {
                assert!(occurrences.iter().all(|occurrence| !occurrence.dedup_parts.is_empty()));
                assert!(!verifier.is_verifying() || !signs, "accepted without a signature");
            }
            Ok(Verdict::Handshake(answer)) => {
                assert!((200..300).contains(&answer.status));
                assert!(method == "GET" || !verifier.is_verifying() || !signs, "answered without a signature");
            }
            Ok(Verdict::Confirm { .. }) => panic!("confirmed without a signature"),
            Ok(Verdict::Ignore { .. } | Verdict::Needs(_)) | Err(_) => {}
        }
    }
}

/// Whether the sender has to sign. A scheme that shows its secret takes whatever a request shows.
fn signs(config: &Value) -> bool {
    let text = config.to_string();
    !["token", "basic"].iter().any(|algorithm| text.contains(&format!("\"{algorithm}\"")))
}

fn unsigned(method: &str, body: &'static str) -> RawRequest {
    let noise = "3d5f0c9a1b7e4f2f8a775f0c9ad1e2aa3d5f0c9a1b7e4f2f8a775f0c9ad1e2aa";
    let headers = [
        ("x-sig", noise.to_owned()),
        ("x-kv", format!("t=1782864000,v1={noise}")),
        ("x-list", format!("v1,{noise} v1a,{noise}")),
        ("x-time", super::NOW.to_string()),
        ("authorization", format!("Basic {noise}")),
    ];
    RawRequest {
        method: method.to_owned(),
        target: format!("/webhooks/a?sig={noise}&challenge=abc&b=c"),
        headers: headers.into_iter().collect(),
        body: body.into(),
    }
}
