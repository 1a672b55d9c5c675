//! The attempts that this worker has in hand.
//!
//! When consuming stops, for a fault of ours, messages go back although their handlers live on. A first attempt is
//! not claimed, so its message would be obeyed again: it waits for the handler that has it, and then finds the row
//! moved. Of another worker's handlers nothing is known here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use posthorn_core::id::DeliveryId;

/// A delivery, its generation and the attempt.
pub type Key = (DeliveryId, u32, u32);

/// How often it is looked whether a handler is done. Seldom enough, and rarely at all.
const PAUSE: Duration = Duration::from_millis(50);

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct InHand(Arc<Mutex<HashMap<Key, u32>>>);

/// An attempt in hand, until this is dropped.
#[derive(Debug)]
pub struct Held {
    in_hand: InHand,
    key: Key,
}

impl InHand {
    pub fn take(&self, key: Key) -> Held {
        *self.lock().entry(key).or_default() += 1;
        Held { in_hand: self.clone(), key }
    }

    /// Returns when nobody has it in hand.
    pub async fn free(&self, key: Key) {
        while self.lock().contains_key(&key) {
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut all = self.in_hand.lock();
        if let Some(count) = all.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                all.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn a_message_that_came_back_waits_for_the_handler_that_has_it() {
        let in_hand = InHand::default();
        let key = (DeliveryId::from_uuid(Uuid::from_u128(1)), 1, 1);
        let (one, two) = (in_hand.take(key), in_hand.take(key));
        drop(one);
        assert!(tokio::time::timeout(PAUSE * 3, in_hand.free(key)).await.is_err());
        drop(two);
        in_hand.free(key).await;
        assert!(in_hand.lock().is_empty());
    }
}
