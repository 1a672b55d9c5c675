//! The attempts that this worker makes at the same time, shared among tenants.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use posthorn_core::id::TenantId;
use posthorn_core::share::{Limits, Usage, may_begin};
use tokio::sync::oneshot;

/// All slots. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Slots(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    limits: Limits,
    in_use: u32,
    late: u32,
    by_tenant: HashMap<TenantId, u32>,
    waiting_of: HashMap<TenantId, usize>,
    /// In the order in which they came.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    tenant: TenantId,
    is_late: bool,
    turn: oneshot::Sender<Slot>,
}

/// The right to make one attempt. Given back by dropping it.
#[derive(Debug)]
pub struct Slot {
    slots: Slots,
    tenant: TenantId,
    is_late: bool,
}

impl Slots {
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            limits,
            in_use: 0,
            late: 0,
            by_tenant: HashMap::new(),
            waiting_of: HashMap::new(),
            waiting: VecDeque::new(),
        })))
    }

    /// Takes a slot, at once or within `patience`; `None` when none was to be had.
    pub async fn enter(&self, tenant: TenantId, is_late: bool, patience: Duration) -> Option<Slot> {
        let turn = {
            let mut inner = self.lock();
            if inner.may_begin(tenant, is_late) {
                return Some(inner.take(self, tenant, is_late));
            }
            let (turn, ours) = oneshot::channel();
            inner.waiting.push_back(Waiting { tenant, is_late, turn });
            *inner.waiting_of.entry(tenant).or_default() += 1;
            ours
        };
        // A slot that is given in the moment of giving up is dropped with the channel, and goes to the next.
        let Ok(given) = tokio::time::timeout(patience, turn).await else {
            self.lock().forget_who_gave_up();
            return None;
        };
        given.ok()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn may_begin(&self, tenant: TenantId, is_late: bool) -> bool {
        let usage = Usage {
            in_use: self.in_use,
            of_tenant: self.by_tenant.get(&tenant).copied().unwrap_or_default(),
            late: self.late,
            others_wait: self.waiting.len() > self.waiting_of.get(&tenant).copied().unwrap_or_default(),
        };
        may_begin(&usage, is_late, &self.limits)
    }

    fn take(&mut self, slots: &Slots, tenant: TenantId, is_late: bool) -> Slot {
        self.in_use += 1;
        self.late += u32::from(is_late);
        *self.by_tenant.entry(tenant).or_default() += 1;
        Slot { slots: slots.clone(), tenant, is_late }
    }

    fn give_back(&mut self, tenant: TenantId, is_late: bool) {
        self.in_use = self.in_use.saturating_sub(1);
        self.late = self.late.saturating_sub(u32::from(is_late));
        if let Some(count) = self.by_tenant.get_mut(&tenant) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_tenant.remove(&tenant);
            }
        }
    }

    /// The first of those waiting that may begin.
    fn next(&mut self) -> Option<Waiting> {
        let place = self.waiting.iter().position(|waiting| self.may_begin(waiting.tenant, waiting.is_late))?;
        let next = self.waiting.remove(place)?;
        self.no_longer_waits(next.tenant);
        Some(next)
    }

    fn forget_who_gave_up(&mut self) {
        let gone: Vec<TenantId> = self.waiting.iter().filter(|w| w.turn.is_closed()).map(|w| w.tenant).collect();
        self.waiting.retain(|waiting| !waiting.turn.is_closed());
        gone.into_iter().for_each(|tenant| self.no_longer_waits(tenant));
    }

    fn no_longer_waits(&mut self, tenant: TenantId) {
        if let Some(count) = self.waiting_of.get_mut(&tenant) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.waiting_of.remove(&tenant);
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let slots = self.slots.clone();
        let mut inner = slots.lock();
        inner.give_back(self.tenant, self.is_late);
        while let Some(next) = inner.next() {
            let slot = inner.take(&slots, next.tenant, next.is_late);
            // Dropped here, a slot that nobody took would wait for the lock that is held.
            if let Err(untaken) = next.turn.send(slot) {
                drop(inner);
                drop(untaken);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(500);

    fn tenant(number: u128) -> TenantId {
        TenantId::from_uuid(Uuid::from_u128(number))
    }

    fn slots(slots: u32) -> Slots {
        Slots::new(Limits { slots, tenant_share: 0.4, late_share: 0.5 })
    }

    #[tokio::test]
    async fn a_tenant_that_has_its_share_waits_while_another_goes() {
        let slots = slots(10);
        let mut held = Vec::new();
        for _ in 0..9 {
            held.push(slots.enter(tenant(1), false, PATIENCE).await.unwrap());
        }
        assert!(slots.enter(tenant(1), false, Duration::from_millis(1)).await.is_none(), "the reserve");
        held.push(slots.enter(tenant(2), false, PATIENCE).await.unwrap());

        // Both wait; the slot that becomes free is not for whoever has more than its share.
        let greedy = tokio::spawn({
            let slots = slots.clone();
            async move { slots.enter(tenant(1), false, PATIENCE).await.is_some() }
        });
        tokio::task::yield_now().await;
        let modest = tokio::spawn({
            let slots = slots.clone();
            async move { slots.enter(tenant(2), false, PATIENCE).await.is_some() }
        });
        tokio::task::yield_now().await;
        held.pop();
        assert!(modest.await.unwrap());
        drop(held);
        assert!(greedy.await.unwrap());
        assert_eq!(slots.lock().in_use, 0);
    }

    #[tokio::test]
    async fn whoever_gave_up_keeps_no_slot() {
        let slots = slots(1);
        let held = slots.enter(tenant(1), false, PATIENCE).await.unwrap();
        assert!(slots.enter(tenant(2), false, Duration::from_millis(1)).await.is_none());
        drop(held);
        assert!(slots.enter(tenant(3), false, PATIENCE).await.is_some());
    }
}
