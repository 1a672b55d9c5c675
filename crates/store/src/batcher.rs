//! Batching by what is waiting, never by a timer.
//!
//! A writer takes everything that waits, writes it in one go, and answers each submitter. While it
//! writes, the next batch collects itself. Idle latency is therefore that of a single item, and
//! under load the batches grow until the work fits.
//!
//! Invariant: at most `queue` items wait; a submitter beyond that is told so at once.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::task::TaskTracker;

/// Bounds of a batcher.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Items that may wait.
    pub queue: usize,
    /// Items in one batch.
    pub items: usize,
    /// Bytes in one batch, by the items' own reckoning; a single item may exceed it.
    pub bytes: usize,
    /// Batches written at the same time.
    pub writers: usize,
}

/// Something that can wait in a batch.
pub trait Item: Clone + Send + 'static {
    /// Roughly how many bytes it adds to a batch.
    fn bytes(&self) -> usize {
        0
    }
}

/// Why an item was not written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused<E> {
    #[error("too much is waiting to be written")]
    Full,
    #[error("the writer has stopped")]
    Stopped,
    #[error("the batch was not written")]
    Failed(#[source] Arc<E>),
}

struct Waiting<T, R, E> {
    item: T,
    answer: oneshot::Sender<Result<R, Refused<E>>>,
}

/// A handle to the writers. Cheap to clone; the writers end when the last handle is gone.
#[derive(Debug)]
pub struct Batcher<T, R, E> {
    queue: mpsc::Sender<Waiting<T, R, E>>,
}

impl<T, R, E> Clone for Batcher<T, R, E> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone() }
    }
}

impl<T: Item, R: Send + 'static, E: Send + Sync + 'static> Batcher<T, R, E> {
    /// Starts the writers on `tasks`. `write` answers its items in their order; an error counts for
    /// all of them, and where `is_permanent` says that an item may be at fault, each is tried alone.
    pub fn start<W, F>(limits: Limits, tasks: &TaskTracker, is_permanent: fn(&E) -> bool, write: W) -> Self
    where
        W: Fn(Vec<T>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Vec<R>, E>> + Send,
    {
        let (queue, waiting) = mpsc::channel(limits.queue);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..limits.writers.max(1) {
            let (waiting, write) = (Arc::clone(&waiting), write.clone());
            tasks.spawn(async move {
                while let Some(batch) = collect(&waiting, &limits).await {
                    write_batch(batch, is_permanent, &write).await;
                }
            });
        }
        Self { queue }
    }

    /// Waits until the item is written. Refused at once when too much is waiting.
    pub async fn submit(&self, item: T) -> Result<R, Refused<E>> {
        let (answer, written) = oneshot::channel();
        self.queue.try_send(Waiting { item, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refused::Full,
            mpsc::error::TrySendError::Closed(_) => Refused::Stopped,
        })?;
        written.await.unwrap_or(Err(Refused::Stopped))
    }

    /// Like [`submit`](Self::submit), but waits for room: for callers that are bounded themselves.
    pub async fn submit_patiently(&self, item: T) -> Result<R, Refused<E>> {
        let (answer, written) = oneshot::channel();
        self.queue.send(Waiting { item, answer }).await.map_err(|_| Refused::Stopped)?;
        written.await.unwrap_or(Err(Refused::Stopped))
    }

    /// How many items wait.
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}

/// Takes what waits, or the first to come. Only one writer collects at a time.
async fn collect<T: Item, R, E>(
    waiting: &Mutex<mpsc::Receiver<Waiting<T, R, E>>>,
    limits: &Limits,
) -> Option<Vec<Waiting<T, R, E>>> {
    let mut waiting = waiting.lock().await;
    let first = waiting.recv().await?;
    let mut bytes = first.item.bytes();
    let mut batch = vec![first];
    while batch.len() < limits.items && bytes < limits.bytes {
        let Ok(next) = waiting.try_recv() else { break };
        bytes += next.item.bytes();
        batch.push(next);
    }
    Some(batch)
}

async fn write_batch<T: Item, R, E, W, F>(batch: Vec<Waiting<T, R, E>>, is_permanent: fn(&E) -> bool, write: &W)
where
    W: Fn(Vec<T>) -> F,
    F: Future<Output = Result<Vec<R>, E>>,
{
    let items: Vec<T> = batch.iter().map(|waiting| waiting.item.clone()).collect();
    match write(items).await {
        Ok(results) => {
            for (waiting, result) in batch.into_iter().zip(results) {
                // A submitter that went away has no use for the answer.
                let _ = waiting.answer.send(Ok(result));
            }
        }
        Err(error) if batch.len() > 1 && is_permanent(&error) => {
            // One bad item must not take its neighbours along.
            for waiting in batch {
                Box::pin(write_batch(vec![waiting], is_permanent, write)).await;
            }
        }
        Err(error) => {
            let error = Arc::new(error);
            for waiting in batch {
                let _ = waiting.answer.send(Err(Refused::Failed(Arc::clone(&error))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Number(u32);
    impl Item for Number {}

    const LIMITS: Limits = Limits { queue: 100, items: 10, bytes: 1000, writers: 1 };

    #[tokio::test]
    async fn every_submitter_gets_its_own_answer_and_no_batch_exceeds_its_bound() {
        let tasks = TaskTracker::new();
        let batcher = Batcher::<Number, (u32, usize), String>::start(
            LIMITS,
            &tasks,
            |_| false,
            |batch| async move {
                tokio::task::yield_now().await;
                let size = batch.len();
                Ok(batch.into_iter().map(|n| (n.0 * 2, size)).collect())
            },
        );
        let answers = futures_util::future::join_all((0..100).map(|n| batcher.submit(Number(n)))).await;
        let mut largest = 0;
        for (n, answer) in (0..).zip(answers) {
            let (doubled, size) = answer.unwrap();
            assert_eq!(doubled, n * 2);
            largest = largest.max(size);
        }
        assert_eq!(largest, 10, "what waited together was written together");
    }

    #[tokio::test]
    async fn one_bad_item_fails_alone() {
        let tasks = TaskTracker::new();
        let batcher = Batcher::<Number, u32, String>::start(
            LIMITS,
            &tasks,
            |_| true,
            |batch| async move {
                tokio::task::yield_now().await;
                if batch.iter().any(|n| n.0 == 13) {
                    Err("bad".to_owned())
                } else {
                    Ok(batch.iter().map(|n| n.0).collect())
                }
            },
        );
        let answers = futures_util::future::join_all((0..20).map(|n| batcher.submit(Number(n)))).await;
        for (n, answer) in (0..).zip(answers) {
            assert_eq!(answer.is_err(), n == 13, "{n}");
        }
    }

    #[tokio::test]
    async fn beyond_the_bound_a_submitter_is_refused_at_once() {
        let tasks = TaskTracker::new();
        let limits = Limits { queue: 1, ..LIMITS };
        let batcher = Batcher::<Number, u32, String>::start(limits, &tasks, |_| false, |_| std::future::pending());
        let stuck = batcher.clone();
        tokio::spawn(async move { stuck.submit(Number(0)).await });
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        let stuck = batcher.clone();
        tokio::spawn(async move { stuck.submit(Number(1)).await });
        tokio::task::yield_now().await;
        assert!(matches!(batcher.submit(Number(2)).await, Err(Refused::Full)));
    }
}
