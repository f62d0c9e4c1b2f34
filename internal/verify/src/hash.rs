//! A fast hash for keys that are ids, and digests of what only has to be compared.
//!
//! The rule this module protects: what is compared by its digest differs in 64 bits where it differs at all. This is no
//! protection against somebody who chooses what is hashed; a checker has no such enemy.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// A map with the fast hash.
pub(crate) type Map<K, V> = HashMap<K, V, BuildHasherDefault<Folding>>;
/// A set with the fast hash.
pub(crate) type Set<K> = HashSet<K, BuildHasherDefault<Folding>>;

/// Multiplies and folds, eight bytes at a time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Folding(u64);

impl Folding {
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "both halves of the product are used")]
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ 0x9E37_79B9_7F4A_7C15) * 0xD6E8_FEB8_6659_FD93_u128;
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }
}

impl Hasher for Folding {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut word = [0_u8; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.mix(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }

    /// The length of an id is always the same.
    #[inline]
    fn write_usize(&mut self, _length: usize) {}

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

/// A digest of these texts, in this order; where one ends and the next begins counts.
pub(crate) fn digest<'a>(texts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hash = Folding::default();
    for text in texts {
        hash.write_u64(text.len() as u64);
        hash.write(text);
    }
    hash.finish()
}

/// A digest of a text.
pub(crate) fn digest_of(text: &str) -> u64 {
    digest([text.as_bytes()])
}
