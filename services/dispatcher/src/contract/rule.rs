//! What a schema asks for, as a phrase.

use posthorn_core::words::listed;
use serde_json::Value;

use super::Contract;

/// The time in an error where the schema has no example.
const TIME: &str = "2026-12-01T10:00:00Z";

/// Such as `a whole number from 1 to 30`.
pub fn rule(contract: &Contract, schema: &Value) -> String {
    let schema = contract.resolved(schema);
    if let Some(rule) = schema["x-rule"].as_str() {
        return rule.to_owned();
    }
    let allowed = schema["enum"].as_array().into_iter().flatten().chain(schema.get("const"));
    let allowed: Vec<&str> = allowed.filter_map(Value::as_str).collect();
    if !allowed.is_empty() {
        return format!("one of {}", listed(&allowed));
    }
    match types(schema).into_iter().find(|name| *name != "null") {
        Some("boolean") => "`true` or `false`".to_owned(),
        Some("integer") => format!("a whole number{}", range(&schema["minimum"], &schema["maximum"])),
        Some("number") => format!("a number{}", range(&schema["minimum"], &schema["maximum"])),
        Some("string") if schema["format"] == "date-time" => {
            format!("a time in RFC 3339, such as `{}`", schema["examples"][0].as_str().unwrap_or(TIME))
        }
        Some("string") if schema["format"] == "uri" => {
            format!("an absolute URL, such as `{}`", schema["examples"][0].as_str().unwrap_or("https://example.com/"))
        }
        Some("string") => match length(&schema["minLength"], &schema["maxLength"]) {
            None => "a text".to_owned(),
            Some(length) => format!("a text of {length} characters"),
        },
        Some("array") => list(contract, schema),
        _ => "a JSON object".to_owned(),
    }
}

fn list(contract: &Contract, schema: &Value) -> String {
    let items = match length(&schema["minItems"], &schema["maxItems"]) {
        None => "a list".to_owned(),
        Some(length) => format!("a list of {length} items"),
    };
    match schema.get("items") {
        Some(each) if each.get("oneOf").is_none() && each.get("anyOf").is_none() => {
            format!("{items}, each {}", rule(contract, each))
        }
        _ => items,
    }
}

fn range(least: &Value, most: &Value) -> String {
    match (least.is_number(), most.is_number()) {
        (true, true) => format!(" from {least} to {most}"),
        (true, false) => format!(" of at least {least}"),
        (false, true) => format!(" of at most {most}"),
        (false, false) => String::new(),
    }
}

fn length(least: &Value, most: &Value) -> Option<String> {
    match (least.as_u64().filter(|least| *least > 0), most.as_u64()) {
        (Some(least), Some(most)) => Some(format!("{least} to {most}")),
        (Some(least), None) => Some(format!("at least {least}")),
        (None, Some(most)) => Some(format!("up to {most}")),
        (None, None) => None,
    }
}

/// The names in `type`.
pub fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The names of an object's members.
pub fn names(object: &Value) -> Vec<&str> {
    object.as_object().into_iter().flat_map(|members| members.keys().map(String::as_str)).collect()
}

/// A name as a step of a JSON Pointer (RFC 6901 §3).
pub fn step(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
