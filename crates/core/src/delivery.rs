//! The life of a delivery: its states, what moves it between them, and what an attempt leads to.

use std::time::Duration;

use jiff::Timestamp;

use crate::outcome::{Attempted, Fault};
use crate::retry::{RetryPolicy, granted, next_attempt};
use crate::time::later;

names! {
    State {
        /// Waits in PostgreSQL, with a reason and a time.
        Held = "held",
        /// Handed to RabbitMQ under a lease.
        Queued = "queued",
        Delivered = "delivered",
        Dead = "dead",
        Cancelled = "cancelled",
    }
}

names! {
    /// What a held delivery waits for.
    HeldReason {
        Retry = "retry",
        /// The endpoint has more than it takes; the delivery-worker made room for others.
        Slow = "slow",
        Paused = "paused",
        /// The subscription's rate limit, or its endpoint's: it answered 429, or 503 with `Retry-After`.
        Rate = "rate",
        /// Its endpoint failed too often, and is left alone for a while.
        Breaker = "breaker",
        /// Its turn, where the subscription is ordered.
        Order = "order",
        Replay = "replay",
    }
}

names! {
    /// What brought an attempt about.
    Trigger {
        Dispatch = "dispatch",
        Retry = "retry",
        Manual = "manual",
        Replay = "replay",
        Recover = "recover",
        Probe = "probe",
    }
}

names! {
    /// Why something no longer moves.
    DeadReason {
        /// The retry schedule is used up.
        Exhausted = "exhausted",
        /// The subscription calls the status permanent.
        Permanent = "permanent",
        /// The endpoint answered 410.
        Gone = "gone",
        /// Its event is older than the retention, or would be at the next attempt.
        Expired = "expired",
        /// A message went round too often: whoever handled it died each time.
        DeliveryLimit = "delivery_limit",
        /// A message that no service can read.
        Undecodable = "undecodable",
        /// A message that was refused for a reason unknown to this version.
        Poison = "poison",
    }
}

/// What a delivery-worker knows of a subscription at the moment of sending.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    pub is_active: bool,
    /// Its breaker is closed.
    pub flows: bool,
    /// It has a secret, and a client certificate where it needs one.
    pub can_sign: bool,
    /// Its endpoint asked for time until then.
    pub not_before: Option<Timestamp>,
}

/// How long a delivery waits for a secret that opens.
const NO_SECRET_PAUSE: Duration = Duration::from_secs(60);

/// Why a delivery may not be sent at `now`, and until when it waits; `None`: it may. `created` is the time of its event,
/// its place among those that wait.
pub fn hold(flow: &Flow, trigger: Trigger, created: Timestamp, now: Timestamp) -> Option<(HeldReason, Timestamp)> {
    if !flow.is_active {
        Some((HeldReason::Paused, created))
    } else if !flow.flows && trigger != Trigger::Probe {
        Some((HeldReason::Breaker, created))
    } else if let Some(until) = flow.not_before.filter(|until| *until > now) {
        Some((HeldReason::Rate, until))
    } else if !flow.can_sign {
        // Fail closed: nothing goes out unsigned.
        Some((HeldReason::Slow, later(now, NO_SECRET_PAUSE)))
    } else {
        None
    }
}

/// How a delivery-worker treats a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Send at once: the row cannot have moved.
    Send,
    /// Take the row first; whoever finds it moved drops the message.
    Claim,
}

/// What a message says about itself.
#[derive(Clone, Copy, Debug)]
pub struct Wake {
    pub attempt: u32,
    pub trigger: Trigger,
    /// Returned to the queue at least once, so somebody may have begun.
    pub redelivered: bool,
    /// It carries all that is needed to send.
    pub has_content: bool,
    pub lease_until: Timestamp,
}

/// Whether a message may be sent without reading its row.
///
/// Only a first attempt of a fresh delivery, seen for the first time, whose lease outlasts the
/// attempt by `margin`: until then nobody else publishes or claims the row.
pub fn admit(wake: &Wake, timeout: Duration, margin: Duration, now: Timestamp) -> Admission {
    let untouched = wake.attempt == 1 && wake.trigger == Trigger::Dispatch && !wake.redelivered;
    let in_time = later(later(now, timeout), margin) <= wake.lease_until;
    if untouched && wake.has_content && in_time { Admission::Send } else { Admission::Claim }
}

/// Whether an attempt that was admitted at `admitted` may still begin. Each has `margin` on its lease beyond the timeout: a
/// process that stood still for longer leaves it to whoever renews the lease.
pub fn may_begin(admitted: Timestamp, margin: Duration, now: Timestamp) -> bool {
    now <= later(admitted, margin)
}

/// How long an attempt that was sent unread may last before its worker takes the row all the same, so that nobody
/// else does. Most attempts are over by then, and spare the write.
pub const CLAIM_AFTER: Duration = Duration::from_millis(500);

/// How long a message that came back waits before it claims its row, with a database that answers all the while.
///
/// An attempt that was sent unread may go on in a worker that merely lost its connection, and may even begin a moment
/// later, while it waits for its turn. By then it is recorded, or the row is taken ([`CLAIM_AFTER`]); only a worker
/// that died has done neither.
pub fn wait_before_claim(wake: &Wake) -> Duration {
    let may_be_under_way = wake.redelivered && wake.attempt == 1 && wake.trigger == Trigger::Dispatch;
    if may_be_under_way { CLAIM_AFTER * 6 } else { Duration::ZERO }
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Delivered,
    RetryAt(Timestamp),
    /// The endpoint asked for time. Its subscription waits until then, and the attempt does not count for the policy.
    NotNow(Timestamp),
    Dead(DeadReason),
}

/// Decides what follows attempt `number` (from 1, without those that met an endpoint that asked for time). `jitter` is
/// the caller's draw from `[0, 1)`. A retry that would come after `not_after` is not made: the event is too old by then.
pub fn after_attempt(
    policy: &RetryPolicy,
    number: u32,
    attempted: &Attempted,
    not_after: Timestamp,
    jitter: f64,
    now: Timestamp,
) -> Next {
    let fault = match attempted {
        Attempted::Accepted => return Next::Delivered,
        Attempted::Failed(fault) => fault,
    };
    match fault {
        Fault::Gone => return Next::Dead(DeadReason::Gone),
        Fault::Status { status } | Fault::NotNow { status, .. } if policy.is_permanent(*status) => {
            return Next::Dead(DeadReason::Permanent);
        }
        Fault::NotNow { retry_after, .. } => {
            let until = later(now, granted(policy, *retry_after));
            return if until > not_after { Next::Dead(DeadReason::Expired) } else { Next::NotNow(until) };
        }
        Fault::Status { .. } | Fault::NoAnswer(_) => {}
    }
    match next_attempt(policy, number, jitter, now) {
        None => Next::Dead(DeadReason::Exhausted),
        Some(at) if at > not_after => Next::Dead(DeadReason::Expired),
        Some(at) => Next::RetryAt(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::NoAnswer;

    fn now() -> Timestamp {
        Timestamp::from_second(1_782_864_000).unwrap()
    }

    fn wake() -> Wake {
        Wake {
            attempt: 1,
            trigger: Trigger::Dispatch,
            redelivered: false,
            has_content: true,
            lease_until: later(now(), Duration::from_secs(60)),
        }
    }

    #[test]
    fn only_a_fresh_first_attempt_with_time_left_is_sent_unread() {
        let admit_at = |wake: Wake, now| admit(&wake, Duration::from_secs(10), Duration::from_secs(5), now);
        assert_eq!(admit_at(wake(), now()), Admission::Send);
        assert_eq!(admit_at(Wake { redelivered: true, ..wake() }, now()), Admission::Claim);
        assert_eq!(admit_at(Wake { attempt: 2, ..wake() }, now()), Admission::Claim);
        assert_eq!(admit_at(Wake { trigger: Trigger::Replay, ..wake() }, now()), Admission::Claim);
        assert_eq!(admit_at(Wake { has_content: false, ..wake() }, now()), Admission::Claim);
        assert_eq!(admit_at(wake(), later(now(), Duration::from_secs(46))), Admission::Claim);
    }

    #[test]
    fn only_a_first_attempt_that_came_back_waits_for_whoever_may_be_at_it() {
        assert_eq!(wait_before_claim(&wake()), Duration::ZERO);
        assert!(wait_before_claim(&Wake { redelivered: true, ..wake() }) > CLAIM_AFTER);
        assert_eq!(wait_before_claim(&Wake { redelivered: true, attempt: 2, ..wake() }), Duration::ZERO);
        let replayed = Wake { redelivered: true, trigger: Trigger::Replay, ..wake() };
        assert_eq!(wait_before_claim(&replayed), Duration::ZERO);
    }

    #[test]
    fn a_delivery_waits_for_its_subscription_its_breaker_its_endpoint_and_its_secret() {
        let created = Timestamp::UNIX_EPOCH;
        let soon = later(now(), Duration::from_secs(1));
        let free = Flow { is_active: true, flows: true, can_sign: true, not_before: None };
        let cases = [
            (free, Trigger::Dispatch, None),
            (Flow { not_before: Some(now()), ..free }, Trigger::Dispatch, None),
            (Flow { is_active: false, flows: false, ..free }, Trigger::Probe, Some((HeldReason::Paused, created))),
            (Flow { flows: false, ..free }, Trigger::Manual, Some((HeldReason::Breaker, created))),
            (Flow { flows: false, ..free }, Trigger::Probe, None),
            (Flow { not_before: Some(soon), ..free }, Trigger::Retry, Some((HeldReason::Rate, soon))),
            (
                Flow { can_sign: false, ..free },
                Trigger::Dispatch,
                Some((HeldReason::Slow, later(now(), NO_SECRET_PAUSE))),
            ),
        ];
        for (flow, trigger, expected) in cases {
            assert_eq!(hold(&flow, trigger, created, now()), expected, "{flow:?} {trigger:?}");
        }
    }

    #[test]
    fn what_was_admitted_before_a_standstill_is_not_begun_after_it() {
        let margin = Duration::from_secs(5);
        assert!(may_begin(now(), margin, now()));
        assert!(may_begin(now(), margin, later(now(), margin)));
        assert!(!may_begin(now(), margin, later(now(), Duration::from_millis(5001))));
        // A clock that was set back is no standstill.
        assert!(may_begin(later(now(), margin), margin, now()));
    }

    #[test]
    fn each_answer_leads_where_the_policy_says() {
        let policy = RetryPolicy::Schedule { delays_seconds: vec![60], permanent_statuses: vec![422] };
        let status = |status| Attempted::Failed(Fault::Status { status });
        let in_a_day = later(now(), Duration::from_secs(86_400));
        let next = |number, attempted: Attempted| after_attempt(&policy, number, &attempted, in_a_day, 0.5, now());
        let in_a_minute = Next::RetryAt(later(now(), Duration::from_secs(60)));
        assert_eq!(next(1, Attempted::Accepted), Next::Delivered);
        assert_eq!(next(1, status(500)), in_a_minute);
        assert_eq!(next(1, status(404)), in_a_minute);
        assert_eq!(next(1, Attempted::Failed(Fault::NoAnswer(NoAnswer::Timeout))), in_a_minute);
        assert_eq!(next(2, status(500)), Next::Dead(DeadReason::Exhausted));
        assert_eq!(next(1, status(422)), Next::Dead(DeadReason::Permanent));
        assert_eq!(next(1, Attempted::Failed(Fault::Gone)), Next::Dead(DeadReason::Gone));
        let not_now = |status, secs: Option<u64>| {
            Attempted::Failed(Fault::NotNow { status, retry_after: secs.map(Duration::from_secs) })
        };
        assert_eq!(next(9, not_now(429, Some(7))), Next::NotNow(later(now(), Duration::from_secs(7))));
        assert_eq!(next(1, not_now(429, None)), Next::NotNow(later(now(), Duration::from_secs(60))));
        assert_eq!(next(1, not_now(422, Some(7))), Next::Dead(DeadReason::Permanent), "where the policy names it");
        assert_eq!(next(1, not_now(503, Some(86_401))), Next::NotNow(in_a_day));
        let too_late =
            after_attempt(&policy, 1, &not_now(503, Some(60)), later(now(), Duration::from_secs(59)), 0.5, now());
        assert_eq!(too_late, Next::Dead(DeadReason::Expired));
        let too_late = after_attempt(&policy, 1, &status(500), later(now(), Duration::from_secs(59)), 0.5, now());
        assert_eq!(too_late, Next::Dead(DeadReason::Expired));
    }

    #[test]
    fn every_name_reads_back() {
        assert!(State::ALL.iter().all(|s| State::parse(s.as_str()) == Some(*s)));
        assert!(Trigger::ALL.iter().all(|s| Trigger::parse(s.as_str()) == Some(*s)));
        assert_eq!(DeadReason::parse("nonsense"), None);
    }
}
