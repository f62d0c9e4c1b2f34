//! What everybody who counts a command queue promises: what stands behind the positions, and only that.

use crate::ports::{CommandQueue, QueuePosition};
use crate::queue::{Depth, Waiting};

use super::sample::{bundle, id, partition};

/// The suite of [`Waiting`]. The closure makes an empty queue, and who counts it.
pub async fn waiting<Q: CommandQueue, W: Waiting, F: AsyncFn() -> (Q, W)>(make: F) {
    let (queue, counts) = make().await;
    let (one, other) = (partition(1), partition(2));
    let depth = async |behind: &[_]| counts.depth(behind).await.expect("a queue can be counted");
    assert_eq!(depth(&[(one, None), (other, None)]).await, Depth::default(), "nothing waits");

    let bundles = ["a", "b", "c"].map(|name| bundle(one, &[id(name)]));
    for bundle in bundles.into_iter().chain([bundle(other, &[id("d"), id("e")])]) {
        assert_eq!(queue.enqueue(vec![bundle]).await, [Ok(())], "a bundle is stored");
    }
    let created_at = queue.created_at().await.expect("a queue knows when it was made");
    let messages = queue.read(&[(one, 0)], 10).await.expect("a queue can be read");
    let at = |index: usize, name: &str| {
        let message = messages.get(index).expect("it is there");
        Some(QueuePosition { created_at, message: message.message, mark: message.mark(id(name)), index: 0 })
    };
    let all = depth(&[(one, None), (other, None)]).await;
    assert_eq!(all.messages, 4, "where nobody has begun, everything waits");
    let behind = depth(&[(one, at(0, "a")), (other, None)]).await;
    assert_eq!(behind.messages, 3, "what has an outcome does not wait, also where it is not purged");
    assert!(behind.bytes > 0 && behind.bytes < all.bytes, "{behind:?} of {all:?}");
    assert_eq!(depth(&[(one, at(1, "b"))]).await.messages, 1, "partitions are counted for themselves");
    assert_eq!(depth(&[(one, at(2, "c"))]).await, Depth::default(), "the last one has its outcome");

    let last = messages.get(2).expect("it is there").message;
    queue.purge(&[(one, last)]).await.expect("a queue can be purged");
    assert_eq!(depth(&[(one, at(2, "c"))]).await, Depth::default(), "what a purge spares does not wait");
}
