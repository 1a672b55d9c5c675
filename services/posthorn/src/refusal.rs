//! An answer that refuses, as text for a person.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

/// An answer other than 2xx.
#[derive(Debug)]
pub struct Refusal {
    status: u16,
    body: String,
    /// Which setting to look at, where the status says so.
    hint: Option<&'static str>,
}

/// A problem (RFC 9457), as the services answer with.
#[derive(Deserialize)]
struct Problem {
    title: String,
    detail: String,
    request_id: Option<String>,
    #[serde(default)]
    errors: Vec<Field>,
}

#[derive(Deserialize)]
struct Field {
    pointer: String,
    detail: String,
}

impl Refusal {
    pub fn new(status: u16, body: String) -> Self {
        Self { status, body, hint: None }
    }

    /// Adds what to do about a token that is not accepted.
    pub fn with_hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint).filter(|_| self.status == 401);
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status;
        // serde would take a list for a problem.
        let problem = serde_json::from_str::<Value>(&self.body).ok().filter(Value::is_object);
        match problem.and_then(|problem| serde_json::from_value::<Problem>(problem).ok()) {
            None => write!(f, "the answer was {status}: {}", self.body.trim())?,
            Some(Problem { title, detail, request_id, errors }) => {
                write!(f, "{title} ({status})")?;
                // Of one field, the detail says the same.
                if errors.len() != 1 {
                    write!(f, ": {detail}")?;
                }
                for Field { pointer, detail } in errors {
                    let place = if pointer.is_empty() { String::new() } else { format!("{pointer}: ") };
                    write!(f, "\n  {place}{detail}")?;
                }
                if let Some(id) = request_id {
                    write!(f, "\n  request {id}")?;
                }
            }
        }
        match self.hint {
            Some(hint) => write!(f, "\n  {hint}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(status: u16, body: &Value) -> String {
        Refusal::new(status, body.to_string()).with_hint("set POSTHORN_OPERATOR_TOKEN").to_string()
    }

    #[test]
    fn a_problem_is_told_as_text_with_a_line_for_each_field() {
        let mut problem = json!({
            "type": "/problems/validation-failed", "title": "Validation failed", "status": 422,
            "detail": "2 fields are wrong", "request_id": "req_1",
            "errors": [{ "pointer": "/url", "detail": "is required" }, { "pointer": "/nmae", "detail": "is not a known field" }],
        });
        assert_eq!(
            told(422, &problem),
            "Validation failed (422): 2 fields are wrong\n  /url: is required\n  /nmae: is not a known field\n  request req_1"
        );
        problem["errors"] = json!([{ "pointer": "", "detail": "the body is a JSON object" }]);
        assert_eq!(told(422, &problem), "Validation failed (422)\n  the body is a JSON object\n  request req_1");
        let bad_token = json!({ "title": "Unauthorized", "detail": "the token is unknown, expired or revoked" });
        assert_eq!(
            told(401, &bad_token),
            "Unauthorized (401): the token is unknown, expired or revoked\n  set POSTHORN_OPERATOR_TOKEN"
        );
        assert_eq!(told(502, &json!("Bad Gateway")), "the answer was 502: \"Bad Gateway\"");
    }
}
