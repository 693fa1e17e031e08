//! What can go wrong, as a caller may act on it.

use std::path::PathBuf;
use std::time::Duration;

/// Why a sandbox can't be started, asked or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder has a sandbox that runs.
    #[error("a sandbox is already running in {} (pid {pid})", home.display())]
    AlreadyRunning {
        /// The folder.
        home: PathBuf,
        /// The daemon; 0 where the folder does not say.
        pid: i32,
    },
    /// The port for the ingress is another program's.
    #[error("port {port} of 127.0.0.1, at which the ingress is to take requests, is in use")]
    PortInUse {
        /// Which.
        port: u16,
    },
    /// The folder of a sandbox that runs was deleted, or another one has it.
    #[error("its folder {} was deleted, or its lock replaced", home.display())]
    FolderGone {
        /// The folder.
        home: PathBuf,
    },
    /// The node did not become Ready.
    #[error("the node did not become Ready within {within:?}")]
    NotReady {
        /// How long it was given.
        within: Duration,
    },
    /// A part of a running sandbox failed, and the sandbox ends with it.
    #[error("{part} failed")]
    Part {
        /// Which.
        part: &'static str,
        /// Why.
        #[source]
        source: Source,
    },
    /// The API server can't be asked, or refuses.
    #[error("{doing}")]
    Api {
        /// What was being done.
        doing: String,
        /// The answer.
        #[source]
        source: kube::Error,
    },
    /// The machine does not go along: a file, a folder, a process.
    #[error("{doing}")]
    Failed {
        /// What was being done.
        doing: String,
        /// Why it failed.
        #[source]
        source: Source,
    },
}

impl Error {
    /// It and its causes in one line.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// An error and its causes in one line. What the API server answers stands there in its own words, which kube's error
/// repeats with all that is around them.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let (mut parts, mut next) = (Vec::new(), Some(error));
    while let Some(error) = next {
        if let Some(kube::Error::Api(status)) = error.downcast_ref() {
            parts.push(status.message.clone());
            break;
        }
        parts.push(error.to_string());
        next = error.source();
    }
    parts.join(": ")
}

/// The cause below an [`Error`].
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// A result of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Says what was being done when something failed.
pub(crate) trait Doing<T> {
    /// In the gerund.
    fn doing(self, what: impl Into<String>) -> Result<T>;
    /// Likewise, worked out only then.
    fn doing_with(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Source>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl Into<String>) -> Result<T> {
        self.doing_with(|| what.into())
    }

    fn doing_with(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| {
            let source: Source = error.into();
            match source.downcast::<kube::Error>() {
                Ok(source) => Error::Api { doing: what(), source: *source },
                Err(source) => Error::Failed { doing: what(), source },
            }
        })
    }
}
