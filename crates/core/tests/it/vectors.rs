//! The vectors: every request is accepted or refused as its file says.
//!
//! `POSTHORN_VECTORS` names another directory to run.

use std::io::Write;
use std::path::PathBuf;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use posthorn_core::signature::standard::{SigningKey, SigningSecret, sign, sign_ed25519};
use posthorn_core::signature::{Occurrence, Verdict};
use serde_json::{Value, json};

use crate::world::{Vector, files, own_directory};

/// Whose ids are not signed, so that events are told apart by something else.
const UNSIGNED_IDS: [&str; 4] = ["github", "shopify", "mailgun", "generic"];

fn directory() -> PathBuf {
    let named = std::env::var_os("POSTHORN_VECTORS").map(PathBuf::from);
    // Cargo runs tests in the directory of their crate; people give paths from the workspace's.
    let from_root = |path: PathBuf| if path.exists() { path } else { own_directory().join("../../../..").join(path) };
    named.map_or_else(own_directory, from_root)
}

#[test]
fn every_vector_is_accepted_or_refused_as_it_says() {
    let (mut ran, mut failures) = (0, vec![]);
    for (file, vectors) in files(&directory()) {
        let before = failures.len();
        for vector in &vectors {
            let problems = run(vector).err();
            failures.extend(problems.map(|problem| format!("{file}: {}: {problem}", vector.name)));
        }
        ran += vectors.len();
        let failed = failures.len() - before;
        say(&format!("{file}: {} vectors, {failed} failed", vectors.len()));
    }
    say(&format!("{ran} vectors"));
    assert!(ran > 0, "no vectors in {}", directory().display());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_signer_reproduces_the_vectors_of_standard_webhooks() {
    let mut reproduced = 0;
    for (_, vectors) in files(&own_directory()) {
        let is_signed =
            |vector: &&Vector| vector.name.starts_with("sign-published") || vector.name.starts_with("valid");
        for vector in vectors.iter().filter(|vector| vector.provider == "standardwebhooks").filter(is_signed) {
            let request = vector.request();
            let header = |name| request.headers.get(name).unwrap();
            let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp").parse().unwrap());
            let signature = match vector.note.as_deref().and_then(|note| note.strip_prefix("signing key: ")) {
                Some(key) => sign_ed25519(&SigningKey::parse(key).unwrap(), id, timestamp, &request.body),
                None => sign(&secret(vector), id, timestamp, &request.body),
            };
            assert_eq!(signature, header("webhook-signature"), "{}", vector.name);
            reproduced += 1;
        }
    }
    assert!(reproduced >= 4, "{reproduced}");
}

fn secret(vector: &Vector) -> SigningSecret {
    let text = vector.config["secrets"][0].as_str().unwrap();
    SigningSecret::parse(&format!("whsec_{}", text.trim_start_matches("whsec_"))).unwrap()
}

/// To the terminal, whether or not the test's output is captured.
fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").unwrap();
}

fn run(vector: &Vector) -> Result<(), String> {
    vector.source()?;
    let verdict = match vector.verifier() {
        Err(error) => Err(("invalid_config", error.to_string())),
        Ok(verifier) => verifier
            .judge(&vector.request(), vector.path_event(), vector.now(), &vector.material(&verifier))
            .map_err(|refusal| (refusal.kind.as_str(), refusal.detail)),
    };
    let outcome = match &verdict {
        Ok(Verdict::Needs(_)) => "needs",
        Ok(_) => "ok",
        Err((kind, _)) => kind,
    };
    let also = vector.also_acceptable.iter().flatten();
    if !also.chain([&vector.expect]).any(|acceptable| acceptable == outcome) {
        return Err(format!("expected {}, got {outcome}: {verdict:?}", vector.expect));
    }
    match (verdict, &vector.event) {
        (Ok(verdict), Some(event)) => check_verdict(vector, &verdict, event),
        _ => Ok(()),
    }
}

fn check_verdict(vector: &Vector, verdict: &Verdict, event: &Value) -> Result<(), String> {
    match verdict {
        Verdict::Events { occurrences, .. } => {
            let expected = event["batch"].as_array().cloned().unwrap_or_else(|| vec![event.clone()]);
            same("events", &json!(expected.len()), &json!(occurrences.len()))?;
            expected.iter().zip(occurrences).try_for_each(|(event, occurrence)| check(vector, occurrence, event))
        }
        Verdict::Handshake(answer) => {
            let body = serde_json::from_str(&answer.body).unwrap_or_else(|_| json!(answer.body));
            same("answer", &event["respond_with"], &body)
        }
        Verdict::Confirm { .. } => same("confirm_url_allowed", &event["confirm_url_allowed"], &json!(true)),
        Verdict::Ignore { .. } => {
            same("confirm_url_allowed", &json!(event["confirm_url_allowed"] == true), &json!(false))
        }
        Verdict::Needs(need) => Err(format!("needs {need:?}")),
    }
}

fn check(vector: &Vector, occurrence: &Occurrence, event: &Value) -> Result<(), String> {
    if event["id"].is_string() {
        same("id", &event["id"], &json!(occurrence.provider_event_id))?;
    }
    if let Some(event_type) = event["type"].as_str() {
        same("type", &json!(event_type.replace(' ', "_")), &json!(occurrence.event_type.as_str()))?;
    }
    if let Some(account) = event.get("account") {
        same("account", account, &json!(occurrence.account))?;
    }
    if let Some(time) = event["occurred_at"].as_str() {
        let without_zone = || time.parse::<DateTime>().unwrap().to_zoned(TimeZone::UTC).unwrap().timestamp();
        let expected: Timestamp = time.parse().unwrap_or_else(|_| without_zone());
        same("occurred_at", &json!(expected), &json!(occurrence.occurred_at))?;
    }
    if let Some(secs) = event["occurred_at_unix"].as_i64() {
        same("occurred_at_unix", &json!(secs), &json!(occurrence.occurred_at.map(Timestamp::as_second)))?;
    }
    let is_unsigned = UNSIGNED_IDS.contains(&vector.provider.as_str());
    for part in event["dedup_parts"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let is_id = is_unsigned && occurrence.provider_event_id.as_deref() == Some(part);
        if !is_id && !occurrence.dedup_parts.iter().any(|own| own == part) {
            return Err(format!("dedup part {part} is not in {:?}", occurrence.dedup_parts));
        }
    }
    if occurrence.dedup_parts.is_empty() { Err("there are no dedup parts".to_owned()) } else { Ok(()) }
}

fn same(what: &str, expected: &Value, actual: &Value) -> Result<(), String> {
    if expected == actual { Ok(()) } else { Err(format!("{what}: expected {expected}, got {actual}")) }
}
