//! The contract (`proto/openapi.yaml`), as far as requests are held to it: their bodies and queries.
//!
//! It is a part of the program, so an error about a field tells the rule that clients read. Rules that a
//! schema cannot say, and a pattern without `x-rule`, are left to the handlers.

mod form;
mod query;
mod rule;
mod walk;

use std::collections::HashMap;
use std::sync::LazyLock;

use posthorn_process::problem::FieldError;
use regex::Regex;
use serde_json::Value;

pub use query::Query;

/// The schema of a request body, by its name in the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    ApiKeyCreate,
    DeadLetterReplay,
    Empty,
    EventReplay,
    EventRoute,
    EventTypePut,
    Recovery,
    RotateSecret,
    SourceCreate,
    SourceSample,
    SourceUpdate,
    SubscriptionCreate,
    SubscriptionSample,
    SubscriptionUpdate,
    TenantCreate,
    TenantUpdate,
}

/// Read once: it is a constant of the program and cannot differ between two of its parts.
static CONTRACT: LazyLock<Contract> = LazyLock::new(Contract::read);

/// The schemas, and the patterns among them that have their rule in words.
#[derive(Default)]
struct Contract {
    document: Value,
    patterns: HashMap<String, Regex>,
}

/// Everything about `body` that `schema` does not allow, in the order of the schema.
pub fn violations(schema: Shape, body: &Value) -> Vec<FieldError> {
    if !body.is_object() {
        return vec![FieldError { pointer: String::new(), detail: "the body must be a JSON object".to_owned() }];
    }
    walk::differences(&CONTRACT, CONTRACT.component(&format!("{schema:?}")), body)
}

impl Contract {
    /// A test holds that the file can be read and every pattern compiles.
    fn read() -> Self {
        let document: Value =
            serde_yaml_ng::from_str(include_str!("../../../../proto/openapi.yaml")).unwrap_or_default();
        let mut patterns = HashMap::new();
        compile(&document["components"]["schemas"], &mut patterns);
        Self { document, patterns }
    }

    fn component(&self, name: &str) -> &Value {
        &self.document["components"]["schemas"][name]
    }

    /// The schema that `$ref` names; itself where there is none.
    fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema.get("$ref").and_then(Value::as_str) {
            Some(reference) => self.resolved(self.referred(reference)),
            None => schema,
        }
    }

    fn referred(&self, reference: &str) -> &Value {
        self.component(reference.rsplit('/').next().unwrap_or_default())
    }
}

fn compile(schema: &Value, patterns: &mut HashMap<String, Regex>) {
    match schema {
        Value::Array(items) => items.iter().for_each(|item| compile(item, patterns)),
        Value::Object(members) => {
            let is_checked = members.contains_key("x-rule") && !members.contains_key("x-form");
            if let Some(pattern) = members.get("pattern").and_then(Value::as_str).filter(|_| is_checked) {
                // Without it the handler's own checks remain.
                patterns.extend(Regex::new(pattern).ok().map(|regex| (pattern.to_owned(), regex)));
            }
            members.values().for_each(|member| compile(member, patterns));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    const ALL: [Shape; 16] = [
        Shape::ApiKeyCreate,
        Shape::DeadLetterReplay,
        Shape::Empty,
        Shape::EventReplay,
        Shape::EventRoute,
        Shape::EventTypePut,
        Shape::Recovery,
        Shape::RotateSecret,
        Shape::SourceCreate,
        Shape::SourceSample,
        Shape::SourceUpdate,
        Shape::SubscriptionCreate,
        Shape::SubscriptionSample,
        Shape::SubscriptionUpdate,
        Shape::TenantCreate,
        Shape::TenantUpdate,
    ];

    /// `pointer: detail`, a line each.
    fn told(schema: Shape, body: &Value) -> Vec<String> {
        violations(schema, body).into_iter().map(|error| format!("{}: {}", error.pointer, error.detail)).collect()
    }

    #[test]
    fn every_request_body_of_the_contract_has_its_schema_here() {
        let contract = Contract::read();
        let operations = contract.document["paths"].as_object().unwrap().iter();
        let operations = operations.filter(|(path, _)| path.starts_with("/v1/")).flat_map(|(_, item)| {
            item.as_object().unwrap().values().filter_map(|operation| operation.get("requestBody"))
        });
        let described: BTreeSet<String> = operations
            .map(|body| body["content"]["application/json"]["schema"]["$ref"].as_str().unwrap())
            .map(|reference| reference.rsplit('/').next().unwrap().to_owned())
            .collect();
        assert_eq!(ALL.map(|schema| format!("{schema:?}")).into_iter().collect::<BTreeSet<_>>(), described);
    }

    #[test]
    fn every_pattern_with_a_rule_in_words_compiles() {
        fn count(schema: &Value, seen: &mut BTreeSet<String>) {
            match schema {
                Value::Array(items) => items.iter().for_each(|item| count(item, seen)),
                Value::Object(members) => {
                    if members.contains_key("x-rule") && !members.contains_key("x-form") {
                        seen.insert(members["pattern"].as_str().unwrap().to_owned());
                    }
                    members.values().for_each(|member| count(member, seen));
                }
                _ => {}
            }
        }
        let contract = Contract::read();
        let mut seen = BTreeSet::new();
        count(&contract.document["components"], &mut seen);
        assert!(seen.len() > 15);
        assert_eq!(seen, contract.patterns.into_keys().collect());
    }

    #[test]
    fn every_form_of_the_contract_is_known() {
        fn check(schema: &Value) {
            match schema {
                Value::Array(items) => items.iter().for_each(check),
                Value::Object(members) => {
                    if let Some(form) = members.get("x-form").and_then(Value::as_str) {
                        assert!(!form::holds(form, ""), "{form}");
                        assert!(members.contains_key("x-rule"), "{form}");
                    }
                    members.values().for_each(check);
                }
                _ => {}
            }
        }
        check(&Contract::read().document);
    }

    #[test]
    fn the_examples_of_the_contract_hold() {
        for schema in ALL {
            let examples = CONTRACT.component(&format!("{schema:?}")).get("examples").and_then(Value::as_array);
            for example in examples.into_iter().flatten() {
                assert_eq!(told(schema, example), [""; 0], "{schema:?}: {example}");
            }
        }
    }

    #[test]
    fn all_wrong_fields_are_told_at_once_and_in_words() {
        let body = json!({
            "url": "ftp://example.com",
            "event_tpyes": ["*"],
            "timeout_seconds": 31,
            "ordered": "yes",
            "payload_format": "Standard",
            "rate_limit": { "per_second": 1, "per_minute": 60 },
            "retry_policy": { "kind": "schedule", "delays_seconds": [0, "x"] },
            "signatures": [["standard"], { "scheme": "rot13" }, {}],
            "headers": { "X Team": "billing" },
        });
        assert_eq!(
            told(Shape::SubscriptionCreate, &body),
            [
                "/event_types: is required",
                "/event_tpyes: is not a known field; did you mean `event_types`?",
                "/headers/X Team: the name must be a header's name: 1 to 100 of `A-Z`, `a-z`, `0-9`, `-` and `_`",
                "/ordered: must be `true` or `false`",
                "/payload_format: must be one of `standard`, `raw`, `event`; did you mean `standard`?",
                "/rate_limit: must have exactly one of the fields `per_hour`, `per_minute`, `per_second`",
                "/retry_policy/delays_seconds/0: must be a whole number from 1 to 604800",
                "/retry_policy/delays_seconds/1: must be a whole number from 1 to 604800",
                "/signatures/0: must be a JSON object",
                "/signatures/1/scheme: must be one of `hmac_sha256`, `standard`, `standard_ed25519`",
                "/signatures/2/scheme: is required; it must be one of `hmac_sha256`, `standard`, `standard_ed25519`",
                "/timeout_seconds: must be a whole number from 1 to 30",
                "/url: the scheme has to be `https`",
            ]
        );
    }

    #[test]
    fn a_list_is_no_object_at_any_depth() {
        assert_eq!(told(Shape::TenantCreate, &json!(["name", null])), [": the body must be a JSON object"]);
        let body = json!({ "provider": "stripe", "routing": ["broadcast"], "config": [], "rate_limit": [1, 2] });
        assert_eq!(
            told(Shape::SourceCreate, &body),
            [
                "/config: must be a JSON object",
                "/rate_limit: must be a JSON object, or `null`",
                "/routing: must be a JSON object",
            ]
        );
        assert_eq!(told(Shape::DeadLetterReplay, &json!({ "filter": [] })), ["/filter: must be a JSON object"]);
    }

    #[test]
    fn ids_times_and_lists_tell_their_form() {
        assert_eq!(
            told(Shape::EventRoute, &json!({ "tenant_id": "acme" })),
            ["/tenant_id: must be a tenant's id, such as `ten_019f1ccc9f407a1e8c3d5b2f60718293`"]
        );
        assert_eq!(
            told(Shape::Recovery, &json!({ "since": "yesterday", "include": [] })),
            [
                "/include: must be a list of 1 to 2 items, each one of `failed`, `missing`",
                "/since: must be a time in RFC 3339, such as `2026-07-01T10:30:00+02:00`",
            ]
        );
        assert_eq!(
            told(Shape::ApiKeyCreate, &json!({ "name": "", "scopes": ["read", "read"], "expires_at": 1 })),
            [
                "/expires_at: must be a time in RFC 3339, such as `2026-07-01T10:30:00+02:00`, or `null`",
                "/name: must be one line of 1 to 200 characters, without control characters",
                "/scopes: names an item twice",
            ]
        );
    }

    #[test]
    fn what_the_handlers_take_is_left_to_them() {
        let ip = json!({ "allowed_ips": ["10.0.0.0/8", "::ffff:10.0.0.1"] });
        let spelled = json!({ "event_types": ["Push Hook", "*.paid", ""] });
        let rule =
            "must be an event type such as `invoice.paid`, or a pattern such as `invoice.*`, of up to 128 characters";
        assert_eq!(told(Shape::SubscriptionUpdate, &spelled), [format!("/event_types/2: {rule}")]);
        assert_eq!(told(Shape::SourceUpdate, &ip), [""; 0]);
        let config = json!({ "config": { "secrets": ["a"], "dedup": [] }, "max_body_bytes": null });
        assert_eq!(told(Shape::SourceUpdate, &config), [""; 0]);
    }
}
