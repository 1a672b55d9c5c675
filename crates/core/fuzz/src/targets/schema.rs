//! The schema of an event type, on the first line, and a payload that is held to it.

use posthorn_core::schema::Schema;
use serde_json::Value;

pub fn run(data: &[u8]) {
    let (schema, payload) = super::first_line(data);
    let Ok(schema) = serde_json::from_str::<Value>(&schema) else { return };
    let Ok(schema) = Schema::parse(&schema) else { return };
    let Ok(payload) = serde_json::from_slice::<Value>(payload) else { return };
    if let Err(violation) = schema.check_tree(&payload) {
        assert!(violation.pointer.is_empty() || violation.pointer.starts_with('/'), "{violation}");
        assert!(!violation.detail.contains('\0') && violation.detail.chars().count() <= 301, "{violation}");
    }
}
