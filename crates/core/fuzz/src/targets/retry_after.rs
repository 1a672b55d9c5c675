//! The `Retry-After` of an endpoint's answer.

use std::time::Duration;

use posthorn_core::outcome::{Attempted, Fault, classify};
use posthorn_core::retry::{RetryPolicy, granted, parse_retry_after};

const DAY: Duration = Duration::from_secs(86_400);

pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let now = super::now();
    let asked = parse_retry_after(&text, now);
    let expected = match asked {
        Some(_) => Fault::NotNow { status: 503, retry_after: asked },
        None => Fault::Status { status: 503 },
    };
    assert_eq!(classify(503, Some(&text), now), Attempted::Failed(expected));
    let waits = granted(&RetryPolicy::default(), asked);
    assert!(waits >= asked.unwrap_or_default().min(DAY), "sooner than asked: {waits:?}");
    assert!((Duration::from_secs(1)..=DAY).contains(&waits), "{waits:?}");
}
