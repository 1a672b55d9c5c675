//! What a tenant asked for, and who gets an event.

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, Serialize};

use crate::delivery::HeldReason;
use crate::endpoint::EndpointUrl;
use crate::event_type::{EventType, Pattern};
use crate::id::{SourceId, SubscriptionId, TenantId};
use crate::retry::RetryPolicy;
use crate::tls::EndpointTls;

/// A tenant's standing order: these events, to this endpoint, in this manner.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub id: SubscriptionId,
    pub tenant_id: TenantId,
    pub endpoint: EndpointUrl,
    /// Never empty.
    pub event_types: Vec<Pattern>,
    /// Slugs or ids; empty means every source.
    pub sources: Vec<String>,
    pub state: State,
    pub retry_policy: RetryPolicy,
    /// For the whole exchange, from connecting to the last byte read.
    pub timeout: Duration,
    /// How many attempts one delivery-worker makes at a time; without meaning where `ordered`.
    pub max_in_flight: u32,
    /// Whether each delivery waits for the one before it.
    pub ordered: bool,
    /// How long a delivery that fails may hold up those behind it.
    pub ordered_max_block: Duration,
    /// Over all delivery-workers.
    pub rate_limit: Option<RateLimit>,
    /// Sent with every attempt.
    pub headers: Vec<(String, HeaderValue)>,
    /// `None`: the public authorities vouch for the endpoint, and we come as nobody.
    pub tls: Option<Arc<EndpointTls>>,
    pub payload_format: PayloadFormat,
    pub signatures: Vec<SignatureScheme>,
}

/// The value of a header that a tenant gave its subscription.
#[derive(Clone, Debug)]
pub enum HeaderValue {
    Plain(String),
    /// A credential, or a value that the tenant marked as secret: never logged, recorded or shown.
    Secret(SecretString),
}

impl HeaderValue {
    /// The text that is sent.
    pub fn expose(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Secret(text) => text.expose_secret(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Active,
    /// By a person: deliveries are made and held.
    Paused,
    /// By the platform: nothing is dispatched until somebody resumes it.
    Disabled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayloadFormat {
    /// `{"type","timestamp","data"}`, as Standard Webhooks recommends.
    Standard,
    /// `{"event","timestamp","data"}`.
    Event,
    /// The provider's bytes and content type, unchanged.
    Raw,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "scheme", rename_all = "snake_case", deny_unknown_fields)]
pub enum SignatureScheme {
    /// Standard Webhooks `v1`.
    Standard,
    /// Standard Webhooks `v1a`, Ed25519: beside `v1`, since no receiver's library of today verifies it.
    StandardEd25519,
    /// HMAC-SHA256 of the body alone, in a header of the tenant's choice. No time and no id are
    /// signed, so it does not stop replays: for receivers that cannot change.
    HmacSha256 {
        header: String,
        #[serde(default)]
        encoding: Encoding,
        #[serde(default)]
        prefix: String,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    #[default]
    Hex,
    Base64,
}

/// How many attempts may be made in a stretch of time, spread over it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", try_from = "Rates")]
pub enum RateLimit {
    PerSecond(f64),
    PerMinute(f64),
    PerHour(f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must have exactly one of the fields `per_hour`, `per_minute`, `per_second`")]
pub struct NotOneRate;

impl RateLimit {
    /// Attempts a second: a fraction where there is less than one.
    pub fn per_second(self) -> f64 {
        match self {
            Self::PerSecond(rate) => rate,
            Self::PerMinute(rate) => rate / 60.0,
            Self::PerHour(rate) => rate / 3600.0,
        }
    }
}

/// A rate limit as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rates {
    #[serde(default, deserialize_with = "given")]
    per_second: Option<f64>,
    #[serde(default, deserialize_with = "given")]
    per_minute: Option<f64>,
    #[serde(default, deserialize_with = "given")]
    per_hour: Option<f64>,
}

/// For what may be left out but not be `null`.
fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    f64::deserialize(from).map(Some)
}

impl TryFrom<Rates> for RateLimit {
    type Error = NotOneRate;

    fn try_from(rates: Rates) -> Result<Self, NotOneRate> {
        match (rates.per_second, rates.per_minute, rates.per_hour) {
            (Some(rate), None, None) => Ok(Self::PerSecond(rate)),
            (None, Some(rate), None) => Ok(Self::PerMinute(rate)),
            (None, None, Some(rate)) => Ok(Self::PerHour(rate)),
            _ => Err(NotOneRate),
        }
    }
}

/// What dispatch needs to know of an event.
#[derive(Clone, Copy, Debug)]
pub struct EventFacts<'a> {
    pub event_type: &'a EventType,
    pub source_id: SourceId,
    /// Empty when the source has none.
    pub source_slug: &'a str,
    pub audience: Audience,
}

/// Whose subscriptions an event is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    Tenant(TenantId),
    Everyone,
    /// The tenant is not known; the event waits to be routed.
    Nobody,
}

/// The clause of a subscription that said no to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Clause {
    Tenant,
    EventType,
    Source,
    State,
}

impl Clause {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::EventType => "event_type",
            Self::Source => "source",
            Self::State => "state",
        }
    }
}

impl Subscription {
    /// Whether the event is for this subscription; if not, which clause says no.
    pub fn wants(&self, event: &EventFacts<'_>) -> Result<(), Clause> {
        let addressed = match event.audience {
            Audience::Tenant(tenant) => tenant == self.tenant_id,
            Audience::Everyone => true,
            Audience::Nobody => false,
        };
        if !addressed {
            return Err(Clause::Tenant);
        }
        if !self.event_types.iter().any(|pattern| pattern.matches(event.event_type)) {
            return Err(Clause::EventType);
        }
        if !self.takes_from(event) {
            return Err(Clause::Source);
        }
        if self.state == State::Disabled {
            return Err(Clause::State);
        }
        Ok(())
    }

    /// Whether a new delivery has to wait in PostgreSQL before anything else.
    pub fn holds(&self) -> Option<HeldReason> {
        match self.state {
            State::Paused => Some(HeldReason::Paused),
            _ if self.ordered => Some(HeldReason::Order),
            // The scheduler hands out the rate, so that it holds over all workers together.
            _ if self.rate_limit.is_some() => Some(HeldReason::Rate),
            _ => None,
        }
    }

    /// What Posthorn tells about itself comes from no source that anybody could name.
    fn takes_from(&self, event: &EventFacts<'_>) -> bool {
        self.sources.is_empty()
            || event.event_type.is_operational()
            || self.sources.iter().any(|named| {
                (!event.source_slug.is_empty() && named == event.source_slug) || named.parse() == Ok(event.source_id)
            })
    }
}

/// The subscriptions that an event is dispatched to.
pub fn targets<'a, S: std::ops::Deref<Target = Subscription> + 'a>(
    event: EventFacts<'a>,
    subscriptions: impl IntoIterator<Item = S> + 'a,
) -> impl Iterator<Item = S> + 'a {
    subscriptions.into_iter().filter(move |subscription| subscription.wants(&event).is_ok())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::egress::Egress;

    fn subscription(event_types: &[&str], sources: &[&str], state: State) -> Subscription {
        Subscription {
            id: SubscriptionId::from_uuid(Uuid::from_u128(1)),
            tenant_id: TenantId::from_uuid(Uuid::from_u128(2)),
            endpoint: EndpointUrl::parse("https://example.com/", &Egress::default()).unwrap(),
            event_types: event_types.iter().map(|p| Pattern::parse(p).unwrap()).collect(),
            sources: sources.iter().map(ToString::to_string).collect(),
            state,
            retry_policy: RetryPolicy::default(),
            timeout: Duration::from_secs(10),
            max_in_flight: 8,
            ordered: false,
            ordered_max_block: Duration::from_secs(3600),
            rate_limit: None,
            headers: vec![],
            tls: None,
            payload_format: PayloadFormat::Standard,
            signatures: vec![SignatureScheme::Standard],
        }
    }

    fn ask(subscription: &Subscription, event_type: &str, audience: Audience) -> Result<(), Clause> {
        subscription.wants(&EventFacts {
            event_type: &EventType::parse(event_type).unwrap(),
            source_id: SourceId::from_uuid(Uuid::from_u128(9)),
            source_slug: "stripe",
            audience,
        })
    }

    #[test]
    fn a_rate_limit_is_exactly_one_rate() {
        let read = |text: &str| serde_json::from_str::<RateLimit>(text).ok();
        assert_eq!(read(r#"{"per_second": 50}"#), Some(RateLimit::PerSecond(50.0)));
        assert_eq!(read(r#"{"per_minute": 30}"#).map(RateLimit::per_second), Some(0.5));
        assert_eq!(read(r#"{"per_hour": 900}"#).map(RateLimit::per_second), Some(0.25));
        let refused = [
            "{}",
            r#"{"per_second": null}"#,
            r#"{"per_second": 1, "per_minute": null}"#,
            r#"{"per_second": 1, "per_minute": 60}"#,
            r#"{"per_day": 1}"#,
        ];
        for text in refused {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(serde_json::to_string(&RateLimit::PerHour(900.0)).unwrap(), r#"{"per_hour":900.0}"#);
    }

    #[test]
    fn the_clause_that_says_no_is_named() {
        let ours = Audience::Tenant(TenantId::from_uuid(Uuid::from_u128(2)));
        let theirs = Audience::Tenant(TenantId::from_uuid(Uuid::from_u128(3)));
        let by_id = SourceId::from_uuid(Uuid::from_u128(9)).to_string();
        let plain = subscription(&["invoice.*"], &[], State::Active);
        assert_eq!(ask(&plain, "invoice.paid", ours), Ok(()));
        assert_eq!(ask(&plain, "invoice.paid", Audience::Everyone), Ok(()));
        assert_eq!(ask(&plain, "invoice.paid", theirs), Err(Clause::Tenant));
        assert_eq!(ask(&plain, "invoice.paid", Audience::Nobody), Err(Clause::Tenant));
        assert_eq!(ask(&plain, "customer.created", ours), Err(Clause::EventType));
        assert_eq!(ask(&subscription(&["*"], &["twilio"], State::Active), "a", ours), Err(Clause::Source));
        assert_eq!(ask(&subscription(&["*"], &["twilio", "stripe"], State::Active), "a", ours), Ok(()));
        assert_eq!(ask(&subscription(&["*"], &[&by_id], State::Active), "a", ours), Ok(()));
        let narrowed = subscription(&["*", "posthorn.*"], &["twilio"], State::Active);
        assert_eq!(ask(&narrowed, "posthorn.delivery.exhausted", ours), Ok(()), "whatever its sources");
        assert_eq!(ask(&subscription(&["*"], &[], State::Disabled), "a", ours), Err(Clause::State));
        assert_eq!(ask(&subscription(&["*"], &[], State::Paused), "a", ours), Ok(()));
    }
}
