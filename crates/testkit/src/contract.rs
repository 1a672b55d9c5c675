mod closed;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jsonschema::{Draft, Validator};
use reqwest::{Method, RequestBuilder};
use serde_json::{Map, Value};

use crate::Answer;

/// Sends a request to one of our services; fails the test when the answer is not one that the contract
/// has for it.
pub async fn exchange(request: RequestBuilder) -> Answer {
    let (client, request) = request.build_split();
    let request = request.expect("a request");
    let (method, path) = (request.method().clone(), request.url().path().to_owned());
    let response = client.execute(request).await.expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.expect("a body");
    let json = serde_json::from_str(&text).unwrap_or(Value::Null);
    let answer = Answer { status, headers, text, json };
    if let Err(breach) = contract().check(&method, &path, &answer) {
        panic!("{breach}\n{method} {path}\n→ {answer:?}");
    }
    answer
}

/// `proto/openapi.yaml`, with its answers closed.
struct Contract {
    document: Value,
    /// The paths, the more literal ones first.
    templates: Vec<String>,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

fn contract() -> &'static Contract {
    static CONTRACT: OnceLock<Contract> = OnceLock::new();
    CONTRACT.get_or_init(|| {
        let mut document: Value = serde_yaml_ng::from_str(include_str!("../../../proto/openapi.yaml")).expect("YAML");
        closed::close(&mut document);
        let mut templates: Vec<String> = document["paths"].as_object().expect("paths").keys().cloned().collect();
        templates.sort_by_key(|template| template.matches('{').count());
        Contract { document, templates, validators: Mutex::default() }
    })
}

impl Contract {
    fn check(&self, method: &Method, path: &str, answer: &Answer) -> Result<(), String> {
        // Browsers' preflights are no operations.
        if method == Method::OPTIONS {
            return Ok(());
        }
        let Some(template) = self.templates.iter().find(|template| is_path_of(template, path)) else {
            return self.check_problem(answer, 404);
        };
        let at = format!("/paths/{}/{}", escaped(template), method.as_str().to_lowercase());
        let Some(operation) = self.document.pointer(&at) else {
            return self.check_problem(answer, 405);
        };
        let status = answer.status.to_string();
        let key = [status.clone(), format!("{}XX", &status[..1])]
            .into_iter()
            .find(|key| operation["responses"].get(key).is_some())
            .ok_or_else(|| format!("the contract has no {status} for this operation"))?;
        let (response, at) = resolved(&self.document, format!("{at}/responses/{key}"));
        match response.get("content").and_then(Value::as_object) {
            None if answer.text.is_empty() => Ok(()),
            None => Err("a body where the contract has none".to_owned()),
            Some(content) => {
                self.check_body(content, &format!("{at}/content"), answer)?;
                check_problem_type(response, answer)
            }
        }
    }

    fn check_body(&self, content: &Map<String, Value>, at: &str, answer: &Answer) -> Result<(), String> {
        let media_type = answer.media_type();
        let key = [media_type.as_str(), "*/*"]
            .into_iter()
            .find(|key| content.contains_key(*key))
            .ok_or_else(|| format!("the content type is `{media_type}`, which the contract does not have"))?;
        let text = Value::String(answer.text.clone());
        // Under `*/*` any bytes are allowed, also those of a JSON text.
        let value = if key.ends_with("json") { &answer.json } else { &text };
        self.check_schema(format!("{at}/{}/schema", escaped(key)), value)
    }

    /// Of what the contract has no operation for, it says that it is refused with a problem.
    fn check_problem(&self, answer: &Answer, status: u16) -> Result<(), String> {
        if answer.status != status || answer.media_type() != "application/problem+json" {
            return Err(format!("the contract does not know this operation, which is a problem of status {status}"));
        }
        self.check_schema("/components/schemas/Problem".to_owned(), &answer.json)
    }

    fn check_schema(&self, at: String, value: &Value) -> Result<(), String> {
        let validator = self.validator(at);
        let errors: Vec<String> =
            validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        if errors.is_empty() { Ok(()) } else { Err(format!("it is not as the contract has it: {}", errors.join("; "))) }
    }

    fn validator(&self, at: String) -> Arc<Validator> {
        let mut validators = self.validators.lock().unwrap_or_else(PoisonError::into_inner);
        let build = || {
            // Beside what its references lead to: the contract itself.
            let mut schema = self.document.clone();
            schema["$ref"] = format!("#{}", at.replace('{', "%7B").replace('}', "%7D")).into();
            let options = jsonschema::options().with_draft(Draft::Draft202012).should_validate_formats(true);
            Arc::new(options.build(&schema).expect("a schema"))
        };
        Arc::clone(validators.entry(at.clone()).or_insert_with(build))
    }
}

/// The value at `at`, or the one that it refers to, and where that is.
fn resolved(document: &Value, at: String) -> (&Value, String) {
    let found = document.pointer(&at).expect("a value");
    match found.get("$ref").and_then(Value::as_str) {
        Some(reference) => resolved(document, reference.trim_start_matches('#').to_owned()),
        None => (found, at),
    }
}

fn check_problem_type(response: &Value, answer: &Answer) -> Result<(), String> {
    let Some(types) = response.get("x-problem-types").and_then(Value::as_array) else { return Ok(()) };
    let is_one = types.contains(&answer.json["type"]) && answer.json["status"] == answer.status;
    if is_one { Ok(()) } else { Err(format!("a problem of another kind than {types:?}")) }
}

fn is_path_of(template: &str, path: &str) -> bool {
    let (template, path): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
    let fits = |(part, given): (&&str, &&str)| if part.starts_with('{') { !given.is_empty() } else { part == given };
    template.len() == path.len() && template.iter().zip(&path).all(fits)
}

fn escaped(part: &str) -> String {
    part.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
    use serde_json::json;

    use super::*;

    fn check(method: Method, path: &str, status: u16, media_type: &'static str, body: &Value) -> Result<(), String> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(media_type))]);
        contract().check(&method, path, &Answer { status, headers, text: body.to_string(), json: body.clone() })
    }

    #[test]
    fn an_answer_that_the_contract_does_not_have_is_a_breach() {
        let list = json!({ "data": [], "next_cursor": null });
        let get = |status, media_type, body: &Value| check(Method::GET, "/v1/tenants", status, media_type, body);
        assert_eq!(get(200, "application/json", &list), Ok(()));
        assert!(get(200, "application/json", &json!({ "data": [] })).is_err(), "a field is missing");
        assert!(get(200, "application/json", &json!({ "data": [{}], "next_cursor": null })).is_err(), "deep down");
        assert!(get(200, "text/plain", &list).is_err(), "another content type");
        assert!(get(201, "application/json", &list).is_err(), "another status");
        assert!(get(404, "application/problem+json", &json!({ "status": 404 })).is_err(), "a problem without a type");
        let problem = json!({
            "type": "/problems/unauthorized",
            "title": "Unauthorized",
            "status": 401,
            "detail": "there is no token",
            "request_id": "req_019f1d0a5d417c0e9d6b2f4a8e1c3b57",
        });
        assert_eq!(get(401, "application/problem+json", &problem), Ok(()));
        assert!(get(403, "application/problem+json", &problem).is_err(), "a problem of another kind");
        assert!(check(Method::GET, "/v1/nothing", 200, "application/json", &list).is_err(), "another path");
        assert!(check(Method::PUT, "/v1/tenants", 200, "application/json", &list).is_err(), "another method");
    }

    #[test]
    fn a_field_that_the_contract_lacks_is_a_breach() {
        let tenant = json!({
            "id": "ten_019f1ccc9f407a1e8c3d5b2f60718293",
            "name": "Acme",
            "external_id": null,
            "created_at": "2026-07-01T08:30:00.000Z",
            "updated_at": "2026-07-01T08:30:00.000Z",
        });
        let key = json!({
            "id": "key_019f1cd01a6073b2a4f10c9d8e7b6a55",
            "tenant_id": tenant["id"],
            "name": "Backend",
            "scopes": ["read"],
            "prefix": "phk_AbC1",
            "expires_at": null,
            "last_used_at": null,
            "created_at": "2026-07-01T08:33:48.000Z",
            "key": "phk_AbC1dE2fG3hI4jK5lM6nO7pQ8rS9tU0vW1xY2zA3bC4",
        });
        let keys = "/v1/tenants/ten_019f1ccc9f407a1e8c3d5b2f60718293/api-keys";
        let list = |tenant: &Value| json!({ "data": [tenant], "next_cursor": null });
        let with_more = |value: &Value| {
            let mut value = value.clone();
            value["more"] = 1.into();
            value
        };
        let list_of = |tenant: &Value| check(Method::GET, "/v1/tenants", 200, "application/json", &list(tenant));
        let created = |key: &Value| check(Method::POST, keys, 201, "application/json", key);
        assert_eq!((list_of(&tenant), created(&key)), (Ok(()), Ok(())));
        assert!(list_of(&with_more(&tenant)).is_err(), "in a list");
        assert!(created(&with_more(&key)).is_err(), "in a schema that takes in another");
    }
}
