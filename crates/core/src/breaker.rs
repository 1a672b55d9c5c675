//! When an endpoint is left alone for a while.
//!
//! A subscription whose attempts keep failing is not asked at the rate of its events: its breaker opens, and its
//! deliveries wait without using up an attempt. After a cool-down a few of them probe the endpoint, one after the other;
//! if most succeed the breaker closes and the backlog drains, slowly at first.
//!
//! An endpoint that fails now and then is not failing: failures count by their share over a stretch of time.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use crate::time::{later, since};

/// The attempts of the last while, second by second, as one process has seen them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Oldest first.
    seconds: VecDeque<Second>,
    /// Failures since the last success, and when the first of them was.
    in_row: u32,
    in_row_since: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Second {
    at: i64,
    attempts: u32,
    failures: u32,
}

impl Window {
    /// Adds an attempt that ended at `now`.
    pub fn note(&mut self, failed: bool, limits: &Limits, now: Timestamp) {
        let second = now.as_second();
        match self.seconds.back_mut() {
            // A clock that was set back counts in the newest second.
            Some(last) if last.at >= second => last.add(failed),
            _ => {
                let mut first = Second { at: second, attempts: 0, failures: 0 };
                first.add(failed);
                self.seconds.push_back(first);
            }
        }
        while self.seconds.front().is_some_and(|oldest| oldest.at <= limits.begin(now)) {
            self.seconds.pop_front();
        }
        if failed {
            self.in_row += 1;
            self.in_row_since.get_or_insert(now);
        } else {
            (self.in_row, self.in_row_since) = (0, None);
        }
    }

    /// Whether an endpoint is failing, by its attempts since `closed_at`: half of the window's, where these are enough
    /// to tell; or, at an endpoint that is seldom asked, every one for as long as the window is.
    pub fn is_failing(&self, limits: &Limits, closed_at: Option<Timestamp>, now: Timestamp) -> bool {
        let begin = limits.begin(now).max(closed_at.map_or(i64::MIN, Timestamp::as_second));
        let counted = self.seconds.iter().filter(|second| second.at > begin);
        let (attempts, failures) = counted.fold((0, 0), |(all, bad), s| (all + s.attempts, bad + s.failures));
        let lasts = self
            .in_row_since
            .is_some_and(|first| closed_at.is_none_or(|closed| first > closed) && since(first, now) >= limits.window);
        (attempts >= limits.attempts && failures * 2 >= attempts) || (lasts && self.in_row >= limits.failures_in_row)
    }
}

impl Second {
    fn add(&mut self, failed: bool) {
        self.attempts += 1;
        self.failures += u32::from(failed);
    }
}

/// What a deployment calls a failing endpoint, and how long it then waits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How far back attempts count.
    pub window: Duration,
    /// Attempts in the window below which their share tells nothing.
    pub attempts: u32,
    /// Failures in a row, over the whole window, that open a breaker of few attempts.
    pub failures_in_row: u32,
    /// The first cool-down; each that follows on probes that failed is twice as long.
    pub cooldown: Duration,
    pub max_cooldown: Duration,
}

impl Limits {
    /// The last second that no longer counts.
    fn begin(&self, now: Timestamp) -> i64 {
        now.as_second().saturating_sub(i64::try_from(self.window.as_secs()).unwrap_or(i64::MAX))
    }
}

/// Probes of which most decide.
const PROBES: u8 = 5;

/// How the probes of one half-open phase ended so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    pub succeeded: u8,
    pub failed: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    pub state: State,
    /// Open: the end of the cool-down. Half open: when the probe counts as lost. Closed: nothing.
    pub until: Option<Timestamp>,
    /// Cool-downs in a row.
    pub cooldowns: u32,
    pub probes: Probes,
}

names! {
    State {
        Closed = "closed",
        Open = "open",
        /// Probes are made, one at a time, to find out.
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
    pub const CLOSED: Self =
        Self { state: State::Closed, until: None, cooldowns: 0, probes: Probes { succeeded: 0, failed: 0 } };

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

    /// After attempts by which its endpoint `is_failing` or not. `probe` is whether a probe among them succeeded.
    /// Attempts that were under way when it opened say nothing new.
    #[must_use]
    pub fn after(self, is_failing: bool, probe: Option<bool>, limits: &Limits, now: Timestamp) -> Self {
        match (self.state, probe) {
            (State::Closed, _) if is_failing => self.open(limits, now),
            (State::Open | State::HalfOpen, Some(succeeded)) => self.probed(succeeded, limits, now),
            _ => self,
        }
    }

    fn probed(self, succeeded: bool, limits: &Limits, now: Timestamp) -> Self {
        const MOST: u8 = PROBES / 2 + 1;
        let Probes { succeeded: good, failed: bad } = self.probes;
        let probes = Probes { succeeded: good + u8::from(succeeded), failed: bad + u8::from(!succeeded) };
        if probes.succeeded >= MOST {
            Self::CLOSED
        } else if probes.failed >= MOST {
            self.open(limits, now)
        } else {
            // The next one may go at once.
            Self { state: State::HalfOpen, until: Some(now), probes, ..self }
        }
    }

    fn open(self, limits: &Limits, now: Timestamp) -> Self {
        let doubled = limits.cooldown.saturating_mul(1 << self.cooldowns.min(20));
        let until = later(now, doubled.min(limits.max_cooldown));
        let cooldowns = self.cooldowns.saturating_add(1);
        Self { state: State::Open, until: Some(until), cooldowns, probes: Probes::default() }
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

    const LIMITS: Limits = Limits {
        window: Duration::from_secs(30),
        attempts: 20,
        failures_in_row: 10,
        cooldown: Duration::from_secs(30),
        max_cooldown: Duration::from_secs(600),
    };

    fn at(secs: i64) -> Timestamp {
        after_millis(secs * 1000)
    }

    fn after_millis(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_782_864_000_000 + millis).unwrap()
    }

    /// The moment, in milliseconds, at which attempts made every `pause_ms` first count as failing.
    fn fails_at(
        window: &mut Window,
        pause_ms: i64,
        from: i64,
        outcomes: impl IntoIterator<Item = bool>,
    ) -> Option<i64> {
        outcomes.into_iter().enumerate().find_map(|(index, failed)| {
            let millis = from + pause_ms * i64::try_from(index).unwrap();
            window.note(failed, &LIMITS, after_millis(millis));
            window.is_failing(&LIMITS, None, after_millis(millis)).then_some(millis)
        })
    }

    /// The same outcomes in every run, each a failure with this probability.
    fn random(share: f64) -> impl Iterator<Item = bool> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 11) as f64 / (1u64 << 53) as f64) < share
        })
    }

    #[test]
    fn an_endpoint_that_fails_now_and_then_is_not_failing() {
        for (share, pause_ms) in [(0.1, 1000), (0.2, 100), (0.3, 10), (0.4, 10)] {
            let mut window = Window::default();
            assert_eq!(fails_at(&mut window, pause_ms, 0, random(share).take(50_000)), None, "{share}");
        }
    }

    #[test]
    fn an_endpoint_that_is_down_fails_within_the_window() {
        let down = || std::iter::repeat_n(true, 100_000);
        assert_eq!(fails_at(&mut Window::default(), 1, 0, down()), Some(19), "twenty attempts at once");
        let mut busy = Window::default();
        assert_eq!(fails_at(&mut busy, 10, 0, random(0.3).take(12_000)), None);
        let opens = fails_at(&mut busy, 10, 120_000, down()).unwrap() - 120_000;
        assert!((5_000..30_000).contains(&opens), "{opens} ms after two minutes of 30 % failures");
        assert_eq!(fails_at(&mut Window::default(), 5_000, 0, down()), Some(45_000), "ten in a row, seldom asked");
        assert_eq!(fails_at(&mut Window::default(), 60_000, 0, down()), Some(540_000));
        assert_eq!(fails_at(&mut Window::default(), 100, 0, down().take(19)), None, "too few to tell");
    }

    #[test]
    fn attempts_before_the_breaker_closed_do_not_count() {
        let mut window = Window::default();
        assert!(fails_at(&mut window, 1, 0, std::iter::repeat_n(true, 25)).is_some());
        assert!(window.is_failing(&LIMITS, None, at(1)));
        assert!(!window.is_failing(&LIMITS, Some(at(0)), at(1)));
        assert!(!window.is_failing(&LIMITS, Some(at(0)), at(100)), "nor do those in a row");
    }

    fn probe(breaker: Breaker, succeeded: bool, now: Timestamp) -> Breaker {
        assert_eq!(breaker.admit(now), Admitted::Probe);
        let probing = breaker.probing(later(now, Duration::from_secs(15)));
        assert!(matches!(probing.admit(now), Admitted::NobodyUntil(_)), "one at a time");
        probing.after(true, Some(succeeded), &LIMITS, now)
    }

    #[test]
    fn most_of_five_probes_decide_and_cool_downs_grow_only_while_they_fail() {
        let mut breaker = Breaker::CLOSED.after(true, None, &LIMITS, at(0));
        let mut waits = Vec::new();
        for _ in 0..7 {
            let until = breaker.until.unwrap();
            waits.push(since(at(0), until).as_secs());
            assert_eq!(breaker.admit(at(0)), Admitted::NobodyUntil(until));
            for succeeded in [false, true, false, true] {
                breaker = Breaker { until: None, ..probe(cooled(breaker), succeeded, at(0)) };
            }
            breaker = probe(cooled(breaker), false, at(0));
        }
        assert_eq!(waits, [30, 60, 120, 240, 480, 600, 600]);

        for succeeded in [true, false, true] {
            breaker = probe(cooled(breaker), succeeded, at(0));
            assert_eq!(breaker.state, State::HalfOpen);
        }
        assert_eq!(probe(cooled(breaker), true, at(0)), Breaker::CLOSED);
    }

    /// Its cool-down is over.
    fn cooled(breaker: Breaker) -> Breaker {
        Breaker { until: None, ..breaker }
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
            let (mut breaker, mut window, mut now) = (Breaker::CLOSED, Window::default(), at(0));
            let lease = Duration::from_secs(15);
            for step in steps {
                let admitted = breaker.admit(now);
                match step {
                    Step::Pass(secs) => now = later(now, Duration::from_secs(secs)),
                    Step::Attempt(failed) => {
                        window.note(failed, &LIMITS, now);
                        breaker = breaker.after(window.is_failing(&LIMITS, None, now), None, &LIMITS, now);
                    }
                    Step::Probe(ok) if admitted == Admitted::Probe => {
                        window.note(!ok, &LIMITS, now);
                        breaker = breaker.probing(later(now, lease)).after(false, Some(ok), &LIMITS, now);
                    }
                    Step::ProbeLost if admitted == Admitted::Probe => breaker = breaker.probing(later(now, lease)),
                    Step::Probe(_) | Step::ProbeLost => {}
                }
                let wait = breaker.until.map_or(0, |until| since(now, until).as_secs());
                prop_assert!(wait <= 600);
                prop_assert!(breaker.probes.succeeded + breaker.probes.failed < PROBES);
                if breaker.is_closed() {
                    prop_assert_eq!(breaker, Breaker::CLOSED);
                }
            }
        }
    }
}
