//! What a thing has otherwise than the file.

use posthorn_core::redact::{SEALED, is_secret_header};
use posthorn_process::tls::fingerprints;
use posthorn_store::sources::fingerprint;
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
        let field = |value: Value| Value::from(Map::from_iter([(name.clone(), value)]));
        let (before, after) = match name.as_str() {
            "tls" => (now.clone(), fingerprinted(value)),
            "headers" => (told_apart(now, &Value::Null), told_apart(value, now)),
            _ => (now.clone(), merged.clone()),
        };
        let lines = differences(&field(before), &field(after));
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

/// Headers with a text in the place of each secret that tells it by its fingerprint. `•••` is the secret that `current`
/// has under that name.
fn told_apart(headers: &Value, current: &Value) -> Value {
    let Some(headers) = headers.as_object() else { return headers.clone() };
    let told = |name: &String, value: &Value| {
        let print = value["fingerprint"].as_str();
        let text = value.as_str().or(value["value"].as_str());
        let print = match text {
            Some(SEALED) => print.or(current[name.as_str()]["fingerprint"].as_str()).map(str::to_owned),
            Some(text) if value.is_object() || is_secret_header(name, text) => {
                Some(fingerprint(&text.to_owned().into()))
            }
            _ => None,
        };
        print.map_or_else(|| value.clone(), |print| json!(format!("{SEALED} {print}")))
    };
    headers.iter().map(|(name, value)| (name.clone(), told(name, value))).collect::<Map<_, _>>().into()
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
            "headers": { "x-team": "old", "x-other": "1" },
        });
        let same = json!({
            "timeout_seconds": 10, "rate_limit": { "per_second": 50 },
            "retry_policy": { "kind": "schedule", "delays_seconds": [60] }, "headers": { "x-team": "old", "x-other": "1" },
        });
        assert_eq!(unmet(&current, &wanted(same)).lines, [""; 0]);
        let other = json!({
            "timeout_seconds": 5, "headers": { "x-team": "old" }, "rate_limit": null,
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
    fn secret_headers_are_told_apart_by_fingerprints_and_never_shown() {
        let sealed = |text: &str| json!({ "value": SEALED, "secret": true, "fingerprint": fingerprint(&text.to_owned().into()) });
        let current =
            json!({ "headers": { "Authorization": sealed("Bearer 1"), "X-Marked": sealed("2"), "X-Team": "billing" } });
        let lines = |authorization: &str, marked: Value| {
            let file = json!({ "Authorization": authorization, "X-Marked": marked, "X-Team": "billing" });
            unmet(&current, &wanted(json!({ "headers": file }))).lines
        };
        let marked = |text: &str| json!({ "value": text, "secret": true });
        assert_eq!(lines("Bearer 1", marked("2")), [""; 0]);
        assert_eq!(lines(SEALED, marked(SEALED)), [""; 0], "it keeps what there is");
        assert_eq!(lines("Bearer 2", marked("2")), ["/headers/Authorization: changed"]);
        assert_eq!(lines("Bearer 1", marked("3")), ["/headers/X-Marked: changed"]);
        assert_eq!(lines("Bearer 1", json!("2")), ["/headers/X-Marked: changed"], "it is to be plain");
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
