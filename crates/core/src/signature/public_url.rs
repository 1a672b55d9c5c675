//! The URL that a provider has been given, for schemes that sign it.
//!
//! Only the configuration knows it: behind a proxy, `Host` and `X-Forwarded-*` are what somebody
//! wrote. From the request come the query and, if the configured URL has none, the path.

use url::Url;

/// An absolute `http` or `https` URL without user info and fragment, kept as it was written:
/// a normalised one would be signed differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicUrl {
    scheme: &'static str,
    host: String,
    port: Option<String>,
    path: Option<String>,
}

impl PublicUrl {
    /// Reads a URL. Its query is left out: the request's counts.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let url = Url::parse(text).map_err(|_| "must be an absolute URL")?;
        let scheme = match url.scheme() {
            "https" => "https",
            "http" => "http",
            _ => return Err("begins with `https://`"),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("has no user name and password; providers do not sign them");
        }
        let rest = text.split_once("://").ok_or("must be an absolute URL")?.1;
        if rest.contains(['#', ' ', '\\']) || rest.contains(char::is_control) {
            return Err("has no fragment, space or backslash");
        }
        let rest = rest.split_once('?').map_or(rest, |(before, _)| before);
        let (authority, path) = match rest.find('/') {
            Some(at) => (&rest[..at], Some(rest[at..].to_owned())),
            None => (rest, None),
        };
        // A colon inside brackets belongs to an IPv6 address.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port.to_owned())),
            _ => (authority, None),
        };
        Ok(Self { scheme, host: host.to_owned(), port, path })
    }

    /// The URL as configured, for a request with this `target` (path and query).
    pub(crate) fn for_target(&self, target: &str) -> String {
        self.with_port(self.port.as_deref(), target)
    }

    /// The URL without a port, and with one: its own, or the scheme's.
    pub(crate) fn port_variants(&self, target: &str) -> [String; 2] {
        let default = if self.scheme == "https" { "443" } else { "80" };
        [self.with_port(None, target), self.with_port(Some(self.port.as_deref().unwrap_or(default)), target)]
    }

    fn with_port(&self, port: Option<&str>, target: &str) -> String {
        let (request_path, query) = match target.find('?') {
            Some(at) => target.split_at(at),
            None => (target, ""),
        };
        let path = self.path.as_deref().unwrap_or(request_path);
        let (colon, port) = port.map_or(("", ""), |port| (":", port));
        format!("{}://{}{colon}{port}{path}{query}", self.scheme, self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheme_host_and_path_are_the_registered_ones_and_the_query_is_the_requests() {
        let url = PublicUrl::parse("https://Hooks.example.com/In/twilio?old=1").unwrap();
        assert_eq!(url.for_target("/webhooks/twilio?a=%27&b"), "https://Hooks.example.com/In/twilio?a=%27&b");
        assert_eq!(url.for_target("/webhooks/twilio"), "https://Hooks.example.com/In/twilio");
        let host_only = PublicUrl::parse("https://hooks.example.com").unwrap();
        assert_eq!(host_only.for_target("/webhooks/a?b=1"), "https://hooks.example.com/webhooks/a?b=1");
    }

    #[test]
    fn both_port_variants_are_made_from_either() {
        let both = |text: &str| PublicUrl::parse(text).unwrap().port_variants("/");
        assert_eq!(both("https://a.example/x"), ["https://a.example/x", "https://a.example:443/x"]);
        assert_eq!(both("http://a.example:8080/x"), ["http://a.example/x", "http://a.example:8080/x"]);
        assert_eq!(both("http://[::1]/x"), ["http://[::1]/x", "http://[::1]:80/x"]);
    }

    #[test]
    fn what_a_provider_cannot_have_been_given_is_refused() {
        for text in ["hooks", "ftp://a.example/", "https://u:p@a.example/", "https://a.example/#f", "mailto:a@b.c"] {
            assert!(PublicUrl::parse(text).is_err(), "{text}");
        }
    }
}
