//! Reading back: the stamp and stream name in front of each line are taken off again.

use std::io::{self, SeekFrom};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::watch;

use super::write::{Progress, RunLog};
use sandbox_contract::{LogRequest, LogStream};

const BLOCK: usize = 64 * 1024;

struct Reader {
    log: Weak<RunLog>,
    file: File,
    /// Files that were put aside before this one.
    turned: u64,
    /// Bytes read so far, from the beginning of the file.
    position: u64,
    /// Read, but not yet a whole line.
    pending: Vec<u8>,
    progress: watch::Receiver<Progress>,
    follow: bool,
    timestamps: bool,
    /// The line before was only a part: no stamp in the middle of a line.
    within_line: bool,
    since: Option<String>,
    /// Bytes that may still be given out.
    remaining: u64,
}

/// The log of one run, as `request` wants it.
pub(crate) async fn read(log: &Arc<RunLog>, request: &LogRequest) -> io::Result<LogStream> {
    let (file, turned) = log.open()?;
    let mut file = File::from_std(file);
    let start = match request.tail_lines.and_then(|lines| u64::try_from(lines).ok()) {
        Some(lines) => tail(&mut file, lines).await?,
        None => 0,
    };
    file.seek(SeekFrom::Start(start)).await?;
    // Stamps are in UTC with nine digits, hence in the order of time when compared as text.
    let since = request.since.map(|since| format!("{since:.9}"));
    let reader = Reader {
        log: Arc::downgrade(log),
        file,
        turned,
        position: start,
        pending: Vec::new(),
        progress: log.progress(),
        follow: request.follow,
        timestamps: request.timestamps,
        within_line: false,
        since,
        remaining: request.limit_bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(u64::MAX),
    };
    let pieces = futures::stream::try_unfold(reader, |mut reader| async move {
        Ok(reader.next().await?.map(|piece| (piece, reader)))
    });
    Ok(pieces.boxed())
}

impl Reader {
    /// The next piece: `None` at the end, which for a follower is when the log is closed.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while self.remaining > 0 {
            let progress = *self.progress.borrow_and_update();
            self.pending.reserve(BLOCK);
            let read = self.file.read_buf(&mut self.pending).await?;
            self.position += read as u64;
            if read > 0 {
                let piece = self.take_lines();
                if !piece.is_empty() {
                    return Ok(Some(piece.into()));
                }
            } else if !self.follow {
                return Ok(None);
            } else if progress.turned != self.turned {
                // This file was full, and is read to its end. Where the rest was deleted, so is the log.
                let Some(log) = self.log.upgrade() else { return Ok(None) };
                let (file, turned) = match log.open_next(self.turned) {
                    Ok(next) => next,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(error),
                };
                (self.file, self.turned, self.position) = (File::from_std(file), turned, 0);
            } else if progress.closed && progress.bytes <= self.position {
                return Ok(None);
            } else if progress.bytes <= self.position && self.progress.changed().await.is_err() {
                // The writer is gone, and with it whatever could still come.
                return Ok(None);
            }
        }
        Ok(None)
    }

    fn take_lines(&mut self) -> Vec<u8> {
        let mut piece = Vec::with_capacity(self.pending.len());
        let end = self.pending.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        for line in self.pending[..end].split_inclusive(|&byte| byte == b'\n') {
            let mut parts = line.splitn(4, |&byte| byte == b' ');
            let (Some(stamp), Some(_), Some(tag), Some(message)) =
                (parts.next(), parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            if self.since.as_ref().is_some_and(|since| stamp < since.as_bytes()) {
                continue;
            }
            if self.timestamps && !self.within_line {
                piece.extend_from_slice(stamp);
                piece.push(b' ');
            }
            self.within_line = tag == b"P";
            let message = if self.within_line { &message[..message.len() - 1] } else { message };
            piece.extend_from_slice(message);
        }
        self.pending.drain(..end);
        piece.truncate(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        self.remaining -= piece.len() as u64;
        piece
    }
}

/// Where the last `lines` lines begin.
async fn tail(file: &mut File, lines: u64) -> io::Result<u64> {
    let mut end = file.metadata().await?.len();
    // The newline that ends the last line counts too.
    let mut wanted = lines + 1;
    let mut block = vec![0; BLOCK];
    if lines == 0 {
        return Ok(end);
    }
    while end > 0 {
        let length = end.min(BLOCK as u64);
        let start = end - length;
        file.seek(SeekFrom::Start(start)).await?;
        let block = &mut block[..usize::try_from(length).unwrap_or(BLOCK)];
        file.read_exact(block).await?;
        for (offset, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            wanted -= 1;
            if wanted == 0 {
                return Ok(start + offset as u64 + 1);
            }
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::super::write::FULL_BYTES;
    use super::*;
    use futures::TryStreamExt as _;
    use jiff::Timestamp;

    async fn text(log: &Arc<RunLog>, request: LogRequest) -> String {
        let pieces: Vec<Bytes> = read(log, &request).await.unwrap().try_collect().await.unwrap();
        String::from_utf8(pieces.concat()).unwrap()
    }

    fn log() -> (tempfile::TempDir, Arc<RunLog>) {
        let dir = tempfile::tempdir().unwrap();
        let log = RunLog::create(dir.path().join("app/0.log")).unwrap();
        (dir, log)
    }

    #[tokio::test]
    async fn what_was_written_is_read_back() {
        let (_dir, log) = log();
        let long = "x".repeat(40_000);
        let written = format!("one\n\n{long}\nlast without newline");
        log.copy(written.as_bytes(), "stdout").await.unwrap();
        assert_eq!(text(&log, LogRequest::default()).await, written);
        let stamped = text(&log, LogRequest { timestamps: true, ..LogRequest::default() }).await;
        assert_eq!(stamped.matches("Z ").count(), 4, "{stamped}");
        let limited = LogRequest { limit_bytes: Some(7), ..LogRequest::default() };
        assert_eq!(text(&log, limited).await, written[..7]);
    }

    #[tokio::test]
    async fn a_full_file_is_put_aside_and_whoever_follows_misses_nothing() {
        let (dir, log) = log();
        let lines = |from: usize, to: usize| (from..to).map(|n| format!("{n:0>1000}\n")).collect::<String>();
        let request = LogRequest { follow: true, ..LogRequest::default() };
        let followed = tokio::spawn(read(&log, &request).await.unwrap().try_collect::<Vec<Bytes>>());
        // Two and a half files: it is two behind when it is first asked.
        let written = lines(0, 25_000);
        log.copy(written.as_bytes(), "stdout").await.unwrap();
        log.close();
        assert!(followed.await.unwrap().unwrap().concat() == written.as_bytes());

        log.copy(lines(25_000, 40_000).as_bytes(), "stdout").await.unwrap();
        let kept = text(&log, LogRequest::default()).await;
        assert!(written.len() > kept.len() && kept.ends_with(&lines(39_999, 40_000)), "{} bytes", kept.len());
        let on_disk =
            dir.path().join("app").read_dir().unwrap().map(|file| file.unwrap().metadata().unwrap().len());
        assert!(on_disk.sum::<u64>() < 2 * FULL_BYTES + 64 * 1024);
    }

    #[tokio::test]
    async fn tail_since_and_follow() {
        let (_dir, log) = log();
        let before = Timestamp::now();
        let lines: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
        log.copy(lines.as_bytes(), "stdout").await.unwrap();
        for (tail, first) in
            [(0, ""), (1, "line 19999\n"), (2, "line 19998\nline 19999\n"), (30_000, &*lines)]
        {
            assert_eq!(
                text(&log, LogRequest { tail_lines: Some(tail), ..LogRequest::default() }).await,
                first
            );
        }
        let since = |since| LogRequest { since: Some(since), ..LogRequest::default() };
        assert_eq!(text(&log, since(Timestamp::now())).await, "");
        assert_eq!(text(&log, since(before)).await, lines);

        let request = LogRequest { tail_lines: Some(1), follow: true, ..LogRequest::default() };
        let mut followed = read(&log, &request).await.unwrap();
        assert_eq!(followed.next().await.unwrap().unwrap(), "line 19999\n");
        log.copy(&b"more\n"[..], "stderr").await.unwrap();
        assert_eq!(followed.next().await.unwrap().unwrap(), "more\n");
        log.close();
        assert!(followed.next().await.is_none());
    }
}
