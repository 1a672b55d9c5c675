//! The way out. Names become addresses past the guard: what was checked is what is dialled.

use std::net::SocketAddr;

use posthorn_core::egress::{self, Egress, Refused};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use serde::Deserialize;

/// What a deployment allows beyond `https` to public addresses.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Whether endpoints may be plain `http`.
    pub allow_http: bool,
    /// Whether endpoints may have loopback and private addresses.
    pub allow_private_networks: bool,
}

impl From<&Settings> for Egress {
    fn from(settings: &Settings) -> Self {
        Self { allow_http: settings.allow_http, allow_private_networks: settings.allow_private_networks }
    }
}

/// Resolves by the system and drops every address that we may not reach. The client dials
/// only what is left, so a name that changes between check and connection gains nothing.
///
/// IP literals never come here: callers ask the same guard about them.
#[derive(Clone, Copy, Debug)]
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
        let egress = self.egress;
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
