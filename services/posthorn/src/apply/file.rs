//! A deployment as a file says it.

use std::collections::BTreeSet;
use std::path::Path;

use posthorn_core::plain::plain;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::CliError;
use crate::event_types::Entry;

/// A section that is left out is left alone, by `--prune` as well.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub event_types: Option<Vec<Entry>>,
    pub tenants: Option<Vec<Tenant>>,
    pub sources: Option<Vec<Source>>,
    pub subscriptions: Option<Vec<Subscription>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// What names it.
    pub external_id: String,
    pub name: String,
}

/// One of the operator's. Further fields are those of the API.
#[derive(Debug, Deserialize)]
pub struct Source {
    /// What names it.
    pub slug: String,
    pub provider: String,
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// Further fields are those of the API.
#[derive(Debug, Deserialize)]
pub struct Subscription {
    /// Its tenant's `external_id`, and its name there: what names it.
    pub tenant: String,
    pub name: String,
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl File {
    /// Reads a YAML or JSON file. `${NAME}` in the configuration of a source, and in the secret, the headers
    /// and the TLS of a subscription, is a variable of the environment.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let text = std::fs::read_to_string(path).map_err(|source| CliError::File { path: path.to_owned(), source })?;
        Self::parse(&text, |name| std::env::var(name).ok())
            .map_err(|fault| CliError::Deployment { path: path.to_owned(), fault })
    }

    fn parse(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        only_objects(text)?;
        let mut file: Self = serde_yaml_ng::from_str(text).map_err(|error| told(&error))?;
        let sources = file.sources.iter_mut().flatten().flat_map(|source| source.fields.get_mut("config"));
        let subscriptions = file.subscriptions.iter_mut().flatten();
        let subscriptions = subscriptions.flat_map(|subscription| &mut subscription.fields);
        let secret = subscriptions.filter(|(name, _)| ["secret", "headers", "tls"].contains(&name.as_str()));
        for value in sources.chain(secret.map(|(_, value)| value)) {
            fill_in(value, &variable)?;
        }
        file.check()?;
        Ok(file)
    }

    /// Two of one name would take turns.
    fn check(&self) -> Result<(), String> {
        let event_types = self.event_types.iter().flatten().map(|entry| format!("event type {}", entry.name));
        let tenants = self.tenants.iter().flatten().map(|tenant| format!("tenant {}", tenant.external_id));
        let sources = self.sources.iter().flatten().map(|source| format!("source {}", source.slug));
        let subscriptions = self.subscriptions.iter().flatten().map(Subscription::label);
        let mut seen = BTreeSet::new();
        for name in event_types.chain(tenants).chain(sources).chain(subscriptions) {
            if !seen.insert(name.clone()) {
                return Err(format!("names the {name} twice"));
            }
        }
        Ok(())
    }
}

impl Subscription {
    pub fn label(&self) -> String {
        format!("subscription {}/{}", self.tenant, self.name)
    }
}

/// Fails for a list where an object belongs, which serde would read field by field.
fn only_objects(text: &str) -> Result<(), String> {
    // A text that is no YAML is told with its place by the next reader.
    let Ok(file) = serde_yaml_ng::from_str::<Value>(text) else { return Ok(()) };
    let sections = file
        .as_object()
        .ok_or("the file must be an object with `event_types`, `tenants`, `sources` or `subscriptions`")?;
    for (name, section) in sections {
        let items = section.as_array().into_iter().flatten();
        if let Some(index) = items.into_iter().position(|item| !item.is_object()) {
            return Err(format!("`{name}[{index}]` must be an object"));
        }
    }
    Ok(())
}

/// Where a file is wrong, and how.
fn told(error: &serde_yaml_ng::Error) -> String {
    let place = error.location().map(|at| format!("line {}, column {}: ", at.line(), at.column())).unwrap_or_default();
    let message = error.to_string();
    // Before its message serde has the path, such as `sources[0]`.
    let (path, message) = message.split_once(": ").filter(|(path, _)| !path.contains(' ')).unwrap_or(("", &message));
    let (field, detail) = plain(message);
    let path = match field {
        Some(field) if path.is_empty() => format!("`{field}` "),
        Some(field) if path.ends_with(&format!(".{field}")) => format!("`{path}` "),
        Some(field) => format!("`{path}.{field}` "),
        None if path.is_empty() => String::new(),
        None => format!("`{path}` "),
    };
    format!("{place}{path}{detail}")
}

fn fill_in(value: &mut Value, variable: &impl Fn(&str) -> Option<String>) -> Result<(), String> {
    match value {
        Value::String(text) => *text = filled_in(text, variable)?,
        Value::Array(items) => items.iter_mut().try_for_each(|item| fill_in(item, variable))?,
        Value::Object(fields) => fields.values_mut().try_for_each(|field| fill_in(field, variable))?,
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    Ok(())
}

fn filled_in(text: &str, variable: &impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        // Without the text, which may be half a secret.
        let unclosed = || "a text has `${` without `}`".to_owned();
        let (name, behind) = after.split_once('}').ok_or_else(unclosed)?;
        let value = variable(name);
        let value = value.ok_or_else(|| format!("the variable `{name}` is not in the environment"))?;
        filled.push_str(before);
        filled.push_str(&value);
        rest = behind;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> Result<File, String> {
        File::parse(text, |name| (name == "STRIPE_SECRET").then(|| "whsec_1".to_owned()))
    }

    #[test]
    fn secrets_come_from_the_environment_and_one_that_is_missing_is_named() {
        let file = |name: &str| {
            format!(
                "sources: [{{slug: stripe, provider: stripe, config: {{secrets: ['${{{name}}}', 'x${{{name}}}y$z']}}}}]"
            )
        };
        let sources = parse(&file("STRIPE_SECRET")).unwrap().sources.unwrap();
        assert_eq!(sources[0].fields["config"]["secrets"], json!(["whsec_1", "xwhsec_1y$z"]));
        let missing = parse(&file("OTHER")).unwrap_err();
        assert!(missing.contains("`OTHER`"), "{missing}");
        assert!(parse("sources: [{slug: s, provider: p, config: {secrets: ['${x']}}]").is_err());
    }

    #[test]
    fn a_list_is_no_object() {
        assert!(parse("[]").unwrap_err().starts_with("the file must be an object"));
        assert!(parse("- [{name: a.b}]").is_err());
        assert_eq!(parse("tenants: [[acme, Acme]]").unwrap_err(), "`tenants[0]` must be an object");
        assert_eq!(parse("event_types: [{name: a.b}, [a.b]]").unwrap_err(), "`event_types[1]` must be an object");
    }

    #[test]
    fn what_is_named_twice_or_not_known_is_refused() {
        let twice = "subscriptions: [{tenant: acme, name: A, url: x}, {tenant: acme, name: A, url: y}]";
        assert!(parse(twice).unwrap_err().contains("acme/A"));
        assert!(parse("subscriptions: [{tenant: acme, name: A}, {tenant: other, name: A}]").is_ok());
        assert_eq!(
            parse("tennants: []").unwrap_err(),
            "line 1, column 1: `tennants` is not a known field; did you mean `tenants`?"
        );
        assert_eq!(
            parse("tenants:\n- {name: Acme}").unwrap_err(),
            "line 2, column 3: `tenants[0].external_id` is required"
        );
        assert!(parse("tenants: [").unwrap_err().starts_with("line "));
        assert!(parse("subscriptions: [{name: A}]").is_err());
    }
}
