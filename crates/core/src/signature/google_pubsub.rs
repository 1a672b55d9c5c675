//! Google Pub/Sub push with an OIDC token: the way of FCM delivery data out of BigQuery.
//!
//! The token says who pushes, not what: the body is covered by TLS alone. Any Google customer can
//! have Google sign a token with our audience, so the e-mail of the pushing service account is what
//! binds a source to its sender.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::body::document::{self, Document};
use crate::event_type::EventType;
use crate::request::RawRequest;
use crate::signature::config::{ConfigError, read};
use crate::signature::jwt::Token;
use crate::signature::refusal::{Refusal, RefusalKind};
use crate::signature::scheme::clock::moment;
use crate::signature::scheme::event::provider_type;
use crate::signature::scheme::scope::sha256_hex;
use crate::signature::scheme::source::DedupParts;
use crate::signature::verdict::{Material, Need, Occurrence, Verdict};

const GOOGLE_KEYS: &str = "https://www.googleapis.com/oauth2/v3/certs";
const GOOGLE_ISSUERS: [&str; 2] = ["https://accounts.google.com", "accounts.google.com"];
/// How far Google's clock and ours may differ, in seconds.
const DEFAULT_TOLERANCE_SECS: u64 = 60;

pub(crate) struct GooglePubsub {
    audience: String,
    service_account_email: String,
    pub(crate) jwks_url: String,
    issuers: Vec<String>,
    tolerance_secs: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    audience: String,
    service_account_email: String,
    jwks_url: Option<String>,
    issuers: Option<Vec<String>>,
    tolerance_seconds: Option<u64>,
    dedup: Option<DedupParts>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Value,
    exp: f64,
    iat: f64,
    email: Option<String>,
    #[serde(default)]
    email_verified: Value,
}

impl GooglePubsub {
    pub(crate) fn new(config: &Value) -> Result<(Self, Option<DedupParts>), ConfigError> {
        let config: Config = read("", config)?;
        for (name, value) in [("audience", &config.audience), ("service_account_email", &config.service_account_email)]
        {
            if value.is_empty() {
                return Err(ConfigError::at(name, "is not empty"));
            }
        }
        let jwks_url = config.jwks_url.unwrap_or_else(|| GOOGLE_KEYS.to_owned());
        if !is_key_set_url(&jwks_url) {
            return Err(ConfigError::at("jwks_url", "must be an absolute `https` URL"));
        }
        let issuers = config.issuers.unwrap_or_else(|| GOOGLE_ISSUERS.map(str::to_owned).to_vec());
        let tolerance = config.tolerance_seconds.unwrap_or(DEFAULT_TOLERANCE_SECS);
        let tolerance_secs = i64::try_from(tolerance).ok().filter(|secs| *secs <= 3600);
        let verifier = Self {
            audience: config.audience,
            service_account_email: config.service_account_email,
            jwks_url,
            issuers,
            tolerance_secs: tolerance_secs
                .ok_or_else(|| ConfigError::at("tolerance_seconds", "must be at most 3600"))?,
        };
        Ok((verifier, config.dedup))
    }

    pub(crate) fn judge(
        &self,
        request: &RawRequest,
        path_event: Option<&str>,
        now: Timestamp,
        material: &Material,
    ) -> Result<Verdict, Refusal> {
        let authorization = request.headers.get("authorization");
        let authorization =
            authorization.ok_or_else(|| refusal(RefusalKind::MissingHeader, "`Authorization` is missing"))?;
        let bearer = authorization.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let (_, token) =
            bearer.ok_or_else(|| refusal(RefusalKind::MalformedHeader, "`Authorization` is no bearer token"))?;
        let token = Token::parse(token.trim())?;
        let Some(keys) = material.key_set(&self.jwks_url) else {
            return Ok(Verdict::Needs(Need::KeySet { url: self.jwks_url.clone() }));
        };
        self.check(&token.verify(keys)?, now)?;
        let occurrence = occurrence(request, path_event)?;
        Ok(Verdict::Events { occurrences: vec![occurrence], matched: None })
    }

    fn check(&self, claims: &Claims, now: Timestamp) -> Result<(), Refusal> {
        let is_audience = match &claims.aud {
            Value::Array(audiences) => audiences.iter().any(|audience| audience == self.audience.as_str()),
            audience => audience == self.audience.as_str(),
        };
        let is_email = claims.email.as_ref() == Some(&self.service_account_email) && claims.email_verified == true;
        let now = now.as_second() as f64;
        let tolerance = self.tolerance_secs as f64;
        let checks = [
            (
                self.issuers.contains(&claims.iss),
                RefusalKind::WrongIssuer,
                "the token is not from an issuer of this source",
            ),
            (is_audience, RefusalKind::WrongAudience, "the token is for another audience"),
            (claims.exp + tolerance >= now, RefusalKind::TokenExpired, "the token has expired"),
            (claims.iat - tolerance <= now, RefusalKind::TokenNotYetValid, "the token was issued in the future"),
            (is_email, RefusalKind::WrongEmail, "the token is not for the service account of this source"),
        ];
        let failed = checks.into_iter().find(|(holds, ..)| !holds);
        failed.map_or(Ok(()), |(_, kind, detail)| Err(refusal(kind, detail)))
    }
}

/// Reads a push: wrapped in JSON, or the bare data, with its metadata in headers if the subscription writes them.
fn occurrence(request: &RawRequest, path_event: Option<&str>) -> Result<Occurrence, Refusal> {
    let header = |name: &str| request.headers.get(name).map(str::to_owned);
    let body = document::json(request.content_type(), &request.body);
    let is_bare = header("x-goog-pubsub-message-id").is_some();
    if body.is_none() && !is_bare {
        return Err(refusal(RefusalKind::MalformedBody, "the body is not JSON"));
    }
    let push = body.as_ref().filter(|_| !is_bare);
    let wrapped = |pointer: &str| push.and_then(|push| push.pointer(pointer));
    let data = wrapped("/message/data").and_then(|data| STANDARD.decode(data).ok());
    let inner = match &data {
        Some(data) => document::json("", data),
        None => body.clone(),
    };
    let id = wrapped("/message/messageId").or_else(|| header("x-goog-pubsub-message-id")).filter(|id| is_name(id));
    let subscription = wrapped("/subscription").or_else(|| header("x-goog-pubsub-subscription-name"));
    let dedup_parts = match &id {
        Some(id) => vec![subscription.unwrap_or_default(), id.clone()],
        None => vec![sha256_hex(&request.body)],
    };
    let published = wrapped("/message/publishTime").or_else(|| header("x-goog-pubsub-publish-time"));
    Ok(Occurrence {
        event_type: event_type(push, inner.as_ref(), path_event)?,
        occurred_at: published.and_then(|text| moment(&text)),
        account: None,
        dedup_parts,
        provider_event_id: id,
        body: None,
    })
}

/// Publishers name their events in an attribute or in the data; there is no rule.
fn event_type(
    push: Option<&Document<'_>>,
    data: Option<&Document<'_>>,
    path_event: Option<&str>,
) -> Result<EventType, Refusal> {
    let attributes = ["eventType", "event_type", "type", "ce-type"].map(|name| format!("/message/attributes/{name}"));
    let members = ["eventType", "event_type", "event", "type"].map(|name| format!("/{name}"));
    let texts = |document: Option<&Document<'_>>, places: [String; 4]| {
        let text = |place: &String| document?.pointer(place).filter(|text| is_name(text));
        places.iter().find_map(text)
    };
    let named = texts(push, attributes).or_else(|| texts(data, members));
    provider_type(named.as_deref().or(path_event).unwrap_or("pubsub.message"))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains('\0')
}

/// `https`, or this machine in development. Whether its address may be reached is for the fetcher.
fn is_key_set_url(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else { return false };
    let is_here = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    url.scheme() == "https" || (url.scheme() == "http" && is_here)
}

fn refusal(kind: RefusalKind, detail: &str) -> Refusal {
    Refusal::new(kind, detail)
}
