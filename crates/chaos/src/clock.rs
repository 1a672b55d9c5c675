//! The run's own time: milliseconds since it began, by the monotonic clock.

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
}

impl Clock {
    pub fn start() -> Self {
        Self { began: Instant::now(), began_at: Timestamp::now() }
    }

    pub fn now(&self) -> Millis {
        u32::try_from(self.began.elapsed().as_millis()).unwrap_or(u32::MAX)
    }

    /// When the run began, by the machine's clock.
    pub fn began_at(&self) -> Timestamp {
        self.began_at
    }
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
