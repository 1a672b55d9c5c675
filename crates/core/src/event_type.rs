//! The names of events, and the patterns by which subscriptions ask for them.

use std::fmt;

/// Longest event type, and longest pattern, in characters.
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
    #[error("is empty; an event type is a text such as `invoice.paid`")]
    Empty,
    #[error("has more than {MAX_LEN} characters")]
    TooLong,
    #[error("begins with a dot; a pattern is such as `invoice.paid`, `invoice.*` or `*`")]
    LeadingDot,
    #[error("has more than {MOST_PATTERNS} patterns")]
    TooManyPatterns,
}

impl EventType {
    /// Reads a provider's name for what happened. One rule holds for events that come, for patterns that ask for them
    /// and for the catalogue: each character that a type does not have becomes `_`, and empty segments are left out. So
    /// `Push Hook` is `Push_Hook` wherever it is written.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.chars().count() > MAX_LEN {
            return Err(Error::TooLong);
        }
        let spelled = spelled(text, false);
        if spelled.is_empty() { Err(Error::Empty) } else { Ok(Self(spelled)) }
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

/// A text in the alphabet of event types, and `*` where `is_pattern`.
fn spelled(text: &str, is_pattern: bool) -> String {
    let is_own = |c: char| c.is_ascii_alphanumeric() || "_-.:/".contains(c) || (is_pattern && c == '*');
    let segments = text.split('.').filter(|segment| !segment.is_empty());
    segments.collect::<Vec<_>>().join(".").chars().map(|c| if is_own(c) { c } else { '_' }).collect()
}

/// The types that a subscription asks for. `*` stands for any number of characters, in any place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    Exact(EventType),
    /// `customer.*` or `orders/*`, held as `customer.` or `orders/`: any depth below, not `customer` itself.
    Prefix(String),
    /// `*`: everything but operational events.
    All,
    /// Any other, as the texts between its stars; the first and the last may be empty.
    Glob(Vec<String>),
}

impl Pattern {
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.starts_with('.') && text.contains('*') {
            return Err(Error::LeadingDot);
        }
        if !text.contains('*') {
            return EventType::parse(text).map(Self::Exact);
        }
        if text.chars().count() > MAX_LEN {
            return Err(Error::TooLong);
        }
        let spelled = spelled(text, true);
        let pieces: Vec<&str> = spelled.split('*').collect();
        Ok(match pieces.as_slice() {
            [prefix, rest @ ..] if rest.iter().all(|piece| piece.is_empty()) => {
                if prefix.is_empty() {
                    Self::All
                } else {
                    Self::Prefix((*prefix).to_owned())
                }
            }
            pieces => Self::Glob(pieces.iter().map(|piece| (*piece).to_owned()).collect()),
        })
    }

    /// Reads patterns with commas in between; any of them is meant.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, Error> {
        let texts: Vec<&str> = text.split(',').collect();
        if texts.len() > MOST_PATTERNS {
            return Err(Error::TooManyPatterns);
        }
        texts.into_iter().map(Self::parse).collect()
    }

    /// Operational events are asked for by name, or with a pattern that begins with `posthorn.`.
    pub fn matches(&self, event_type: &EventType) -> bool {
        match self {
            Self::Exact(exact) => exact == event_type,
            Self::Prefix(prefix) => event_type.0.starts_with(prefix) && self.may_match(event_type),
            Self::All => !event_type.is_operational(),
            Self::Glob(pieces) => matches_glob(pieces, &event_type.0) && self.may_match(event_type),
        }
    }

    fn may_match(&self, event_type: &EventType) -> bool {
        !event_type.is_operational() || self.prefix().starts_with(OPERATIONAL_PREFIX)
    }

    /// The beginning that all matching types share.
    pub fn prefix(&self) -> &str {
        match self {
            Self::Exact(exact) => exact.as_str(),
            Self::Prefix(prefix) => prefix,
            Self::All => "",
            Self::Glob(pieces) => pieces.first().map_or("", String::as_str),
        }
    }
}

/// Each piece is looked for behind the one before it, the first at the beginning and the last at the end.
fn matches_glob(pieces: &[String], text: &str) -> bool {
    let [first, between @ .., last] = pieces else { return false };
    let Some(mut rest) = text.strip_prefix(first.as_str()).and_then(|rest| rest.strip_suffix(last.as_str())) else {
        return false;
    };
    between.iter().all(|piece| match rest.find(piece.as_str()) {
        Some(at) => {
            rest = &rest[at + piece.len()..];
            true
        }
        None => false,
    })
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(exact) => exact.fmt(f),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::All => f.write_str("*"),
            Self::Glob(pieces) => f.write_str(&pieces.join("*")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_exactly_or_by_its_stars_and_operational_events_by_name() {
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
            ("posthorn.*.disabled", "posthorn.subscription.disabled", true),
            ("post*", "posthorn.subscription.disabled", false),
            ("*.disabled", "posthorn.subscription.disabled", false),
            ("orders/*", "orders/create", true),
            ("orders/*", "orders", false),
            ("orders*", "orders", true),
            ("*.paid", "invoice.paid", true),
            ("*.paid", "paid", false),
            ("invoice.*.failed", "invoice.payment.failed", true),
            ("invoice.*.failed", "invoice.payment.failed.again", false),
            ("a*a", "a", false),
            ("*ice*pa*", "invoice.paid", true),
            ("*ice*pa*", "invoice.settled", false),
            ("zen:event-type:ticket.*", "zen:event-type:ticket.created", true),
            ("v2.account[merchant].*", "v2.account_merchant_.updated", true),
        ];
        for (pattern, event_type, expected) in cases {
            let matched = Pattern::parse(pattern).unwrap().matches(&EventType::parse(event_type).unwrap());
            assert_eq!(matched, expected, "{pattern} against {event_type}");
        }
    }

    #[test]
    fn a_providers_name_becomes_a_type_by_one_rule() {
        let cases = [
            ("invoice.paid", Ok("invoice.paid")),
            ("Push Hook", Ok("Push_Hook")),
            ("orders/create", Ok("orders/create")),
            ("zen:event-type:ticket.created", Ok("zen:event-type:ticket.created")),
            ("v2.account[merchant].updated", Ok("v2.account_merchant_.updated")),
            (".a..b.", Ok("a.b")),
            ("\u{fc}", Ok("_")),
            ("a*b", Ok("a_b")),
            ("", Err(Error::Empty)),
            ("...", Err(Error::Empty)),
        ];
        for (text, expected) in cases {
            assert_eq!(
                EventType::parse(text).as_ref().map(EventType::as_str),
                expected.as_ref().map(|s| *s),
                "{text:?}"
            );
            if let (Ok(name), false) = (expected, text.contains('*')) {
                assert!(Pattern::parse(text).unwrap().matches(&EventType::parse(name).unwrap()), "{text:?}");
            }
        }
        assert_eq!(EventType::parse(&"a".repeat(129)), Err(Error::TooLong));
        assert_eq!(Pattern::parse(".*"), Err(Error::LeadingDot));
    }
}
