//! One lane for each subscription with something in hand: who goes, who waits, who makes room.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use posthorn_core::id::SubscriptionId;
use posthorn_core::lane::{Lane, Place, place, smooth};
use tokio::sync::oneshot;

/// Lanes kept although nothing is in them, for what they know of their endpoint's speed.
const IDLE_LANES: usize = 10_000;

/// All lanes of this worker.
#[derive(Debug, Default)]
pub struct Lanes(Mutex<HashMap<SubscriptionId, Arc<Cell>>>);

#[derive(Debug, Default)]
struct Cell(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Starts of the attempts under way, oldest first.
    under_way: BTreeMap<u64, Instant>,
    next: u64,
    waiting: VecDeque<oneshot::Sender<Permit>>,
    typical: Duration,
    /// The endpoint asked for time.
    held_until: Option<Timestamp>,
}

/// The right to make one attempt. Given back by dropping it.
#[derive(Debug)]
pub struct Permit {
    cell: Arc<Cell>,
    ticket: u64,
}

/// What became of a message that wanted to go.
#[derive(Debug)]
pub enum Entry {
    Go(Permit),
    /// Back to the database, for about this long.
    Hold(Duration),
}

impl Lanes {
    /// Goes at once, waits for a turn that is near, or is told to make room.
    pub async fn enter(&self, id: SubscriptionId, max_in_flight: u32, patience: Duration) -> Entry {
        let cell = self.cell(id);
        let turn = {
            let mut inner = cell.lock();
            match place(&inner.lane(max_in_flight), patience) {
                Place::Go => return Entry::Go(inner.admit(&cell)),
                Place::Hold(wait) => return Entry::Hold(wait),
                Place::Wait => {
                    let (turn, ours) = oneshot::channel();
                    inner.waiting.push_back(turn);
                    ours
                }
            }
        };
        match turn.await {
            Ok(permit) => Entry::Go(permit),
            // The lane is gone, which it never is while somebody waits in it.
            Err(_) => Entry::Hold(patience),
        }
    }

    fn cell(&self, id: SubscriptionId) -> Arc<Cell> {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes.len() > IDLE_LANES && !lanes.contains_key(&id) {
            // Nobody holds a cell but those in it.
            lanes.retain(|_, cell| Arc::strong_count(cell) > 1);
        }
        Arc::clone(lanes.entry(id).or_default())
    }
}

impl Cell {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn lane(&self, max_in_flight: u32) -> Lane {
        Lane {
            in_flight: u32::try_from(self.under_way.len()).unwrap_or(u32::MAX),
            waiting: u32::try_from(self.waiting.len()).unwrap_or(u32::MAX),
            max_in_flight,
            typical: self.typical,
            oldest: self.under_way.first_key_value().map(|(_, start)| start.elapsed()).unwrap_or_default(),
        }
    }

    fn admit(&mut self, cell: &Arc<Cell>) -> Permit {
        let ticket = self.next;
        self.next += 1;
        self.under_way.insert(ticket, Instant::now());
        Permit { cell: Arc::clone(cell), ticket }
    }
}

impl Permit {
    /// Until when the endpoint wants nothing, as an attempt of this lane has heard.
    pub fn held_until(&self) -> Option<Timestamp> {
        self.cell.lock().held_until
    }

    /// Holds back all that wait in this lane.
    pub fn hold_until(&self, until: Timestamp) {
        let mut inner = self.cell.lock();
        inner.held_until = inner.held_until.max(Some(until));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut inner = self.cell.lock();
        if let Some(start) = inner.under_way.remove(&self.ticket) {
            inner.typical = smooth(inner.typical, start.elapsed());
        }
        while let Some(next) = inner.waiting.pop_front() {
            if next.is_closed() {
                continue;
            }
            let permit = inner.admit(&self.cell);
            // Dropped here, a permit that nobody took would wait for the lock that is held.
            let untaken = next.send(permit);
            drop(inner);
            drop(untaken);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(500);

    fn id(number: u128) -> SubscriptionId {
        SubscriptionId::from_uuid(Uuid::from_u128(number))
    }

    async fn go(lanes: &Lanes, number: u128) -> Permit {
        match lanes.enter(id(number), 1, PATIENCE).await {
            Entry::Go(permit) => permit,
            Entry::Hold(_) => panic!("told to make room"),
        }
    }

    #[tokio::test]
    async fn a_permit_given_back_goes_to_whoever_waited_longest() {
        let lanes = Arc::new(Lanes::default());
        let first = go(&lanes, 1).await;
        let waiting = tokio::spawn({
            let lanes = Arc::clone(&lanes);
            async move { go(&lanes, 1).await }
        });
        tokio::task::yield_now().await;
        drop(first);
        let second = waiting.await.unwrap();
        assert_eq!(second.cell.lock().under_way.len(), 1);
    }

    #[tokio::test]
    async fn a_waiter_that_went_away_does_not_keep_the_lane() {
        let lanes = Arc::new(Lanes::default());
        let first = go(&lanes, 1).await;
        let gone = tokio::time::timeout(Duration::from_millis(1), lanes.enter(id(1), 1, PATIENCE)).await;
        assert!(gone.is_err());
        drop(first);
        drop(go(&lanes, 1).await);
    }

    #[tokio::test]
    async fn lanes_do_not_wait_for_each_other() {
        let lanes = Lanes::default();
        let _one = go(&lanes, 1).await;
        let _two = go(&lanes, 2).await;
    }
}
