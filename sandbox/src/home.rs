//! The folder of a sandbox.
//!
//! ```text
//! lock          held by the daemon for its life; its pid
//! sandbox.json  how to reach it; there while it is ready
//! kubeconfig    likewise, with the token: for its owner alone
//! images/       the image store; outlives the daemon
//! node/         logs and folders of this daemon's pods
//! sandbox.log   the daemon's diagnostics
//! ```

use std::fs::{self, File, Permissions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sandbox_node::ImageStore;

use crate::error::{Doing as _, Error, Result};
use crate::processes::Processes;

/// A sandbox's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    dir: PathBuf,
}

impl Home {
    /// The sandbox of this folder, which need not exist yet.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Home {
        Home { dir: dir.into() }
    }

    /// Makes the folder, for its owner alone.
    ///
    /// # Errors
    /// If it can't be made or changed.
    pub fn create(&self) -> Result<()> {
        if self.dir.exists() && !self.dir.is_dir() {
            let source = std::io::Error::from(std::io::ErrorKind::NotADirectory);
            return Err(source)
                .doing_with(|| format!("using {} as the sandbox's folder", self.dir.display()));
        }
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&self.dir);
        made.doing_with(|| format!("making the sandbox's folder {}", self.dir.display()))?;
        fs::set_permissions(&self.dir, Permissions::from_mode(0o700))
            .doing_with(|| format!("restricting the sandbox's folder {} to its owner", self.dir.display()))
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The kubeconfig; there while the sandbox is ready.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// Where the daemon's diagnostics go.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("sandbox.log")
    }

    /// The image store. It can be used while no daemon runs.
    ///
    /// # Errors
    /// If its folder can't be made.
    pub fn images(&self) -> Result<ImageStore> {
        self.create()?;
        ImageStore::open(self.dir.join("images")).doing("opening the image store")
    }

    /// What of this sandbox runs, whatever the folder says.
    pub(crate) fn processes(&self) -> Processes {
        Processes::of(&self.dir, &self.node())
    }

    pub(crate) fn node(&self) -> PathBuf {
        self.dir.join("node")
    }

    pub(crate) fn info(&self) -> PathBuf {
        self.dir.join("sandbox.json")
    }

    fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// Writes a file for its owner alone, whole or not at all.
    pub(crate) fn write(&self, path: &Path, content: &[u8]) -> Result<()> {
        let temporary = path.with_extension("new");
        make_way(path)?;
        let write = || -> std::io::Result<()> {
            let _ = fs::remove_file(&temporary);
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
            file.write_all(content)?;
            fs::rename(&temporary, path)
        };
        write().doing_with(|| format!("writing {}", path.display()))
    }

    /// Removes what says that a daemon is ready.
    pub(crate) fn withdraw(&self) -> Result<()> {
        for path in [self.info(), self.kubeconfig()] {
            make_way(&path)?;
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).doing_with(|| format!("removing {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether anything is in the folder that a daemon says of itself.
    pub(crate) fn is_published(&self) -> bool {
        [self.info(), self.kubeconfig()].iter().any(|path| path.symlink_metadata().is_ok())
    }

    /// Removes the folders of the pods of an earlier daemon.
    pub(crate) fn clear_node(&self) -> Result<()> {
        let is_folder = self.node().symlink_metadata().is_ok_and(|about| about.is_dir());
        let removed = if is_folder { fs::remove_dir_all(self.node()) } else { fs::remove_file(self.node()) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).doing_with(|| format!("removing {}", self.node().display()))
            }
            _ => Ok(()),
        }
    }

    /// Forgets a daemon that was killed. Does nothing while one runs.
    pub(crate) fn forget_holder(&self) -> Result<()> {
        let path = self.lock();
        make_way(&path)?;
        let Ok(file) = File::options().write(true).open(&path) else { return Ok(()) };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => file.set_len(0).doing_with(|| format!("emptying {}", path.display())),
            Err(_) => Ok(()),
        }
    }

    /// Who holds the lock: its pid. Whether it is held is the kernel's word and so does not outlive a killed daemon.
    pub(crate) fn holder(&self) -> Result<Holder> {
        let path = self.lock();
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Holder::Nobody),
            opened => opened.doing_with(|| format!("opening {}", path.display()))?,
        };
        if !file.metadata().doing_with(|| format!("looking at {}", path.display()))?.is_file() {
            return Ok(Holder::Unknown);
        }
        let held = match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => false,
            Err(Errno::WOULDBLOCK) => true,
            Err(error) => return Err(error).doing_with(|| format!("looking at the lock {}", path.display())),
        };
        // Longer than any pid is.
        let mut pid = Vec::new();
        file.take(64).read_to_end(&mut pid).doing_with(|| format!("reading {}", path.display()))?;
        let pid = String::from_utf8_lossy(&pid);
        match pid.trim().parse() {
            Ok(pid) if held => Ok(Holder::Alive(pid)),
            Ok(pid) => Ok(Holder::Dead(pid)),
            Err(_) if held => Ok(Holder::Alive(0)),
            Err(_) if pid.is_empty() => Ok(Holder::Nobody),
            Err(_) => Ok(Holder::Unknown),
        }
    }
}

/// What the lock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    Nobody,
    /// A daemon of this pid (0 for an instant, while it takes the lock, or where the file was damaged).
    Alive(i32),
    /// The file was damaged, or is none.
    Unknown,
    /// A daemon of this pid ended without tidying up.
    Dead(i32),
}

fn signature() -> String {
    format!("{}\n", std::process::id())
}

fn sign(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(signature().as_bytes())
}

/// Removes an empty folder that is where a file should be; one with something in it is for its owner to move.
fn make_way(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_ok_and(|about| about.is_dir()) {
        fs::remove_dir(path).doing_with(|| {
            format!("{} is a folder, where the sandbox keeps a file: move it away", path.display())
        })?;
    }
    Ok(())
}

/// The lock, held.
pub(crate) struct Lock(File);

impl Lock {
    /// Takes the lock and writes our pid into it.
    pub(crate) async fn take(home: &Home) -> Result<Lock> {
        let path = home.lock();
        make_way(&path)?;
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = file.doing_with(|| format!("opening {}", path.display()))?;
        // Those who look whether it is held hold it for an instant themselves.
        for last in [false, false, false, false, true] {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if !last => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(Errno::WOULDBLOCK) => {
                    let pid = match home.holder()? {
                        Holder::Alive(pid) => pid,
                        Holder::Nobody | Holder::Dead(_) | Holder::Unknown => 0,
                    };
                    return Err(Error::AlreadyRunning { home: home.dir().to_owned(), pid });
                }
                Err(error) => return Err(error).doing_with(|| format!("locking {}", path.display())),
            }
        }
        sign(&mut file).doing_with(|| format!("writing {}", path.display()))?;
        Ok(Lock(file))
    }

    /// Whether the lock of this folder is still the one that is held, and not gone with the folder or replaced.
    pub(crate) fn is_in(&self, home: &Home) -> bool {
        let there = fs::symlink_metadata(home.lock());
        let (Ok(there), Ok(held)) = (there, self.0.metadata()) else { return false };
        (there.dev(), there.ino()) == (held.dev(), held.ino())
    }

    /// Writes our pid into it again if it says anything else.
    pub(crate) fn restore(&mut self) -> std::io::Result<()> {
        let mut says = Vec::new();
        self.0.rewind()?;
        (&mut self.0).take(64).read_to_end(&mut says)?;
        if says != signature().as_bytes() { sign(&mut self.0) } else { Ok(()) }
    }

    /// Lets go after an orderly end.
    pub(crate) fn release(self) {
        // An empty lock file says that nothing was left behind.
        let _ = self.0.set_len(0);
    }
}
