//! Page tokens.
//!
//! The rule this module protects: a page token is good for the list and the filters that it came from, and for nothing
//! else; one that is not exactly as we wrote it is refused.

use std::fmt::Write as _;

use eventsourcing::outcome::Fingerprint;
use uuid::Uuid;

/// How many rows a page has where nothing is said.
pub(crate) const DEFAULT_PAGE: u32 = 100;

/// How many rows a page has at most.
pub(crate) const LARGEST_PAGE: u32 = 1000;

/// The version of the tokens' shape.
const VERSION: u8 = 1;

/// A version, a key and a seal, in bytes.
const TOKEN_BYTES: usize = 1 + 16 + 16;

/// What a page token belongs to: a list and its filters.
#[derive(Debug, Clone)]
pub(crate) struct PagedQuery(Vec<u8>);

impl PagedQuery {
    /// A list without filters.
    pub(crate) fn of(list: &'static str) -> Self {
        let mut query = Self(Vec::new());
        query.push(list.as_bytes());
        query
    }

    /// The same with another filter. All filters of a list are named, in one order, also those that are absent.
    pub(crate) fn filtered(mut self, filter: &str) -> Self {
        self.push(filter.as_bytes());
        self
    }

    /// What it is, to seal other tokens with.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The length in front, so that no two queries run together to the same bytes.
    fn push(&mut self, part: &[u8]) {
        self.0.extend_from_slice(&(part.len() as u64).to_be_bytes());
        self.0.extend_from_slice(part);
    }

    fn seal(&self, key: Uuid) -> [u8; 16] {
        let mut sealed = vec![VERSION];
        sealed.extend_from_slice(key.as_bytes());
        sealed.extend_from_slice(&self.0);
        let Fingerprint(digest) = Fingerprint::of(&sealed);
        let mut seal = [0; 16];
        for (to, from) in seal.iter_mut().zip(digest) {
            *to = from;
        }
        seal
    }

    /// The token of the page that begins after this key.
    pub(crate) fn token(&self, last: Uuid) -> String {
        let bytes = [VERSION].into_iter().chain(*last.as_bytes()).chain(self.seal(last));
        bytes.fold(String::with_capacity(TOKEN_BYTES * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _infallible = write!(text, "{byte:02x}");
            text
        })
    }

    /// The key after which the page begins; `None` for anything but a token of this query.
    pub(crate) fn key(&self, token: &str) -> Option<Uuid> {
        if token.len() != TOKEN_BYTES * 2 {
            return None;
        }
        let key = Uuid::from_u128(u128::from_str_radix(token.get(2..34)?, 16).ok()?);
        // Writing it again settles version, seal, and every other way to spell the same.
        (self.token(key) == token).then_some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_token_reads_back_for_its_own_query_only(
            key: u128, list in 0..4_usize, filter in ".{0,20}", other in ".{0,20}",
        ) {
            let lists = ["ListIssuers", "ListInvestors", "ListInvoices", "ListBids"];
            let query = |list: usize, filter: &str| PagedQuery::of(lists[list]).filtered(filter);
            let token = query(list, &filter).token(Uuid::from_u128(key));
            prop_assert_eq!(query(list, &filter).key(&token), Some(Uuid::from_u128(key)));
            prop_assert_eq!(query((list + 1) % 4, &filter).key(&token), None);
            prop_assert_eq!(query(list, &other).key(&token).is_some(), filter == other);
        }

        #[test]
        fn a_changed_token_is_refused(key: u128, at in 0..TOKEN_BYTES * 2, with in "[0-9a-zA-Z+ é-]") {
            let query = PagedQuery::of("ListBids");
            let token = query.token(Uuid::from_u128(key));
            let changed = format!("{}{with}{}", &token[..at], &token[at + 1..]);
            prop_assert_eq!(query.key(&changed).is_some(), changed == token);
            prop_assert_eq!(query.key(&token[..at]), None);
            prop_assert_eq!(query.key(&format!("{token}{with}")), None);
        }

        #[test]
        fn anything_may_be_asked(token in ".{0,80}") {
            prop_assert_eq!(PagedQuery::of("ListBids").key(&token), None);
        }
    }

    #[test]
    fn filters_do_not_run_together() {
        let key = Uuid::from_u128(7);
        let token = PagedQuery::of("ListBids").filtered("ab").filtered("c").token(key);
        assert_eq!(PagedQuery::of("ListBids").filtered("a").filtered("bc").key(&token), None);
    }
}
