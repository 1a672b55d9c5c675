//! The body that a receiver gets: a content type, a line break, the body that a provider sent.

use bytes::Bytes;
use posthorn_core::envelope::{Payload, Rendered, render};
use posthorn_core::event_type::EventType;
use posthorn_core::subscription::PayloadFormat;
use serde::Deserialize;
use serde_json::value::RawValue;

/// What every receiver can count on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Received<'a> {
    #[serde(rename = "type", alias = "event")]
    name: &'a str,
    timestamp: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

pub fn run(data: &[u8]) {
    let (content_type, body) = super::first_line(data);
    let event_type = EventType::parse("invoice.paid").expect("an event type");
    let body = Bytes::copy_from_slice(body);
    let payload = Payload {
        event_type: &event_type,
        timestamp: super::now(),
        content_type: &content_type,
        content_encoding: "",
        body: &body,
    };
    let raw = render(PayloadFormat::Raw, &payload);
    assert_eq!(raw.body, body);
    assert!(raw.content_type == content_type || (content_type.is_empty() && raw.content_type == "application/json"));
    for format in [PayloadFormat::Standard, PayloadFormat::Event] {
        let rendered = render(format, &payload);
        check(&rendered, &payload);
        assert_eq!(render(format, &payload), rendered, "the same payload gives the same bytes");
    }
}

fn check(rendered: &Rendered, payload: &Payload<'_>) {
    assert_eq!(rendered.content_type, "application/json");
    let received: Received<'_> = serde_json::from_slice(&rendered.body).expect("JSON of three members");
    assert_eq!((received.name, received.timestamp), ("invoice.paid", "2026-07-01T00:00:00.000Z"));
    let data = received.data.get();
    let is_json = serde_json::from_slice::<&RawValue>(payload.body).is_ok();
    let is_form = payload.content_type.to_ascii_lowercase().contains("x-www-form-urlencoded");
    if is_json && !is_form {
        assert_eq!(data.as_bytes(), payload.body.trim_ascii(), "JSON is carried as it came");
    }
}
