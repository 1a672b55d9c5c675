//! Messages that a version of Posthorn published, under `proto/golden`, in the names of that version.
//!
//! Every version reads those of all before it: while services are replaced, old messages stand in the queues. With
//! `POSTHORN_WRITE_GOLDEN=1` what this version would publish is written, into a directory of its own.

use std::path::PathBuf;

use posthorn_core::message::{Chunk, Content, Delivery, Event, Routed};
use prost::Message;

/// The newest of the versions below: what is published now has to look like this.
const NEWEST: &str = "v0.1";
const VERSIONS: [&str; 1] = [NEWEST];

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
    }
}

fn retry() -> Delivery {
    Delivery { generation: 2, attempt: 3, trigger: "retry".to_owned(), content: None, ..first() }
}

/// Reads the message in each version's file, and holds what is written now to the newest.
fn holds<M: Message + Default + PartialEq + std::fmt::Debug>(name: &str, expected: &M) {
    let newest = directory(NEWEST).join(name);
    if std::env::var("POSTHORN_WRITE_GOLDEN").is_ok() {
        std::fs::create_dir_all(directory(NEWEST)).expect("a directory");
        std::fs::write(&newest, expected.encode_to_vec()).expect("a file");
    }
    for version in VERSIONS {
        let path = directory(version).join(name);
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let read = M::decode(bytes.as_slice()).unwrap_or_else(|error| panic!("{version}/{name}: {error}"));
        assert_eq!(&read, expected, "{version}/{name}");
    }
    let bytes = std::fs::read(&newest).expect("a file");
    assert!(expected.encode_to_vec() == bytes, "{name} is published in another form now: that needs a new directory");
}

#[test]
fn messages_of_every_version_are_read_as_they_were_meant() {
    holds("event.bin", &event());
    holds("event-broadcast.bin", &broadcast());
    holds("chunk.bin", &chunk());
    holds("delivery-first.bin", &first());
    holds("delivery-retry.bin", &retry());
}

#[test]
fn a_field_of_a_later_version_does_not_keep_this_one_from_reading() {
    let mut bytes = first().encode_to_vec();
    // Field 1000, a text that nobody knows.
    prost::encoding::string::encode(1000, &"from the future".to_owned(), &mut bytes);
    assert_eq!(Delivery::decode(bytes.as_slice()).expect("a message"), first());
}
