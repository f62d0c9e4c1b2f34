//! Who is served first.
//!
//! The rule this module protects: a reader of many partitions with one limit serves them in the order in which it asks,
//! so it asks in another order every time: a partition with much to do starves nobody.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_first_in_turn() {
        let mut rotation = Rotation::default();
        let mut firsts: Vec<u8> = (0..6).map(|_| rotation.turn(vec![1, 2, 3])[0]).collect();
        firsts.sort_unstable();
        assert_eq!(firsts, [1, 1, 2, 2, 3, 3]);
        assert!(rotation.turn(Vec::<u8>::new()).is_empty());
    }
}
