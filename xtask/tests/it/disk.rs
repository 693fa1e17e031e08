//! A disk that is full whenever a test wants it to be.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::world::Ran;

/// A small file system in memory, gone with the test.
pub(crate) struct Disk(tempfile::TempDir);

impl Disk {
    /// None where this user may not mount.
    pub(crate) fn mount(megabytes: u32) -> Option<Disk> {
        let dir = tempfile::tempdir().expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m,mode=700"), "none"]).arg(dir.path());
        mount.output().is_ok_and(|output| output.status.success()).then_some(Disk(dir))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Leaves room for so many bytes more.
    pub(crate) fn fill(&self, left: u64) {
        let mut file = File::create(self.filler()).expect("making a file");
        // At last by less than a block of the file system.
        for size in [1 << 20, 1 << 12, 1] {
            let piece = vec![0; size];
            while file.write_all(&piece).is_ok() {}
        }
        let length = file.metadata().expect("looking at a file").len();
        file.set_len(length.saturating_sub(left)).expect("shortening a file");
    }

    /// There is room again.
    pub(crate) fn clear(&self) {
        std::fs::remove_file(self.filler()).expect("removing a file");
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: what still ends may have a file open.
        Ran::of(Command::new("umount").arg("--lazy").arg(self.path()));
    }
}
