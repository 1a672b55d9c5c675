//! A body beside its schema: each place at which they differ.

use std::collections::BTreeSet;

use jiff::Timestamp;
use posthorn_core::endpoint::EndpointUrl;
use posthorn_core::words::{listed, named, unknown};
use posthorn_process::problem::FieldError;
use serde_json::{Map, Value};

use super::rule::{names, rule, step, types};
use super::{Contract, form};

/// Everything about `value` that `schema` does not allow.
pub fn differences(contract: &Contract, schema: &Value, value: &Value) -> Vec<FieldError> {
    let mut walk = Walk { contract, found: Vec::new() };
    walk.value(schema, value, "", false);
    walk.found
}

struct Walk<'c> {
    contract: &'c Contract,
    found: Vec<FieldError>,
}

impl Walk<'_> {
    /// `nullable`: the field may be `null` as well, which was looked at before.
    fn value(&mut self, schema: &Value, value: &Value, at: &str, nullable: bool) {
        let schema = self.contract.resolved(schema);
        if let Some(discriminator) = schema.get("discriminator") {
            return self.one_of(discriminator, value, at, nullable);
        }
        if let Some(branches) = schema.get("anyOf").and_then(Value::as_array) {
            return self.any_of(branches, value, at);
        }
        let types = types(schema);
        let nullable = nullable || types.contains(&"null");
        if !types.is_empty() && !types.iter().any(|name| is_of_type(name, value)) {
            return self.broken(schema, at, nullable);
        }
        match value {
            Value::Object(members) => self.object(schema, members, at),
            Value::Array(items) => self.list(schema, items, at, nullable),
            Value::String(text) => self.text(schema, text, at, nullable),
            Value::Number(number) => {
                let number = number.as_f64().unwrap_or_default();
                let below = schema["minimum"].as_f64().is_some_and(|least| number < least);
                let above = schema["maximum"].as_f64().is_some_and(|most| number > most);
                if below || above {
                    self.broken(schema, at, nullable);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// The branch is the one that a field of the object names.
    fn one_of(&mut self, discriminator: &Value, value: &Value, at: &str, nullable: bool) {
        let Some(members) = value.as_object() else {
            return self.tell(at, if nullable { "must be a JSON object, or `null`" } else { "must be a JSON object" });
        };
        let field = discriminator["propertyName"].as_str().unwrap_or_default();
        let kinds: Vec<&str> = names(&discriminator["mapping"]);
        let place = format!("{at}/{field}");
        match members.get(field).map(Value::as_str) {
            None => self.tell(&place, format!("is required; it must be one of {}", listed(&kinds))),
            Some(Some(kind)) if kinds.contains(&kind) => {
                let reference = discriminator["mapping"][kind].as_str().unwrap_or_default();
                self.value(self.contract.referred(reference), value, at, nullable);
            }
            Some(kind) => self.tell(&place, named(kind.unwrap_or_default(), &kinds)),
        }
    }

    /// One branch and `null`, or several of which the nearest is told.
    fn any_of(&mut self, branches: &[Value], value: &Value, at: &str) {
        let (nulls, others): (Vec<&Value>, Vec<&Value>) = branches.iter().partition(|branch| branch["type"] == "null");
        if value.is_null() && !nulls.is_empty() {
            return;
        }
        let told = others.into_iter().map(|branch| {
            let mut walk = Walk { contract: self.contract, found: Vec::new() };
            walk.value(branch, value, at, !nulls.is_empty());
            let of_type = types(self.contract.resolved(branch)).iter().any(|name| is_of_type(name, value));
            (!of_type, walk.found)
        });
        let nearest = told.min_by_key(|(other_type, found)| (!found.is_empty(), *other_type, found.len()));
        self.found.extend(nearest.map(|(_, found)| found).unwrap_or_default());
    }

    fn object(&mut self, schema: &Value, members: &Map<String, Value>, at: &str) {
        let no_fields = Map::new();
        let fields = schema.get("properties").and_then(Value::as_object).unwrap_or(&no_fields);
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !members.contains_key(name) {
                self.tell(&format!("{at}/{}", step(name)), "is required");
            }
        }
        let further = schema.get("additionalProperties");
        for (name, member) in members {
            let place = format!("{at}/{}", step(name));
            if let Some(named) = schema.get("propertyNames") {
                self.name(named, name, &place);
            }
            match (fields.get(name), further) {
                (Some(field), _) => self.value(field, member, &place, false),
                (None, Some(Value::Bool(false))) => {
                    self.tell(&place, unknown("field", name, &names(&schema["properties"])));
                }
                (None, Some(further)) => self.value(further, member, &place, false),
                (None, None) => {}
            }
        }
        self.size(schema, members.len(), at);
        for (name, needed) in schema["dependentRequired"].as_object().into_iter().flatten() {
            for other in needed.as_array().into_iter().flatten().filter_map(Value::as_str) {
                if members.contains_key(name) && !members.contains_key(other) {
                    self.tell(&format!("{at}/{}", step(other)), format!("is required with `{name}`"));
                }
            }
        }
    }

    fn name(&mut self, schema: &Value, name: &str, place: &str) {
        let mut walk = Walk { contract: self.contract, found: Vec::new() };
        walk.text(self.contract.resolved(schema), name, place, false);
        if !walk.found.is_empty() {
            self.tell(place, format!("the name must be {}", rule(self.contract, schema)));
        }
    }

    fn size(&mut self, schema: &Value, members: usize, at: &str) {
        let bound = |name: &str| schema[name].as_u64().and_then(|bound| usize::try_from(bound).ok());
        let (least, most) = (bound("minProperties").unwrap_or(0), bound("maxProperties").unwrap_or(usize::MAX));
        if (least..=most).contains(&members) {
            return;
        }
        let fields = names(&schema["properties"]);
        let detail = match (least, most) {
            (1, 1) => format!("must have exactly one of the fields {}", listed(&fields)),
            (_, usize::MAX) => format!("must have at least one of the fields {}", listed(&fields)),
            _ => format!("must have at most {most} fields"),
        };
        self.tell(at, detail);
    }

    fn list(&mut self, schema: &Value, items: &[Value], at: &str, nullable: bool) {
        let length = items.len() as u64;
        let below = schema["minItems"].as_u64().is_some_and(|least| length < least);
        let above = schema["maxItems"].as_u64().is_some_and(|most| length > most);
        if below || above {
            self.broken(schema, at, nullable);
        }
        if schema["uniqueItems"] == true {
            let mut seen = BTreeSet::new();
            if !items.iter().all(|item| seen.insert(item.to_string())) {
                self.tell(at, "names an item twice");
            }
        }
        // Past the bound, the bound alone is told.
        if let Some(each) = schema.get("items").filter(|_| !above) {
            for (index, item) in items.iter().enumerate() {
                self.value(each, item, &format!("{at}/{index}"), false);
            }
        }
    }

    fn text(&mut self, schema: &Value, text: &str, at: &str, nullable: bool) {
        let allowed = schema["enum"].as_array().into_iter().flatten().chain(schema.get("const"));
        let allowed: Vec<&str> = allowed.filter_map(Value::as_str).collect();
        if !allowed.is_empty() {
            if !allowed.contains(&text) {
                self.tell(at, named(text, &allowed));
            }
            return;
        }
        if schema["format"] == "uri" {
            if let Err(error) = EndpointUrl::known(text) {
                self.tell(at, error.to_string());
            }
            return;
        }
        if let Some(form) = schema["x-form"].as_str() {
            let is_too_long = schema["maxLength"].as_u64().is_some_and(|most| text.chars().count() as u64 > most);
            if is_too_long || !form::holds(form, text) {
                self.broken(schema, at, nullable);
            }
            return;
        }
        let length = text.chars().count() as u64;
        let pattern = schema["pattern"].as_str().and_then(|pattern| self.contract.patterns.get(pattern));
        let breaks = schema["minLength"].as_u64().is_some_and(|least| length < least)
            || schema["maxLength"].as_u64().is_some_and(|most| length > most)
            || pattern.filter(|_| schema.get("x-rule").is_some()).is_some_and(|pattern| !pattern.is_match(text))
            || (schema["format"] == "date-time" && text.parse::<Timestamp>().is_err());
        if breaks {
            self.broken(schema, at, nullable);
        }
    }

    /// Tells what the schema asks for.
    fn broken(&mut self, schema: &Value, at: &str, nullable: bool) {
        let null = if nullable { ", or `null`" } else { "" };
        self.tell(at, format!("must be {}{null}", rule(self.contract, schema)));
    }

    fn tell(&mut self, at: &str, detail: impl Into<String>) {
        self.found.push(FieldError { pointer: at.to_owned(), detail: detail.into() });
    }
}

fn is_of_type(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        _ => value.is_object(),
    }
}
