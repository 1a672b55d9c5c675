//! The contract with its answers closed: a field that the contract lacks is a breach.
//!
//! The published contract leaves answers open, because fields may be added and clients have to bear that. The
//! tests close them, so that a field which is added to the product is added to the contract as well.
//! `tests/acceptance/closed_answers.py` does the same.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{escaped, resolved};

/// A schema with one of these tells of an object's fields, or may do so.
const TELLING: [&str; 5] = ["$ref", "properties", "allOf", "anyOf", "oneOf"];

/// Closes every object that an answer of the document holds, wherever it is used.
///
/// Schemas are closed where they are used and not where they are defined: one that takes in another with `allOf`
/// adds fields to it.
pub(super) fn close(document: &mut Value) {
    let mut uses = Uses { document, closed: BTreeSet::new() };
    for at in answers(document) {
        uses.add(at);
    }
    for at in uses.closed {
        let schema = document.pointer_mut(&at).expect("a schema");
        schema["unevaluatedProperties"] = false.into();
    }
}

/// Where the schemas of answers are, as JSON Pointers.
fn answers(document: &Value) -> Vec<String> {
    // Paths that do not exist are answered with it.
    let mut found = vec!["/components/schemas/Problem".to_owned()];
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            for key in keys(operation.get("responses")) {
                let (response, at) = resolved(document, format!("/paths/{}/{method}/responses/{key}", escaped(path)));
                let contents = keys(response.get("content"));
                found.extend(contents.map(|key| format!("{at}/content/{}/schema", escaped(key))));
            }
        }
    }
    found
}

struct Uses<'a> {
    document: &'a Value,
    /// Those that have to be closed.
    closed: BTreeSet<String>,
}

impl Uses<'_> {
    fn add(&mut self, at: String) {
        let schema = self.document.pointer(&at).expect("a schema");
        let tells = TELLING.iter().any(|word| schema.get(word).is_some());
        if tells && schema.get("additionalProperties").is_none() && !self.closed.insert(at.clone()) {
            return;
        }
        self.add_below(&at);
    }

    /// Adds all that a schema holds, but not itself: it is a part of another.
    fn add_below(&mut self, at: &str) {
        let document = self.document;
        let schema = document.pointer(at).expect("a schema");
        if schema.get("$ref").is_some() {
            self.add_below(&resolved(document, at.to_owned()).1);
        }
        for word in ["allOf", "anyOf", "oneOf"] {
            let parts = schema.get(word).and_then(Value::as_array).map_or(0, Vec::len);
            (0..parts).for_each(|index| self.add_below(&format!("{at}/{word}/{index}")));
        }
        for name in keys(schema.get("properties")) {
            self.add(format!("{at}/properties/{}", escaped(name)));
        }
        for word in ["items", "additionalProperties"] {
            if schema.get(word).is_some_and(Value::is_object) {
                self.add(format!("{at}/{word}"));
            }
        }
    }
}

fn keys(object: Option<&Value>) -> impl Iterator<Item = &String> {
    object.and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key)
}
