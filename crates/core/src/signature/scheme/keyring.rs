//! The keys of a source, read from its configuration.

use secrecy::ExposeSecret;

use crate::signature::config::{ConfigError, MAX_KEYS};
use crate::signature::scheme::key::{Algorithm, Key, KeyEncoding};
use crate::signature::scheme::spec::Additions;

/// The keys of a source: for every secret and public key, one per algorithm that takes it.
pub(crate) fn keys(
    algorithms: &[Algorithm],
    encoding: KeyEncoding,
    prefixes: &[String],
    additions: &Additions<'_>,
) -> Result<Vec<Key>, ConfigError> {
    let (secret, public): (Vec<Algorithm>, Vec<Algorithm>) =
        algorithms.iter().partition(|algorithm| algorithm.is_secret());
    let fields = [
        (additions.secrets_field, additions.secrets.len(), secret.is_empty()),
        ("public_keys", additions.public_keys.len(), public.is_empty()),
    ];
    for (name, count, is_useless) in fields {
        if count > MAX_KEYS {
            return Err(ConfigError::at(name, format!("must be at most {MAX_KEYS}")));
        }
        if count > 0 && is_useless {
            return Err(ConfigError::at(name, "this scheme does not use them"));
        }
    }
    if additions.secrets.is_empty() && additions.public_keys.is_empty() {
        let name = if secret.is_empty() { "public_keys" } else { additions.secrets_field };
        return Err(ConfigError::at(name, "at least one is required: without it nothing can be verified"));
    }
    let mut keys = vec![];
    for (index, text) in additions.secrets.iter().enumerate() {
        let fail = |detail: &str| ConfigError::at(&format!("{}/{index}", additions.secrets_field), detail);
        let text = without_prefix(text.expose_secret(), prefixes);
        let bytes = encoding.decode(text).map_err(fail)?;
        if bytes.is_empty() {
            return Err(fail("is not empty"));
        }
        keys.extend(secret.iter().filter_map(|algorithm| Key::secret(*algorithm, bytes.clone(), index)));
    }
    for (index, text) in additions.public_keys.iter().enumerate() {
        let fail = |detail: &str| ConfigError::at(&format!("public_keys/{index}"), detail);
        let bytes = encoding.decode(without_prefix(text, prefixes)).map_err(fail)?;
        let fitting: Vec<_> = public.iter().filter_map(|algorithm| Key::public(*algorithm, encoding, &bytes)).collect();
        if fitting.is_empty() {
            return Err(fail("is not a public key of this scheme's algorithm"));
        }
        keys.extend(fitting);
    }
    Ok(keys)
}

fn without_prefix<'a>(text: &'a str, prefixes: &[String]) -> &'a str {
    prefixes.iter().find_map(|prefix| text.strip_prefix(prefix.as_str())).unwrap_or(text)
}
