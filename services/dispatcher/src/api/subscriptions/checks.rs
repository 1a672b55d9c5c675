//! What a subscription may be.

use std::collections::BTreeSet;

use posthorn_core::endpoint::{self, EndpointUrl};
use posthorn_core::event_type::Pattern;
use posthorn_core::subscription::{RateLimit, SignatureScheme};
use posthorn_store::subscriptions::{Headers, Subscription};

use super::{headers, tls};
use crate::api::Api;
use crate::api::body::Checks;
use crate::api::sources::rate;
use crate::error::ApiResult;

/// Checks every field, and TLS of its own as it is given. `checks` has the failures of the headers' values.
pub(super) fn check(
    mut checks: Checks,
    api: &Api,
    subscription: &Subscription,
    tls: Option<&tls::Given>,
) -> ApiResult<()> {
    if let Some(name) = &subscription.name {
        checks.name("/name", name);
    }
    if let Some(text) = &subscription.description {
        let fits = text.chars().count() <= 2000 && !text.contains('\0');
        checks.require(fits, "/description", "must be a text of up to 2000 characters, without NUL");
    }
    if let Err(error) = EndpointUrl::parse(&subscription.url, &api.egress) {
        checks.fail("/url", url_detail(&error));
    }
    checks.require(
        (1..=100).contains(&subscription.event_types.len()),
        "/event_types",
        "must be a list of 1 to 100 patterns",
    );
    for (index, pattern) in subscription.event_types.iter().enumerate() {
        if let Err(error) = Pattern::parse(pattern) {
            checks.fail(format!("/event_types/{index}"), error.to_string());
        }
    }
    checks.require(subscription.sources.len() <= 100, "/sources", "must have at most 100 sources");
    for (index, source) in subscription.sources.iter().enumerate() {
        checks.require(is_source_name(source), &format!("/sources/{index}"), "must be a source's slug or id");
    }
    if let Err(error) = subscription.retry_policy.check() {
        checks.fail(format!("/retry_policy{}", error.pointer), error.detail);
    }
    checks.require(
        (1..=30).contains(&subscription.timeout_seconds),
        "/timeout_seconds",
        "must be a whole number from 1 to 30",
    );
    checks.require(
        (1..=100).contains(&subscription.max_in_flight),
        "/max_in_flight",
        "must be a whole number from 1 to 100",
    );
    let blocks = (1..=604_800).contains(&subscription.ordered_max_block_seconds);
    checks.require(blocks, "/ordered_max_block_seconds", "must be a whole number from 1 to 604800");
    if let Some(limit) = subscription.rate_limit {
        rate_limit(&mut checks, limit);
    }
    header_names(&mut checks, &subscription.headers);
    if let Some(tls) = tls {
        tls.check(&mut checks);
    }
    signatures(&mut checks, &subscription.signatures, &subscription.headers);
    checks.finish()
}

/// What a slug or an id is written with.
pub fn is_source_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn url_detail(error: &endpoint::Error) -> String {
    match error {
        endpoint::Error::Address(refused) => format!("{error}: {refused}"),
        _ => error.to_string(),
    }
}

fn rate_limit(checks: &mut Checks, limit: RateLimit) {
    let (unit, number) = match limit {
        RateLimit::PerSecond(number) => ("per_second", number),
        RateLimit::PerMinute(number) => ("per_minute", number),
        RateLimit::PerHour(number) => ("per_hour", number),
    };
    rate(checks, &format!("/rate_limit/{unit}"), Some(number));
}

fn header_names(checks: &mut Checks, headers: &Headers) {
    checks.require(headers.names().count() <= 20, "/headers", "must have at most 20 headers");
    let mut seen = BTreeSet::new();
    for name in headers.names() {
        let pointer = headers::pointer(name);
        header_name(checks, &pointer, name);
        checks.require(seen.insert(name.to_ascii_lowercase()), &pointer, "differs from another header in case only");
    }
}

fn header_name(checks: &mut Checks, pointer: &str, name: &str) {
    let is_token =
        (1..=100).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    checks.require(is_token, pointer, "must be a header's name of up to 100 characters");
    checks.require(!is_reserved(name), pointer, "is a header that Posthorn, HTTP or a proxy sets");
}

/// What Posthorn, HTTP or a proxy sets.
fn is_reserved(name: &str) -> bool {
    const RESERVED: [&str; 16] = [
        "host",
        "user-agent",
        "traceparent",
        "tracestate",
        "content-type",
        "content-length",
        "content-encoding",
        "transfer-encoding",
        "accept-encoding",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "http2-settings",
    ];
    let name = name.to_ascii_lowercase();
    name.starts_with("webhook-") || name.starts_with("proxy-") || RESERVED.contains(&name.as_str())
}

/// `headers` are the subscription's own, in which a signature would take another value's place.
fn signatures(checks: &mut Checks, signatures: &[SignatureScheme], headers: &Headers) {
    checks.require((1..=5).contains(&signatures.len()), "/signatures", "must be a list of 1 to 5 schemes");
    let mut seen = BTreeSet::new();
    for (index, scheme) in signatures.iter().enumerate() {
        let header = match scheme {
            SignatureScheme::Standard => "webhook-signature".to_owned(),
            // It shares that header with `standard`.
            SignatureScheme::StandardEd25519 => "webhook-signature v1a".to_owned(),
            SignatureScheme::HmacSha256 { header, prefix, .. } => {
                let pointer = format!("/signatures/{index}/header");
                header_name(checks, &pointer, header);
                let is_free = !headers.names().any(|own| own.eq_ignore_ascii_case(header));
                checks.require(is_free, &pointer, "is one of `headers` as well");
                let plain = prefix.len() <= 32 && prefix.bytes().all(|b| b.is_ascii_graphic());
                let detail = "must be a text of up to 32 printable ASCII characters";
                checks.require(plain, &format!("/signatures/{index}/prefix"), detail);
                header.to_ascii_lowercase()
            }
        };
        checks.require(
            seen.insert(header),
            &format!("/signatures/{index}"),
            "writes the same header as another scheme",
        );
    }
}
