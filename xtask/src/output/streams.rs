//! stdout and stderr as they may be: closed, full, left by their reader, hung up.

use std::io::{ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::sync::OnceLock;

use indicatif::TermLike;
use tokio::io::Interest;
use tokio::net::unix::pipe::Sender;
use tokio_util::sync::CancellationToken;

/// Writes for a person. Whether anyone can read it is no reason to stop.
pub(super) fn tell(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// Writes data.
///
/// # Errors
/// When it can't be written.
pub(super) fn give(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
}

/// Whether what was to be read from stdout could be written there.
#[derive(Default)]
pub(super) struct Delivery {
    failed: OnceLock<std::io::Error>,
    left: CancellationToken,
}

impl Delivery {
    /// Writes data, unless that failed before.
    pub(super) fn give(&self, text: &str) {
        if self.failed.get().is_none()
            && let Err(error) = give(text)
        {
            let has_left = error.kind() == ErrorKind::BrokenPipe;
            let _ = self.failed.set(error);
            if has_left {
                self.left.cancel();
            }
        }
    }

    /// Why not all was written; nothing where the reader has left, as in `| head`.
    pub(super) fn failure(&self) -> Option<&std::io::Error> {
        self.failed.get().filter(|_| !self.reader_has_left())
    }

    /// Whether the reader has left.
    pub(super) fn reader_has_left(&self) -> bool {
        self.left.is_cancelled()
    }

    /// Ends when the reader leaves, also where nothing is written any more that would tell.
    pub(super) async fn reader_leaves(&self) {
        tokio::select! {
            () = self.left.cancelled() => {}
            () = stdout_breaks() => self.left.cancel(),
        }
    }
}

/// Ends when the other end of stdout is closed, where that is a pipe.
async fn stdout_breaks() {
    let broken = async {
        let stdout = std::io::stdout().as_fd().try_clone_to_owned()?;
        // Unchecked, for it shall stay as it is: a check would make it non-blocking for everyone who writes to it.
        Sender::from_file_unchecked(stdout.into())?.ready(Interest::ERROR).await
    };
    // A file can't be waited for, and never breaks.
    if broken.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The terminal behind the live lines. They are drawn by a library that takes an error for a reason to panic, and a
/// terminal can be hung up at any moment.
#[derive(Debug)]
pub(super) struct Terminal(pub(super) console::Term);

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        TermLike::width(&self.0)
    }

    fn height(&self) -> u16 {
        TermLike::height(&self.0)
    }

    fn move_cursor_up(&self, lines: usize) -> std::io::Result<()> {
        TermLike::move_cursor_up(&self.0, lines).or(Ok(()))
    }

    fn move_cursor_down(&self, lines: usize) -> std::io::Result<()> {
        TermLike::move_cursor_down(&self.0, lines).or(Ok(()))
    }

    fn move_cursor_right(&self, columns: usize) -> std::io::Result<()> {
        TermLike::move_cursor_right(&self.0, columns).or(Ok(()))
    }

    fn move_cursor_left(&self, columns: usize) -> std::io::Result<()> {
        TermLike::move_cursor_left(&self.0, columns).or(Ok(()))
    }

    fn write_line(&self, text: &str) -> std::io::Result<()> {
        TermLike::write_line(&self.0, text).or(Ok(()))
    }

    fn write_str(&self, text: &str) -> std::io::Result<()> {
        TermLike::write_str(&self.0, text).or(Ok(()))
    }

    fn clear_line(&self) -> std::io::Result<()> {
        TermLike::clear_line(&self.0).or(Ok(()))
    }

    fn flush(&self) -> std::io::Result<()> {
        TermLike::flush(&self.0).or(Ok(()))
    }
}
