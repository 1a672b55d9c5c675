//! A subscription's own headers: taken as texts or as marked secrets, shown without the secrets.

use std::collections::BTreeMap;

use posthorn_core::id::SubscriptionId;
use posthorn_core::redact::{SEALED, is_secret_header};
use posthorn_core::subscription::HeaderValue;
use posthorn_store::seal::Sealer;
use posthorn_store::subscriptions::{Headers, Shown};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::api::body::Checks;

/// The headers of a request, by name.
pub(super) type Given = BTreeMap<String, GivenValue>;

/// A header's value in a request. `•••` in either form keeps the stored secret.
pub(super) enum GivenValue {
    Text(SecretString),
    Marked(SecretString),
}

impl<'de> Deserialize<'de> for GivenValue {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(TextOrMarked)
    }
}

struct TextOrMarked;

impl<'de> Visitor<'de> for TextOrMarked {
    type Value = GivenValue;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a text, or an object with `value` and `secret`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<GivenValue, E> {
        Ok(GivenValue::Text(text.to_owned().into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<GivenValue, A::Error> {
        let marked = Marked::deserialize(MapAccessDeserializer::new(map))?;
        if !marked.secret {
            return Err(A::Error::custom("`secret` is `true`; a plain value is a text"));
        }
        Ok(GivenValue::Marked(marked.value))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Marked {
    value: SecretString,
    secret: bool,
    /// Of an answer that is sent back. The API does not compare it: `If-Match` tells of changes in between.
    #[serde(rename = "fingerprint")]
    _fingerprint: Option<String>,
}

/// A header's value in an answer.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum HeaderView {
    Plain(String),
    Secret { value: &'static str, secret: bool, fingerprint: String },
}

pub(super) fn view(headers: &Headers) -> BTreeMap<String, HeaderView> {
    let view = |shown| match shown {
        Shown::Plain(text) => HeaderView::Plain(text.to_owned()),
        Shown::Secret(fingerprint) => {
            HeaderView::Secret { value: SEALED, secret: true, fingerprint: fingerprint.into_owned() }
        }
    };
    headers.shown().map(|(name, shown)| (name.to_owned(), view(shown))).collect()
}

/// The headers that `given` makes of the `stored` ones of the subscription `id`, sealed.
///
/// Fails the check of each value that no header can have, and of each `•••` without a stored secret that opens.
pub(super) fn sealed(
    given: Given,
    stored: &Headers,
    sealer: &Sealer,
    id: SubscriptionId,
    checks: &mut Checks,
) -> Headers {
    let mut values = BTreeMap::new();
    for (name, value) in given {
        let (GivenValue::Text(text) | GivenValue::Marked(text)) = &value;
        let text = text.expose_secret();
        if text == SEALED {
            match kept(&name, stored, sealer, id) {
                Ok(secret) => _ = values.insert(name, HeaderValue::Secret(secret)),
                Err(detail) => checks.fail(pointer(&name), detail),
            }
            continue;
        }
        let printable = text.bytes().all(|b| (b' '..=b'~').contains(&b));
        let holds = (1..=1024).contains(&text.len()) && printable && text.trim() == text;
        checks.require(
            holds,
            &pointer(&name),
            "must be a text of 1 to 1024 printable ASCII characters, without a blank at an end",
        );
        let is_secret = matches!(value, GivenValue::Marked(_)) || is_secret_header(&name, text);
        let text = text.to_owned();
        values.insert(name, if is_secret { HeaderValue::Secret(text.into()) } else { HeaderValue::Plain(text) });
    }
    Headers::seal(sealer, id, values)
}

/// The stored secret of that name, in whatever case; or why there is none.
fn kept(name: &str, stored: &Headers, sealer: &Sealer, id: SubscriptionId) -> Result<SecretString, &'static str> {
    let is_named = |(known, shown): (&str, Shown<'_>)| match shown {
        Shown::Secret(_) => known.eq_ignore_ascii_case(name),
        Shown::Plain(_) => false,
    };
    if !stored.shown().any(is_named) {
        return Err("`•••` keeps a stored secret, and this header has none: give its value");
    }
    let unopened = "the stored secret does not open with the sealing keys: give its value again";
    let open = stored.open(sealer, id).map_err(|_| unopened)?;
    let found = open.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    match found {
        Some((_, HeaderValue::Secret(secret))) => Ok(secret),
        _ => Err(unopened),
    }
}

/// Of a header in a request.
pub(super) fn pointer(name: &str) -> String {
    format!("/headers/{}", name.replace('~', "~0").replace('/', "~1"))
}
