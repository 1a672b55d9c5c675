//! A source's configuration as its owner writes it, taken apart into public words and secrets.

use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use crate::plain::plain;
use crate::provider::Provider;

/// Most secrets or public keys that a source holds at once. Each one is tried on every request.
pub const MAX_KEYS: usize = 10;

/// A configuration that cannot be used. `pointer` is a JSON Pointer (RFC 6901) into the source,
/// such as `/config/secrets/0`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {detail}")]
pub struct ConfigError {
    pub pointer: String,
    pub detail: String,
}

impl ConfigError {
    /// `path` is below `/config`, such as `secrets/0`; empty for the whole.
    pub(crate) fn at(path: &str, detail: impl Into<String>) -> Self {
        let pointer = if path.is_empty() { "/config".to_owned() } else { format!("/config/{path}") };
        Self { pointer, detail: detail.into() }
    }
}

/// The name of the field with the secrets.
pub(crate) fn secrets_field(provider: Provider) -> &'static str {
    if provider == Provider::Internal { "tokens" } else { "secrets" }
}

/// What a secret of a source is, in the words of a refusal.
pub const SECRET: &str =
    "must be a text of 1 to 1024 characters, without control characters and without a blank at an end";

/// Whether a text can be a source's secret. People choose GitHub's themselves, so it may have spaces and any
/// letters; but one that was pasted with a blank or its line end would verify nothing.
pub fn is_secret(text: &str) -> bool {
    (1..=1024).contains(&text.chars().count()) && !text.contains(|c: char| c.is_ascii_control()) && text.trim() == text
}

/// Takes the secrets out of a client's `config`: the public rest, and the secrets in their order.
///
/// Fails if `config` is no object, or its secrets are not a list of texts.
pub fn split_secrets(provider: Provider, config: Value) -> Result<(Value, Vec<SecretString>), ConfigError> {
    let Value::Object(mut fields) = config else {
        return Err(ConfigError::at("", "must be a JSON object"));
    };
    let name = secrets_field(provider);
    let secrets = match fields.remove(name) {
        None => vec![],
        Some(Value::Array(items)) => items
            .into_iter()
            .enumerate()
            .map(|(index, item)| match item {
                Value::String(text) if is_secret(&text) => Ok(SecretString::from(text)),
                _ => Err(ConfigError::at(&format!("{name}/{index}"), SECRET)),
            })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(ConfigError::at(name, "must be a list of texts, the newest first")),
    };
    Ok((Value::Object(fields), secrets))
}

/// Reads a part of the public configuration, naming the field at fault. `place` is where the part
/// stands below `/config`; empty for the whole.
pub(crate) fn read<T: DeserializeOwned>(place: &str, config: &Value) -> Result<T, ConfigError> {
    serde_path_to_error::deserialize(config).map_err(|error| {
        let message = error.inner().to_string();
        let (field, detail) = plain(&message);
        let mut steps: Vec<_> = error.path().iter().filter_map(step).collect();
        // serde names an unknown field, and not one that is missing.
        steps.extend(field.map(escaped).filter(|field| steps.last() != Some(field)));
        let path: Vec<_> = Some(place.to_owned()).filter(|place| !place.is_empty()).into_iter().chain(steps).collect();
        ConfigError::at(&path.join("/"), detail)
    })
}

fn step(segment: &Segment) -> Option<String> {
    match segment {
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Map { key } => Some(escaped(key)),
        Segment::Enum { variant } => Some(escaped(variant)),
        Segment::Unknown => None,
    }
}

/// A name as a step of a JSON Pointer (RFC 6901 §3).
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;
    use serde_json::json;

    use super::*;
    use crate::signature::Verifier;

    fn fault(provider: Provider, config: Value) -> String {
        let verifier = split_secrets(provider, config)
            .and_then(|(public, secrets)| Verifier::new(provider, &public, secrets).map(|_| ()));
        verifier.expect_err("a fault").pointer
    }

    #[test]
    fn secrets_are_taken_out_and_the_rest_stays() {
        let config = json!({ "secrets": ["a", "b"], "tolerance_seconds": 60 });
        let (public, secrets) = split_secrets(Provider::Stripe, config).unwrap();
        assert_eq!(public, json!({ "tolerance_seconds": 60 }));
        assert_eq!(secrets.iter().map(ExposeSecret::expose_secret).collect::<Vec<_>>(), ["a", "b"]);
        let (public, tokens) = split_secrets(Provider::Internal, json!({ "tokens": ["t"] })).unwrap();
        assert_eq!((public, tokens.len()), (json!({}), 1));
    }

    #[test]
    fn a_configuration_that_cannot_be_used_names_the_field_at_fault() {
        let scheme = |scheme: Value| json!({ "secrets": ["s"], "scheme": scheme });
        let signature = json!({ "header": "X-Sig" });
        let cases = [
            (Provider::Stripe, json!([]), "/config"),
            (Provider::Stripe, json!({}), "/config/secrets"),
            (Provider::Stripe, json!({ "secrets": "a" }), "/config/secrets"),
            (Provider::Stripe, json!({ "secrets": ["a", 1] }), "/config/secrets/1"),
            (Provider::Stripe, json!({ "secrets": [""] }), "/config/secrets/0"),
            (Provider::Stripe, json!({ "secrets": vec!["a"; 11] }), "/config/secrets"),
            (Provider::Stripe, json!({ "secrets": ["a"], "secret": "b" }), "/config/secret"),
            (Provider::Stripe, json!({ "secrets": ["a"], "tolerance_seconds": -1 }), "/config/tolerance_seconds"),
            (
                Provider::Stripe,
                json!({ "secrets": ["a"], "tolerance_seconds": 1e9 as u64 }),
                "/config/tolerance_seconds",
            ),
            (Provider::Stripe, json!({ "secrets": ["a"], "public_keys": ["b"] }), "/config/public_keys"),
            (Provider::Stripe, json!({ "secrets": ["a"], "public_url": "https://a.example" }), "/config/public_url"),
            (Provider::Stripe, json!({ "secrets": ["a"], "preset": "slack" }), "/config/preset"),
            (Provider::Stripe, json!({ "secrets": ["a"], "dedup": [] }), "/config/dedup"),
            (Provider::Github, json!({ "secrets": ["a"], "tolerance_seconds": 5 }), "/config/tolerance_seconds"),
            (Provider::Close, json!({ "secrets": ["no hex"] }), "/config/secrets/0"),
            (Provider::StandardWebhooks, json!({ "secrets": ["whsec_-_-_"] }), "/config/secrets/0"),
            (Provider::Telnyx, json!({}), "/config/public_keys"),
            (Provider::Telnyx, json!({ "public_keys": ["AAAA"] }), "/config/public_keys/0"),
            (Provider::Internal, json!({ "secrets": ["a"] }), "/config/secrets"),
            (Provider::Internal, json!({}), "/config/tokens"),
            (Provider::Twilio, json!({ "secrets": ["a"] }), "/config/public_url"),
            (Provider::Twilio, json!({ "secrets": ["a"], "public_url": "/hooks" }), "/config/public_url"),
            (Provider::Ses, json!({}), "/config/topic_arns"),
            (Provider::Ses, json!({ "topic_arns": ["arn:aws:sns:a", "b"] }), "/config/topic_arns/1"),
            (Provider::GooglePubsub, json!({ "audience": "a" }), "/config/service_account_email"),
            (Provider::Generic, json!({ "secrets": ["a"] }), "/config/scheme"),
            (Provider::Generic, json!({ "secrets": ["a"], "preset": "nobody" }), "/config/preset"),
            (Provider::Generic, json!({ "secrets": ["a"], "preset": "square" }), "/config/public_url"),
            (Provider::Generic, scheme(json!({})), "/config/scheme/algorithm"),
            (
                Provider::Generic,
                scheme(json!({ "signature": signature, "signed": "{body}" })),
                "/config/scheme/algorithm",
            ),
            (
                Provider::Generic,
                scheme(json!({ "algorithm": "none", "signature": ["X-Sig"] })),
                "/config/scheme/signature",
            ),
            (Provider::Stripe, json!({ "secrets": ["a "] }), "/config/secrets/0"),
            (Provider::Generic, scheme(json!({ "algorithm": "md5" })), "/config/scheme/algorithm"),
            (Provider::Generic, scheme(json!({ "algorithm": "hmac_sha256" })), "/config/scheme/signature"),
            (Provider::Generic, scheme(json!({ "algorithm": "none" })), "/config/secrets"),
            (
                Provider::Generic,
                scheme(json!({ "algorithm": "hmac_sha256", "signature": signature, "signed": "{timestamp}" })),
                "/config/scheme/signed",
            ),
            (
                Provider::Generic,
                scheme(json!({
                    "algorithm": "hmac_sha256", "signature": signature, "signed": "{body}",
                    "timestamp": { "header": "X-Time", "tolerance_seconds": 300 },
                })),
                "/config/scheme/timestamp",
            ),
            (
                Provider::Generic,
                scheme(json!({
                    "algorithm": "hmac_sha256", "signature": signature, "signed": "{body}",
                    "leaves_body_unsigned": true,
                })),
                "/config/scheme/leaves_body_unsigned",
            ),
            (
                Provider::Generic,
                scheme(json!({
                    "algorithm": "hmac_sha256", "signature": signature, "signed": "{body}",
                    "extract": { "event_id": { "json": "id" } },
                })),
                "/config/scheme/extract/event_id",
            ),
        ];
        for (provider, config, pointer) in cases {
            assert_eq!(fault(provider, config.clone()), pointer, "{provider}: {config}");
        }
    }
}
