//! When an endpoint is left alone for a while.
//!
//! A subscription whose attempts keep failing is not asked at the rate of its events: its breaker opens, and its
//! deliveries wait without using up an attempt. After a cool-down one of them probes the endpoint; if that
//! succeeds the breaker closes and the backlog drains, slowly at first.

use std::time::Duration;

use jiff::Timestamp;

use crate::time::{later, since};

/// What came of the last attempts, at most [`Recent::LENGTH`] of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recent {
    /// The newest in the lowest bit; 1 is a failure. Bits beyond `count` are 0.
    failures: u32,
    count: u32,
}

impl Recent {
    pub const LENGTH: u32 = 20;
    const MASK: u32 = (1 << Self::LENGTH) - 1;

    /// From how the record keeps it.
    pub fn from_bits(failures: u32, count: u32) -> Self {
        let count = count.min(Self::LENGTH);
        Self { failures: failures & ((1 << count) - 1), count }
    }

    /// For the record: the failures, and of how many attempts.
    pub fn bits(self) -> (u32, u32) {
        (self.failures, self.count)
    }

    /// After one more attempt.
    #[must_use]
    pub fn and(self, failed: bool) -> Self {
        let failures = ((self.failures << 1) | u32::from(failed)) & Self::MASK;
        Self { failures, count: (self.count + 1).min(Self::LENGTH) }
    }

    pub fn failed_in_row(self) -> u32 {
        self.failures.trailing_ones()
    }

    /// Of as many as are remembered, half or more.
    fn half_failed(self) -> bool {
        self.count == Self::LENGTH && self.failures.count_ones() * 2 >= Self::LENGTH
    }
}

/// What a deployment calls too many failures, and how long it then waits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Failures in a row that open a breaker.
    pub failures_in_row: u32,
    /// The first cool-down; each that follows without a success is twice as long.
    pub cooldown: Duration,
    pub max_cooldown: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    pub state: State,
    /// Open: the end of the cool-down. Half open: when the probe counts as lost. Closed: nothing.
    pub until: Option<Timestamp>,
    /// Cool-downs in a row.
    pub cooldowns: u32,
}

names! {
    State {
        Closed = "closed",
        Open = "open",
        /// One attempt is under way to find out.
        HalfOpen = "half_open",
    }
}

/// What a subscription's deliveries may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    All,
    /// One, to find out.
    Probe,
    /// None, before then.
    NobodyUntil(Timestamp),
}

impl Breaker {
    pub const CLOSED: Self = Self { state: State::Closed, until: None, cooldowns: 0 };

    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    pub fn admit(&self, now: Timestamp) -> Admitted {
        match (self.state, self.until) {
            (State::Closed, _) => Admitted::All,
            (_, Some(until)) if until > now => Admitted::NobodyUntil(until),
            // Cooled down; or the probe was lost, and another is made.
            _ => Admitted::Probe,
        }
    }

    /// While a probe is under way, which counts as lost at `until`.
    #[must_use]
    pub fn probing(self, until: Timestamp) -> Self {
        Self { state: State::HalfOpen, until: Some(until), ..self }
    }

    /// After attempts of which `recent` are the last. `probe` is what a probe among them came to. Attempts that
    /// were under way when it opened say nothing new.
    #[must_use]
    pub fn after(self, recent: Recent, probe: Option<bool>, limits: &Limits, now: Timestamp) -> Self {
        match (self.state, probe) {
            (State::Closed, _) if recent.failed_in_row() >= limits.failures_in_row || recent.half_failed() => {
                self.open(limits, now)
            }
            (State::Open | State::HalfOpen, Some(true)) => Self::CLOSED,
            (State::Open | State::HalfOpen, Some(false)) => self.open(limits, now),
            _ => self,
        }
    }

    fn open(self, limits: &Limits, now: Timestamp) -> Self {
        let doubled = limits.cooldown.saturating_mul(1 << self.cooldowns.min(20));
        let until = later(now, doubled.min(limits.max_cooldown));
        Self { state: State::Open, until: Some(until), cooldowns: self.cooldowns.saturating_add(1) }
    }
}

/// How long the backlog of a breaker that closed drains slowly.
const DRAIN: Duration = Duration::from_secs(40);

/// Deliveries a second that an endpoint gets from its backlog after its breaker closed; `None` is no limit. From
/// ten on, doubled every five seconds up to eighty: what an endpoint cannot take in time loses its place to younger
/// ones.
pub fn drain_rate(closed_at: Option<Timestamp>, now: Timestamp) -> Option<f64> {
    let passed = since(closed_at?, now);
    (passed < DRAIN).then(|| 10.0 * 2f64.powf((passed.as_secs() / 5).min(3) as f64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits =
        Limits { failures_in_row: 10, cooldown: Duration::from_secs(30), max_cooldown: Duration::from_secs(600) };

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(1_782_864_000 + secs).unwrap()
    }

    fn recent(outcomes: impl IntoIterator<Item = bool>) -> Recent {
        outcomes.into_iter().fold(Recent::default(), Recent::and)
    }

    #[test]
    fn ten_failures_in_a_row_or_half_of_twenty_open_it_and_fewer_do_not() {
        let opens = |recent| !Breaker::CLOSED.after(recent, None, &LIMITS, at(0)).is_closed();
        assert!(!opens(recent([true; 9])));
        assert!(opens(recent([true; 10])));
        assert!(!opens(recent([true, false].repeat(9))), "not twenty yet");
        assert!(opens(recent([true, false].repeat(10))));
        assert!(!opens(recent([[true; 9].as_slice(), &[false; 11]].concat())));
    }

    #[test]
    fn a_failed_probe_doubles_the_cool_down_up_to_its_limit_and_a_good_one_closes() {
        let mut breaker = Breaker::CLOSED.after(recent([true; 10]), None, &LIMITS, at(0));
        let mut waits = Vec::new();
        for _ in 0..7 {
            let until = breaker.until.unwrap();
            waits.push(since(at(0), until).as_secs());
            assert_eq!(breaker.admit(at(0)), Admitted::NobodyUntil(until));
            assert_eq!(breaker.admit(until), Admitted::Probe);
            breaker = breaker.probing(later(until, Duration::from_secs(15)));
            assert!(matches!(breaker.admit(until), Admitted::NobodyUntil(_)), "one at a time");
            breaker = breaker.after(recent([true; 20]), Some(false), &LIMITS, at(0));
        }
        assert_eq!(waits, [30, 60, 120, 240, 480, 600, 600]);
        assert_eq!(breaker.after(recent([false]), Some(true), &LIMITS, at(0)), Breaker::CLOSED);
    }

    #[test]
    fn a_backlog_drains_faster_and_faster() {
        assert_eq!(drain_rate(None, at(0)), None);
        assert_eq!([0, 4, 5, 39].map(|secs| drain_rate(Some(at(0)), at(secs)).unwrap()), [10.0, 10.0, 20.0, 80.0]);
        assert_eq!(drain_rate(Some(at(0)), at(40)), None);
    }

    /// What can happen to a breaker.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Pass(u64),
        Attempt(bool),
        Probe(bool),
        ProbeLost,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u64..700).prop_map(Step::Pass),
            any::<bool>().prop_map(Step::Attempt),
            any::<bool>().prop_map(Step::Probe),
            Just(Step::ProbeLost),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_it_admits_a_probe_within_the_longest_cool_down(steps in prop::collection::vec(step(), 0..200)) {
            let (mut breaker, mut seen, mut now) = (Breaker::CLOSED, Recent::default(), at(0));
            let lease = Duration::from_secs(15);
            for step in steps {
                let admitted = breaker.admit(now);
                match step {
                    Step::Pass(secs) => now = later(now, Duration::from_secs(secs)),
                    Step::Attempt(failed) => {
                        seen = seen.and(failed);
                        breaker = breaker.after(seen, None, &LIMITS, now);
                    }
                    Step::Probe(ok) if admitted == Admitted::Probe => {
                        seen = seen.and(!ok);
                        breaker = breaker.probing(later(now, lease)).after(seen, Some(ok), &LIMITS, now);
                        prop_assert_eq!(breaker.is_closed(), ok);
                    }
                    Step::ProbeLost if admitted == Admitted::Probe => breaker = breaker.probing(later(now, lease)),
                    Step::Probe(_) | Step::ProbeLost => {}
                }
                let wait = breaker.until.map_or(0, |until| since(now, until).as_secs());
                prop_assert!(wait <= 600);
                if breaker.is_closed() {
                    prop_assert_eq!(breaker, Breaker::CLOSED);
                }
            }
        }

        #[test]
        fn the_last_twenty_are_remembered_in_order(outcomes in prop::collection::vec(any::<bool>(), 0..60)) {
            let seen = recent(outcomes.clone());
            let in_row = outcomes.iter().rev().take_while(|failed| **failed).count().min(20);
            prop_assert_eq!(seen.failed_in_row() as usize, in_row);
            let (failures, count) = seen.bits();
            prop_assert_eq!(Recent::from_bits(failures, count), seen);
            prop_assert_eq!(count as usize, outcomes.len().min(20));
        }
    }
}
