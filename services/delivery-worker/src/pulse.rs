//! Whether the database answers, and for how long it has.
//!
//! Where its answer decides who is first (the handler that is at an attempt, or the one that has its message again),
//! both must have had the time to ask.

use std::time::Duration;

use posthorn_store::Store;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often it is asked. An answer that takes longer is none.
const PAUSE: Duration = Duration::from_millis(500);

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pulse(watch::Receiver<Instant>);

impl Pulse {
    /// A pulse, and the task that feels it until `stop`.
    pub fn of(store: Store, stop: CancellationToken) -> (Self, impl Future<Output = ()> + Send) {
        let (steady_since, pulse) = watch::channel(Instant::now());
        let feeling = async move {
            while stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_some() {
                if !matches!(tokio::time::timeout(PAUSE, store.ping_write()).await, Ok(Ok(()))) {
                    steady_since.send_replace(Instant::now());
                }
            }
        };
        (Self(pulse), feeling)
    }

    /// Waits for `duration`, and until the database has answered for as long.
    pub async fn steady_for(&self, duration: Duration) {
        let mut until = Instant::now() + duration;
        while Instant::now() < until {
            tokio::time::sleep_until(until).await;
            until = *self.0.borrow() + duration;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_waits_until_the_database_was_well_all_the_while() {
        let began = Instant::now();
        let (steady_since, pulse) = watch::channel(began);
        let pulse = Pulse(pulse);
        pulse.steady_for(Duration::ZERO).await;
        assert_eq!(began.elapsed(), Duration::ZERO);

        let waiting = tokio::spawn(async move { pulse.steady_for(Duration::from_secs(3)).await });
        tokio::time::sleep(Duration::from_secs(2)).await;
        steady_since.send_replace(Instant::now());
        waiting.await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_secs(5));
    }
}
