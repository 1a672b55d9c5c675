//! Where deliveries go, as far as it can be judged from the text of a URL.

use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

use crate::egress::{self, Egress};

/// Longest endpoint URL, in bytes.
pub const MAX_LEN: usize = 2048;

/// An endpoint's URL.
///
/// Invariant: absolute, `https` (or `http` where the deployment allows it), with a host and a port that it
/// allows, without user info or fragment, and not an address that [`egress::permit`] refuses. It says nothing about
/// the address behind a name: DNS can change after registration, so every resolved address is
/// looked at again on every connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointUrl(Url);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("has more than {MAX_LEN} bytes")]
    TooLong,
    #[error("is not an absolute URL, such as `https://example.com/hooks`")]
    NotAbsolute,
    #[error(
        "has to be written as it is sent: `https://host`, printable ASCII, no spaces or backslashes, a host of letters, digits, `.`, `-` and `_`"
    )]
    NotPlain,
    #[error("the scheme has to be `https`")]
    NotHttps,
    #[error("user name and password do not belong in an endpoint URL; use `headers`")]
    UserInfo,
    #[error("a fragment is never sent, so it does not belong in an endpoint URL")]
    Fragment,
    #[error("port {0} is not one that this deployment delivers to")]
    Port(u16),
    #[error("the address is not one that this deployment delivers to")]
    Address(#[from] egress::Refused),
}

impl EndpointUrl {
    /// Reads a URL that a tenant gives, for a deployment that allows what `egress` says.
    pub fn parse(text: &str, egress: &Egress) -> Result<Self, Error> {
        let endpoint = Self::known(text)?;
        if !has_plain_host(text) {
            return Err(Error::NotPlain);
        }
        endpoint.permit(egress)?;
        Ok(endpoint)
    }

    /// Reads a URL that was registered before, perhaps when the deployment allowed more than today.
    /// Fails only for what is no endpoint anywhere.
    pub fn known(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_LEN {
            return Err(Error::TooLong);
        }
        let url = Url::parse(text).map_err(|_| Error::NotAbsolute)?;
        if !is_plain(text) {
            return Err(Error::NotPlain);
        }
        if !matches!(url.scheme(), "https" | "http") {
            return Err(Error::NotHttps);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::UserInfo);
        }
        if url.fragment().is_some() {
            return Err(Error::Fragment);
        }
        Ok(Self(url))
    }

    /// Whether the deployment delivers to this URL, as far as its text tells.
    pub fn permit(&self, egress: &Egress) -> Result<(), Error> {
        if self.0.scheme() != "https" && !egress.allow_http {
            return Err(Error::NotHttps);
        }
        let port = self.0.port_or_known_default().unwrap_or_default();
        if !egress.ports.permit(port) {
            return Err(Error::Port(port));
        }
        match self.literal() {
            Some(address) => egress::permit(address, egress)?,
            None if egress.opens_private_networks() => {}
            None if egress::is_local_name(self.0.host_str().unwrap_or_default()) => {
                return Err(Error::Address(egress::Refused::LocalName));
            }
            None => {}
        }
        Ok(())
    }

    /// The address, where the host is one. A client dials it without asking a resolver, so it is
    /// to be judged before every send: `http://2130706433` is 127.0.0.1.
    pub fn literal(&self) -> Option<IpAddr> {
        match self.0.host()? {
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
            Host::Domain(_) => None,
        }
    }

    pub fn as_url(&self) -> &Url {
        &self.0
    }
}

/// Whether a URL is written as it is sent. Parsers forgive more (spaces around it, line breaks inside,
/// backslashes, missing slashes), and what two parsers forgive differently is a way around a guard.
fn is_plain(text: &str) -> bool {
    let authority = text.split_once("://").map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default());
    text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') && authority.is_some_and(|host| !host.is_empty())
}

/// Whether scheme and host are written as they are meant: no capitals in the scheme, and in the host only
/// what names and addresses consist of. Parsers take `%65xample.com` and `ex*ample.com` for hosts as well.
fn has_plain_host(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, rest)| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        scheme.bytes().all(|b| b.is_ascii_lowercase())
            && authority.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b))
    })
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_cannot_be_an_endpoint_is_refused_with_the_rule_it_breaks() {
        let strict = Egress::default();
        let refused = [
            ("hooks", Error::NotAbsolute),
            ("https:///example.com/", Error::NotPlain),
            ("https:example.com/", Error::NotPlain),
            ("https:\\\\example.com\\hooks", Error::NotPlain),
            (" https://example.com/", Error::NotPlain),
            ("https://example.com/\0", Error::NotPlain),
            ("https://example.com/ho\noks", Error::NotPlain),
            ("https://ex\u{e4}mple.com/", Error::NotPlain),
            ("https://ex*ample.com/", Error::NotPlain),
            ("https://%65xample.com/", Error::NotPlain),
            ("https://example.com,other.com/", Error::NotPlain),
            ("HTTPS://example.com/", Error::NotPlain),
            ("ftp://example.com/", Error::NotHttps),
            ("http://example.com/", Error::NotHttps),
            ("https://user:pw@example.com/", Error::UserInfo),
            ("https://example.com/#part", Error::Fragment),
        ];
        for (text, error) in refused {
            assert_eq!(EndpointUrl::parse(text, &strict), Err(error), "{text}");
        }
        for text in
            ["https://127.0.0.1/", "https://2130706433/", "https://0x7f.1/", "https://[::1]/", "https://localhost/"]
        {
            assert!(matches!(EndpointUrl::parse(text, &strict), Err(Error::Address(_))), "{text}");
        }
        for text in
            ["https://example.com/hooks?team=1", "https://Example.com:8443/%7Eteam/*", "https://[2606:4700::1111]/"]
        {
            assert!(EndpointUrl::parse(text, &strict).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_deployment_may_name_the_ports() {
        let some = Egress { allow_http: true, ports: "443,8443".to_owned().try_into().unwrap(), ..Egress::default() };
        for text in ["https://example.com/", "https://example.com:443/", "https://example.com:8443/"] {
            assert!(EndpointUrl::parse(text, &some).is_ok(), "{text}");
        }
        for (text, port) in [("https://example.com:22/", 22), ("http://example.com/", 80), ("https://1.1.1.1:0/", 0)] {
            assert_eq!(EndpointUrl::parse(text, &some), Err(Error::Port(port)), "{text}");
        }
    }

    #[test]
    fn a_deployment_may_allow_http_and_private_addresses() {
        let local = Egress { allow_http: true, allow_private_networks: true, ..Egress::default() };
        assert!(EndpointUrl::parse("http://127.0.0.1:8099/", &local).is_ok());
        assert!(EndpointUrl::parse("http://localhost:8099/", &local).is_ok());
        let some = Egress { allow: "10.1.0.0/16".to_owned().try_into().unwrap(), ..Egress::default() };
        assert!(EndpointUrl::parse("https://10.1.2.3/", &some).is_ok());
        assert!(EndpointUrl::parse("https://billing.internal/", &some).is_ok(), "judged by what it resolves to");
        assert!(EndpointUrl::parse("https://10.2.0.1/", &some).is_err());
        // Nobody means these, in any deployment.
        assert!(EndpointUrl::parse("http://0.0.0.0/", &local).is_err());
        assert!(EndpointUrl::parse("http://169.254.169.254/latest/", &local).is_err());
    }
}
