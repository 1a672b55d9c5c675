//! Jobs that set dead or missing deliveries going again: what they are asked for.

use serde::{Deserialize, Serialize};

use crate::delivery::DeadReason;
use crate::event_type::Pattern;
use crate::id::{DeadLetterId, SubscriptionId, TenantId};
use crate::time::Rfc3339;

/// Most dead letters that a job names one by one.
pub const MOST_IDS: usize = 1000;

/// Which dead letters are meant: those that fulfil all that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeadLetterFilter {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<TenantId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription_id: Option<SubscriptionId>,
    /// Any of these.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "patterns")]
    pub event_type: Option<Vec<Pattern>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<DeadReason>,
    /// Died then or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Rfc3339>,
    /// Died earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Rfc3339>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<DeadLetterId>>,
}

/// What a subscription gets that it did not get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recovery {
    /// Events from then on.
    pub since: Rfc3339,
    /// Events before that.
    pub until: Rfc3339,
    /// Not empty.
    pub include: Vec<Include>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Include {
    /// Deliveries that are dead.
    Failed,
    /// Events that match and were never dispatched to it.
    Missing,
}

impl Recovery {
    pub fn includes(&self, what: Include) -> bool {
        self.include.contains(&what)
    }
}

/// What a job sets going.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    DeadLetters(DeadLetterFilter),
    Recover(SubscriptionId, Recovery),
}

names! {
    /// How far a job is.
    State {
        /// Finds out how many there are.
        Counting = "counting",
        Running = "running",
        Completed = "completed",
        Cancelled = "cancelled",
    }
}

impl State {
    /// Whether anything is still to be done.
    pub fn is_under_way(self) -> bool {
        matches!(self, Self::Counting | Self::Running)
    }
}

/// Patterns as one text, with commas in between, as lists take them.
mod patterns {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::event_type::Pattern;

    pub fn serialize<S: Serializer>(patterns: &Option<Vec<Pattern>>, to: S) -> Result<S::Ok, S::Error> {
        let texts: Vec<String> = patterns.iter().flatten().map(ToString::to_string).collect();
        to.serialize_str(&texts.join(","))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<Pattern>>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
        Pattern::parse_list(&text).map(Some).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_reads_back_as_it_was_written() {
        let text =
            r#"{"event_type":"invoice.*,customer.created","reason":"exhausted","from":"2026-07-01T00:00:00.000Z"}"#;
        let filter: DeadLetterFilter = serde_json::from_str(text).unwrap();
        assert_eq!(filter.event_type.as_ref().map(Vec::len), Some(2));
        assert_eq!(serde_json::to_string(&filter).unwrap(), text);
        assert_eq!(serde_json::from_str::<DeadLetterFilter>("{}").unwrap(), DeadLetterFilter::default());
        for wrong in [r#"{"event_type":".*"}"#, r#"{"reason":"tired"}"#, r#"{"from":"yesterday"}"#, r#"{"other":1}"#] {
            assert!(serde_json::from_str::<DeadLetterFilter>(wrong).is_err(), "{wrong}");
        }
    }
}
