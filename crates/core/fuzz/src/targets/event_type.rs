//! Event types and patterns: a pattern, a line break, an event type.

use posthorn_core::event_type::{EventType, MAX_LEN, Pattern};

pub fn run(data: &[u8]) {
    let (pattern, rest) = super::first_line(data);
    let event_type = String::from_utf8_lossy(rest);
    let parsed = EventType::parse(&event_type).ok();
    if let Some(event_type) = &parsed {
        check_type(event_type);
    }
    let Ok(pattern) = Pattern::parse(&pattern) else { return };
    assert_eq!(Pattern::parse(&pattern.to_string()).as_ref(), Ok(&pattern), "a pattern is read as it is shown");
    if let Some(event_type) = &parsed {
        assert_eq!(pattern.matches(event_type), matches(&pattern.to_string(), event_type.as_str()));
    }
}

fn check_type(event_type: &EventType) {
    let text = event_type.as_str();
    assert!((1..=MAX_LEN).contains(&text.len()) && text.is_ascii());
    assert!(!text.contains("..") && !text.starts_with('.') && !text.ends_with('.'));
    let own = Pattern::parse(text);
    assert_eq!(own, Ok(Pattern::Exact(event_type.clone())));
    assert!(own.is_ok_and(|pattern| pattern.matches(event_type)));
    assert_eq!(Pattern::All.matches(event_type), !event_type.is_operational());
}

/// What a pattern means, said another way.
fn matches(pattern: &str, event_type: &str) -> bool {
    let (wanted, given): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), event_type.split('.').collect());
    match wanted.split_last() {
        Some((&"*", [])) => given.first() != Some(&"posthorn") || given.len() == 1,
        Some((&"*", above)) => given.len() > above.len() && given.starts_with(above),
        _ => wanted == given,
    }
}
