//! Twilio: messages, calls, and their status callbacks.
//!
//! A form is signed as the URL followed by every parameter, sorted; a JSON body through its hash in
//! the URL's query. There is no timestamp and no event id, so only dedup stops a replay. What the
//! content type says is not signed and not looked at: a body is a form unless the URL has its hash.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use ring::{digest, hmac};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use subtle::ConstantTimeEq;

use crate::body::document::{self, Document};
use crate::body::form::{self, Field, Form};
use crate::request::RawRequest;
use crate::signature::config::{ConfigError, MAX_KEYS, read};
use crate::signature::imitation::{self, Imitation, ImitationError, Wish};
use crate::signature::public_url::PublicUrl;
use crate::signature::refusal::{Refusal, RefusalKind};
use crate::signature::scheme::clock::moment;
use crate::signature::scheme::event::provider_type;
use crate::signature::scheme::source::DedupParts;
use crate::signature::verdict::{Occurrence, Verdict};

const SIGNATURE: &str = "x-twilio-signature";
/// The query parameter with the hash of a body that is no form.
const BODY_HASH: &str = "bodySHA256";

pub(crate) struct Twilio {
    public_url: PublicUrl,
    keys: Vec<hmac::Key>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Scheme, host and path as registered at Twilio.
    public_url: String,
    #[serde(default)]
    algorithm: Algorithm,
    dedup: Option<DedupParts>,
}

/// What the source's secrets are for. The request's own word for it is not signed: believing it
/// would let a SharedKey be used with SHA-1.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Algorithm {
    /// The account's auth token.
    #[default]
    #[serde(alias = "HMAC_SHA1")]
    HmacSha1,
    /// A SharedKey.
    #[serde(alias = "HMAC_SHA256")]
    HmacSha256,
}

impl Twilio {
    pub(crate) fn new(config: &Value, secrets: &[SecretString]) -> Result<(Self, Option<DedupParts>), ConfigError> {
        let config: Config = read("", config)?;
        let public_url = PublicUrl::parse(&config.public_url).map_err(|rule| ConfigError::at("public_url", rule))?;
        if secrets.is_empty() {
            return Err(ConfigError::at("secrets", "at least one is required: without it nothing can be verified"));
        }
        if secrets.len() > MAX_KEYS {
            return Err(ConfigError::at("secrets", format!("must be at most {MAX_KEYS}")));
        }
        let algorithm = match config.algorithm {
            Algorithm::HmacSha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Algorithm::HmacSha256 => hmac::HMAC_SHA256,
        };
        let keys = secrets.iter().map(|secret| hmac::Key::new(algorithm, secret.expose_secret().as_bytes())).collect();
        Ok((Self { public_url, keys }, config.dedup))
    }

    pub(crate) fn judge(&self, request: &RawRequest) -> Result<Verdict, Refusal> {
        let signature = request.headers.get(SIGNATURE);
        let signature =
            signature.ok_or_else(|| refusal(RefusalKind::MissingHeader, "`X-Twilio-Signature` is missing"))?;
        let signature = STANDARD.decode(signature);
        let signature = signature.map_err(|_| refusal(RefusalKind::MalformedHeader, "the signature is not base64"))?;
        let query = form::fields(request.target.split_once('?').map_or("", |(_, query)| query).as_bytes());
        let body_hash = form::get(&query, BODY_HASH);
        let fields = if body_hash.is_none() { form_fields(&request.body)? } else { vec![] };
        let matched = self.matching_key(&request.target, &fields, &signature)?;
        let callback = match body_hash {
            Some(hash) => {
                check_body_hash(&hash, &request.body)?;
                let document = document::json(request.content_type(), &request.body);
                Callback::Json(document.ok_or_else(|| refusal(RefusalKind::MalformedBody, "the body is not JSON"))?)
            }
            // A callback by GET has its parameters in the query, which is signed with the URL.
            None if request.body.is_empty() => Callback::Form(query),
            None => Callback::Form(fields),
        };
        let mut occurrence = callback.occurrence(&hex::encode(&signature))?;
        if request.body.is_empty()
            && let Some((_, query)) = request.target.split_once('?')
        {
            // The URL alone has its content, and the URL is kept nowhere.
            let form = Form::read("", query.as_bytes());
            let json = form.is_text().then(|| serde_json::to_vec(&form).ok()).flatten();
            occurrence.body = Some(json.unwrap_or_else(|| query.as_bytes().to_vec()).into());
        }
        Ok(Verdict::Events { occurrences: vec![occurrence], matched: Some(matched) })
    }

    /// A callback with a form, as Twilio sends them.
    pub(crate) fn imitate(&self, wish: &Wish<'_>) -> Result<Imitation, ImitationError> {
        let fields = match wish.payload {
            Some(Value::Object(fields)) => imitation::form(fields)?,
            Some(_) => return Err(ImitationError::NoSuchPayload),
            None => sample(wish.event_type.unwrap_or("message.status.delivered"), wish.id),
        };
        let target = format!("/webhooks/{}", wish.address);
        let key = self.keys.first().ok_or(ImitationError::KeyNotHere)?;
        let text = format!("{}{}", self.public_url.for_target(&target), imitation::sorted(&fields));
        let signature = STANDARD.encode(hmac::sign(key, text.as_bytes()));
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&fields).finish();
        let headers = [("content-type", "application/x-www-form-urlencoded"), (SIGNATURE, signature.as_str())];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Ok(Imitation { target, headers, body: body.into() })
    }

    /// Twilio signs the URL with or without its port, whichever was registered.
    fn matching_key(&self, target: &str, fields: &[Field], signature: &[u8]) -> Result<usize, Refusal> {
        let sorted: BTreeSet<&Field> = fields.iter().collect();
        let urls = self.public_url.port_variants(target);
        let signs = |key: &hmac::Key, url: &String| -> bool {
            let mut context = hmac::Context::with_key(key);
            context.update(url.as_bytes());
            for (name, value) in &sorted {
                context.update(name);
                context.update(value);
            }
            context.sign().as_ref().ct_eq(signature).into()
        };
        let matched = self.keys.iter().position(|key| urls.iter().any(|url| signs(key, url)));
        let detail = "the signature is not that of this URL and body; compare `public_url` with the URL at Twilio";
        matched.ok_or_else(|| refusal(RefusalKind::SignatureMismatch, detail))
    }
}

/// The callback that is read as `event_type`: see [`Callback::occurrence`].
fn sample(event_type: &str, id: &str) -> Vec<(String, String)> {
    let sid = |prefix: &str| format!("{prefix}{id}");
    let mut fields = vec![("AccountSid", "AC00000000000000000000000000000000".to_owned())];
    if event_type == "message.received" {
        fields.extend([("MessageSid", sid("SM")), ("SmsStatus", "received".to_owned()), ("Body", "Hello".to_owned())]);
    } else if let Some(status) = event_type.strip_prefix("message.status.") {
        fields.extend([("MessageSid", sid("SM")), ("MessageStatus", status.to_owned())]);
    } else if let Some(status) = event_type.strip_prefix("call.status.") {
        fields.extend([("CallSid", sid("CA")), ("CallStatus", status.to_owned()), ("SequenceNumber", "0".to_owned())]);
    } else {
        fields.extend([("EventType", event_type.to_owned()), ("EventSid", sid("EV"))]);
    }
    fields.extend([("From", "+15005550006".to_owned()), ("To", "+15005550009".to_owned())]);
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The fields of a form. Nothing in the signature tells a name from its value, so a name without
/// `=`, which Twilio does not send, would be another reading of the same signed text.
fn form_fields(body: &[u8]) -> Result<Vec<Field>, Refusal> {
    let has_value = |pair: &[u8]| pair.is_empty() || pair.contains(&b'=');
    if !body.split(|&b| b == b'&').all(has_value) {
        return Err(refusal(RefusalKind::SignatureMismatch, "the body is no form, and the URL has no hash of it"));
    }
    Ok(form::fields(body))
}

fn check_body_hash(hash: &str, body: &[u8]) -> Result<(), Refusal> {
    let actual = digest::digest(&digest::SHA256, body);
    let is_equal = hex::decode(hash).is_ok_and(|expected| expected == actual.as_ref());
    let detail = "the body does not have the hash that the signed URL names";
    if is_equal { Ok(()) } else { Err(refusal(RefusalKind::BodyHashMismatch, detail)) }
}

/// The parameters of a verified callback.
enum Callback<'a> {
    Form(Vec<Field>),
    Json(Document<'a>),
}

impl Callback<'_> {
    fn get(&self, name: &str) -> Option<String> {
        let text = match self {
            Self::Form(fields) => form::get(fields, name),
            Self::Json(document) => document.member(name),
        };
        text.filter(|text| !text.is_empty() && !text.contains('\0'))
    }

    /// `signature` stands for the content where no fields tell callbacks apart: it is the same for
    /// every order and spelling of the same parameters.
    fn occurrence(&self, signature: &str) -> Result<Occurrence, Refusal> {
        let (event_type, dedup_parts) = self.message().or_else(|| self.call(signature)).unwrap_or_else(|| {
            let named = ["EventType", "type", "event"].into_iter().find_map(|name| self.get(name));
            (named.unwrap_or_else(|| "twilio.unknown".to_owned()), vec![signature.to_owned()])
        });
        Ok(Occurrence {
            provider_event_id: None,
            event_type: provider_type(&event_type)?,
            occurred_at: self.get("Timestamp").and_then(|text| time(&text)),
            account: self.get("AccountSid"),
            dedup_parts,
            body: None,
        })
    }

    fn message(&self) -> Option<(String, Vec<String>)> {
        let sid = self.get("MessageSid").or_else(|| self.get("SmsSid"))?;
        let status = self.get("MessageStatus").or_else(|| self.get("SmsStatus"))?;
        let event_type = match status.as_str() {
            "received" | "receiving" => "message.received".to_owned(),
            status => format!("message.status.{status}"),
        };
        Some((event_type, vec![sid, status]))
    }

    fn call(&self, signature: &str) -> Option<(String, Vec<String>)> {
        let sid = self.get("CallSid")?;
        let status = self.get("CallStatus");
        let event_type = status.as_ref().map_or_else(|| "call.callback".to_owned(), |s| format!("call.status.{s}"));
        // Without a sequence number a call in one state calls back many times, each for another reason.
        let which = self.get("SequenceNumber").unwrap_or_else(|| signature.to_owned());
        Some((event_type, [Some(sid), status, Some(which)].into_iter().flatten().collect()))
    }
}

fn time(text: &str) -> Option<Timestamp> {
    rfc2822::parse(text).map(|zoned| zoned.timestamp()).ok().or_else(|| moment(text))
}

fn refusal(kind: RefusalKind, detail: &str) -> Refusal {
    Refusal::new(kind, detail)
}
