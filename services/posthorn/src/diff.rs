//! What differs between two JSON documents, in lines for people.

use serde_json::{Map, Value};

/// Lines that are shown of one thing.
const SHOWN: usize = 20;

/// Of a subscription's rate limit, which has one of them.
const UNITS: [&str; 3] = ["per_second", "per_minute", "per_hour"];

/// What differs, as `pointer: before → after`; the first twenty.
pub fn differences(before: &Value, after: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    compare("", before, after, &mut lines);
    if lines.len() > SHOWN {
        let more = lines.len() - SHOWN;
        lines.truncate(SHOWN);
        lines.push(format!("and {more} more"));
    }
    lines
}

/// `wanted` on top of `current`: what an object does not name stays as it is, at any depth.
pub fn overlaid(current: &Value, wanted: &Value) -> Value {
    match (current, wanted) {
        (Value::Object(current), Value::Object(wanted)) if is_same_kind(current, wanted) => {
            let mut merged: Map<String, Value> = current.clone();
            for (name, value) in wanted {
                let below = current.get(name).map_or_else(|| value.clone(), |current| overlaid(current, value));
                merged.insert(name.clone(), below);
            }
            merged.into()
        }
        (Value::Array(current), Value::Array(wanted)) if current.len() == wanted.len() => {
            current.iter().zip(wanted).map(|(current, wanted)| overlaid(current, wanted)).collect::<Vec<_>>().into()
        }
        // Written as 50, shown as 50.0.
        (Value::Number(current), Value::Number(wanted)) if current.as_f64() == wanted.as_f64() => {
            current.clone().into()
        }
        _ => wanted.clone(),
    }
}

/// Of another kind, one is not a part of the other: what the kinds have in common is a coincidence. A rate in
/// another unit is another kind.
fn is_same_kind(current: &Map<String, Value>, wanted: &Map<String, Value>) -> bool {
    let unit = |rate: &Map<String, Value>| UNITS.into_iter().find(|unit| rate.contains_key(*unit));
    let has_same_unit = unit(wanted).is_none_or(|wanted| unit(current).is_none_or(|current| current == wanted));
    has_same_unit
        && ["kind", "scheme"].iter().all(|name| wanted.get(*name).is_none_or(|kind| current.get(*name) == Some(kind)))
}

/// Whether what stands at a pointer may be a credential, in a field of the API or one that was meant to be.
fn is_secret(pointer: &str) -> bool {
    let pointer = pointer.to_ascii_lowercase();
    ["secret", "token", "password", "credential", "headers"].iter().any(|word| pointer.contains(word))
}

fn compare(pointer: &str, before: &Value, after: &Value, lines: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let absent = Value::Null;
            let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let below = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
                compare(&below, old.get(name).unwrap_or(&absent), new.get(name).unwrap_or(&absent), lines);
            }
        }
        // Field by field, since one of them may be a credential.
        (Value::Null, Value::Object(new)) if !new.is_empty() => compare(pointer, &Map::new().into(), after, lines),
        (Value::Object(old), Value::Null) if !old.is_empty() => compare(pointer, before, &Map::new().into(), lines),
        _ if before != after && is_secret(pointer) => lines.push(format!("{pointer}: changed")),
        _ if before != after => lines.push(format!("{pointer}: {} → {}", short(before), short(after))),
        _ => {}
    }
}

fn short(value: &Value) -> String {
    const CHARACTERS: usize = 60;
    let text = value.to_string();
    if text.chars().count() <= CHARACTERS {
        return text;
    }
    text.chars().take(CHARACTERS).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_named_stays_and_what_is_named_is_taken_whole_but_for_objects() {
        let current = json!({ "a": { "kept": 1, "changed": [1, 2] }, "rate": 50.0, "gone": "x" });
        let wanted = json!({ "a": { "changed": [3] }, "rate": 50, "gone": null, "new": true });
        let merged = overlaid(&current, &wanted);
        assert_eq!(merged, json!({ "a": { "kept": 1, "changed": [3] }, "rate": 50.0, "gone": null, "new": true }));
        assert_eq!(
            differences(&current, &merged),
            ["/a/changed: [1,2] → [3]", "/gone: \"x\" → null", "/new: null → true"]
        );
        assert_eq!(differences(&merged, &overlaid(&merged, &wanted)), [""; 0]);
    }

    #[test]
    fn defaults_in_a_list_stay_and_what_is_of_another_kind_is_taken_whole() {
        let current = json!([{ "scheme": "hmac_sha256", "header": "X-Sig", "encoding": "hex", "prefix": "" }]);
        assert_eq!(overlaid(&current, &json!([{ "scheme": "hmac_sha256", "header": "X-Sig" }])), current);
        let other = json!([{ "scheme": "standard" }]);
        assert_eq!(overlaid(&current, &other), other);
        let policy = json!({ "kind": "schedule", "delays_seconds": [60] });
        let wanted = json!({ "kind": "exponential", "base_seconds": 1 });
        assert_eq!(overlaid(&policy, &wanted), wanted);
    }

    #[test]
    fn what_may_be_a_credential_is_not_shown() {
        let lines = differences(&json!({}), &json!({ "signing_secret": "whsec_x", "config": { "api_token": "y" } }));
        assert_eq!(lines, ["/config/api_token: changed", "/signing_secret: changed"]);
    }
}
