//! Requests that we write ourselves are judged like those of the providers.

use jiff::Timestamp;
use posthorn_core::provider::Provider;
use posthorn_core::request::RawRequest;
use posthorn_core::signature::{
    Imitation, ImitationError, Material, Occurrence, Verdict, Verifier, Wish, new_secret, preset_names, split_secrets,
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

/// Those that sign with a key which only they have.
const WITH_KEYS_OF_THEIR_OWN: [&str; 3] = ["telnyx", "sendgrid", "discord"];

fn now() -> Timestamp {
    Timestamp::from_second(1_782_864_000).unwrap()
}

fn wish<'a>(event_type: Option<&'a str>, payload: Option<&'a Value>) -> Wish<'a> {
    Wish { address: "door", event_type, payload, id: "0123456789abcdef0123456789abcdef", now: now() }
}

fn verifier(provider: Provider, config: Value) -> Verifier {
    let (public, secrets) = split_secrets(provider, config).unwrap();
    Verifier::new(provider, &public, secrets).unwrap()
}

fn preset(name: &str) -> Verifier {
    // A secret in every encoding.
    let mut config = json!({ "preset": name, "secrets": ["abcdef0123456789", "0123456789abcdef"] });
    if ["square", "hubspot_v3"].contains(&name) {
        config["public_url"] = json!("https://hooks.example.com/webhooks/door");
    }
    verifier(Provider::Generic, config)
}

/// The one event that the imitated request is, as the gateway would see it.
fn judged(verifier: &Verifier, imitation: &Imitation) -> Occurrence {
    let mut segments = imitation.target.split('?').next().unwrap().split('/').skip(3);
    let path_event = segments.next().map(|segment| segment.replace("%2F", "/"));
    let request = RawRequest {
        method: "POST".into(),
        target: imitation.target.clone(),
        headers: imitation.headers.iter().cloned().collect(),
        body: imitation.body.clone(),
    };
    match verifier.judge(&request, path_event.as_deref(), now(), &Material::default()) {
        Ok(Verdict::Events { mut occurrences, matched: Some(0) }) if occurrences.len() == 1 => occurrences.remove(0),
        other => panic!("{other:?} of {imitation:?}"),
    }
}

#[test]
fn a_sample_of_every_preset_with_a_secret_is_accepted_as_new_each_time() {
    for name in preset_names() {
        if WITH_KEYS_OF_THEIR_OWN.contains(&name.as_str()) {
            continue;
        }
        let verifier = preset(&name);
        let imitation = verifier.imitate(&wish(None, None)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let event = judged(&verifier, &imitation);
        let another = Wish { id: "fedcba9876543210fedcba9876543210", ..wish(None, None) };
        let another = judged(&verifier, &verifier.imitate(&another).unwrap());
        // These are told apart by their content alone, in which nothing of ours stands.
        let by_content = ["dropbox", "x", "meta", "calendly", "zoom", "shopify", "github", "gitlab"];
        if !by_content.contains(&name.as_str()) {
            assert_ne!(event.dedup_parts, another.dedup_parts, "{name}");
        }
    }
}

#[test]
fn a_wished_for_type_stands_where_the_provider_would_write_it() {
    let cases = [
        ("stripe", "customer.subscription.updated"),
        ("close", "activity.sms.created"),
        ("github", "issues.opened"),
        ("github", "push"),
        ("shopify", "orders/paid"),
        ("slack", "message"),
        ("standard_webhooks", "user.created"),
        ("linear", "Issue.update"),
        ("hubspot_v3", "contact.propertyChange"),
        ("internal", "report-completed"),
        ("gitlab", "Push_Hook"),
        ("zoom", "meeting.started"),
    ];
    for (name, event_type) in cases {
        let verifier = preset(name);
        let imitation = verifier.imitate(&wish(Some(event_type), None)).unwrap();
        assert_eq!(judged(&verifier, &imitation).event_type.as_str(), event_type, "{name}");
    }
    let dropbox = preset("dropbox");
    assert!(judged(&dropbox, &dropbox.imitate(&wish(Some("dropbox.changed"), None)).unwrap()).account.is_none());
    let twilio = json!({ "secrets": ["12345"], "public_url": "https://hooks.example.com/webhooks/door" });
    let twilio = verifier(Provider::Twilio, twilio);
    for event_type in ["message.status.delivered", "message.received", "call.status.completed", "onMessageSent"] {
        let imitation = twilio.imitate(&wish(Some(event_type), None)).unwrap();
        assert_eq!(judged(&twilio, &imitation).event_type.as_str(), event_type);
    }
}

#[test]
fn a_payload_of_ones_own_is_sent_as_it_is() {
    let stripe = verifier(Provider::Stripe, json!({ "secrets": ["whsec_a"] }));
    let payload = json!({ "id": "evt_1", "object": "event", "type": "charge.failed", "n": 1.5 });
    let imitation = stripe.imitate(&wish(None, Some(&payload))).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&imitation.body).unwrap(), payload);
    let event = judged(&stripe, &imitation);
    assert_eq!((event.event_type.as_str(), event.provider_event_id.as_deref()), ("charge.failed", Some("evt_1")));
    let twilio =
        verifier(Provider::Twilio, json!({ "secrets": ["a"], "public_url": "https://a.example/webhooks/door" }));
    let event = judged(&twilio, &twilio.imitate(&wish(None, Some(&json!({ "CallSid": "CA1" })))).unwrap());
    assert_eq!(event.event_type.as_str(), "call.callback");
    assert_eq!(twilio.imitate(&wish(None, Some(&json!([])))), Err(ImitationError::NoSuchPayload));
}

#[test]
fn a_scheme_of_ones_own_is_imitated_from_what_it_says() {
    let scheme = json!({
        "algorithm": "hmac_sha512", "signature": { "header": "X-Sig", "encoding": "base64url", "prefix": "s=" },
        "timestamp": { "header": "X-Time", "format": "iso8601", "tolerance_seconds": 60 },
        "signed": "{method} {path} {timestamp} {id} {body}",
        "extract": { "event_id": { "header": "X-Id" }, "event_type": "acme.{json:/kind}.{json:/what}", "occurred_at": { "json": "/at" } },
        "batch": "/items",
    });
    let own = verifier(Provider::Generic, json!({ "secrets": ["a", "b"], "scheme": scheme }));
    let event = judged(&own, &own.imitate(&wish(Some("acme.order.paid"), None)).unwrap());
    assert_eq!((event.event_type.as_str(), event.occurred_at), ("acme.order.paid", Some(now())));
    assert!(own.imitate(&wish(Some("order.paid.now"), None)).is_ok(), "the path may name it");
}

#[test]
fn a_type_that_cannot_be_written_is_refused() {
    let (github, internal) = (preset("github"), preset("internal"));
    assert_eq!(github.imitate(&wish(Some("a\nb"), None)), Err(ImitationError::NoPlaceForType));
    for text in ["..", "a?b#c", "a b"] {
        assert_eq!(internal.imitate(&wish(Some(text), None)), Err(ImitationError::NoPlaceForType), "{text}");
    }
}

#[test]
fn what_only_the_provider_can_sign_is_not_imitated() {
    let telnyx = verifier(Provider::Telnyx, json!({ "public_keys": [format!("{}=", "A".repeat(43))] }));
    let ses = verifier(Provider::Ses, json!({ "topic_arns": ["arn:aws:sns:eu-west-1:1:t"] }));
    for verifier in [telnyx, ses] {
        assert_eq!(verifier.imitate(&wish(None, None)), Err(ImitationError::KeyNotHere));
    }
}

#[test]
fn a_secret_is_made_up_where_it_is_ours_to_choose_and_verifies_then() {
    let own = |encoding: &str| {
        json!({ "scheme": {
            "algorithm": "hmac_sha256", "key_encoding": encoding, "signature": { "header": "X-Sig" }, "signed": "{body}",
        } })
    };
    let cases = [
        (Provider::Internal, json!({})),
        (Provider::Github, json!({})),
        (Provider::StandardWebhooks, json!({})),
        (Provider::TelnyxHmac, json!({})),
        (Provider::Generic, json!({ "preset": "postmark" })),
        (Provider::Generic, own("utf8")),
        (Provider::Generic, own("hex")),
        (Provider::Generic, own("base64")),
    ];
    for (provider, config) in cases {
        let secret = new_secret(provider, &config, &[7; 32]).unwrap_or_else(|| panic!("{provider} {config}"));
        let verifier = Verifier::new(provider, &config, vec![secret.clone()]).unwrap();
        judged(&verifier, &verifier.imitate(&wish(None, None)).unwrap());
        assert!(secret.expose_secret().len() >= 32, "{provider}");
    }
    for provider in [Provider::Stripe, Provider::Twilio, Provider::Ses, Provider::Telnyx, Provider::Close] {
        assert!(new_secret(provider, &json!({}), &[7; 32]).is_none(), "{provider} gives it out");
    }
    assert!(new_secret(Provider::Generic, &json!({ "preset": "slack" }), &[7; 32]).is_none());
}
