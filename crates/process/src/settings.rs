//! Settings: defaults in the program, overridden by the environment, complete and typed.
//!
//! `defaults.toml` beside each service's `settings.rs` gives every value and its reason. A variable
//! `<SERVICE>_SECTION__KEY` overrides one of them; the few that all services share have a `POSTHORN_`
//! name as well ([`SHARED`]). A key that nobody knows is refused by name.

use std::collections::HashMap;

use config::{Config, File, FileFormat, Map, Value};
use serde::de::DeserializeOwned;

/// Variables that several services read, and the setting each stands for. A service without that
/// setting ignores it.
pub const SHARED: [(&str, &str); 13] = [
    ("POSTHORN_DATABASE_URL", "database.url"),
    ("POSTHORN_BROKER_URL", "broker.url"),
    ("POSTHORN_SEALING_KEYS", "sealing_keys"),
    ("POSTHORN_OPERATOR_TOKEN", "operator_token"),
    ("POSTHORN_GATEWAY_URL", "gateway_url"),
    ("POSTHORN_ALLOW_HTTP", "endpoints.allow_http"),
    ("POSTHORN_ALLOW_PRIVATE_NETWORKS", "endpoints.allow_private_networks"),
    ("POSTHORN_ENDPOINTS_ALLOW", "endpoints.allow"),
    ("POSTHORN_ENDPOINTS_DENY", "endpoints.deny"),
    ("POSTHORN_ENDPOINTS_PORTS", "endpoints.ports"),
    ("POSTHORN_LOG_FORMAT", "log.format"),
    ("POSTHORN_LOG_FILTER", "log.filter"),
    ("POSTHORN_OTLP_ENDPOINT", "log.otlp_endpoint"),
];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the built-in defaults cannot be read")]
    Defaults(#[source] config::ConfigError),
    #[error("`{variable}` is not a setting of this service")]
    Unknown { variable: String },
    #[error("{place}: {detail}")]
    Invalid { place: String, detail: String },
}

/// Reads the settings of a service from `defaults` and `environment`. `prefix` is the service's name
/// in upper case, such as `INGRESS_GATEWAY`.
pub fn load<T: DeserializeOwned>(
    defaults: &str,
    prefix: &str,
    environment: &HashMap<String, String>,
) -> Result<T, Error> {
    let built_in =
        Config::builder().add_source(File::from_str(defaults, FileFormat::Toml)).build().map_err(Error::Defaults)?;
    let known = |path: &str| built_in.get::<Value>(path).is_ok();

    let mut builder = Config::builder().add_source(built_in.clone());
    let mut given: HashMap<String, String> = HashMap::new();
    for (variable, path) in SHARED {
        if let Some(value) = environment.get(variable)
            && known(path)
        {
            builder = builder.set_override(path, value.as_str()).map_err(|error| invalid(variable, &error))?;
            given.insert(path.to_owned(), variable.to_owned());
        }
    }
    let mut own: Map<String, String> = Map::new();
    for (variable, value) in environment {
        let Some(key) = variable.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_')) else { continue };
        let path = key.to_lowercase().replace("__", ".");
        if !known(&path) {
            return Err(Error::Unknown { variable: variable.clone() });
        }
        given.insert(path, variable.clone());
        own.insert(variable.clone(), value.clone());
    }
    for (path, variable) in &given {
        if let Some(value) = own.get(variable) {
            builder = builder.set_override(path, value.as_str()).map_err(|error| invalid(variable, &error))?;
        }
    }
    let config = builder.build().map_err(Error::Defaults)?;
    serde_path_to_error::deserialize(config).map_err(|error| {
        let path = error.path().to_string();
        let variable = given.get(&path).cloned().unwrap_or_else(|| variable_of(prefix, &path));
        Error::Invalid { place: variable, detail: error.into_inner().to_string() }
    })
}

/// The variable that sets `path`.
fn variable_of(prefix: &str, path: &str) -> String {
    format!("{prefix}_{}", path.replace('.', "__").to_uppercase())
}

fn invalid(variable: &str, error: &config::ConfigError) -> Error {
    Error::Invalid { place: variable.to_owned(), detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        sealing_keys: String,
        http: Http,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Http {
        port: u16,
        open: bool,
    }

    const DEFAULTS: &str = "sealing_keys = ''\n[http]\nport = 80\nopen = false";

    fn load_with(environment: &[(&str, &str)]) -> Result<Settings, Error> {
        let environment = environment.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        load(DEFAULTS, "GATE", &environment)
    }

    #[test]
    fn the_environment_overrides_a_default_and_a_services_own_variable_a_shared_one() {
        let settings = load_with(&[
            ("GATE_HTTP__PORT", "8080"),
            ("GATE_HTTP__OPEN", "true"),
            ("POSTHORN_SEALING_KEYS", "007"),
            ("POSTHORN_GATEWAY_URL", "not a setting here"),
        ])
        .unwrap();
        assert_eq!((settings.http.port, settings.http.open, settings.sealing_keys.as_str()), (8080, true, "007"));
        let own = load_with(&[("POSTHORN_SEALING_KEYS", "shared"), ("GATE_SEALING_KEYS", "own")]).unwrap();
        assert_eq!(own.sealing_keys, "own");
    }

    #[test]
    fn a_wrong_or_unknown_setting_is_refused_by_its_variables_name() {
        let wrong = load_with(&[("GATE_HTTP__PORT", "eighty")]).unwrap_err();
        assert!(wrong.to_string().starts_with("GATE_HTTP__PORT: "), "{wrong}");
        let unknown = load_with(&[("GATE_HTTP__PROT", "80")]).unwrap_err();
        assert_eq!(unknown.to_string(), "`GATE_HTTP__PROT` is not a setting of this service");
    }
}
