//! The names of events, and the patterns by which subscriptions ask for them.

use std::fmt;

/// Longest event type, in bytes.
pub const MAX_LEN: usize = 128;

/// Most patterns in one list.
const MOST_PATTERNS: usize = 20;

/// Events that Posthorn raises about itself begin with this.
const OPERATIONAL_PREFIX: &str = "posthorn.";

/// What happened, such as `invoice.paid`.
///
/// Invariant: 1 to 128 bytes of `[A-Za-z0-9_.:/-]`, no empty segment between dots.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventType(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("an event type is not empty")]
    Empty,
    #[error("an event type has at most {MAX_LEN} bytes")]
    TooLong,
    #[error("an event type holds letters, digits, `_`, `-`, `.`, `:` and `/` only")]
    BadCharacter,
    #[error("an event type has no empty segment")]
    EmptySegment,
    #[error("a pattern is an event type, a prefix followed by `.*`, or `*`")]
    BadPattern,
    #[error("at most {MOST_PATTERNS} patterns")]
    TooManyPatterns,
}

impl EventType {
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::Empty);
        }
        if text.len() > MAX_LEN {
            return Err(Error::TooLong);
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:/".contains(&b)) {
            return Err(Error::BadCharacter);
        }
        if text.split('.').any(str::is_empty) {
            return Err(Error::EmptySegment);
        }
        Ok(Self(text.to_owned()))
    }

    /// Of an event that Posthorn raises about itself; `name` is a good event type.
    pub(crate) fn operational(name: &'static str) -> Self {
        Self(format!("{OPERATIONAL_PREFIX}{name}"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether Posthorn raised it about itself. Such events are asked for by name only.
    pub fn is_operational(&self) -> bool {
        self.0.starts_with(OPERATIONAL_PREFIX)
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a subscription asks for: one type, all below a prefix, or everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    Exact(EventType),
    /// `customer.*`, held as `customer.`: any depth below, not `customer` itself.
    Below(String),
    /// `*`: everything but operational events.
    All,
}

impl Pattern {
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text == "*" {
            return Ok(Self::All);
        }
        if let Some(prefix) = text.strip_suffix(".*") {
            let prefix = EventType::parse(prefix)?;
            return Ok(Self::Below(format!("{prefix}.")));
        }
        match EventType::parse(text) {
            Ok(exact) => Ok(Self::Exact(exact)),
            Err(_) if text.contains('*') => Err(Error::BadPattern),
            Err(error) => Err(error),
        }
    }

    /// Reads patterns with commas in between; any of them is meant.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, Error> {
        let texts: Vec<&str> = text.split(',').collect();
        if texts.len() > MOST_PATTERNS {
            return Err(Error::TooManyPatterns);
        }
        texts.into_iter().map(Self::parse).collect()
    }

    pub fn matches(&self, event_type: &EventType) -> bool {
        match self {
            Self::Exact(exact) => exact == event_type,
            Self::Below(prefix) => event_type.0.starts_with(prefix),
            Self::All => !event_type.is_operational(),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(exact) => exact.fmt(f),
            Self::Below(prefix) => write!(f, "{prefix}*"),
            Self::All => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_exactly_below_a_prefix_or_everything_but_operational_events() {
        let cases = [
            ("invoice.paid", "invoice.paid", true),
            ("invoice.paid", "invoice.paid.late", false),
            ("customer.*", "customer.created", true),
            ("customer.*", "customer.subscription.updated", true),
            ("customer.*", "customer", false),
            ("customer.*", "customers.created", false),
            ("*", "invoice.paid", true),
            ("*", "posthorn.subscription.disabled", false),
            ("posthorn.*", "posthorn.subscription.disabled", true),
            ("posthorn.delivery.exhausted", "posthorn.delivery.exhausted", true),
        ];
        for (pattern, event_type, expected) in cases {
            let matched = Pattern::parse(pattern).unwrap().matches(&EventType::parse(event_type).unwrap());
            assert_eq!(matched, expected, "{pattern} against {event_type}");
        }
    }

    #[test]
    fn what_is_no_event_type_or_pattern_is_refused_with_its_reason() {
        assert_eq!(EventType::parse(""), Err(Error::Empty));
        assert_eq!(EventType::parse("a b"), Err(Error::BadCharacter));
        assert_eq!(EventType::parse("a..b"), Err(Error::EmptySegment));
        assert_eq!(EventType::parse(&"a".repeat(129)), Err(Error::TooLong));
        assert_eq!(Pattern::parse("in*ice"), Err(Error::BadPattern));
        assert_eq!(Pattern::parse("*.paid"), Err(Error::BadPattern));
        assert_eq!(Pattern::parse(".*"), Err(Error::Empty));
    }
}
