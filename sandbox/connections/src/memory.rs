//! Memory that connections have freed, and that the allocator would keep for the next thousand of them.

/// So many connections have to end before it is worth the trouble.
const MANY: usize = 32;

/// Sees how many connections there are, and gives memory back to the system after many have ended.
#[derive(Debug, Default)]
pub struct Reclaim {
    /// The most there were since then.
    most: usize,
}

impl Reclaim {
    /// So many are `open` now.
    pub fn look(&mut self, open: usize) {
        if self.most.saturating_sub(open) < MANY {
            self.most = self.most.max(open);
            return;
        }
        self.most = open;
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
