//! What came last in one lane, in memory.
//!
//! The rule this module protects: a window says everything there is behind a position up to its end, or that it does not
//! know. It never says that something does not exist.

use std::collections::VecDeque;

/// The items behind a floor, all of them, up to the last that arrived.
#[derive(Debug)]
pub(super) struct Window<T> {
    floor: u64,
    end: u64,
    items: VecDeque<(u64, usize, T)>,
    bytes: usize,
}

impl<T: Clone> Window<T> {
    /// An empty window behind this position.
    pub(super) const fn behind(floor: u64) -> Self {
        Self { floor, end: floor, items: VecDeque::new(), bytes: 0 }
    }

    /// The last position that it knows of.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// Whether nothing has come since it was opened, or all of it is forgotten.
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether it knows what comes behind this position.
    pub(super) const fn knows(&self, after: u64) -> bool {
        after >= self.floor
    }

    /// Takes in what comes next. There is nothing between it and the last one. It forgets the oldest until it has at
    /// most so many items and bytes, but never the last.
    pub(super) fn push(&mut self, position: u64, bytes: usize, item: T, most: (usize, usize)) {
        self.items.push_back((position, bytes, item));
        self.end = position;
        self.bytes = self.bytes.saturating_add(bytes);
        while self.items.len() > most.0 || (self.bytes > most.1 && self.items.len() > 1) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some((position, bytes, _)) = self.items.pop_front() {
            self.floor = position;
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    /// Forgets what stands before a position.
    pub(super) fn forget_before(&mut self, position: u64) {
        while self.items.front().is_some_and(|(first, ..)| *first < position) {
            self.pop();
        }
        self.floor = self.floor.max(position.saturating_sub(1));
        self.end = self.end.max(self.floor);
    }

    /// The items behind a position, at most so many. Only right where it [knows](Self::knows).
    pub(super) fn take(&self, after: u64, most: usize) -> impl Iterator<Item = T> {
        let start = self.items.partition_point(|(position, ..)| *position <= after);
        self.items.iter().skip(start).take(most).map(|(.., item)| item.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: (usize, usize) = (3, 100);

    fn behind(window: &Window<char>, after: u64) -> Option<String> {
        window.knows(after).then(|| window.take(after, usize::MAX).collect())
    }

    #[test]
    fn a_window_knows_what_is_behind_its_floor_and_nothing_else() {
        let mut window = Window::behind(4);
        assert_eq!(behind(&window, 3), None);
        assert_eq!(behind(&window, 4).as_deref(), Some(""), "nothing has come yet");
        window.push(5, 1, 'a', SMALL);
        window.push(9, 1, 'b', SMALL);
        assert_eq!(behind(&window, 4).as_deref(), Some("ab"));
        assert_eq!(behind(&window, 7).as_deref(), Some("b"));
        assert_eq!(behind(&window, 20).as_deref(), Some(""));
        window.push(10, 1, 'c', SMALL);
        window.push(11, 1, 'd', SMALL);
        assert_eq!(behind(&window, 4), None, "5 was forgotten");
        assert_eq!(behind(&window, 5).as_deref(), Some("bcd"));
        assert_eq!(window.end(), 11);
        window.forget_before(11);
        assert_eq!((behind(&window, 9), behind(&window, 10).as_deref()), (None, Some("d")));
        window.forget_before(20);
        assert_eq!((behind(&window, 18), window.end()), (None, 19));
    }

    #[test]
    fn a_window_keeps_to_its_bytes_but_always_has_the_last() {
        let mut window = Window::behind(0);
        window.push(1, 60, 'a', SMALL);
        window.push(2, 60, 'b', SMALL);
        assert_eq!((behind(&window, 0), behind(&window, 1).as_deref()), (None, Some("b")));
        window.push(3, 500, 'c', SMALL);
        assert_eq!(behind(&window, 2).as_deref(), Some("c"));
    }
}
