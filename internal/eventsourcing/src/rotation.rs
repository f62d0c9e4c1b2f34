//! Who is served first.
//!
//! The rule this module protects: a reader of many partitions with one limit serves them in the order in which it asks,
//! so it asks in another order every time: a partition with much to do starves nobody.

use crate::partition::Partition;

/// Where the next turn begins.
#[derive(Debug, Default)]
pub(crate) struct Rotation(usize);

impl Rotation {
    /// The same items, beginning one further than the last time.
    pub(crate) fn turn<T>(&mut self, mut items: Vec<T>) -> Vec<T> {
        if !items.is_empty() {
            self.0 = self.0.wrapping_add(1) % items.len();
            items.rotate_left(self.0);
        }
        items
    }
}

/// A round over partitions of which only some have anything: whoever was served first is last the next time. (Where each turn began
/// one further, whoever comes behind many that have nothing would be first in most of them.)
#[derive(Debug, Default)]
pub(crate) struct Round(Option<Partition>);

impl Round {
    /// The same items, which are in the order of their partitions, beginning behind the one that was served first.
    pub(crate) fn turn<T>(&self, mut items: Vec<T>, partition: impl Fn(&T) -> Partition) -> Vec<T> {
        let behind_him = items.partition_point(|item| Some(partition(item)) <= self.0);
        items.rotate_left(behind_him);
        items
    }

    /// Somebody was served first.
    pub(crate) const fn served(&mut self, first: Partition) {
        self.0 = Some(first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_that_have_something_are_first_in_turn_however_many_have_nothing() {
        let mut round = Round::default();
        let mut firsts = Vec::new();
        for _ in 0..4 {
            let turn = round.turn((0..16).map(Partition::from_index).collect(), |partition| *partition);
            let first = turn.into_iter().find(|partition| partition.index() < 2).expect("one of the two");
            round.served(first);
            firsts.push(first.index());
        }
        assert_eq!(firsts, [0, 1, 0, 1]);
    }

    #[test]
    fn everybody_is_first_in_turn() {
        let mut rotation = Rotation::default();
        let mut firsts: Vec<u8> = (0..6).map(|_| rotation.turn(vec![1, 2, 3])[0]).collect();
        firsts.sort_unstable();
        assert_eq!(firsts, [1, 1, 2, 2, 3, 3]);
        assert!(rotation.turn(Vec::<u8>::new()).is_empty());
    }
}
