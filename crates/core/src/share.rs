//! Who may use a delivery-worker's slots.
//!
//! A slot is one attempt under way. Endpoints that hang keep theirs for as long as a timeout, so no tenant may have
//! them all, however many endpoints it has; and what is late already never keeps what is fresh from going.

use crate::delivery::Trigger;

/// How a worker's slots are shared.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Attempts under way at the same time; at least 1.
    pub slots: u32,
    /// Of these, the part that one tenant may have while others wait.
    pub tenant_share: f64,
    /// Of these, the part that late attempts and replays may have.
    pub late_share: f64,
}

/// The slots in use, as somebody sees them who wants one.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub in_use: u32,
    /// By the same tenant.
    pub of_tenant: u32,
    /// By late attempts and replays.
    pub late: u32,
    /// Another tenant waits for one.
    pub others_wait: bool,
}

/// A tenth is kept free of any one tenant, so that whoever comes next does not wait.
const RESERVE: f64 = 0.1;

/// Whether an attempt that is late, or is not, may begin.
pub fn may_begin(usage: &Usage, is_late: bool, limits: &Limits) -> bool {
    let part = |share: f64| ((f64::from(limits.slots) * share) as u32).max(1);
    let most = part(if usage.others_wait { limits.tenant_share } else { 1.0 - RESERVE });
    usage.in_use < limits.slots && usage.of_tenant < most && (!is_late || usage.late < part(limits.late_share))
}

/// Whether an attempt belongs to what is late: one after the third, or of a delivery that was set going again. What
/// a person tries by hand is not.
pub fn is_late(generation: u32, attempt: u32, trigger: Trigger) -> bool {
    let again = generation > 1 || matches!(trigger, Trigger::Replay | Trigger::Recover);
    attempt > 3 || (again && trigger != Trigger::Manual)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { slots: 100, tenant_share: 0.4, late_share: 0.5 };

    fn usage(in_use: u32, of_tenant: u32, late: u32, others_wait: bool) -> Usage {
        Usage { in_use, of_tenant, late, others_wait }
    }

    #[test]
    fn a_tenant_alone_has_all_but_a_reserve_and_beside_others_its_share() {
        assert!(may_begin(&usage(89, 89, 0, false), false, &LIMITS));
        assert!(!may_begin(&usage(90, 90, 0, false), false, &LIMITS));
        assert!(may_begin(&usage(90, 0, 0, true), false, &LIMITS), "the reserve is for others");
        assert!(may_begin(&usage(60, 39, 0, true), false, &LIMITS));
        assert!(!may_begin(&usage(60, 40, 0, true), false, &LIMITS));
        assert!(!may_begin(&usage(100, 0, 0, true), false, &LIMITS), "there are no more");
    }

    #[test]
    fn what_is_late_has_half() {
        assert!(may_begin(&usage(49, 10, 49, false), true, &LIMITS));
        assert!(!may_begin(&usage(50, 10, 50, false), true, &LIMITS));
        assert!(may_begin(&usage(50, 10, 50, false), false, &LIMITS), "and what is fresh goes");
        assert!(is_late(1, 4, Trigger::Retry) && is_late(1, 1, Trigger::Recover) && is_late(2, 2, Trigger::Retry));
        assert!(!is_late(1, 3, Trigger::Retry) && !is_late(2, 1, Trigger::Manual));
    }

    #[test]
    fn a_worker_with_one_slot_uses_it() {
        let one = Limits { slots: 1, ..LIMITS };
        assert!(may_begin(&usage(0, 0, 0, true), true, &one));
    }
}
