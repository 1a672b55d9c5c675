//! A small multiset without a heap: equal contents are equal values, in whatever order they came.

/// What can lie in a bag: it has a key of its own for each value.
pub trait Item: Copy + Default {
    fn key(&self) -> u128;
}

/// Up to `CAP` values, sorted; the rest of `items` is filled with the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bag<T, const CAP: usize> {
    len: u8,
    items: [T; CAP],
}

impl<T: Item, const CAP: usize> Default for Bag<T, CAP> {
    fn default() -> Self {
        Self { len: 0, items: [T::default(); CAP] }
    }
}

impl<T: Item, const CAP: usize> Bag<T, CAP> {
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn is_full(&self) -> bool {
        self.len() == CAP
    }

    pub fn as_slice(&self) -> &[T] {
        &self.items[..self.len()]
    }

    /// After a change, [`sort`](Self::sort).
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        let len = self.len();
        &mut self.items[..len]
    }

    pub fn get(&self, index: usize) -> Option<T> {
        self.as_slice().get(index).copied()
    }

    /// What finds no room is lost, which is one more thing that may happen to it.
    pub fn push(&mut self, item: T) {
        if !self.is_full() {
            self.items[self.len()] = item;
            self.len += 1;
            self.sort();
        }
    }

    pub fn remove(&mut self, index: usize) -> Option<T> {
        let removed = self.get(index)?;
        self.items.copy_within(index + 1..usize::from(self.len), index);
        self.len -= 1;
        self.items[usize::from(self.len)] = T::default();
        Some(removed)
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    pub fn sort(&mut self) {
        self.as_mut_slice().sort_unstable_by_key(Item::key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Item for u8 {
        fn key(&self) -> u128 {
            (*self).into()
        }
    }

    #[test]
    fn the_order_in_which_things_come_and_go_leaves_no_trace() {
        let (mut one, mut other) = (Bag::<u8, 4>::default(), Bag::<u8, 4>::default());
        [3, 1, 2].into_iter().for_each(|n| one.push(n));
        [2, 9, 3, 1].into_iter().for_each(|n| other.push(n));
        assert_eq!(other.remove(3), Some(9));
        assert_eq!(one, other);
        assert_eq!(one.remove(3), None);
    }
}
