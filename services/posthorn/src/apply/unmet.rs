//! What a thing has otherwise than the file.

use posthorn_process::tls::fingerprints;
use serde_json::{Map, Value, json};

use crate::diff::{differences, overlaid};

/// What `current` has otherwise than `wanted`, and the fields with which it has not: whole, since the API replaces
/// a field whole and the file may name a part of it.
pub fn unmet(current: &Value, wanted: &Map<String, Value>) -> Unmet {
    let mut unmet = Unmet::default();
    for (name, value) in wanted {
        let now = &current[name.as_str()];
        let merged = match name.as_str() {
            // A map of the client's own is what it is, and not a part of one; and of TLS not all comes back.
            "headers" | "tls" => value.clone(),
            _ => overlaid(now, value),
        };
        let shown = if name == "tls" { fingerprinted(value) } else { merged.clone() };
        let field = |value: &Value| Value::from(Map::from_iter([(name.clone(), value.clone())]));
        let lines = differences(&field(now), &field(&shown));
        if !lines.is_empty() {
            unmet.lines.extend(lines);
            unmet.body.insert(name.clone(), merged);
        }
    }
    unmet
}

/// What has to be changed of a thing.
#[derive(Debug, Default)]
pub struct Unmet {
    /// A line for each difference.
    pub lines: Vec<String>,
    /// The request's.
    pub body: Map<String, Value>,
}

/// TLS of a subscription's own as the API shows it: a key belongs to its certificate, so that nothing else
/// need be told apart.
fn fingerprinted(tls: &Value) -> Value {
    if tls.is_null() {
        return Value::Null;
    }
    let prints = |name: &str| tls[name].as_str().map(fingerprints).unwrap_or_default();
    json!({ "ca_certificates": prints("ca_bundle"), "client_certificate": prints("client_certificate").first() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(fields: Value) -> Map<String, Value> {
        fields.as_object().unwrap().clone()
    }

    #[test]
    fn only_what_the_file_names_is_compared_and_headers_are_not_shown() {
        let current = json!({
            "id": "sub_1", "timeout_seconds": 10, "rate_limit": { "per_second": 50.0 },
            "retry_policy": { "kind": "schedule", "delays_seconds": [60], "permanent_statuses": [404] },
            "headers": { "x-key": "old", "x-other": "1" },
        });
        let same = json!({
            "timeout_seconds": 10, "rate_limit": { "per_second": 50 },
            "retry_policy": { "kind": "schedule", "delays_seconds": [60] }, "headers": { "x-key": "old", "x-other": "1" },
        });
        assert_eq!(unmet(&current, &wanted(same)).lines, [""; 0]);
        let other = json!({
            "timeout_seconds": 5, "headers": { "x-key": "old" }, "rate_limit": null,
            "retry_policy": { "kind": "schedule", "delays_seconds": [5] },
        });
        let unmet = unmet(&current, &wanted(other));
        let told = [
            "/headers/x-other: changed",
            "/rate_limit/per_second: 50.0 → null",
            "/retry_policy/delays_seconds: [60] → [5]",
            "/timeout_seconds: 10 → 5",
        ];
        assert_eq!(unmet.lines, told);
        let by_the_minute = self::unmet(&current, &wanted(json!({ "rate_limit": { "per_minute": 50 } })));
        assert_eq!(by_the_minute.body["rate_limit"], json!({ "per_minute": 50 }));
        let policy = json!({ "kind": "schedule", "delays_seconds": [5], "permanent_statuses": [404] });
        assert_eq!(unmet.body["retry_policy"], policy, "the API replaces it whole");
    }

    #[test]
    fn tls_is_told_apart_by_fingerprints() {
        let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let current = json!({ "tls": { "ca_certificates": fingerprints(certificate), "client_certificate": null } });
        assert_eq!(unmet(&current, &wanted(json!({ "tls": { "ca_bundle": certificate } }))).lines, [""; 0]);
        let own = json!({ "tls": { "client_certificate": certificate, "client_key": "a key" } });
        let unmet = unmet(&current, &wanted(own.clone()));
        assert_eq!(unmet.lines.len(), 2, "{:?}", unmet.lines);
        assert!(!unmet.lines.concat().contains("a key"));
        assert_eq!(unmet.body, wanted(own), "the API replaces it whole");
        let cleared = self::unmet(&current, &wanted(json!({ "tls": null })));
        assert_eq!(cleared.body, wanted(json!({ "tls": null })));
    }
}
