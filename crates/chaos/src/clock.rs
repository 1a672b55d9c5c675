//! The run's own time: milliseconds since it began, by the monotonic clock.

use std::time::Instant;

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

/// `12.345 s`, as it stands in what is printed.
pub fn seconds(millis: Millis) -> String {
    format!("{}.{:03} s", millis / 1000, millis % 1000)
}
