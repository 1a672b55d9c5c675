//! The rules that make a scheme acceptable: it signs the body, and the time that it checks.

use crate::signature::config::ConfigError;
use crate::signature::scheme::clock::{TimestampPlace, TimestampRule};
use crate::signature::scheme::key::Algorithm;
use crate::signature::scheme::layout::SignatureRule;
use crate::signature::scheme::source::Choice;
use crate::signature::scheme::template::{Part, Template};

/// Longest tolerance, in seconds: dedup keys are kept at least as long, so no repeat slips through.
const MAX_TOLERANCE_SECS: u64 = 4 * 86_400;

/// What is signed must hold the body, and nothing that the request could choose afterwards.
pub(crate) fn check_signed(
    rule: &SignatureRule,
    signed: Option<&Template>,
    leaves_body_unsigned: bool,
    id: &Choice,
) -> Result<(), ConfigError> {
    let refuse = |detail: &str| Err(ConfigError::at("scheme/signed", detail));
    let algorithms = rule.algorithms();
    if algorithms.contains(&Algorithm::None) {
        return Err(ConfigError::at("scheme/signature/versions", "no version of a signature may verify nothing"));
    }
    let Some(signed) = signed else {
        let all_send_it = algorithms.iter().all(|algorithm| algorithm.sends_the_secret());
        return if all_send_it { Ok(()) } else { refuse("is required: it says what is signed") };
    };
    if algorithms.iter().any(|algorithm| algorithm.sends_the_secret()) {
        return refuse("a scheme that sends the secret itself signs nothing");
    }
    let covers_body = signed.holds(&Part::Body) || signed.holds(&Part::BodySha256);
    if !covers_body && !leaves_body_unsigned {
        return refuse("must contain `{body}`: a signature that leaves the body out fits any body");
    }
    if signed.holds(&Part::Type) || signed.holds(&Part::Minute) {
        return refuse("cannot contain `{type}` or `{minute}`");
    }
    if signed.holds(&Part::Id) && id.sources().is_empty() {
        return refuse("contains `{id}`, and `extract.event_id` does not say where that stands");
    }
    Ok(())
}

/// A tolerance must be held against a time that is signed.
pub(crate) fn check_timestamp(
    timestamp: Option<&TimestampRule>,
    tolerance: Option<u64>,
    rule: &SignatureRule,
    signed: Option<&Template>,
) -> Result<(), ConfigError> {
    let in_signed = |part| signed.is_some_and(|signed| signed.holds(&part));
    if tolerance.is_some_and(|secs| secs > MAX_TOLERANCE_SECS) {
        return Err(ConfigError::at("tolerance_seconds", format!("must be at most {MAX_TOLERANCE_SECS}")));
    }
    let Some(timestamp) = timestamp else {
        if in_signed(Part::Timestamp) {
            return Err(ConfigError::at("scheme/timestamp", "is required: `signed` contains `{timestamp}`"));
        }
        let detail = "this scheme signs no timestamp, so there is nothing to hold a tolerance against";
        return tolerance.map_or(Ok(()), |_| Err(ConfigError::at("tolerance_seconds", detail)));
    };
    let is_json = matches!(timestamp.place, TimestampPlace::Json(_));
    if matches!(timestamp.place, TimestampPlace::Beside(_)) && !rule.has_pairs() {
        return Err(ConfigError::at("scheme/timestamp/kv_key", "needs a signature of the format `kv`"));
    }
    let is_limited = timestamp.past_secs.is_some() || timestamp.future_secs.is_some();
    if is_limited && !in_signed(Part::Timestamp) && !(is_json && in_signed(Part::Body)) {
        let detail =
            "a tolerance is worth nothing while the timestamp is not signed: `signed` must contain `{timestamp}`";
        return Err(ConfigError::at("scheme/timestamp", detail));
    }
    Ok(())
}
