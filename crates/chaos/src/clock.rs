//! The run's own time: milliseconds since it began, by the monotonic clock; and the time that the world believes it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// Milliseconds since the run began.
pub type Millis = u32;

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Instant,
    began_at: Timestamp,
    /// How far the world's clocks are ahead of the machine's, in seconds.
    ahead: i64,
}

impl Clock {
    /// `at` is what time it is in the world; the machine's where it is left out.
    pub fn start(at: Option<Timestamp>) -> Self {
        let now = Timestamp::now();
        let ahead = at.map_or(0, |at| at.as_second() - now.as_second());
        Self { began: Instant::now(), began_at: later(now, ahead), ahead }
    }

    pub fn now(&self) -> Millis {
        u32::try_from(self.began.elapsed().as_millis()).unwrap_or(u32::MAX)
    }

    /// When the run began, by the world's clocks.
    pub fn began_at(&self) -> Timestamp {
        self.began_at
    }

    /// What time it is in the world.
    pub fn wall(&self) -> Timestamp {
        later(Timestamp::now(), self.ahead)
    }

    pub fn ahead(&self) -> i64 {
        self.ahead
    }
}

fn later(at: Timestamp, seconds: i64) -> Timestamp {
    at.saturating_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(at)
}

/// How long this process itself was kept from working at most: a receiver that is late is no fault of Posthorn's.
#[derive(Clone, Debug, Default)]
pub struct Lag(Arc<AtomicU32>);

impl Lag {
    /// Measures for as long as it is polled.
    pub async fn measure(self) {
        const STEP: Duration = Duration::from_millis(20);
        loop {
            let began = Instant::now();
            tokio::time::sleep(STEP).await;
            let late = began.elapsed().saturating_sub(STEP).as_millis();
            self.0.fetch_max(u32::try_from(late).unwrap_or(u32::MAX), Ordering::Relaxed);
        }
    }

    pub fn longest(&self) -> Millis {
        self.0.load(Ordering::Relaxed)
    }
}

/// `12.345 s`, as it stands in what is printed.
pub fn seconds(millis: Millis) -> String {
    format!("{}.{:03} s", millis / 1000, millis % 1000)
}
