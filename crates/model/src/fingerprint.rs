//! What tells one world from another: 64 bits, the same on every machine.

use crate::bag::Item;
use crate::row::Row;
use crate::world::World;

impl<const N: usize> World<N> {
    /// The same for worlds in which the same can happen; where not `with_left`, for what happens without another fault.
    pub fn fingerprint(&self, with_left: bool) -> u64 {
        let mut print = Print::default();
        let left = if with_left { u128::from(self.left.faults) | u128::from(self.left.people) << 8 } else { 0 };
        let outbox = self.outbox.map_or(0, |due| 1 + u128::from(due as u16));
        let flags = u128::from(self.handed_over) | u128::from(self.database.up) << 1;
        print.add(
            left | outbox << 16
                | flags << 40
                | u128::from(self.database.since as u16) << 48
                | u128::from(self.events) << 64,
        );
        self.rows.iter().for_each(|row| print.add(row.as_ref().map_or(0, row_key)));
        for seen in &self.seen {
            let known = seen.known.iter().fold(0, |all, count| all << 8 | u128::from(*count));
            print.add(u128::from(seen.accepted) | known << 8 | u128::from(seen.doubtful) << 120);
        }
        print.all(self.deliveries.as_slice());
        print.all(self.dead.as_slice());
        print.all(self.fanning.as_slice());
        for worker in &self.workers {
            print.add(u128::from(worker.stalled) | u128::from(worker.frozen) << 1 | 1 << 127);
            print.all(worker.hands.as_slice());
        }
        print.0
    }
}

fn row_key(row: &Row) -> u128 {
    let held = row.held_reason.map_or(0, |reason| 1 + reason as u128);
    let dead = row.dead_reason.map_or(0, |reason| 1 + reason as u128);
    let due = row.due_at.map_or(0, |due| 1 + u128::from(due as u16));
    let told = row.told_generation.map_or(0, |told| 1 + u128::from(told));
    1 | (row.state as u128) << 1
        | held << 4
        | dead << 8
        | (row.trigger as u128) << 12
        | u128::from(row.generation) << 16
        | u128::from(row.attempt) << 24
        | u128::from(row.attempts_made) << 32
        | due << 40
        | told << 60
        | u128::from(row.updated_at as u16) << 72
        | u128::from(row.letters & 0xffff_ffff) << 88
}

/// A hash that is the same on every machine.
#[derive(Default)]
struct Print(u64);

impl Print {
    fn add(&mut self, value: u128) {
        self.mix(value as u64);
        self.mix((value >> 64) as u64);
    }

    fn all<T: Item>(&mut self, items: &[T]) {
        self.mix(items.len() as u64);
        items.iter().for_each(|item| self.add(item.key()));
    }

    fn mix(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93_u128;
        self.0 = (product >> 64) as u64 ^ (product as u64) ^ self.0.rotate_left(23);
    }
}
