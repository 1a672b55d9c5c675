//! When a request was signed, and whether that is still now.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Deserialize;

use crate::body::path::JsonPath;
use crate::signature::refusal::{Refusal, RefusalKind};

/// Where the timestamp stands and how far it may be off, as a configuration says it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TimestampSpec {
    header: Option<serde_json::Value>,
    kv_key: Option<String>,
    json: Option<JsonPath>,
    #[serde(default)]
    format: TimeFormat,
    /// Both ways, in seconds.
    #[serde(alias = "tolerance_s")]
    tolerance_seconds: Option<u64>,
    #[serde(alias = "tolerance_past_s")]
    tolerance_past_seconds: Option<u64>,
    #[serde(alias = "tolerance_future_s")]
    tolerance_future_seconds: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TimeFormat {
    #[default]
    UnixS,
    UnixMs,
    Iso8601,
}

/// Where the timestamp stands and how far it may be off. Limits are inclusive, in seconds.
#[derive(Clone, Debug)]
pub(crate) struct TimestampRule {
    pub(crate) place: TimestampPlace,
    pub(crate) format: TimeFormat,
    pub(crate) past_secs: Option<u64>,
    pub(crate) future_secs: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TimestampPlace {
    Header(Vec<String>),
    /// A key beside the signature.
    Beside(String),
    Json(JsonPath),
}

impl TimestampSpec {
    pub(crate) fn is_limited(&self) -> bool {
        self.tolerance_seconds.is_some() || self.tolerance_past_seconds.is_some()
    }

    /// `tolerance` is the source's own, in place of the scheme's limits. Fails with the rule broken.
    pub(crate) fn compile(self, tolerance: Option<u64>) -> Result<TimestampRule, String> {
        let place = match (self.header, self.kv_key, self.json) {
            (Some(serde_json::Value::String(name)), None, None) => TimestampPlace::Header(vec![name]),
            (Some(names), None, None) => TimestampPlace::Header(
                serde_json::from_value(names).map_err(|_| "`header` is a name or a list of names".to_owned())?,
            ),
            (None, Some(key), None) => TimestampPlace::Beside(key),
            (None, None, Some(path)) => TimestampPlace::Json(path),
            _ => return Err("must have exactly one of `header`, `kv_key` and `json`".to_owned()),
        };
        let past = self.tolerance_past_seconds.or(self.tolerance_seconds);
        let future = self.tolerance_future_seconds.or(self.tolerance_seconds);
        // A scheme that looks only at the past goes on doing so under another tolerance.
        let only_past = past.is_some() && future.is_none();
        Ok(TimestampRule {
            place,
            format: self.format,
            past_secs: tolerance.or(past),
            future_secs: if only_past { None } else { tolerance.or(future) },
        })
    }
}

impl TimestampRule {
    /// The moment that `text` names; `None` if it names none.
    pub(crate) fn read(&self, text: &str) -> Option<Timestamp> {
        let digits = || text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<i64>().ok()).flatten();
        match self.format {
            TimeFormat::UnixS => Timestamp::from_second(digits()?).ok(),
            TimeFormat::UnixMs => Timestamp::from_millisecond(digits()?).ok(),
            TimeFormat::Iso8601 => iso8601(text),
        }
    }

    /// The text that [`Self::read`] takes for `at`.
    pub(crate) fn write(&self, at: Timestamp) -> String {
        match self.format {
            TimeFormat::UnixS => at.as_second().to_string(),
            TimeFormat::UnixMs => at.as_millisecond().to_string(),
            TimeFormat::Iso8601 => at.to_string(),
        }
    }

    /// Whether a request signed at `at` is fresh `now`. Whole seconds are compared where whole
    /// seconds are sent, as the providers' own libraries do.
    pub(crate) fn check(&self, at: Timestamp, now: Timestamp) -> Result<(), Refusal> {
        let age_ms = match self.format {
            TimeFormat::UnixS => now.as_second().saturating_sub(at.as_second()).saturating_mul(1000),
            TimeFormat::UnixMs | TimeFormat::Iso8601 => now.as_millisecond().saturating_sub(at.as_millisecond()),
        };
        let exceeds = |ms: i64, limit: Option<u64>| {
            limit.filter(|limit| u64::try_from(ms).is_ok_and(|ms| ms > limit.saturating_mul(1000)))
        };
        if let Some(limit) = exceeds(age_ms, self.past_secs) {
            let detail = format!("signed {} s ago, more than {limit} s", age_ms / 1000);
            return Err(Refusal::new(RefusalKind::TimestampTooOld, detail));
        }
        if let Some(limit) = exceeds(age_ms.saturating_neg(), self.future_secs) {
            let detail = format!("signed {} s ahead of now, more than {limit} s", age_ms.saturating_neg() / 1000);
            return Err(Refusal::new(RefusalKind::TimestampTooNew, detail));
        }
        Ok(())
    }
}

/// A time as providers write it in bodies: seconds or milliseconds since 1970, or ISO 8601; without
/// a zone it is UTC.
pub(crate) fn moment(text: &str) -> Option<Timestamp> {
    // PostgreSQL begins in 4713 BC, and no provider was there before 1970.
    spelled(text).filter(|at| at.as_second() > -62_135_596_800)
}

fn spelled(text: &str) -> Option<Timestamp> {
    // What is above would be the year 5138 in seconds, what is below 1973 in milliseconds.
    const MILLIS_FROM: u64 = 100_000_000_000;
    if let Ok(number) = text.parse::<i64>() {
        let is_millis = number.unsigned_abs() >= MILLIS_FROM;
        return if is_millis { Timestamp::from_millisecond(number) } else { Timestamp::from_second(number) }.ok();
    }
    if let Some(secs) = text.parse::<f64>().ok().filter(|secs| secs.is_finite()) {
        // Out of range saturates, and is then refused as a time.
        return Timestamp::from_millisecond((secs * 1000.0).round() as i64).ok();
    }
    iso8601(text)
}

fn iso8601(text: &str) -> Option<Timestamp> {
    let without_zone = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    text.parse().ok().or_else(without_zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(past_secs: Option<u64>, future_secs: Option<u64>, format: TimeFormat) -> TimestampRule {
        TimestampRule { place: TimestampPlace::Beside("t".into()), format, past_secs, future_secs }
    }

    #[test]
    fn every_spelling_of_a_time_in_a_body_is_read() {
        let expected: Timestamp = "2026-06-30T23:59:58Z".parse().unwrap();
        for text in [
            "1782863998",
            "1782863998000",
            "1782863998.0",
            "2026-06-30T23:59:58Z",
            "2026-06-30T23:59:58.000000",
            "2026-07-01T01:59:58+02:00",
        ] {
            assert_eq!(moment(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "soon",
            "-005000-01-01T00:00:00Z",
            "-99999999999",
            "NaN",
            "1e300",
            "99999999999999999999",
            "-9223372036854775808",
        ] {
            assert_eq!(moment(text), None, "{text}");
        }
    }

    #[test]
    fn the_limits_are_inclusive_and_the_future_is_free_where_no_limit_is_set() {
        let at = |secs| Timestamp::from_second(secs).unwrap();
        let kind = |rule: &TimestampRule, secs| rule.check(at(secs), at(1_000_000)).map_err(|refusal| refusal.kind);
        let both = rule(Some(300), Some(300), TimeFormat::UnixS);
        assert_eq!(kind(&both, 999_700), Ok(()));
        assert_eq!(kind(&both, 999_699), Err(RefusalKind::TimestampTooOld));
        assert_eq!(kind(&both, 1_000_300), Ok(()));
        assert_eq!(kind(&both, 1_000_301), Err(RefusalKind::TimestampTooNew));
        let past = rule(Some(300), None, TimeFormat::UnixS);
        assert_eq!(kind(&past, 9_000_000), Ok(()));
    }

    #[test]
    fn a_timestamp_is_digits_and_nothing_else() {
        let rule = rule(None, None, TimeFormat::UnixS);
        for text in ["", "+1", "-1", "1.0", " 1", "1782863997x", "99999999999999999999"] {
            assert_eq!(rule.read(text), None, "{text:?}");
        }
        assert!(rule.read("1782863997").is_some());
    }
}
