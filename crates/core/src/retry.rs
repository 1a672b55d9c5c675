//! When a failed attempt is tried again.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use serde::{Deserialize, Serialize};

use crate::hold;
use crate::time::{later, since};

/// How far a planned delay is spread, in either direction, so that what failed together does not
/// come back together.
const SPREAD: f64 = 0.2;

/// How often, and how far apart, a delivery is attempted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RetryPolicy {
    /// One attempt at once, then one after each delay.
    Schedule {
        delays_seconds: Vec<u32>,
        #[serde(default)]
        permanent_statuses: Vec<u16>,
    },
    /// `base · factor^(n-1)` after the n-th attempt, up to `max_delay`, `max_attempts` in all.
    Exponential {
        base_seconds: f64,
        factor: f64,
        max_delay_seconds: u32,
        max_attempts: u32,
        #[serde(default)]
        permanent_statuses: Vec<u16>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct InvalidPolicy {
    /// The field at fault, within the policy.
    pub pointer: &'static str,
    pub detail: &'static str,
}

impl Default for RetryPolicy {
    /// One minute, five, fifteen, an hour, two hours.
    fn default() -> Self {
        Self::Schedule { delays_seconds: vec![60, 300, 900, 3600, 7200], permanent_statuses: Vec::new() }
    }
}

impl RetryPolicy {
    /// Refuses what would never end, wait for ever, or hammer.
    pub fn check(&self) -> Result<(), InvalidPolicy> {
        let fault = |pointer, detail| Err(InvalidPolicy { pointer, detail });
        match self {
            Self::Schedule { delays_seconds, .. } => {
                if delays_seconds.len() > 20 {
                    return fault("/delays_seconds", "at most 20 delays");
                }
                if delays_seconds.iter().any(|s| !(1..=604_800).contains(s)) {
                    return fault("/delays_seconds", "each delay is from 1 to 604800 seconds");
                }
            }
            Self::Exponential { base_seconds, factor, max_delay_seconds, max_attempts, .. } => {
                if !(0.1..=86_400.0).contains(base_seconds) {
                    return fault("/base_seconds", "from 0.1 to 86400 seconds");
                }
                if !(1.0..=10.0).contains(factor) {
                    return fault("/factor", "from 1 to 10");
                }
                if !(1..=604_800).contains(max_delay_seconds) {
                    return fault("/max_delay_seconds", "from 1 to 604800 seconds");
                }
                if !(1..=50).contains(max_attempts) {
                    return fault("/max_attempts", "from 1 to 50 attempts");
                }
            }
        }
        let statuses = self.permanent_statuses();
        if statuses.len() > 100 {
            return fault("/permanent_statuses", "at most 100 statuses");
        }
        if statuses.iter().any(|status| !(300..=599).contains(status)) {
            return fault("/permanent_statuses", "each status is from 300 to 599");
        }
        Ok(())
    }

    /// Whether the receiver's `status` ends the delivery at once.
    pub fn is_permanent(&self, status: u16) -> bool {
        self.permanent_statuses().contains(&status)
    }

    /// The planned wait after attempt `number` (from 1); `None` when that was the last.
    pub fn delay_after(&self, number: u32) -> Option<Duration> {
        match self {
            Self::Schedule { delays_seconds, .. } => {
                let index = usize::try_from(number.checked_sub(1)?).ok()?;
                delays_seconds.get(index).map(|s| Duration::from_secs(u64::from(*s)))
            }
            Self::Exponential { base_seconds, factor, max_delay_seconds, max_attempts, .. } => {
                if number >= *max_attempts {
                    return None;
                }
                let exponent = i32::try_from(number.saturating_sub(1)).unwrap_or(i32::MAX);
                let delay = base_seconds * factor.powi(exponent);
                Some(Duration::from_secs_f64(delay.min(f64::from(*max_delay_seconds))))
            }
        }
    }

    fn permanent_statuses(&self) -> &[u16] {
        match self {
            Self::Schedule { permanent_statuses, .. } | Self::Exponential { permanent_statuses, .. } => {
                permanent_statuses
            }
        }
    }
}

/// When to try again after failed attempt `number` (from 1); `None` when the policy is used up. `jitter` is the
/// caller's draw from `[0, 1)`.
pub fn next_attempt(policy: &RetryPolicy, number: u32, jitter: f64, now: Timestamp) -> Option<Timestamp> {
    let planned = policy.delay_after(number)?;
    Some(later(now, planned.mul_f64(1.0 - SPREAD + 2.0 * SPREAD * jitter)))
}

/// How long an endpoint that asks for time without saying how long is granted, where the policy has no delay.
const UNSAID: Duration = Duration::from_secs(60);

/// How long an endpoint that asks for time is left alone: as long as it says, or else for the policy's first delay.
pub fn granted(policy: &RetryPolicy, retry_after: Option<Duration>) -> Duration {
    retry_after.or_else(|| policy.delay_after(1)).unwrap_or(UNSAID).clamp(hold::MIN, hold::MAX)
}

/// How long an endpoint asks us to wait, read from its `Retry-After` header.
///
/// Takes seconds, with a fraction too, and the three forms of HTTP-date (RFC 9110 §10.2.3, §5.6.7), also with an offset
/// in place of `GMT`. A date in the past is zero. `None` if the text is none of these.
pub fn parse_retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        // More digits than fit are still a number of seconds, only longer than any wait.
        let seconds = text.parse::<f64>().ok()?;
        return Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX));
    }
    let http_date = || Timestamp::try_from(httpdate::parse_http_date(text).ok()?).ok();
    let date = http_date().or_else(|| rfc2822::parse(text).ok().map(|date| date.timestamp()))?;
    Some(since(now, date))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_782_864_000).unwrap()
    }

    fn wait(policy: &RetryPolicy, number: u32, jitter: f64) -> Option<f64> {
        let at = next_attempt(policy, number, jitter, now())?;
        Some(since(now(), at).as_secs_f64())
    }

    #[test]
    fn the_default_schedule_has_six_attempts_over_its_five_delays() {
        let policy = RetryPolicy::default();
        let waits: Vec<_> = (1..=6).map(|n| wait(&policy, n, 0.5)).collect();
        assert_eq!(waits, [Some(60.0), Some(300.0), Some(900.0), Some(3600.0), Some(7200.0), None]);
    }

    #[test]
    fn an_exponential_policy_grows_to_its_ceiling_and_ends_after_its_attempts() {
        let policy = RetryPolicy::Exponential {
            base_seconds: 1.0,
            factor: 3.0,
            max_delay_seconds: 10,
            max_attempts: 5,
            permanent_statuses: vec![],
        };
        let waits: Vec<_> = (1..=5).map(|n| wait(&policy, n, 0.5)).collect();
        assert_eq!(waits, [Some(1.0), Some(3.0), Some(9.0), Some(10.0), None]);
    }

    #[test]
    fn an_endpoint_gets_the_time_that_it_asks_for_within_a_day() {
        let policy = RetryPolicy::default();
        let granted = |policy, secs: Option<f64>| granted(policy, secs.map(Duration::from_secs_f64)).as_secs_f64();
        assert_eq!(granted(&policy, Some(10.0)), 10.0);
        assert_eq!(granted(&policy, Some(1.5)), 1.5);
        assert_eq!(granted(&policy, Some(0.0)), 1.0);
        assert_eq!(granted(&policy, Some(1e7)), 86_400.0);
        assert_eq!(granted(&policy, None), 60.0, "the first delay");
        let once = RetryPolicy::Schedule { delays_seconds: vec![], permanent_statuses: vec![] };
        assert_eq!(granted(&once, None), 60.0);
        let quick = RetryPolicy::Schedule { delays_seconds: vec![2], permanent_statuses: vec![] };
        assert_eq!(granted(&quick, None), 2.0);
    }

    #[test]
    fn every_form_of_retry_after_is_read() {
        let cases = [
            ("120", Some(120.0)),
            (" 0 ", Some(0.0)),
            ("1.5", Some(1.5)),
            ("0.25", Some(0.25)),
            ("Wed, 01 Jul 2026 00:02:00 GMT", Some(120.0)),
            ("Wednesday, 01-Jul-26 00:02:00 GMT", Some(120.0)),
            ("Wed Jul  1 00:02:00 2026", Some(120.0)),
            ("Wed, 01 Jul 2026 02:02:00 +0200", Some(120.0)),
            ("Wed, 01 Jul 2020 00:02:00 GMT", Some(0.0)),
            ("soon", None),
            ("-5", None),
            ("1.2.3", None),
            (".", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_retry_after(text, now()), expected.map(Duration::from_secs_f64), "{text:?}");
        }
        assert!(parse_retry_after(&"9".repeat(400), now()).is_some_and(|wait| wait > hold::MAX));
    }

    #[test]
    fn a_policy_that_hammers_or_never_ends_is_refused() {
        let schedule = |delays| RetryPolicy::Schedule { delays_seconds: delays, permanent_statuses: vec![] };
        assert!(schedule(vec![1, 2]).check().is_ok());
        assert_eq!(schedule(vec![0]).check().unwrap_err().pointer, "/delays_seconds");
        assert!(schedule(vec![1; 21]).check().is_err());
    }

    proptest! {
        #[test]
        fn the_wait_stays_within_a_fifth_of_the_plan(number in 1u32..6, jitter in 0.0..1.0f64) {
            let policy = RetryPolicy::default();
            let planned = policy.delay_after(number).map(|d| d.as_secs_f64());
            let actual = wait(&policy, number, jitter);
            prop_assert_eq!(planned.is_some(), actual.is_some());
            if let (Some(planned), Some(actual)) = (planned, actual) {
                prop_assert!(actual >= planned * 0.799 && actual <= planned * 1.201);
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = parse_retry_after(&text, now());
        }
    }
}
