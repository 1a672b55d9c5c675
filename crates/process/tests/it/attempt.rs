//! A subscription at an endpoint, and one attempt at it.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use posthorn_core::egress::Egress;
use posthorn_core::endpoint::EndpointUrl;
use posthorn_core::envelope::Payload;
use posthorn_core::event_type::{EventType, Pattern};
use posthorn_core::id::{EventId, SubscriptionId, TenantId};
use posthorn_core::retry::RetryPolicy;
use posthorn_core::subscription::{PayloadFormat, SignatureScheme, State, Subscription};
use posthorn_process::egress::ProxyUrl;
use posthorn_process::sender::{Answered, Sender, Settings, Shipment};
use uuid::Uuid;

/// Http and loopback are open.
pub fn local() -> Egress {
    Egress { allow_http: true, allow_private_networks: true, ..Egress::default() }
}

pub fn settings() -> Settings {
    Settings {
        max_response_bytes: 65_536,
        connect_timeout_ms: 2000,
        idle_connections: 1,
        idle_seconds: 1,
        tls_clients: 2,
        proxy_url: ProxyUrl::default(),
    }
}

/// A sender that reaches loopback.
pub fn sender() -> Sender {
    Sender::new(&settings(), local()).unwrap()
}

/// At `url`, whatever the guard says of it.
pub fn subscription(url: &str) -> Subscription {
    Subscription {
        id: SubscriptionId::from_uuid(Uuid::from_u128(1)),
        tenant_id: TenantId::from_uuid(Uuid::from_u128(2)),
        endpoint: EndpointUrl::known(url).unwrap(),
        event_types: vec![Pattern::All],
        sources: vec![],
        state: State::Active,
        retry_policy: RetryPolicy::default(),
        timeout: Duration::from_secs(5),
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

pub async fn attempt(sender: &Sender, subscription: &Subscription) -> Answered {
    let shipment = Shipment {
        event_id: EventId::from_uuid(Uuid::from_u128(3)),
        subscription,
        secrets: &["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()],
        payload: Payload {
            content_encoding: "",
            event_type: &EventType::parse("invoice.paid").unwrap(),
            timestamp: Timestamp::now(),
            content_type: "application/json",
            body: &Bytes::from_static(b"{}"),
        },
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        is_test: false,
    };
    sender.send(&shipment).await
}

/// The code of the error; empty if there is none.
pub fn code(answered: &Answered) -> &'static str {
    answered.error.as_ref().map_or("", |(code, _)| code)
}
