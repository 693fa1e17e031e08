//! Memory that connections and large requests have freed, and that the allocator would keep for the next thousand of
//! them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// So many connections have to end before it is worth the trouble.
const MANY: usize = 32;
/// When the last of those that were ending have ended too.
const AGAIN: Duration = Duration::from_secs(4);

/// Sees how many connections there are, and gives memory back to the system after many have ended.
#[derive(Debug, Default)]
pub struct Reclaim {
    /// The most there were since then.
    most: usize,
    /// When to do it once more.
    again: Option<Instant>,
}

impl Reclaim {
    /// So many are `open` now.
    pub fn look(&mut self, open: usize) {
        let now = Instant::now();
        if self.most.saturating_sub(open) >= MANY {
            self.again = Some(now + AGAIN);
            self.most = open;
        } else if self.again.is_some_and(|again| again <= now) {
            self.again = None;
        } else {
            self.most = self.most.max(open);
            return;
        }
        give_back();
    }
}

/// Work that takes much memory and frees it in its end: when the last that is under way has ended, memory goes back to
/// the system.
#[derive(Debug)]
pub struct Freed(());

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

impl Freed {
    /// It begins, and ends when this is dropped.
    #[must_use]
    pub fn begin() -> Freed {
        UNDER_WAY.fetch_add(1, Ordering::Relaxed);
        Freed(())
    }
}

impl Drop for Freed {
    fn drop(&mut self) {
        if UNDER_WAY.fetch_sub(1, Ordering::Relaxed) == 1 {
            give_back();
        }
    }
}

/// Does nothing where the allocator gives memory back by itself, and outside of a runtime.
fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn_blocking(trim);
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "one call of the C library, which takes no pointer and keeps none")]
fn trim() {
    // SAFETY: malloc_trim may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
