//! Who sends, and how many refusals are worth keeping.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use posthorn_core::id::SourceId;

/// The sender's address: the peer's, or behind `trusted_proxies` reverse proxies the one that the
/// outermost of them saw. Each proxy appends the address it saw, so whatever stands further left was
/// written by the sender and means nothing.
pub fn sender(peer: Option<IpAddr>, forwarded_for: Option<&str>, trusted_proxies: usize) -> Option<IpAddr> {
    if trusted_proxies == 0 {
        return peer;
    }
    let seen = forwarded_for?.rsplit(',').nth(trusted_proxies - 1)?.trim();
    seen.parse().ok()
}

/// Counts refusals by source and minute.
#[derive(Debug, Default)]
pub struct RefusalBudget(Mutex<(i64, HashMap<Option<SourceId>, u32>)>);

impl RefusalBudget {
    /// Whether one more of this source may be kept. Unknown sources share one budget.
    pub fn take(&self, source: Option<SourceId>, per_minute: u32, now: Timestamp) -> bool {
        let minute = now.as_second() / 60;
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.0 != minute {
            *counted = (minute, HashMap::new());
        }
        let count = counted.1.entry(source).or_default();
        *count += 1;
        *count <= per_minute
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_trusted_proxy_appended_is_believed() {
        let peer = Some("10.0.0.1".parse().unwrap());
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        assert_eq!(sender(peer, Some("1.2.3.4"), 0), peer);
        assert_eq!(sender(peer, Some("6.6.6.6, 1.2.3.4"), 1), ip("1.2.3.4"));
        assert_eq!(sender(peer, Some("6.6.6.6, 1.2.3.4, 10.0.0.9"), 2), ip("1.2.3.4"));
        assert_eq!(sender(peer, Some("1.2.3.4"), 2), None, "fewer hops than proxies: nobody vouches for it");
        assert_eq!(sender(peer, None, 1), None);
        assert_eq!(sender(peer, Some("2001:db8::1"), 1), ip("2001:db8::1"));
    }

    #[test]
    fn refusals_are_kept_up_to_the_budget_and_again_the_next_minute() {
        let budget = RefusalBudget::default();
        let at = |secs| Timestamp::from_second(secs).unwrap();
        assert!(budget.take(None, 2, at(0)));
        assert!(budget.take(None, 2, at(1)));
        assert!(!budget.take(None, 2, at(2)));
        assert!(budget.take(None, 2, at(60)));
    }
}
