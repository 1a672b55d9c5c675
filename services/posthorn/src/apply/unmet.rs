//! What a thing has otherwise than the file.

use serde_json::{Map, Value};

use crate::diff::{differences, overlaid};

/// What `current` has otherwise than `wanted`, and the fields with which it has not: whole, since the API replaces
/// a field whole and the file may name a part of it.
pub fn unmet(current: &Value, wanted: &Map<String, Value>) -> Unmet {
    let mut unmet = Unmet::default();
    for (name, value) in wanted {
        let now = &current[name.as_str()];
        // A map of the client's own is what it is, and not a part of one.
        let merged = if name == "headers" { value.clone() } else { overlaid(now, value) };
        let field = |value: &Value| Value::from(Map::from_iter([(name.clone(), value.clone())]));
        let lines = differences(&field(now), &field(&merged));
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

#[cfg(test)]
mod tests {
    use serde_json::json;

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
}
