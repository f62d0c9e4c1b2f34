//! What was delivered last.
//!
//! The rule this module protects: a row that has changed and says the same as before is no news. Its columns may have
//! changed where that is not seen (a bid whose money was committed before its verdict was projected), or have changed and changed back.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};

use uuid::Uuid;

/// Rows that are remembered; beyond that all are forgotten, and one may come with what it said before.
const MOST: usize = 4096;

/// A hash of what each row said when it was delivered last.
#[derive(Debug, Default)]
pub(super) struct Told(HashMap<Uuid, u64>);

impl Told {
    /// Whether it is news. From now on it is not.
    pub(super) fn is_news<V: Hash>(&mut self, key: Uuid, view: &V) -> bool {
        let mut hasher = DefaultHasher::new();
        view.hash(&mut hasher);
        let hash = hasher.finish();
        if self.0.len() >= MOST && !self.0.contains_key(&key) {
            self.0.clear();
        }
        self.0.insert(key, hash) != Some(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_again_is_no_news_and_what_was_before_it_is() {
        let (mut told, key) = (Told::default(), Uuid::from_u128(1));
        assert_eq!([1, 1, 2, 2, 1].map(|view| told.is_news(key, &view)), [true, false, true, false, true]);
        assert!(told.is_news(Uuid::from_u128(2), &1), "of another row it is");
    }

    #[test]
    fn it_remembers_a_bounded_number_of_rows() {
        let mut told = Told::default();
        for key in 0..3 * MOST {
            assert!(told.is_news(Uuid::from_u128(key as u128), &0));
            assert!(told.0.len() <= MOST);
        }
    }
}
