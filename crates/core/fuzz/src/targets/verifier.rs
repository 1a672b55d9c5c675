//! A request as HTTP writes it, below the name of a vector whose source judges it.
//!
//! ```text
//! stripe/valid 0 path.event
//! POST /webhooks/a?b=c
//! Stripe-Signature: t=…
//!
//! {"id":"evt_1"}
//! ```
//!
//! The number is added to the vector's time, in seconds. Nobody who mutates this can sign, so what a
//! verifying source accepts at the vector's own time has the body of a genuine request, and a source
//! with other secrets accepts nothing.

use std::sync::LazyLock;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use posthorn_core::request::{Headers, RawRequest};
use posthorn_core::signature::{Material, Occurrence, Verdict, Verifier, split_secrets};

use super::vectors::{GENUINE, Genuine, of_provider};

/// The same sources with secrets that no vector was signed with; `None` where there are none.
static STRANGERS: LazyLock<Vec<Option<Verifier>>> = LazyLock::new(|| GENUINE.iter().map(stranger).collect());

/// What a target is given, taken apart.
struct Sent {
    /// The place of the vector.
    index: usize,
    shift_secs: i64,
    path_event: Option<String>,
    request: RawRequest,
}

pub fn run(data: &[u8]) {
    let sent = Sent::read(data);
    let genuine = &GENUINE[sent.index];
    let path_event = sent.path_event.as_deref();
    let judge = |verifier: &Verifier, now| verifier.judge(&sent.request, path_event, now, &genuine.material);
    let now = genuine.vector.now();
    if let Ok(Verdict::Events { occurrences, .. }) = judge(&genuine.verifier, now) {
        occurrences.iter().for_each(|occurrence| check(occurrence, &sent.request));
        let is_open = !genuine.verifier.is_verifying() || leaves_the_body(genuine);
        assert!(is_open || is_genuine_body(genuine, &sent.request.body), "{}: an unsigned body", genuine.name());
    }
    let later = now.checked_add(SignedDuration::from_secs(sent.shift_secs)).unwrap_or(Timestamp::MAX);
    let _ = judge(&genuine.verifier, later);
    let _ = genuine.verifier.judge(&sent.request, path_event, now, &Material::default());
    if let Some(stranger) = &STRANGERS[sent.index] {
        match judge(stranger, now) {
            Err(_) => {}
            // Nothing is signed in a handshake by GET.
            Ok(Verdict::Handshake(_)) if sent.request.method == "GET" => {}
            Ok(verdict) => panic!("{}: accepted with another's secret: {verdict:?}", genuine.name()),
        }
    }
}

impl Sent {
    fn read(data: &[u8]) -> Self {
        let (line, rest) = super::first_line(data);
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default();
        let by_name = GENUINE.iter().position(|genuine| genuine.name() == name);
        let by_chance = || name.bytes().map(usize::from).sum::<usize>() % GENUINE.len();
        let shift_secs = words.next().and_then(|number| number.parse().ok()).unwrap_or_default();
        let path_event = words.next().map(str::to_owned);
        Self { index: by_name.unwrap_or_else(by_chance), shift_secs, path_event, request: request(rest) }
    }
}

fn request(data: &[u8]) -> RawRequest {
    let (line, mut rest) = super::first_line(data);
    let (method, target) = line.split_once(' ').unwrap_or((line.as_str(), "/"));
    let mut headers = vec![];
    loop {
        let (line, after) = super::first_line(rest);
        rest = after;
        match line.split_once(": ") {
            Some((name, value)) => headers.push((name.to_owned(), value.to_owned())),
            None if line.is_empty() => break,
            None => headers.push((line, String::new())),
        }
    }
    RawRequest {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: headers.into_iter().collect::<Headers>(),
        body: Bytes::copy_from_slice(rest),
    }
}

fn check(occurrence: &Occurrence, request: &RawRequest) {
    assert!(!occurrence.event_type.is_operational(), "an event of Posthorn's own, from outside");
    assert!(!occurrence.dedup_parts.is_empty());
    for text in occurrence.provider_event_id.iter().chain(&occurrence.account) {
        assert!(!text.contains('\0'), "PostgreSQL takes no NUL in a text");
    }
    if let Some(item) = &occurrence.body {
        assert!(request.body.windows(item.len()).any(|window| window == item), "an item keeps its bytes");
    }
}

/// Schemes that sign no body, or show a secret; and those of SNS and Twilio, which sign what is read
/// and have targets of their own.
fn leaves_the_body(genuine: &Genuine) -> bool {
    let algorithm = genuine.vector.config.get("scheme").and_then(|scheme| scheme["algorithm"].as_str());
    ["google_pubsub_oidc", "mailgun", "ses_sns", "twilio"].contains(&genuine.vector.provider.as_str())
        || matches!(algorithm, Some("token" | "basic"))
}

fn is_genuine_body(genuine: &Genuine, body: &Bytes) -> bool {
    of_provider(&genuine.vector.provider).any(|other| other.request.body == body)
}

fn stranger(genuine: &Genuine) -> Option<Verifier> {
    const SECRETS: [&str; 2] = [
        "b7e41c9d5a2f80634e1d7b9c3a5f6e8d0c2b4a69788796a5b4c3d2e1f0a9b8c7",
        "whsec_t+QcnVovgGNOHXucOl9ujQwrSml4h5altMPS4fCpuMc=",
    ];
    let (provider, config) = genuine.vector.source().ok()?;
    let (public, secrets) = split_secrets(provider, config).ok()?;
    let with = |secret: &str| Verifier::new(provider, &public, vec![secret.into()]).ok();
    // A public key verifies what the vector's sender has signed, whatever the secrets.
    if secrets.is_empty() || public.get("public_keys").is_some() { None } else { SECRETS.into_iter().find_map(with) }
}
