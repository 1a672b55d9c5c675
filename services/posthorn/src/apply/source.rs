//! A source of the file, in the words of the API.

use posthorn_core::provider::Provider;
use posthorn_core::signature::split_secrets;
use posthorn_store::sources::fingerprint;
use serde_json::{Map, Value, json};

use super::file::Source;
use super::run::{Tenants, no_tenant};
use crate::diff::differences;
use crate::error::CliError;

/// The fields of a source, with the id of the tenant that its routing names by `external_id`.
pub fn fields(source: &Source, tenants: &Tenants) -> Result<Map<String, Value>, CliError> {
    let mut fields = source.fields.clone();
    let routing = fields.get_mut("routing").and_then(Value::as_object_mut);
    if let Some(routing) = routing
        && let Some(tenant) = routing.remove("tenant")
    {
        let external_id = tenant.as_str().unwrap_or_default();
        let id = tenants.get(external_id).ok_or_else(|| no_tenant(external_id))?;
        // Not there yet only in a plan, which shows the name instead.
        let id = id.clone().unwrap_or_else(|| external_id.to_owned());
        routing.insert("tenant_id".to_owned(), json!(id));
    }
    Ok(fields)
}

/// What a configuration has otherwise than that of the `current` source.
pub fn config_differences(current: &Value, provider: &str, config: &Value) -> Result<Vec<String>, CliError> {
    let refused = |detail: String| CliError::Apply(format!("`config` of {}: {detail}", current["slug"]));
    let provider: Provider = provider.parse().map_err(|_| refused(format!("there is no provider `{provider}`")))?;
    let (rest, secrets) = split_secrets(provider, config.clone()).map_err(|error| refused(error.to_string()))?;
    let mut lines = differences(&json!({ "config": current["config"] }), &json!({ "config": rest }));
    let wanted: Vec<String> = secrets.iter().map(fingerprint).collect();
    // Those that end by themselves were rotated out.
    let kept = current["secrets"].as_array().into_iter().flatten().filter(|secret| secret["expires_at"].is_null());
    let known: Vec<&str> = kept.filter_map(|secret| secret["fingerprint"].as_str()).collect();
    if wanted != known {
        lines.push(format!("/config/secrets, by fingerprint: {} → {}", json!(known), json!(wanted)));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_told_apart_by_their_fingerprints_and_never_shown() {
        let print = fingerprint(&"whsec_1".to_owned().into());
        let current = json!({
            "slug": "stripe", "config": { "tolerance_seconds": 300 },
            "secrets": [{ "fingerprint": print, "expires_at": null }, { "fingerprint": "old", "expires_at": "2026-01-01T00:00:00Z" }],
        });
        let differ = |config| config_differences(&current, "stripe", &config).unwrap();
        assert_eq!(differ(json!({ "tolerance_seconds": 300, "secrets": ["whsec_1"] })), [""; 0]);
        let lines = differ(json!({ "secrets": ["whsec_2", "whsec_1"] }));
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines.concat().contains(&print) && !lines.concat().contains("whsec_"), "{lines:?}");
    }

    #[test]
    fn a_routing_names_its_tenant_by_external_id() {
        let tenants = Tenants::from([("acme".to_owned(), Some("ten_1".to_owned())), ("new".to_owned(), None)]);
        let source = |tenant: &str| Source {
            slug: "s".into(),
            provider: "stripe".into(),
            fields: Map::from_iter([("routing".into(), json!({ "kind": "tenant", "tenant": tenant }))]),
        };
        assert_eq!(
            fields(&source("acme"), &tenants).unwrap()["routing"],
            json!({ "kind": "tenant", "tenant_id": "ten_1" })
        );
        assert_eq!(fields(&source("new"), &tenants).unwrap()["routing"]["tenant_id"], "new");
        assert!(fields(&source("nobody"), &tenants).is_err());
    }
}
