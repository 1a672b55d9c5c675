//! Twilio: a target, a line break, and a body, signed here as Twilio documents it.
//!
//! What is signed so is never refused for its signature, and never accepted with another key's.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use posthorn_core::provider::Provider;
use posthorn_core::request::RawRequest;
use posthorn_core::signature::{Material, RefusalKind, Verdict, Verifier};
use ring::hmac;
use serde_json::json;

const SECRET: &str = "0ac5a3fbe1a14ab7bd2e8d7e4f3b6f19";
const STRANGERS: &str = "58d1b1fd2e7d4bb0a7b8ef0bd5f0b3c2";
const PUBLIC_URL: &str = "https://hooks.example.com/in/twilio";

type Field = (Vec<u8>, Vec<u8>);

static SOURCE: LazyLock<Verifier> = LazyLock::new(|| {
    Verifier::new(Provider::Twilio, &json!({ "public_url": PUBLIC_URL }), vec![SECRET.into()]).expect("a source")
});

pub fn run(data: &[u8]) {
    let (target, body) = super::first_line(data);
    let has_hash = fields(query(&target).as_bytes())
        .iter()
        .find(|(name, _)| name == b"bodySHA256")
        .is_some_and(|(_, value)| std::str::from_utf8(value).is_ok());
    let form = if has_hash { vec![] } else { fields(body) };
    let is_form = has_hash || body.split(|&b| b == b'&').all(|pair| pair.is_empty() || pair.contains(&b'='));
    let query_part = target.find('?').map_or("", |at| &target[at..]);
    for port in ["", ":443"] {
        let url = format!("https://hooks.example.com{port}/in/twilio{query_part}");
        let outcome = judge(&target, body, &signature(SECRET, &url, &form));
        let is_mismatch = matches!(&outcome, Err(refusal) if refusal.kind == RefusalKind::SignatureMismatch);
        assert_eq!(is_mismatch, !is_form, "{outcome:?}");
        if let Ok(verdict) = &outcome {
            check(verdict);
        }
        assert!(judge(&target, body, &signature(STRANGERS, &url, &form)).is_err(), "another key's");
    }
    // As a provider never would, to see that there is an answer.
    let other = Verifier::new(Provider::Twilio, &json!({ "public_url": target }), vec![SECRET.into()]);
    if let Ok(other) = other {
        assert!(other.judge(&request(&target, body, STRANGERS), None, super::now(), &Material::default()).is_err());
    }
}

fn check(verdict: &Verdict) {
    let Verdict::Events { occurrences, matched: Some(0) } = verdict else { panic!("{verdict:?}") };
    let [occurrence] = occurrences.as_slice() else { panic!("{occurrences:?}") };
    assert!(!occurrence.event_type.is_operational());
    assert!(!occurrence.dedup_parts.is_empty());
    assert!(occurrence.account.iter().all(|account| !account.contains('\0')), "PostgreSQL takes no NUL in a text");
}

fn judge(target: &str, body: &[u8], signature: &str) -> Result<Verdict, posthorn_core::signature::Refusal> {
    SOURCE.judge(&request(target, body, signature), None, super::now(), &Material::default())
}

fn request(target: &str, body: &[u8], signature: &str) -> RawRequest {
    RawRequest {
        method: "POST".to_owned(),
        target: target.to_owned(),
        headers: [("X-Twilio-Signature", signature)].into_iter().collect(),
        body: Bytes::copy_from_slice(body),
    }
}

/// The URL and every parameter, sorted by name, without anything between them.
fn signature(secret: &str, url: &str, form: &[Field]) -> String {
    let sorted: BTreeSet<&Field> = form.iter().collect();
    let parameters = sorted.into_iter().flat_map(|(name, value)| [name.as_slice(), value]);
    let text: Vec<u8> = std::iter::once(url.as_bytes()).chain(parameters).collect::<Vec<_>>().concat();
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    STANDARD.encode(hmac::sign(&key, &text))
}

fn query(target: &str) -> &str {
    target.split_once('?').map_or("", |(_, query)| query)
}

fn fields(form: &[u8]) -> Vec<Field> {
    let pairs = form.split(|&b| b == b'&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let at = pair.iter().position(|&b| b == b'=').unwrap_or(pair.len());
            (decoded(&pair[..at]), decoded(pair.get(at + 1..).unwrap_or_default()))
        })
        .collect()
}

fn decoded(text: &[u8]) -> Vec<u8> {
    let (mut decoded, mut at) = (vec![], 0);
    while let Some(&byte) = text.get(at) {
        let hex = text.get(at + 1..at + 3).filter(|hex| byte == b'%' && hex.iter().all(u8::is_ascii_hexdigit));
        let value = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        decoded.push(value.unwrap_or(if byte == b'+' { b' ' } else { byte }));
        at += if value.is_some() { 3 } else { 1 };
    }
    decoded
}
