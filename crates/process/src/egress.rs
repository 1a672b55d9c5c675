//! The way out. Names become addresses past the guard: what was checked is what is dialled.

use std::net::SocketAddr;

use posthorn_core::egress::{self, Egress, Networks, Ports, Refused};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use serde::Deserialize;

/// How a deployment departs from `https` to any port of any public address.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Whether endpoints may be plain `http`.
    pub allow_http: bool,
    /// Whether endpoints may have loopback and private addresses.
    pub allow_private_networks: bool,
    /// Loopback and private networks that endpoints may be in although the others are closed: CIDR, comma-separated.
    pub allow: Networks,
    /// Networks that endpoints may not be in, whatever else is allowed: CIDR, comma-separated.
    pub deny: Networks,
    /// Ports that endpoints may have, comma-separated; empty is any.
    pub ports: Ports,
}

impl From<&Settings> for Egress {
    fn from(settings: &Settings) -> Self {
        Self {
            allow_http: settings.allow_http,
            allow_private_networks: settings.allow_private_networks,
            allow: settings.allow.clone(),
            deny: settings.deny.clone(),
            ports: settings.ports.clone(),
        }
    }
}

/// Resolves by the system and drops every address that we may not reach. The client dials
/// only what is left, so a name that changes between check and connection gains nothing.
///
/// IP literals never come here: callers ask the same guard about them.
#[derive(Clone, Debug)]
pub struct GuardedResolver {
    pub egress: Egress,
}

#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("the name does not resolve")]
    Dns(#[source] std::io::Error),
    #[error("the name has no address")]
    Empty,
    #[error("the name leads where nothing is delivered")]
    Refused(#[source] Refused),
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let egress = self.egress.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(ResolveError::Dns)?;
            let permitted = permitted(found, &egress)?;
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

/// The addresses that may be dialled; an error if that is none of them.
fn permitted(found: impl Iterator<Item = SocketAddr>, egress: &Egress) -> Result<Vec<SocketAddr>, ResolveError> {
    let mut refused = None;
    let mut permitted = Vec::new();
    for address in found {
        match egress::permit(address.ip(), egress) {
            Ok(()) => permitted.push(address),
            Err(reason) => refused = Some(reason),
        }
    }
    match (permitted.is_empty(), refused) {
        (false, _) => Ok(permitted),
        (true, Some(reason)) => Err(ResolveError::Refused(reason)),
        (true, None) => Err(ResolveError::Empty),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 443)).collect()
    }

    #[derive(Debug, Deserialize)]
    struct Service {
        endpoints: Settings,
    }

    #[test]
    fn a_list_that_cannot_be_read_is_refused_by_its_variables_name() {
        let defaults =
            "[endpoints]\nallow_http = false\nallow_private_networks = false\nallow = ''\ndeny = ''\nports = ''";
        let load = |name: &str, value: &str| {
            let environment = [(name.to_owned(), value.to_owned())].into();
            crate::settings::load::<Service>(defaults, "WORKER", &environment)
        };
        let given = load("POSTHORN_ENDPOINTS_DENY", "8.8.8.8").unwrap();
        assert!(egress::permit("8.8.8.8".parse().unwrap(), &Egress::from(&given.endpoints)).is_err());
        assert!(load("WORKER_ENDPOINTS__PORTS", "443").unwrap().endpoints.ports.permit(443));
        for (name, wrong) in [
            ("WORKER_ENDPOINTS__DENY", "10.0.0.0/33"),
            ("POSTHORN_ENDPOINTS_ALLOW", "10.0.0.0/8 10.0.0.1"),
            ("WORKER_ENDPOINTS__PORTS", "443;8443"),
        ] {
            let told = load(name, wrong).unwrap_err().to_string();
            assert!(told.starts_with(&format!("{name}: ")) && told.contains(wrong), "{told}");
        }
    }

    #[test]
    fn of_several_addresses_only_the_public_ones_are_dialled() {
        let found = addresses(&["127.0.0.1", "1.1.1.1", "::1"]);
        assert_eq!(permitted(found.into_iter(), &Egress::default()).unwrap(), addresses(&["1.1.1.1"]));
    }

    #[test]
    fn a_name_with_private_addresses_only_is_refused_as_such() {
        let found = addresses(&["10.0.0.1"]);
        assert!(matches!(permitted(found.into_iter(), &Egress::default()), Err(ResolveError::Refused(_))));
        assert!(matches!(permitted(std::iter::empty(), &Egress::default()), Err(ResolveError::Empty)));
    }
}
