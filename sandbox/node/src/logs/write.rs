//! Writing: `2026-01-02T03:04:05.123456789Z stdout F message`, the CRI log format. `P` instead of `F`: the line goes
//! on in the next one. A file that is full is put aside for a new one; what was put aside before goes.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;

/// Longer lines are cut into pieces, as container runtimes do.
const MAX_LINE: usize = 16 * 1024;
/// A file with so much is full; the kubelet's default (`containerLogMaxSize`).
pub(super) const FULL_BYTES: u64 = 10 * 1024 * 1024;

/// The log of one run of a container.
pub(crate) struct RunLog {
    path: PathBuf,
    file: Mutex<File>,
    progress: watch::Sender<Progress>,
}

/// How far a log has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// Files that were full and put aside.
    pub(super) turned: u64,
    /// Of the file in use.
    pub(super) bytes: u64,
    pub(super) closed: bool,
}

impl RunLog {
    /// Makes the file at `path`, and its folder.
    pub(crate) fn create(path: PathBuf) -> io::Result<Arc<RunLog>> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let progress = Progress { bytes: file.metadata()?.len(), ..Progress::default() };
        Ok(Arc::new(RunLog { path, file: Mutex::new(file), progress: watch::Sender::new(progress) }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file in use, to read, and its number, which is how many were put aside before it.
    pub(super) fn open(&self) -> io::Result<(File, u64)> {
        // Nothing is put aside meanwhile.
        let _in_use = lock(&self.file);
        Ok((File::open(&self.path)?, self.progress.borrow().turned))
    }

    /// The file that follows number `read`, to read, and its number; of those put aside the newest is all there is.
    pub(super) fn open_next(&self, read: u64) -> io::Result<(File, u64)> {
        let _in_use = lock(&self.file);
        let turned = self.progress.borrow().turned;
        if turned > read + 1 {
            return Ok((File::open(self.aside())?, turned - 1));
        }
        Ok((File::open(&self.path)?, turned))
    }

    /// Deletes its files.
    pub(crate) fn remove(&self) {
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(self.aside());
    }

    fn aside(&self) -> PathBuf {
        self.path.with_extension("log.1")
    }

    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Nothing more will be written: followers end.
    pub(crate) fn close(&self) {
        self.progress.send_modify(|progress| progress.closed = true);
    }

    /// Copies `output` until its end, as lines of `stream` (`stdout` or `stderr`).
    pub(crate) async fn copy(&self, mut output: impl AsyncRead + Unpin, stream: &str) -> io::Result<()> {
        let mut pending = Vec::with_capacity(8 * 1024);
        loop {
            let read = output.read_buf(&mut pending).await?;
            let at = Timestamp::now();
            let mut lines = Vec::with_capacity(read + 64);
            let mut rest = &pending[..];
            loop {
                match rest.iter().take(MAX_LINE).position(|&byte| byte == b'\n') {
                    Some(end) => {
                        line(&mut lines, at, stream, 'F', &rest[..end]);
                        rest = &rest[end + 1..];
                    }
                    None if rest.len() >= MAX_LINE => {
                        line(&mut lines, at, stream, 'P', &rest[..MAX_LINE]);
                        rest = &rest[MAX_LINE..];
                    }
                    None if read == 0 && !rest.is_empty() => {
                        line(&mut lines, at, stream, 'P', rest);
                        rest = &[];
                    }
                    None => break,
                }
            }
            self.append(&lines)?;
            let written = pending.len() - rest.len();
            pending.drain(..written);
            if read == 0 {
                return Ok(());
            }
        }
    }

    fn append(&self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        // Whole lines in one write: the two streams never mix within a line. It goes to the page cache, which is
        // quicker than handing it to another thread.
        let mut file = lock(&self.file);
        file.write_all(lines)?;
        let bytes = self.progress.borrow().bytes + lines.len() as u64;
        // Where that fails the file goes on, and the next line tries again.
        let is_new = bytes >= FULL_BYTES && self.put_aside(&mut file).is_ok();
        self.progress.send_modify(|progress| {
            progress.bytes = if is_new { 0 } else { bytes };
            progress.turned += u64::from(is_new);
        });
        Ok(())
    }

    fn put_aside(&self, file: &mut File) -> io::Result<()> {
        std::fs::rename(&self.path, self.aside())?;
        match OpenOptions::new().create(true).append(true).open(&self.path) {
            Ok(new) => *file = new,
            Err(error) => return std::fs::rename(self.aside(), &self.path).and(Err(error)),
        }
        Ok(())
    }
}

fn lock(file: &Mutex<File>) -> MutexGuard<'_, File> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

fn line(lines: &mut Vec<u8>, at: Timestamp, stream: &str, tag: char, message: &[u8]) {
    // Writing to a Vec can't fail.
    let _ = write!(lines, "{at:.9} {stream} {tag} ");
    lines.extend_from_slice(message);
    lines.push(b'\n');
}
