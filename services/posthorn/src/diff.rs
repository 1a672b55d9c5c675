//! What differs between two JSON documents, in lines for people.

use serde_json::{Map, Value};

/// Lines that are shown of one thing.
const SHOWN: usize = 20;

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
        (Value::Object(current), Value::Object(wanted)) => {
            let mut merged: Map<String, Value> = current.clone();
            for (name, value) in wanted {
                let below = current.get(name).map_or_else(|| value.clone(), |current| overlaid(current, value));
                merged.insert(name.clone(), below);
            }
            merged.into()
        }
        // Written as 50, shown as 50.0.
        (Value::Number(current), Value::Number(wanted)) if current.as_f64() == wanted.as_f64() => {
            current.clone().into()
        }
        _ => wanted.clone(),
    }
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
}
