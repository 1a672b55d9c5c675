//! Presets: schemes of providers, as data in `presets.json`. Adding one needs no code.

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::provider::Provider;
use crate::signature::config::{ConfigError, read, secrets_field};
use crate::signature::scheme::source::DedupParts;
use crate::signature::scheme::{Additions, Scheme, Spec};
use crate::words;

const PRESETS: &str = include_str!("presets.json");

/// The configuration of a source that is verified by a scheme.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SchemeConfig {
    #[serde(default)]
    public_keys: Vec<String>,
    tolerance_seconds: Option<u64>,
    public_url: Option<String>,
    dedup: Option<DedupParts>,
    /// The word agreed on for a handshake by GET. It lets nobody sign, so it is no secret.
    verify_token: Option<String>,
    /// `generic` only, as is `scheme`.
    preset: Option<String>,
    scheme: Option<Value>,
}

/// The names of the presets, sorted.
pub fn preset_names() -> Vec<String> {
    presets().into_keys().collect()
}

/// Makes the scheme of a source ready for use.
pub(crate) fn scheme(provider: Provider, config: &Value, secrets: &[SecretString]) -> Result<Scheme, ConfigError> {
    let config: SchemeConfig = read("", config)?;
    chosen(provider, &config)?.compile(&Additions {
        secrets,
        secrets_field: secrets_field(provider),
        public_keys: &config.public_keys,
        tolerance_seconds: config.tolerance_seconds,
        public_url: config.public_url.as_deref(),
        dedup: config.dedup,
        verify_token: config.verify_token,
        takes_path_event: matches!(provider, Provider::Generic | Provider::Internal),
    })
}

/// The scheme of a source, before it has keys.
pub(crate) fn spec(provider: Provider, config: &Value) -> Result<Spec, ConfigError> {
    chosen(provider, &read("", config)?)
}

fn chosen(provider: Provider, config: &SchemeConfig) -> Result<Spec, ConfigError> {
    let is_generic = provider == Provider::Generic;
    match (&config.preset, &config.scheme) {
        (None, None) if is_generic => Err(ConfigError::at("scheme", "is required, or `preset`")),
        (None, None) => preset(provider.as_str()),
        (Some(_), Some(_)) => Err(ConfigError::at("scheme", "comes in place of `preset`, not beside it")),
        (Some(name), None) if is_generic => preset(name),
        (None, Some(scheme)) if is_generic => Spec::parse_own(scheme),
        (Some(_), None) => Err(ConfigError::at("preset", "is for the provider `generic` only")),
        (None, Some(_)) => Err(ConfigError::at("scheme", "is for the provider `generic` only")),
    }
}

fn preset(name: &str) -> Result<Spec, ConfigError> {
    let presets = presets();
    let Some(preset) = presets.get(name) else {
        let known: Vec<_> = presets.keys().map(String::as_str).collect();
        return Err(ConfigError::at("preset", words::named(name, &known)));
    };
    serde_json::from_str(preset.get()).map_err(|error| ConfigError::at("preset", error.to_string()))
}

/// The presets unread: a source needs one of them.
fn presets() -> BTreeMap<String, Box<RawValue>> {
    // The file is part of the program, and a test reads it.
    serde_json::from_str(PRESETS).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Something that is a key to every algorithm and encoding in use.
    fn config(name: &str) -> (Value, Vec<SecretString>) {
        const P256: &str = concat!(
            "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAETj9Jx0qE3v1QYFuJ5qn2T9hxxKEA",
            "wxlrfASzUvxKJ3j705p8nrbNhlzd4BESb2KZ7uyqeVBjrKONK4vpA+paEQ==",
        );
        let (public_keys, secrets) = match name {
            "sendgrid" => (vec![P256.to_owned()], vec![]),
            "discord" => (vec!["00".repeat(32)], vec![]),
            "telnyx" => (vec![format!("{}=", "A".repeat(43))], vec![]),
            _ => (vec![], vec!["abcdef0123456789".into()]),
        };
        let mut config = json!({ "preset": name, "public_keys": public_keys });
        if ["square", "hubspot_v3"].contains(&name) {
            config["public_url"] = json!("https://hooks.example.com/in");
        }
        (config, secrets)
    }

    #[test]
    fn every_preset_keeps_the_rules() {
        let names = preset_names();
        assert!(names.len() >= 20, "{names:?}");
        for name in names {
            let (config, secrets) = config(&name);
            let scheme = scheme(Provider::Generic, &config, &secrets).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(scheme.is_verifying(), "{name}");
        }
    }
}
