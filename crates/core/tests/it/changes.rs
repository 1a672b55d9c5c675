//! A genuine request with one byte changed is refused, whatever the scheme and wherever the byte.

use posthorn_core::request::{Headers, RawRequest};
use posthorn_core::signature::{Refusal, Verdict};
use proptest::prelude::*;

use crate::world::{Vector, files, own_directory};

/// Schemes that show a secret, or sign only a part of the body: there the body is not protected.
const LEAVE_THE_BODY: [&str; 2] = ["google_pubsub_oidc", "mailgun"];
/// What is signed here is what the body says, not how it spells it.
const SIGN_WHAT_IS_READ: [&str; 2] = ["ses_sns", "twilio"];
/// Words in the names of headers that carry a signature or are signed.
const SIGNED: [&str; 8] =
    ["signature", "hmac", "timestamp", "sig-", "webhook-id", "svix-id", "authorization", "gitlab-token"];
const NOT_SIGNED: [&str; 2] = ["x-twilio-webhooks-signature-settings", "x-shopify-webhook-id"];

/// The genuine requests, by the names of their vectors.
fn genuine() -> Vec<Vector> {
    let all = files(&own_directory()).into_iter().flat_map(|(_, vectors)| vectors);
    // Of two signatures one may be broken, and a right one beside a wrong one in another header.
    let is_plain = |vector: &Vector| {
        !["rotation", "two-", "unknown-versions", "right-256", "mixed"].iter().any(|word| vector.name.contains(word))
    };
    let genuine: Vec<_> = all.filter(|vector| vector.expect == "ok" && is_plain(vector)).collect();
    assert!(genuine.len() > 50, "{}", genuine.len());
    genuine
}

fn judge(vector: &Vector, request: &RawRequest) -> Result<Verdict, Refusal> {
    let verifier = vector.verifier().unwrap();
    verifier.judge(request, None, vector.now(), &vector.material(&verifier))
}

fn protects_its_body(vector: &Vector) -> bool {
    let algorithm = vector.config.get("scheme").and_then(|scheme| scheme["algorithm"].as_str());
    !LEAVE_THE_BODY.contains(&vector.provider.as_str()) && !matches!(algorithm, Some("token" | "basic"))
}

proptest! {
    // Every position is tried for every mask.
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn no_byte_of_a_body_can_be_changed(mask in 1u8..) {
        for vector in genuine().iter().filter(|vector| protects_its_body(vector)) {
            let request = vector.request();
            let verdict = judge(vector, &request);
            let spelling_is_free = SIGN_WHAT_IS_READ.contains(&vector.provider.as_str());
            let verifier = vector.verifier().unwrap();
            let material = vector.material(&verifier);
            for at in 0..request.body.len() {
                let mut body = request.body.to_vec();
                body[at] ^= mask;
                let changed = RawRequest { body: body.into(), ..request.clone() };
                let outcome = verifier.judge(&changed, None, vector.now(), &material);
                // Asking for another certificate is not believing it.
                let is_asked = matches!(outcome, Ok(Verdict::Needs(_)));
                let is_harmless = outcome.is_err() || (spelling_is_free && (is_asked || outcome == verdict));
                prop_assert!(is_harmless, "{} {}: byte {at} ^ {mask}: {outcome:?}", vector.provider, vector.name);
            }
        }
    }

    #[test]
    fn no_byte_of_a_signature_or_of_a_signed_header_can_be_changed(shift in 1u8..94) {
        for vector in &genuine() {
            let request = vector.request();
            let verifier = vector.verifier().unwrap();
            let material = vector.material(&verifier);
            for (place, (name, value)) in request.headers.iter().enumerate() {
                if !SIGNED.iter().any(|word| name.contains(word)) || NOT_SIGNED.contains(&name) {
                    continue;
                }
                // The word before the credentials may be written in any case.
                let first = if name == "authorization" { value.find(' ').unwrap_or(0) + 1 } else { 0 };
                for at in first..value.len() {
                    let changed = with_header(&request, place, &shifted(value, at, shift));
                    let outcome = verifier.judge(&changed, None, vector.now(), &material);
                    prop_assert!(outcome.is_err(), "{} {}: {name} byte {at}", vector.provider, vector.name);
                }
            }
        }
    }

    #[test]
    fn no_byte_of_a_signed_query_can_be_changed(shift in 1u8..94) {
        let signs_url = |vector: &&Vector| ["twilio", "hubspot_v3"].contains(&vector.provider.as_str());
        for vector in genuine().iter().filter(signs_url) {
            let request = vector.request();
            for at in request.target.find('?').map_or(request.target.len(), |at| at + 1)..request.target.len() {
                let target = shifted(&request.target, at, shift);
                let outcome = judge(vector, &RawRequest { target, ..request.clone() });
                prop_assert!(outcome.is_err(), "{} {}: byte {at}", vector.provider, vector.name);
            }
        }
    }
}

#[test]
fn nothing_is_accepted_without_its_signature() {
    for vector in genuine() {
        let request = vector.request();
        let unsigned = |name: &str| !SIGNED.iter().any(|word| name.contains(word));
        let headers =
            request.headers.iter().filter(|(name, _)| unsigned(name)).map(|(name, value)| (name, value.to_owned()));
        let stripped = RawRequest { headers: headers.collect(), body: "{}".into(), ..request.clone() };
        assert!(judge(&vector, &stripped).is_err(), "{} {}", vector.provider, vector.name);
    }
}

/// `text` with the byte at `at` replaced by another printable one, `shift` places further on.
fn shifted(text: &str, at: usize, shift: u8) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes[at] = 33 + ((bytes[at] as u16 - 33 + u16::from(shift)) % 94) as u8;
    String::from_utf8(bytes).unwrap()
}

fn with_header(request: &RawRequest, place: usize, value: &str) -> RawRequest {
    let replaced = |(index, (name, old)): (usize, (&str, &str))| {
        (name.to_owned(), if index == place { value.to_owned() } else { old.to_owned() })
    };
    RawRequest { headers: request.headers.iter().enumerate().map(replaced).collect::<Headers>(), ..request.clone() }
}
