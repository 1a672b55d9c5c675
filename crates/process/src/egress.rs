//! The way out. Names become addresses past the guard: what was checked is what is dialled. Or there is a
//! proxy, which resolves them: then nothing but its own name is resolved here.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use posthorn_core::egress::{self, Egress, Networks, Ports, Refused};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{ClientBuilder, Proxy, Url};
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

/// The proxy that requests go through, if any. Its credentials are never shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ProxyUrl(Option<Url>);

/// Says nothing of the URL itself, which may carry a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a proxy is an `http` or `https` URL such as `http://user:password@proxy:3128`")]
pub struct NotProxy;

impl ProxyUrl {
    pub fn is_given(&self) -> bool {
        self.0.is_some()
    }
}

impl TryFrom<String> for ProxyUrl {
    type Error = NotProxy;

    fn try_from(text: String) -> Result<Self, NotProxy> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let url = Url::parse(&text).ok().filter(|url| ["http", "https"].contains(&url.scheme()));
        url.map(|url| Self(Some(url))).ok_or(NotProxy)
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        if let Some(url) = &mut shown
            && url.password().is_some()
        {
            // Fails only for URLs without a host, which have no password.
            let _ = url.set_password(Some("REDACTED"));
        }
        f.write_str(shown.as_ref().map_or("none", Url::as_str))
    }
}

/// The beginning of every client whose requests others have a say in: past the guard, or through the proxy.
/// `resolver` knows the addresses of names.
pub fn client(proxy: &ProxyUrl, egress: &Egress, resolver: Arc<dyn Resolve>) -> reqwest::Result<ClientBuilder> {
    let client = reqwest::Client::builder()
        // The environment of the process has no say in where requests go, nor has whoever answers one.
        .no_proxy()
        .redirect(Policy::none())
        .referer(false)
        .retry(reqwest::retry::never());
    Ok(match &proxy.0 {
        None => client.dns_resolver(Arc::new(GuardedResolver { egress: egress.clone(), resolver })),
        Some(url) => client
            .proxy(Proxy::all(url.clone())?)
            .dns_resolver(Arc::new(ProxyResolver { host: url.host_str().unwrap_or_default().into(), resolver })),
    })
}

/// Resolves by the system.
#[derive(Clone, Copy, Debug)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(ResolveError::Dns)?;
            Ok(Box::new(found.collect::<Vec<_>>().into_iter()) as Addrs)
        })
    }
}

/// Resolves the proxy's own name, which is where its owner put it, and no other.
struct ProxyResolver {
    host: Box<str>,
    resolver: Arc<dyn Resolve>,
}

impl Resolve for ProxyResolver {
    fn resolve(&self, name: Name) -> Resolving {
        if name.as_str().eq_ignore_ascii_case(&self.host) {
            self.resolver.resolve(name)
        } else {
            Box::pin(async { Err(ResolveError::PastProxy.into()) })
        }
    }
}

/// Drops every address that we may not reach. The client dials only what is left, so a name that
/// changes between check and connection gains nothing.
///
/// IP literals never come here: callers ask the same guard about them.
struct GuardedResolver {
    egress: Egress,
    resolver: Arc<dyn Resolve>,
}

#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("the name does not resolve")]
    Dns(#[source] std::io::Error),
    #[error("the name has no address")]
    Empty,
    #[error("the name leads where nothing is delivered")]
    Refused(#[source] Refused),
    #[error("the proxy resolves names")]
    PastProxy,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let egress = self.egress.clone();
        let resolving = self.resolver.resolve(name);
        Box::pin(async move {
            let found = resolving.await?;
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
    fn a_proxy_is_shown_without_its_password_also_where_it_is_none() {
        let given = ProxyUrl::try_from("http://posthorn:s3cret@proxy:3128".to_owned()).unwrap();
        assert_eq!(format!("{given:?}"), "http://posthorn:REDACTED@proxy:3128/");
        assert!(!ProxyUrl::try_from(String::new()).unwrap().is_given());
        for wrong in ["socks5://u:s3cret@proxy:1080", "proxy:3128", "http://", "http://u:s3cret@[proxy]"] {
            let told = ProxyUrl::try_from(wrong.to_owned()).unwrap_err().to_string();
            assert!(!told.contains("s3cret"), "{told}");
        }
    }

    #[tokio::test]
    async fn behind_a_proxy_no_other_name_is_resolved() {
        let resolver = ProxyResolver { host: "localhost".into(), resolver: Arc::new(SystemResolver) };
        assert!(resolver.resolve("LOCALHOST".parse().unwrap()).await.is_ok());
        assert!(resolver.resolve("example.com".parse().unwrap()).await.is_err());
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
