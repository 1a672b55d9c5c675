//! Texts that Posthorn takes in more spellings than their pattern in the contract, and reads itself.

use posthorn_core::address::AllowList;
use posthorn_core::event_type::{EventType, Pattern};
use uuid::Uuid;

use crate::api::sources::is_media_type;

/// Whether Posthorn takes a text for what `x-form` names.
pub fn holds(form: &str, text: &str) -> bool {
    match form {
        "event_type" => EventType::parse(text).is_ok(),
        "event_type_pattern" => Pattern::parse(text).is_ok(),
        "event_type_patterns" => Pattern::parse_list(text).is_ok(),
        "network" => AllowList::parse(&[text.to_owned()]).is_ok(),
        "media_type" => is_media_type(text),
        "cursor" => text.len() == 32 && Uuid::try_parse(text).is_ok(),
        // A test holds that the contract names no other.
        _ => true,
    }
}
