//! The parameters in the query of an operation.

use serde_json::Value;

use super::{CONTRACT, walk};

/// Those that the contract has for one operation.
#[derive(Default)]
pub struct Query(Vec<&'static Value>);

impl Query {
    /// `path` is the operation's, such as `/v1/tenants/{tenant_id}`.
    pub fn of(method: &str, path: &str) -> Self {
        let operation = &CONTRACT.document["paths"][path][method.to_ascii_lowercase()];
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let parameters = parameters.map(|parameter| match parameter["$ref"].as_str() {
            Some(reference) => {
                &CONTRACT.document["components"]["parameters"][reference.rsplit('/').next().unwrap_or_default()]
            }
            None => parameter,
        });
        Self(parameters.filter(|parameter| parameter["in"] == "query").collect())
    }

    /// The names without which the operation does nothing.
    pub fn required(&self) -> impl Iterator<Item = &'static str> {
        self.0
            .iter()
            .filter(|parameter| parameter["required"] == true)
            .filter_map(|parameter| parameter["name"].as_str())
    }

    /// Reads a value. Fails with the rule that it breaks.
    pub fn read(&self, name: &str, text: String) -> Result<String, String> {
        let Some(parameter) = self.0.iter().find(|parameter| parameter["name"] == name) else { return Ok(text) };
        let schema = CONTRACT.resolved(&parameter["schema"]);
        let text = if schema["format"] == "date-time" { with_offset(text) } else { text };
        let value = match text.parse::<i64>() {
            Ok(number) if schema["type"] == "integer" => Value::from(number),
            _ => Value::from(text.clone()),
        };
        match walk::differences(&CONTRACT, schema, &value).into_iter().next() {
            Some(error) => Err(error.detail),
            None => Ok(text),
        }
    }

    /// The rule of a parameter that is required and was left out.
    pub fn left_out(&self, name: &str) -> String {
        let parameter = self.0.iter().find(|parameter| parameter["name"] == name);
        match parameter {
            Some(parameter) => format!("is required: {}", super::rule::rule(&CONTRACT, &parameter["schema"])),
            None => "is required".to_owned(),
        }
    }
}

/// In a query a `+` means a blank (WHATWG URL §5.1), so `…T10:00:00+02:00` comes with a blank before its offset.
fn with_offset(text: String) -> String {
    let is_offset =
        |text: &str| text.len() >= 2 && text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit() || b == b':');
    match text.rsplit_once(' ') {
        Some((time, offset)) if time.contains(':') && is_offset(offset) => format!("{time}+{offset}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_before_an_offset_is_the_plus_that_was_meant() {
        let query = Query::of("GET", "/v1/events");
        let read = |text: &str| query.read("from", text.to_owned());
        assert_eq!(read("2026-12-01T10:00:00 02:00"), Ok("2026-12-01T10:00:00+02:00".to_owned()));
        assert_eq!(read("2026-12-01T10:00:00-02:00"), Ok("2026-12-01T10:00:00-02:00".to_owned()));
        assert_eq!(read("2026-12-01 10:00:00Z"), Ok("2026-12-01 10:00:00Z".to_owned()));
        let detail = "must be a time in RFC 3339, such as `2026-07-01T10:30:00+02:00`";
        assert_eq!(read("yesterday"), Err(detail.to_owned()));
        assert_eq!(read("2026-12-01 10:00"), Err(detail.to_owned()));
    }

    #[test]
    fn each_parameter_tells_its_rule() {
        let read = |path: &str, name: &str, text: &str| Query::of("GET", path).read(name, text.to_owned()).unwrap_err();
        assert_eq!(read("/v1/events", "limit", "1000"), "must be a whole number from 1 to 200");
        assert_eq!(read("/v1/events", "limit", "ten"), "must be a whole number from 1 to 200");
        assert!(read("/v1/deliveries", "state", "Quued").ends_with("did you mean `queued`?"));
        assert_eq!(read("/v1/event-types", "archived", "yes"), "must be one of `true`, `false`");
        let purge = Query::of("DELETE", "/v1/dead-letters");
        assert_eq!(purge.required().collect::<Vec<_>>(), ["older_than_seconds"]);
        assert_eq!(purge.left_out("older_than_seconds"), "is required: a whole number from 0 to 34560000");
    }
}
