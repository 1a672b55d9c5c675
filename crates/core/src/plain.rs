//! Messages of serde in words for people who do not know Rust.

use crate::words;

/// The field that a message is about, where it is one that serde has no path to, and the rule that was broken.
///
/// A message of our own, from a `Deserialize` that we wrote, stays as it is.
pub fn plain(message: &str) -> (Option<&str>, String) {
    // Parsers of texts add a place, which a field has by its pointer.
    let message = message.split_once(" at line ").map_or(message, |(message, _)| message);
    if let Some(name) = quoted(message, "missing field `") {
        return (Some(name), "is required".to_owned());
    }
    if let Some(name) = quoted(message, "unknown field `") {
        return (Some(name), words::unknown("field", name, &expected(message)));
    }
    if let Some(name) = quoted(message, "duplicate field `") {
        return (Some(name), "is given twice".to_owned());
    }
    if let Some(name) = quoted(message, "unknown variant `") {
        return (None, words::named(name, &expected(message)));
    }
    let is_about_a_value =
        ["invalid type: ", "invalid value: ", "invalid length "].iter().any(|start| message.starts_with(start));
    match message.rsplit_once(", expected ").filter(|_| is_about_a_value) {
        Some((_, expected)) => (None, format!("must be {}", kind(expected))),
        None => (None, message.to_owned()),
    }
}

/// The names that a message lists: each of them between backticks, after `expected`.
fn expected(message: &str) -> Vec<&str> {
    let listed = message.rsplit_once(", expected ").map_or("", |(_, listed)| listed);
    listed.split('`').skip(1).step_by(2).collect()
}

/// A type of Rust as a person names what it holds.
fn kind(expected: &str) -> &str {
    match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "`true` or `false`",
        "a string" | "string" | "borrowed string" | "string or map" => "a text",
        "a sequence" => "a list",
        _ if expected.starts_with("struct ") || expected.starts_with("a map") || expected == "map" => "a JSON object",
        _ if expected.contains("struct ") || expected.contains("enum ") || expected.contains("variant") => {
            "a JSON object"
        }
        other => other,
    }
}

fn quoted<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    text.strip_prefix(before)?.split('`').next()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Sample {
        name: String,
        #[serde(default)]
        count: i32,
        #[serde(default)]
        color: Color,
        #[serde(default)]
        inner: Vec<Sample>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Color {
        #[default]
        Red,
        Green,
        Blue,
    }

    fn told(value: Value) -> String {
        let error = serde_json::from_value::<Sample>(value).unwrap_err().to_string();
        let (field, detail) = plain(&error);
        format!("{} {detail}", field.unwrap_or("-"))
    }

    #[test]
    fn no_word_of_rust_is_left() {
        assert_eq!(told(json!({})), "name is required");
        assert_eq!(told(json!({ "nmae": "x" })), "nmae is not a known field; did you mean `name`?");
        assert_eq!(told(json!({ "size": "x" })), "size is not a known field; known: `name`, `count`, `color`, `inner`");
        assert_eq!(told(json!({ "name": 1 })), "- must be a text");
        assert_eq!(told(json!({ "name": "x", "count": "ten" })), "- must be a whole number");
        assert_eq!(told(json!({ "name": "x", "count": 1e30 })), "- must be a whole number");
        assert_eq!(told(json!({ "name": "x", "color": "pink" })), "- must be one of `red`, `green`, `blue`");
        let near = told(json!({ "name": "x", "color": "gren" }));
        assert_eq!(near, "- must be one of `red`, `green`, `blue`; did you mean `green`?");
        assert_eq!(told(json!({ "name": "x", "inner": {} })), "- must be a list");
        assert_eq!(told(json!({ "name": "x", "inner": ["a"] })), "- must be a JSON object");
        assert_eq!(told(json!("text")), "- must be a JSON object");
        assert_eq!(plain("the pattern is wrong"), (None, "the pattern is wrong".to_owned()));
    }
}
