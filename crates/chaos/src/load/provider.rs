//! Five providers: how each writes an event down and signs it.
//!
//! Written a second time, from what the providers say, so that it does not share a mistake with what verifies it. A
//! repeat of an event has the same body and a signature of its own.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use ring::hmac;
use serde_json::{Value, json};

use crate::load::stage::Flavour;

/// Which provider sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The tenant is a field of the body.
    Stripe,
    /// The tenant is a header, the type in the path.
    Internal,
    /// Everything is one tenant's.
    Standard,
    /// A form; everything is one tenant's.
    Twilio,
    /// A broadcast.
    Github,
}

impl Door {
    pub fn slug(self) -> &'static str {
        match self {
            Self::Stripe => "chaos-stripe",
            Self::Internal => "chaos-internal",
            Self::Standard => "chaos-standard",
            Self::Twilio => "chaos-twilio",
            Self::Github => "chaos-github",
        }
    }
}

/// As it is registered at Twilio; what it signs.
const TWILIO_URL: &str = "http://chaos.test/webhooks/chaos-twilio";

/// A request, ready to be sent.
#[derive(Clone, Debug)]
pub struct Request {
    /// Below `/webhooks/`.
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
}

/// The secret that all sources of a run share, in each one's form.
#[derive(Clone, Debug)]
pub struct Keys {
    secret: String,
}

impl Keys {
    /// `secret` is letters and digits, at least 32.
    pub fn new(secret: String) -> Self {
        Self { secret }
    }

    /// Requests that make the sources, for tenants by `external_id`.
    pub fn sources(&self, tenants: &HashMap<&str, String>) -> [Value; 5] {
        let tenant = |name: &str| json!({ "kind": "tenant", "tenant_id": tenants.get(name) });
        let secrets = json!({ "secrets": [self.secret] });
        let source = |door: Door, provider: &str, routing: Value, config: Value| json!({ "slug": door.slug(), "provider": provider, "routing": routing, "config": config });
        [
            source(Door::Stripe, "stripe", json!({ "kind": "pointer", "pointer": "/account" }), secrets.clone()),
            source(
                Door::Internal,
                "internal",
                json!({ "kind": "header", "name": "X-Tenant-Id" }),
                json!({ "tokens": [self.secret] }),
            ),
            source(
                Door::Standard,
                "standard_webhooks",
                tenant("single-4"),
                json!({ "secrets": [format!("whsec_{}", STANDARD.encode(&self.secret))] }),
            ),
            source(
                Door::Twilio,
                "twilio",
                tenant("single-5"),
                json!({ "secrets": [self.secret], "public_url": TWILIO_URL }),
            ),
            source(Door::Github, "github", json!({ "kind": "broadcast" }), secrets),
        ]
    }

    /// Signs a body that [`write`] wrote, as it is sent at `now`.
    pub fn sign(&self, flavour: &Flavour, number: u32, body: &Bytes, now: Timestamp) -> Request {
        let seconds = now.as_second();
        let mac = |algorithm, parts: &[&[u8]]| {
            let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, self.secret.as_bytes()));
            parts.iter().for_each(|part| context.update(part));
            context.sign()
        };
        let mut path = flavour.door.slug().to_owned();
        let json = ("content-type", "application/json".to_owned());
        let headers = match flavour.door {
            Door::Stripe => {
                let tag = mac(hmac::HMAC_SHA256, &[format!("{seconds}.").as_bytes(), body]);
                vec![json, ("stripe-signature", format!("t={seconds},v1={}", hex::encode(tag)))]
            }
            Door::Internal => {
                path = format!("{path}/{}", flavour.event_type);
                let tenant = ("x-tenant-id", flavour.tenant.clone());
                vec![json, ("x-service-token", self.secret.clone()), tenant, ("idempotency-key", id_of(number))]
            }
            Door::Standard => {
                let id = id_of(number);
                let tag = mac(hmac::HMAC_SHA256, &[format!("{id}.{seconds}.").as_bytes(), body]);
                let signature = ("webhook-signature", format!("v1,{}", STANDARD.encode(tag)));
                vec![json, ("webhook-id", id), ("webhook-timestamp", seconds.to_string()), signature]
            }
            Door::Twilio => {
                // The fields stand in the body in the order in which they are signed.
                let mut text = TWILIO_URL.to_owned();
                for (name, value) in url::form_urlencoded::parse(body) {
                    text.push_str(&name);
                    text.push_str(&value);
                }
                let tag = mac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &[text.as_bytes()]);
                let form = ("content-type", "application/x-www-form-urlencoded".to_owned());
                vec![form, ("x-twilio-signature", STANDARD.encode(tag))]
            }
            Door::Github => {
                let tag = mac(hmac::HMAC_SHA256, &[body]);
                let signature = ("x-hub-signature-256", format!("sha256={}", hex::encode(tag)));
                vec![json, ("x-github-event", "release".to_owned()), ("x-github-delivery", id_of(number)), signature]
            }
        };
        Request { path, headers, body: body.clone() }
    }
}

/// What an event is called by whoever sends it.
fn id_of(number: u32) -> String {
    format!("chaos-{number:08}-e")
}

/// The body of an event of just so many bytes, or of the fewest that its provider needs.
pub fn write(flavour: &Flavour, number: u32, bytes: u32, now: Timestamp) -> Bytes {
    let shortest = with_padding(flavour, number, "", now);
    let padding = padding(number, usize::try_from(bytes).unwrap_or_default().saturating_sub(shortest.len()));
    with_padding(flavour, number, &padding, now).into()
}

fn with_padding(flavour: &Flavour, number: u32, padding: &str, now: Timestamp) -> String {
    let (id, event_type) = (id_of(number), flavour.event_type);
    match flavour.door {
        Door::Stripe => json!({
            "id": id, "account": flavour.tenant, "created": now.as_second(), "type": event_type, "data": padding,
        })
        .to_string(),
        Door::Internal => json!({ "id": id, "data": padding }).to_string(),
        Door::Standard => json!({ "type": event_type, "data": { "id": id, "text": padding } }).to_string(),
        Door::Twilio => format!("Body={padding}&MessageSid={id}&MessageStatus=delivered"),
        Door::Github => json!({ "id": id, "action": "published", "body": padding }).to_string(),
    }
}

/// Letters that compress about as badly as real text.
fn padding(number: u32, length: usize) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz012345";
    let mut state = u64::from(number) | 1 << 40;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(LETTERS[(state & 31) as usize])
    };
    (0..length).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flavour(door: Door) -> Flavour {
        Flavour {
            name: "any".into(),
            weight: 1,
            door,
            event_type: "single.paid",
            tenant: "t".into(),
            expected: [].into(),
            sizes: (0, 0),
        }
    }

    #[test]
    fn a_body_has_the_bytes_that_were_asked_for_and_its_number() {
        for door in [Door::Stripe, Door::Internal, Door::Standard, Door::Twilio, Door::Github] {
            let body = write(&flavour(door), 42, 5000, Timestamp::UNIX_EPOCH);
            assert_eq!(body.len(), 5000, "{door:?}");
            assert_eq!(crate::journal::number_in(&body), Some(42), "{door:?}");
        }
    }
}
