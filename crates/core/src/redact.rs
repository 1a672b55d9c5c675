//! What of a request's headers may be kept in the clear.

use crate::request::Headers;

/// Stands in the place of a credential.
pub const REDACTED: &str = "[redacted]";

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
}
