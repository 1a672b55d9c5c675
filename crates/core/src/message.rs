//! The messages in which the services meet, generated from `proto/posthorn/v1`.
//!
//! Decoding checks only the wire form; [`uuid`] checks what the format cannot say.

use ::uuid::Uuid;

include!(concat!(env!("OUT_DIR"), "/posthorn.v1.rs"));

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` is not a UUID of 16 bytes")]
pub struct NotAnId {
    pub field: &'static str,
}

/// Reads an id field.
pub fn uuid(field: &'static str, bytes: &[u8]) -> Result<Uuid, NotAnId> {
    Uuid::from_slice(bytes).map_err(|_| NotAnId { field })
}

/// The part of an event's fan-out from one subscription to another, both included.
pub fn chunk(event: Event, first: &Uuid, last: &Uuid) -> Chunk {
    Chunk { event: Some(event), first_subscription_id: bytes(first), last_subscription_id: bytes(last) }
}

/// An id as its field holds it.
pub fn bytes(id: &Uuid) -> prost::bytes::Bytes {
    prost::bytes::Bytes::copy_from_slice(id.as_bytes())
}
