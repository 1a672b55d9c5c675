//! To whom a source's events belong.

use serde::{Deserialize, Serialize};

use crate::body::document::{self, Scalar};
use crate::body::path::JsonPath;
use crate::id::TenantId;
use crate::request::Headers;

/// How a source finds the tenant of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Routing {
    /// Everything is this tenant's.
    Tenant { tenant_id: TenantId },
    /// JSON Pointer (RFC 6901) into the payload; the value is a tenant's `external_id`.
    Pointer { pointer: String },
    /// A header with a tenant's id or `external_id`. For `internal` sources only: nothing else that
    /// Posthorn verifies signs its headers.
    Header { name: String },
    /// Every tenant's subscriptions see it.
    Broadcast,
}

/// What routing found in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    Tenant(TenantId),
    /// The tenant with this `external_id`, if there is one.
    External(String),
    Broadcast,
    /// The request names nobody.
    Unrouted,
}

impl Routing {
    /// Finds to whom a request belongs.
    pub fn route(&self, headers: &Headers, body: &[u8]) -> Route {
        match self {
            Self::Tenant { tenant_id } => Route::Tenant(*tenant_id),
            Self::Broadcast => Route::Broadcast,
            Self::Header { name } => match headers.get(name).map(str::trim) {
                Some(value) if !value.is_empty() => named(value),
                _ => Route::Unrouted,
            },
            Self::Pointer { pointer } => {
                let content_type = headers.get("content-type").unwrap_or_default();
                at_pointer(content_type, body, pointer).map_or(Route::Unrouted, Route::External)
            }
        }
    }
}

fn named(value: &str) -> Route {
    value.parse().map_or_else(|_| Route::External(value.to_owned()), Route::Tenant)
}

/// A string or number at `pointer`, as text; of a form, the field of that name.
fn at_pointer(content_type: &str, body: &[u8], pointer: &str) -> Option<String> {
    let path = JsonPath::parse(pointer).ok()?;
    match document::json_or_form(content_type, body).scalar(&path)? {
        Scalar::Text(text) if !text.is_empty() => Some(text.into_owned()),
        Scalar::Number(digits) => Some(digits.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_finds_the_account_or_leaves_the_event_unrouted() {
        let routing = Routing::Pointer { pointer: "/account".into() };
        let route = |body: &str| routing.route(&Headers::default(), body.as_bytes());
        assert_eq!(route(r#"{"account":"acct_1"}"#), Route::External("acct_1".into()));
        assert_eq!(route(r#"{"account":42}"#), Route::External("42".into()));
        assert_eq!(route(r#"{"account":null}"#), Route::Unrouted);
        assert_eq!(route("no json"), Route::Unrouted);
        assert_eq!(route("a=b&account=acct_1"), Route::External("acct_1".into()), "a form");
    }

    #[test]
    fn a_header_names_a_tenant_by_id_or_by_external_id() {
        let routing = Routing::Header { name: "X-Tenant-Id".into() };
        let route = |value: &str| routing.route(&[("x-tenant-id", value)].into_iter().collect(), b"");
        assert_eq!(route("acme"), Route::External("acme".into()));
        assert_eq!(route(" "), Route::Unrouted);
        let id = "ten_019b0000000070008000000000000001";
        assert_eq!(route(id), Route::Tenant(id.parse().unwrap()));
    }
}
