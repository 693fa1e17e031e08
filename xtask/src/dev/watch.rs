//! That something happens in folders. Linux tells; elsewhere they are looked at now and then. What has changed is not
//! asked of the system: editors have too many ways to save, and only the content says.

pub(super) use system::Watch;

#[cfg(target_os = "linux")]
mod system {
    use std::collections::HashSet;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use anyhow::{Context as _, Result};
    use rustix::fd::OwnedFd;
    use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
    use rustix::io::{Errno, read};
    use tokio::sync::Notify;

    use crate::failure::Attach as _;

    /// Folders whose changes are heard.
    pub(in crate::dev) struct Watch {
        inotify: Arc<OwnedFd>,
        happened: Arc<Notify>,
        watched: HashSet<(PathBuf, i32)>,
    }

    impl Watch {
        pub(in crate::dev) fn new() -> Result<Watch> {
            let inotify = Arc::new(inotify::init(CreateFlags::CLOEXEC).context("starting to watch files")?);
            let happened = Arc::new(Notify::new());
            let (events, tell) = (Arc::clone(&inotify), Arc::clone(&happened));
            // A thread of its own, which ends with the process: what it waits for can't be given up.
            let listen = move || {
                let mut event = [0; 4096];
                while matches!(read(&events, &mut event), Ok(1..) | Err(Errno::INTR)) {
                    tell.notify_one();
                }
            };
            let listener = std::thread::Builder::new().name("watch".to_owned()).spawn(listen);
            listener.context("listening for changed files")?;
            Ok(Watch { inotify, happened, watched: HashSet::new() })
        }

        /// Watches a folder from now on; whether it was not watched yet, so that something may have been missed. One
        /// that was replaced, as by a checkout, is another.
        pub(in crate::dev) fn add(&mut self, folder: &Path) -> Result<bool> {
            let changes = WatchFlags::MODIFY
                | WatchFlags::CLOSE_WRITE
                | WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVED_FROM
                | WatchFlags::MOVED_TO;
            let watch = inotify::add_watch(&self.inotify, folder, changes | WatchFlags::ONLYDIR)
                .with_context(|| format!("watching {}", folder.display()))
                .hint("`sysctl fs.inotify` shows the limits; `max_user_watches` can be raised")?;
            Ok(self.watched.insert((folder.to_owned(), watch)))
        }

        /// Ends when something has happened since the last time. Nothing is lost when the wait is given up.
        pub(in crate::dev) async fn happening(&mut self) {
            self.happened.notified().await;
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::path::Path;
    use std::time::Duration;

    use anyhow::Result;

    /// How often the folders are looked at.
    const EVERY: Duration = Duration::from_millis(250);

    /// Folders that may have changed.
    pub(in crate::dev) struct Watch;

    impl Watch {
        pub(in crate::dev) fn new() -> Result<Watch> {
            Ok(Watch)
        }

        pub(in crate::dev) fn add(&mut self, _: &Path) -> Result<bool> {
            Ok(false)
        }

        pub(in crate::dev) async fn happening(&mut self) {
            tokio::time::sleep(EVERY).await;
        }
    }
}
