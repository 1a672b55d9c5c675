//! Who fills a queue.
//!
//! Deliveries of many tenants stand in one queue, first come, first served. When it has become long, those of a
//! tenant that sends more than its part wait in PostgreSQL instead, from where they come in turns; so whoever
//! sends little never stands behind a flood.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::id::TenantId;
use crate::time::since;

/// How long who put something into the queue is remembered: this long at least, twice as long at most.
const MEMORY: Duration = Duration::from_secs(5);

/// With nobody beside it, a tenant may fill a queue so many times as far: whoever comes next waits for that.
const ALONE: u32 = 4;

/// Who put how much into a queue lately.
#[derive(Clone, Debug, Default)]
pub struct Crowd {
    now: HashMap<TenantId, u32>,
    before: HashMap<TenantId, u32>,
    since: Option<Timestamp>,
}

impl Crowd {
    /// Notes one more of a tenant's, whether it goes into the queue or has to wait.
    pub fn note(&mut self, tenant: TenantId, now: Timestamp) {
        if self.since.is_none_or(|began| since(began, now) >= MEMORY) {
            self.before = std::mem::take(&mut self.now);
            self.since = Some(now);
        }
        *self.now.entry(tenant).or_default() += 1;
    }

    /// Whether a tenant's next one has to wait where `ahead` messages stand in the queue and `limit` is a good length.
    pub fn must_wait(&self, tenant: TenantId, ahead: u32, limit: u32) -> bool {
        if ahead < limit {
            return false;
        }
        let all = || self.now.iter().chain(&self.before);
        let of =
            |wanted: TenantId| all().filter(|(id, _)| **id == wanted).map(|(_, count)| u64::from(*count)).sum::<u64>();
        let total: u64 = all().map(|(_, count)| u64::from(*count)).sum();
        let new_before = self.before.keys().filter(|id| !self.now.contains_key(id)).count();
        let tenants = u64::try_from(self.now.len() + new_before).unwrap_or(u64::MAX);
        let more_than_its_part = of(tenant).saturating_mul(tenants) > total;
        let is_alone = total > 0 && of(tenant) == total;
        more_than_its_part || (is_alone && ahead >= limit.saturating_mul(ALONE))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn tenant(number: u128) -> TenantId {
        TenantId::from_uuid(Uuid::from_u128(number))
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(1_782_864_000 + secs).unwrap()
    }

    fn crowd(of: &[(u128, u32)]) -> Crowd {
        let mut crowd = Crowd::default();
        for (number, count) in of {
            (0..*count).for_each(|_| crowd.note(tenant(*number), at(0)));
        }
        crowd
    }

    #[test]
    fn beside_others_whoever_sends_more_than_its_part_waits_when_the_queue_is_long() {
        let crowd = crowd(&[(1, 900), (2, 10), (3, 50)]);
        assert!(!crowd.must_wait(tenant(1), 499, 500));
        assert!(crowd.must_wait(tenant(1), 500, 500));
        for modest in [2, 3, 4] {
            assert!(!crowd.must_wait(tenant(modest), 10_000, 500), "{modest}");
        }
    }

    #[test]
    fn alone_a_tenant_may_fill_it_further_but_not_without_end() {
        let crowd = crowd(&[(1, 900)]);
        assert!(!crowd.must_wait(tenant(1), 1999, 500));
        assert!(crowd.must_wait(tenant(1), 2000, 500));
        assert!(!crowd.must_wait(tenant(2), 2000, 500), "the first of another");
    }

    #[test]
    fn who_has_not_sent_for_a_while_is_forgotten() {
        let mut crowd = crowd(&[(1, 900), (2, 10)]);
        crowd.note(tenant(1), at(6));
        assert!(crowd.must_wait(tenant(1), 500, 500));
        crowd.note(tenant(1), at(12));
        assert!(!crowd.must_wait(tenant(1), 500, 500), "alone by now");
    }
}
