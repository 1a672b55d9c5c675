//! What of a request's headers may be kept in the clear.

use crate::request::Headers;

/// Stands in the place of a credential.
pub const REDACTED: &str = "[redacted]";

/// Stands in the place of a value that is kept sealed. A request that holds it keeps that value.
pub const SEALED: &str = "•••";

/// Headers that are credentials by themselves. A signature is none: it is good for one body only.
const CREDENTIALS: [&str; 8] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-service-token",
    "x-gitlab-token",
    "x-api-key",
    "x-auth-token",
];

/// Whether the value of header `name` is a credential.
pub fn is_credential(name: &str) -> bool {
    CREDENTIALS.iter().any(|credential| name.eq_ignore_ascii_case(credential))
}

/// Last parts of the names of headers that carry credentials, such as `X-Partner-Token`.
const CREDENTIAL_ENDINGS: [&str; 13] = [
    "auth",
    "authorization",
    "cookie",
    "credential",
    "credentials",
    "jwt",
    "key",
    "passphrase",
    "passwd",
    "password",
    "secret",
    "session",
    "token",
];

/// Schemes of HTTP authentication that carry the credential itself (RFC 7617, RFC 6750).
const CREDENTIAL_SCHEMES: [&str; 2] = ["basic", "bearer"];

/// Whether a header that a tenant gives its subscription is a credential, by its name or by its value.
///
/// Broader than [`is_credential`]: a credential that is shown costs more than a harmless value that is sealed.
pub fn is_secret_header(name: &str, value: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    let ending = name.rsplit('-').next().unwrap_or_default();
    let scheme = value.trim_start().split_once(' ').map(|(scheme, _)| scheme.to_ascii_lowercase());
    is_credential(&name)
        || CREDENTIAL_ENDINGS.contains(&ending)
        || name.contains("apikey")
        || name.contains("api-key")
        || scheme.is_some_and(|scheme| CREDENTIAL_SCHEMES.contains(&scheme.as_str()))
}

/// Headers of an attempt that an older version recorded, with every credential replaced that
/// [`is_secret_header`] finds.
pub fn without_secret_headers(mut recorded: serde_json::Value) -> serde_json::Value {
    for (name, value) in recorded.as_object_mut().into_iter().flatten() {
        if value.as_str().is_some_and(|text| is_secret_header(name, text)) {
            *value = REDACTED.into();
        }
    }
    recorded
}

/// Headers as a JSON object, credentials replaced, repeated fields joined (RFC 9110 §5.3).
pub fn visible(headers: &Headers) -> serde_json::Map<String, serde_json::Value> {
    visible_but(headers, &[])
}

/// Like [`visible`], without the values of the headers `secret`, too.
pub fn visible_but(headers: &Headers, secret: &[String]) -> serde_json::Map<String, serde_json::Value> {
    let mut visible = serde_json::Map::new();
    for (name, value) in headers.iter() {
        let is_secret = is_credential(name) || secret.iter().any(|secret| secret.eq_ignore_ascii_case(name));
        let value = if is_secret { REDACTED } else { value };
        match visible.get_mut(name) {
            Some(serde_json::Value::String(joined)) => {
                joined.push_str(", ");
                joined.push_str(value);
            }
            _ => {
                visible.insert(name.to_owned(), value.into());
            }
        }
    }
    visible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_replaced_and_repeated_headers_joined() {
        let headers = [("Authorization", "Bearer x"), ("X-A", "1"), ("x-a", "2"), ("Stripe-Signature", "t=1")];
        let visible = visible(&headers.into_iter().collect());
        assert_eq!(visible["authorization"], REDACTED);
        assert_eq!(visible["x-a"], "1, 2");
        assert_eq!(visible["stripe-signature"], "t=1");
    }

    #[test]
    fn a_header_of_a_subscription_is_a_credential_by_its_name_or_its_value() {
        let credentials = [
            ("Authorization", "x"),
            ("proxy-authorization", "x"),
            ("X-Authorization", "x"),
            ("Cookie", "a=b"),
            ("X-Service-Token", "x"),
            ("X-Key", "x"),
            ("key", "x"),
            ("X_Partner_Key", "x"),
            ("x-partner-token", "x"),
            ("X-Client-Secret", "x"),
            ("X-Password", "x"),
            ("Apikey", "x"),
            ("X-ApiKey-V2", "x"),
            ("x-api-key-id", "x"),
            ("X-Auth", "x"),
            ("X-Team", "Bearer abc"),
            ("X-Team", "basic dXNlcjpwYXNz"),
        ];
        for (name, value) in credentials {
            assert!(is_secret_header(name, value), "{name}: {value}");
        }
        let plain = [
            ("X-Team", "billing"),
            ("X-Monkey", "x"),
            ("X-Keyboard", "x"),
            ("X-Token-Type", "x"),
            ("Accept", "*/*"),
            ("X-Team", "bearer"),
            ("X-Team", "Basics for all"),
        ];
        for (name, value) in plain {
            assert!(!is_secret_header(name, value), "{name}: {value}");
        }
    }

    #[test]
    fn a_recorded_credential_is_replaced_when_it_is_read() {
        let recorded = serde_json::json!({ "x-key": "s3cret", "x-team": "billing", "webhook-id": "evt_1" });
        let shown = serde_json::json!({ "x-key": REDACTED, "x-team": "billing", "webhook-id": "evt_1" });
        assert_eq!(without_secret_headers(recorded), shown);
    }
}
