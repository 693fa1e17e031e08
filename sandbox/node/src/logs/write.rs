//! Writing: `2026-01-02T03:04:05.123456789Z stdout F message`, the CRI log format. `P` instead of `F`: the line goes
//! on in the next one. A file that is full is put aside for a new one; what was put aside before goes.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::watch;

/// Longer lines are cut into pieces, as container runtimes do.
const MAX_LINE: usize = 16 * 1024;
/// A file with so much is full; the kubelet's default (`containerLogMaxSize`).
pub(super) const FULL_BYTES: u64 = 10 * 1024 * 1024;

/// The log of one run of a container.
pub(crate) struct RunLog {
    path: PathBuf,
    file: Mutex<InUse>,
    progress: watch::Sender<Progress>,
}

struct InUse {
    file: File,
    /// Its last line was cut off in the middle, as by a full disk.
    is_cut: bool,
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
        let file = Mutex::new(InUse { file, is_cut: false });
        Ok(Arc::new(RunLog { path, file, progress: watch::Sender::new(progress) }))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file in use, to read, and its number, which is how many were put aside before it.
    pub(super) fn open(&self) -> io::Result<(File, u64)> {
        // Nothing is put aside meanwhile.
        let _in_use = self.file.lock();
        Ok((File::open(&self.path)?, self.progress.borrow().turned))
    }

    /// The file that follows number `read`, to read, and its number; of those put aside the newest is all there is.
    pub(super) fn open_next(&self, read: u64) -> io::Result<(File, u64)> {
        let _in_use = self.file.lock();
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

    /// Copies `output` until its end, as lines of `stream` (`stdout` or `stderr`). What can't be kept, as on a full
    /// disk, is lost, and no reason to stop reading: the container would be held up by its own words.
    pub(crate) async fn copy(&self, mut output: impl AsyncRead + Unpin, stream: &str) -> io::Result<()> {
        let mut pending = Vec::with_capacity(8 * 1024);
        let mut is_lossy = false;
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
            if let Err(error) = self.append(&lines)
                && !std::mem::replace(&mut is_lossy, true)
            {
                tracing::warn!("lines of a container are lost: writing {}: {error}", self.path.display());
            }
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
        let mut in_use = self.file.lock();
        let InUse { file, is_cut } = &mut *in_use;
        let ended = if *is_cut { file.write_all(b"\n") } else { Ok(()) };
        let written = ended.and_then(|()| file.write_all(lines));
        let before = self.progress.borrow().bytes;
        let bytes = file.metadata().map_or(before, |about| about.len());
        *is_cut = written.is_err() && (*is_cut || bytes > before);
        // Where that fails the file goes on, and the next line tries again.
        let is_new = bytes >= FULL_BYTES && self.put_aside(file).is_ok();
        self.progress.send_modify(|progress| {
            progress.bytes = if is_new { 0 } else { bytes };
            progress.turned += u64::from(is_new);
        });
        written
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

fn line(lines: &mut Vec<u8>, at: Timestamp, stream: &str, tag: char, message: &[u8]) {
    // Writing to a Vec can't fail.
    let _ = write!(lines, "{at:.9} {stream} {tag} ");
    lines.extend_from_slice(message);
    lines.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_disk_loses_lines_and_holds_up_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let log = RunLog::create(dir.path().join("app/0.log")).unwrap();
        let use_file = |path: &Path, is_cut| {
            let file = OpenOptions::new().append(true).open(path).unwrap();
            *log.file.lock() = InUse { file, is_cut };
        };
        use_file(Path::new("/dev/full"), false);
        log.copy(&b"lost\n"[..], "stdout").await.unwrap();
        // There is room again; half a line was written before.
        std::fs::write(log.path(), "2026-01-02T03:04:05.123456789Z stdout F ha").unwrap();
        use_file(log.path(), true);
        log.copy(&b"kept\n"[..], "stdout").await.unwrap();
        let text = std::fs::read_to_string(log.path()).unwrap();
        let ends: Vec<_> = text.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
        assert_eq!(ends, ["ha", "kept"], "{text}");
        assert_eq!(log.progress().borrow().bytes, text.len() as u64);
    }
}
