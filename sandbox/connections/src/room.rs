//! How many connections there may be, and which goes when there is no room for a new one.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Room for a number of connections.
#[derive(Debug)]
pub struct Room {
    most: usize,
    inner: Mutex<Inner>,
    left: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    taken: usize,
    next: u64,
    /// Those that wait for their client, by since when.
    waiting: BTreeMap<u64, CancellationToken>,
}

impl Room {
    /// Room for at most `most` connections.
    #[must_use]
    pub fn new(most: usize) -> Arc<Room> {
        Arc::new(Room { most: most.max(1), inner: Mutex::default(), left: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// A place for a new connection, and what tells it that another one was given it. It comes at once, unless each of
    /// the others has a request under way.
    pub(crate) async fn take(&self) -> (u64, CancellationToken) {
        loop {
            let left = self.left.notified();
            {
                let mut inner = self.lock();
                if inner.taken < self.most || inner.close_longest_waiting() {
                    inner.taken += 1;
                    let lost = CancellationToken::new();
                    return (inner.wait(lost.clone()), lost);
                }
            }
            left.await;
        }
    }

    /// Closes the connection that has waited longest for its client; false where none waits.
    pub fn make_room(&self) -> bool {
        self.lock().close_longest_waiting()
    }

    /// A connection waits for its client from now on; its place in the order of those who do.
    pub(crate) fn wait(&self, lost: &CancellationToken) -> u64 {
        self.lock().wait(lost.clone())
    }

    /// It does not wait any more. False if it was closed for another one, whose place this was.
    pub(crate) fn serve(&self, place: u64) -> bool {
        self.lock().waiting.remove(&place).is_some()
    }

    /// A connection leaves that is not waiting.
    pub(crate) fn leave(&self) {
        self.lock().taken -= 1;
        self.left.notify_one();
    }
}

impl Inner {
    fn wait(&mut self, lost: CancellationToken) -> u64 {
        self.next += 1;
        self.waiting.insert(self.next, lost);
        self.next
    }

    fn close_longest_waiting(&mut self) -> bool {
        let Some((_, lost)) = self.waiting.pop_first() else { return false };
        lost.cancel();
        self.taken -= 1;
        true
    }
}
