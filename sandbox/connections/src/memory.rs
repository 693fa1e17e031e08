//! Memory that connections have freed, and that the allocator would keep for the next thousand of them.

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
        // Does nothing where the allocator gives memory back by itself.
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        tokio::task::spawn_blocking(trim);
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
