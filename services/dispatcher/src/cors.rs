//! Which web pages may call the API from a browser: none, unless the deployment names them.
//!
//! Callers show a bearer token and there are no cookies, so a page that is let in can do nothing that
//! its user did not give it a key for; credentials in CORS's sense stay off.

use actix_cors::Cors;
use url::Url;

/// How long a browser may remember what it was told, in seconds; Chromium's own limit is 7200.
const MAX_AGE_SECS: usize = 600;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    None,
    These(Vec<String>),
    Any,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no origin, such as `https://console.example.com`, without a path")]
pub struct NoOrigin(String);

impl Origins {
    /// Reads origins (RFC 6454), comma-separated; `*` is any, nothing is none.
    pub fn parse(text: &str) -> Result<Self, NoOrigin> {
        match text.trim() {
            "" => Ok(Self::None),
            "*" => Ok(Self::Any),
            list => {
                list.split(',').map(|origin| parse_origin(origin.trim())).collect::<Result<_, _>>().map(Self::These)
            }
        }
    }

    /// Whether any page is let in.
    pub fn lets_any_in(&self) -> bool {
        *self != Self::None
    }

    /// What browsers are told. An answer to another origin is the same without the headers; a preflight that asks for
    /// what is not allowed is 400.
    pub fn middleware(&self) -> Cors {
        let cors = Cors::default()
            .block_on_origin_mismatch(false)
            .allowed_methods(["GET", "POST", "PUT", "PATCH", "DELETE"])
            .allowed_headers(["authorization", "content-type", "idempotency-key", "if-match", "traceparent"])
            .expose_headers([
                "etag",
                "idempotent-replayed",
                "ratelimit-limit",
                "ratelimit-remaining",
                "ratelimit-reset",
                "retry-after",
                "www-authenticate",
                "x-request-id",
            ])
            .max_age(MAX_AGE_SECS);
        match self {
            Self::None => cors,
            Self::These(origins) => origins.iter().fold(cors, |cors, origin| cors.allowed_origin(origin)),
            Self::Any => cors.allow_any_origin().send_wildcard(),
        }
    }
}

/// As browsers write it: no default port, no path.
fn parse_origin(text: &str) -> Result<String, NoOrigin> {
    let no_origin = || NoOrigin(text.to_owned());
    let url = Url::parse(text).map_err(|_| no_origin())?;
    let origin = url.origin().ascii_serialization();
    let is_web = ["http", "https"].contains(&url.scheme());
    let is_all = url.as_str() == format!("{origin}/");
    // A host with a wildcard parses, and would match nothing.
    if is_web && is_all && !origin.contains('*') { Ok(origin) } else { Err(no_origin()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_taken_as_browsers_write_them_and_nothing_else_is_taken() {
        assert_eq!(Origins::parse(" "), Ok(Origins::None));
        assert_eq!(Origins::parse("*"), Ok(Origins::Any));
        let two = Origins::parse("https://Console.example.com:443, http://localhost:3000/").unwrap();
        assert_eq!(two, Origins::These(vec!["https://console.example.com".into(), "http://localhost:3000".into()]));
        for wrong in [
            "console.example.com",
            "https://*.example.com/",
            "https://example.com/console",
            "file:///x",
            "null",
            "https://a,,",
            "https://a,*",
            "https://user@example.com",
            "https://example.com/?x",
        ] {
            let parsed = Origins::parse(wrong);
            assert!(parsed.is_err(), "{wrong} was taken as {parsed:?}");
        }
    }
}
