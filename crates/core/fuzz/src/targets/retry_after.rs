//! The `Retry-After` of an endpoint's answer.

use std::time::Duration;

use posthorn_core::outcome::{Attempted, Fault, classify};
use posthorn_core::retry::{RetryPolicy, next_attempt, parse_retry_after};
use posthorn_core::time::since;

const DAY: Duration = Duration::from_secs(86_400);

pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let now = super::now();
    let asked = parse_retry_after(&text, now);
    assert_eq!(classify(503, Some(&text), now), Attempted::Failed(Fault::Status { status: 503, retry_after: asked }));
    for jitter in [0.0, 0.5, 0.999] {
        let at = next_attempt(&RetryPolicy::default(), 1, asked, jitter, now).expect("a second attempt");
        let waits = since(now, at);
        assert!(waits >= asked.unwrap_or_default().min(DAY), "sooner than asked: {waits:?}");
        assert!(waits <= DAY * 2, "later than anybody may ask for: {waits:?}");
    }
}
