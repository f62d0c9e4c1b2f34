//! The last items of one partition, in memory.
//!
//! The rule this module protects: a tail says everything there is between two positions, or it says nothing. It never
//! says that something does not exist.

use std::collections::VecDeque;

/// The items of one partition after a floor, all of them, up to the last.
#[derive(Debug)]
pub(super) struct Tail<T> {
    /// Every item behind this position, and up to the last one here, is here.
    floor: u64,
    items: VecDeque<(u64, usize, T)>,
    bytes: usize,
}

impl<T> Default for Tail<T> {
    fn default() -> Self {
        Self { floor: 0, items: VecDeque::new(), bytes: 0 }
    }
}

impl<T: Clone> Tail<T> {
    /// Adds an item. There is none between `after` and `position`: where the tail ends elsewhere, it begins anew.
    pub(super) fn push(&mut self, after: u64, position: u64, bytes: usize, item: T, most: Budget) {
        let last = self.items.back().map(|(position, ..)| *position);
        if last.is_none_or(|last| last < after || last >= position) {
            self.clear();
            self.floor = after;
        }
        self.items.push_back((position, bytes, item));
        self.bytes = self.bytes.saturating_add(bytes);
        while self.items.len() > most.items || (self.bytes > most.bytes && self.items.len() > 1) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some((position, bytes, _)) = self.items.pop_front() {
            self.floor = position;
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    pub(super) fn clear(&mut self) {
        self.items.clear();
        self.bytes = 0;
    }

    /// Forgets the items before a position.
    pub(super) fn forget_before(&mut self, position: u64) {
        while self.items.front().is_some_and(|(first, ..)| *first < position) {
            self.pop();
        }
    }

    /// The position of the last item.
    pub(super) fn last(&self) -> Option<u64> {
        self.items.back().map(|(position, ..)| *position)
    }

    /// How many items there are behind a position; `None` where the tail cannot say, or ends there.
    pub(super) fn behind(&self, after: u64) -> Option<usize> {
        let known = after >= self.floor && self.items.back().is_some_and(|(last, ..)| *last > after);
        known.then(|| self.items.len() - self.items.partition_point(|(position, ..)| *position <= after))
    }

    /// The items behind a position, at most so many. Only right where [`Self::behind`] knows.
    pub(super) fn take(&self, after: u64, most: usize) -> impl Iterator<Item = (u64, T)> {
        let start = self.items.partition_point(|(position, ..)| *position <= after);
        self.items.iter().skip(start).take(most).map(|(position, _, item)| (*position, item.clone()))
    }
}

/// What one tail may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// Items.
    pub(super) items: usize,
    /// Bytes, of all of them.
    pub(super) bytes: usize,
}

/// Cuts a limit into fair shares, by what each could use. `first` rotates who is served where the limit is smaller than
/// the number of those who want something.
pub(super) fn shares(wanted: &[u64], limit: usize, first: usize) -> Vec<usize> {
    let mut given = vec![0_usize; wanted.len()];
    let mut left = limit;
    let wants = |index: usize, given: &[usize]| {
        let wanted = wanted.get(index).map_or(0, |wanted| usize::try_from(*wanted).unwrap_or(usize::MAX));
        wanted.saturating_sub(given.get(index).copied().unwrap_or_default())
    };
    loop {
        let hungry: Vec<usize> = (0..wanted.len())
            .map(|index| (index + first % wanted.len().max(1)) % wanted.len().max(1))
            .filter(|index| wants(*index, &given) > 0)
            .collect();
        if hungry.is_empty() || left == 0 {
            return given;
        }
        let share = (left / hungry.len()).max(1);
        for index in hungry {
            let more = wants(index, &given).min(share).min(left);
            if let Some(given) = given.get_mut(index) {
                *given += more;
            }
            left -= more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Budget = Budget { items: 3, bytes: 100 };

    fn behind(tail: &Tail<char>, after: u64) -> Option<Vec<u64>> {
        let count = tail.behind(after)?;
        let taken: Vec<u64> = tail.take(after, usize::MAX).map(|(position, _)| position).collect();
        assert_eq!(taken.len(), count);
        Some(taken)
    }

    #[test]
    fn a_tail_knows_what_is_behind_its_floor_and_nothing_else() {
        let mut tail = Tail::default();
        assert_eq!(behind(&tail, 0), None, "an empty tail says nothing");
        tail.push(4, 5, 1, 'a', SMALL);
        tail.push(5, 9, 1, 'b', SMALL);
        assert_eq!(behind(&tail, 3), None, "there may be a 4");
        assert_eq!(behind(&tail, 4), Some(vec![5, 9]));
        assert_eq!(behind(&tail, 7), Some(vec![9]));
        assert_eq!(behind(&tail, 9), None, "there may be more");
        tail.push(9, 10, 1, 'c', SMALL);
        tail.push(10, 11, 1, 'd', SMALL);
        assert_eq!(behind(&tail, 4), None, "5 was forgotten");
        assert_eq!(behind(&tail, 5), Some(vec![9, 10, 11]));
        tail.push(12, 13, 1, 'e', SMALL);
        assert_eq!(behind(&tail, 11), None, "12 was never seen");
        assert_eq!(behind(&tail, 12), Some(vec![13]));
        tail.forget_before(14);
        assert_eq!(behind(&tail, 12), None);
    }

    #[test]
    fn a_tail_keeps_to_its_bytes_but_always_has_the_last() {
        let mut tail = Tail::default();
        tail.push(0, 1, 60, 'a', SMALL);
        tail.push(1, 2, 60, 'b', SMALL);
        assert_eq!(behind(&tail, 0), None);
        assert_eq!(behind(&tail, 1), Some(vec![2]));
        tail.push(2, 3, 500, 'c', SMALL);
        assert_eq!(behind(&tail, 2), Some(vec![3]));
    }

    #[test]
    fn shares_are_fair_and_leave_nothing_over_that_somebody_wants() {
        assert_eq!(shares(&[1000, 2, 0, 1000], 100, 0), [49, 2, 0, 49]);
        assert_eq!(shares(&[1000, 2], 100, 1), [98, 2]);
        assert_eq!(shares(&[5, 5, 5], 2, 0), [1, 1, 0]);
        assert_eq!(shares(&[5, 5, 5], 2, 1), [0, 1, 1]);
        assert_eq!(shares(&[5], 0, 3), [0]);
        assert_eq!(shares(&[], 9, 3), [0_usize; 0]);
    }
}
