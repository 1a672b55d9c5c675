//! What a source may be.

use posthorn_core::address::AllowList;
use posthorn_core::provider::Provider;
use posthorn_core::routing::Routing;
use posthorn_store::sources::Source;
use serde_json::Value;

use super::Response;
use crate::api::body::Checks;
use crate::error::ApiResult;

/// Largest body that a source may ask for; the gateway may allow less.
const MAX_BODY_BYTES: i32 = 26_214_400;

/// Checks all that the database does not have to be asked for.
pub(super) fn check(source: &Source) -> ApiResult<()> {
    let mut checks = Checks::default();
    if let Some(slug) = &source.slug {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let inner = slug.bytes().all(|b| plain(b) || b == b'_' || b == b'-');
        let ends = slug.bytes().next().is_some_and(plain) && slug.bytes().last().is_some_and(plain);
        let detail = "must be 1 to 64 of `a-z`, `0-9`, `_` and `-`, with a letter or digit at both ends";
        checks.require(inner && ends && slug.len() <= 64, "/slug", detail);
        checks.require(
            source.tenant_id.is_none(),
            "/slug",
            "is for the operator's sources: a tenant's has an opaque token",
        );
    }
    match &source.routing {
        Routing::Tenant { tenant_id } => {
            let own = source.tenant_id.is_none_or(|owner| owner == *tenant_id);
            checks.require(own, "/routing/tenant_id", "must be the tenant that owns the source");
        }
        _ if source.tenant_id.is_some() => {
            checks.fail("/routing/kind", "must be `tenant` for a tenant's source");
        }
        Routing::Pointer { pointer } => {
            let tokens_hold = pointer.split('/').skip(1).all(|token| {
                let mut rest = token;
                while let Some(tilde) = rest.find('~') {
                    rest = &rest[tilde + 1..];
                    if !rest.starts_with(['0', '1']) {
                        return false;
                    }
                }
                true
            });
            let holds = pointer.starts_with('/') && pointer.len() <= 256 && !pointer.contains('\0') && tokens_hold;
            checks.require(holds, "/routing/pointer", "must be a JSON Pointer (RFC 6901), such as `/account`");
        }
        Routing::Header { name } => {
            let detail = "`header` is for the provider `internal` only: other signatures do not cover headers";
            checks.require(source.provider == Provider::Internal, "/routing/kind", detail);
            let holds = (1..=100).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            checks.require(holds, "/routing/name", "must be a header's name of up to 100 characters");
        }
        Routing::Broadcast => {}
    }
    if let Some(limit) = &source.rate_limit {
        let names = ["per_second", "per_address_per_second"];
        let limits = names.map(|name| (name, limit.get(name).and_then(Value::as_f64)));
        checks.require(
            limits.iter().any(|(_, rate)| rate.is_some()),
            "/rate_limit",
            "must have at least one of the fields `per_second`, `per_address_per_second`",
        );
        for (name, limit) in limits {
            rate(&mut checks, &format!("/rate_limit/{name}"), limit);
        }
    }
    checks.require(source.allowed_ips.len() <= 100, "/allowed_ips", "must have at most 100 networks");
    if let Err(index) = AllowList::parse(&source.allowed_ips) {
        checks.fail(
            format!("/allowed_ips/{index}"),
            "must be an address, or a network in CIDR form such as `10.0.0.0/8`",
        );
    }
    let bytes = source.max_body_bytes.unwrap_or(1);
    checks.require(
        (1..=MAX_BODY_BYTES).contains(&bytes),
        "/max_body_bytes",
        "must be a whole number from 1 to 26214400",
    );
    if let Some(Ok(response)) = source.response.clone().map(serde_json::from_value::<Response>) {
        checks.require(
            (200..=299).contains(&response.status),
            "/response/status",
            "must be a whole number from 200 to 299",
        );
        checks.require(
            is_media_type(&response.content_type),
            "/response/content_type",
            "must be a media type of up to 100 characters, such as `text/xml`",
        );
        let fits = response.body.chars().count() <= 10_000 && !response.body.contains('\0');
        checks.require(fits, "/response/body", "must be a text of up to 10000 characters, without NUL");
    }
    checks.finish()
}

/// A rate limit, at `pointer`.
pub(in crate::api) fn rate(checks: &mut Checks, pointer: &str, per_second: Option<f64>) {
    let holds = per_second.is_none_or(|rate| (0.1..=100_000.0).contains(&rate));
    checks.require(holds, pointer, "must be a number from 0.1 to 100000");
}

/// `type/subtype`, perhaps with parameters (RFC 9110 §8.3.1).
pub(crate) fn is_media_type(text: &str) -> bool {
    let token =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b));
    let mut parts = text.split(';');
    let essence = parts.next().and_then(|essence| essence.split_once('/'));
    text.len() <= 100
        && essence.is_some_and(|(kind, subtype)| token(kind) && token(subtype))
        && parts.all(|part| part.trim_start().split_once('=').is_some_and(|(name, value)| token(name) && token(value)))
}
