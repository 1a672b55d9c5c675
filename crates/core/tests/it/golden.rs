//! Messages that a version of Posthorn published, under `proto/golden`, in the names of that version.
//!
//! Every version reads those of all before it: while services are replaced, old messages stand in the queues. With
//! `POSTHORN_WRITE_GOLDEN=1` what this version would publish is written, into a directory of its own.

use std::path::PathBuf;

use posthorn_core::message::{Chunk, Content, Delivery, Event, Routed};
use prost::Message;

fn directory(version: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../proto/golden").join(version)
}

fn id(number: u8) -> prost::bytes::Bytes {
    prost::bytes::Bytes::from(vec![number; 16])
}

fn content() -> Content {
    Content {
        timestamp_us: 1_782_864_000_123_456,
        content_type: "application/json".to_owned(),
        body: Some(prost::bytes::Bytes::from_static(br#"{"total":42}"#)),
        content_encoding: String::new(),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
    }
}

fn event() -> Event {
    Event {
        event_id: id(1),
        source_id: id(2),
        source_slug: "stripe".to_owned(),
        routed: Routed::Tenant.into(),
        tenant_id: Some(id(3)),
        event_type: "invoice.paid".to_owned(),
        content: Some(content()),
    }
}

/// Large, so without its body, and for everybody.
fn broadcast() -> Event {
    let content = Content { body: None, ..content() };
    Event { routed: Routed::Broadcast.into(), tenant_id: None, content: Some(content), ..event() }
}

fn chunk() -> Chunk {
    Chunk { event: Some(broadcast()), first_subscription_id: id(4), last_subscription_id: id(5) }
}

fn first() -> Delivery {
    Delivery {
        delivery_id: id(6),
        event_id: id(1),
        subscription_id: id(4),
        tenant_id: id(3),
        generation: 1,
        attempt: 1,
        lease_until_us: 1_782_864_030_123_456,
        trigger: "dispatch".to_owned(),
        event_type: "invoice.paid".to_owned(),
        content: Some(content()),
        not_now: 0,
    }
}

fn retry() -> Delivery {
    Delivery { generation: 2, attempt: 3, trigger: "retry".to_owned(), content: None, ..first() }
}

/// Of a version that knows how content is encoded.
fn encoded() -> Event {
    let content = Content { content_encoding: "gzip".to_owned(), ..content() };
    Event { content: Some(content), ..event() }
}

/// Of a version that knows of endpoints that ask for time.
fn after_not_now() -> Delivery {
    Delivery { not_now: 2, ..retry() }
}

/// Reads the message in the file of the version that began to publish it, and holds what is written now to it.
fn holds<M: Message + Default + PartialEq + std::fmt::Debug>(version: &str, name: &str, expected: &M) {
    let path = directory(version).join(name);
    if std::env::var("POSTHORN_WRITE_GOLDEN").is_ok() && !path.exists() {
        std::fs::create_dir_all(directory(version)).expect("a directory");
        std::fs::write(&path, expected.encode_to_vec()).expect("a file");
    }
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let read = M::decode(bytes.as_slice()).unwrap_or_else(|error| panic!("{version}/{name}: {error}"));
    assert_eq!(&read, expected, "{version}/{name}");
    assert!(expected.encode_to_vec() == bytes, "{name} is published in another form now: that needs a new directory");
}

#[test]
fn messages_of_every_version_are_read_as_they_were_meant() {
    holds("v0.1", "event.bin", &event());
    holds("v0.1", "event-broadcast.bin", &broadcast());
    holds("v0.1", "chunk.bin", &chunk());
    holds("v0.1", "delivery-first.bin", &first());
    holds("v0.1", "delivery-retry.bin", &retry());
    holds("v0.2", "event-encoded.bin", &encoded());
    holds("v0.2", "delivery-after-not-now.bin", &after_not_now());
}

#[test]
fn a_field_of_a_later_version_does_not_keep_this_one_from_reading() {
    let mut bytes = first().encode_to_vec();
    // Field 1000, a text that nobody knows.
    prost::encoding::string::encode(1000, &"from the future".to_owned(), &mut bytes);
    assert_eq!(Delivery::decode(bytes.as_slice()).expect("a message"), first());
}
