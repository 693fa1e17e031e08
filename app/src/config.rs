//! The settings, all of them from the environment.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};

use crate::engine::{EngineKind, Library};
use crate::log;

/// A few seconds' work for one pod: more would only wait until its deadline.
const DEFAULT_QUEUE_SIZE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(31);

/// Several times what the ingress keeps open; 20 kB each if all of them hold half a head.
const DEFAULT_MAX_CONNECTIONS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);

/// Each may be an upload in memory.
const MOST_QUEUED: usize = 10_000;
/// More than any machine has CPUs.
const MOST_THREADS: usize = 1024;
/// More than there are descriptors.
const MOST_CONNECTIONS: usize = 1 << 20;

/// Everything that can be set, from the environment.
#[derive(Clone, Debug)]
pub struct Config {
    /// `HOST` and `PORT`; default 0.0.0.0:8000. Port 0 takes a free one, and the log says which.
    pub listen: SocketAddr,
    /// `MODEL_DIR`: the folder with `model.onnx` and `manifest.json`; default `model`.
    pub model_dir: PathBuf,
    /// `MODEL_ENGINE`: auto, rten or onnxruntime.
    pub engine: EngineKind,
    /// `ORT_DYLIB_PATH`: ONNX Runtime's shared library; default: looked for beside the binary and in `MODEL_DIR`.
    pub onnxruntime_library: Library,
    /// `MODEL_THREADS`: threads of one forward pass; default: the CPUs this process may use, by quota too.
    pub threads: NonZeroUsize,
    /// `QUEUE_SIZE`: predictions accepted at a time, the running one included; default 32. More are answered 429.
    pub queue_size: NonZeroUsize,
    /// `REQUEST_TIMEOUT_SECONDS`: for the body to come, and for the whole answer; default 30.
    pub request_timeout: Duration,
    /// `MAX_CONNECTIONS`: open at a time; default 4096, and no more than the system gives descriptors for. A new one
    /// takes the place of the one whose client has kept us waiting the longest.
    pub max_connections: NonZeroUsize,
    /// `KEEP_ALIVE_SECONDS`: how long a connection may wait for the next request; default 75. It must outlast the
    /// proxy's 60 s, or the proxy sends a request into a connection that is just being closed.
    pub keep_alive: Duration,
    /// `HEADER_TIMEOUT_SECONDS`: for the head of a request, from its first byte; default 10.
    pub header_timeout: Duration,
    /// `DRAIN_DELAY_SECONDS`: how long after SIGTERM predictions are still accepted, for where no preStop pause has
    /// waited for the endpoint's removal already; default 0.
    pub drain_delay: Duration,
    /// `LOG_FORMAT`: json or human; default: human on a terminal.
    pub log_format: log::Format,
    /// `POD_NAME`: named in the log and in `X-Served-By`.
    pub pod: Option<String>,
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// Names the variable, its value and what would be right.
    pub fn from_env() -> Result<Config> {
        // What is not text is refused by its name rather than overlooked.
        Config::from_lookup(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Config> {
        let lookup = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let host: IpAddr = parse(&lookup, "HOST", "an IP address", Ipv4Addr::UNSPECIFIED.into())?;
        let cpus = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Ok(Config {
            listen: SocketAddr::new(host, parse(&lookup, "PORT", "a port number", 8000)?),
            model_dir: lookup("MODEL_DIR").map_or_else(|| PathBuf::from("model"), PathBuf::from),
            engine: parse(&lookup, "MODEL_ENGINE", "auto, rten or onnxruntime", EngineKind::Auto)?,
            onnxruntime_library: lookup("ORT_DYLIB_PATH")
                .map_or(Library::Bundled, |path| Library::At(path.into())),
            threads: count(&lookup, "MODEL_THREADS", cpus, MOST_THREADS)?,
            queue_size: count(&lookup, "QUEUE_SIZE", DEFAULT_QUEUE_SIZE, MOST_QUEUED)?,
            request_timeout: seconds(&lookup, "REQUEST_TIMEOUT_SECONDS", 30.0)?,
            max_connections: count(&lookup, "MAX_CONNECTIONS", DEFAULT_MAX_CONNECTIONS, MOST_CONNECTIONS)?,
            keep_alive: seconds(&lookup, "KEEP_ALIVE_SECONDS", 75.0)?,
            header_timeout: seconds(&lookup, "HEADER_TIMEOUT_SECONDS", 10.0)?,
            drain_delay: seconds(&lookup, "DRAIN_DELAY_SECONDS", 0.0)?,
            log_format: parse(&lookup, "LOG_FORMAT", "json or human", log::Format::default())?,
            pod: lookup("POD_NAME"),
        })
    }
}

type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

fn parse<T: FromStr>(lookup: Lookup<'_>, name: &str, expected: &str, default: T) -> Result<T> {
    match lookup(name) {
        Some(value) => value.parse().map_err(|_| anyhow!("{name}={value:?}: expected {expected}")),
        None => Ok(default),
    }
}

fn count(lookup: Lookup<'_>, name: &str, default: NonZeroUsize, most: usize) -> Result<NonZeroUsize> {
    let expected = format!("1 to {most}");
    let count = parse(lookup, name, &expected, default)?;
    ensure!(count.get() <= most, "{name}={count}: expected {expected}");
    Ok(count)
}

fn seconds(lookup: Lookup<'_>, name: &str, default: f64) -> Result<Duration> {
    let seconds = parse(lookup, name, "a number of seconds", default)?;
    ensure!((0.0..=3600.0).contains(&seconds), "{name}={seconds}: expected 0 to 3600 seconds");
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<Config> {
        Config::from_lookup(|name| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn defaults() {
        let config = with(&[("HOST", "")]).unwrap();
        assert_eq!(config.listen.to_string(), "0.0.0.0:8000");
        assert_eq!(config.queue_size.get(), 32);
        assert_eq!(config.request_timeout, Duration::from_secs(30));
        assert_eq!(config.max_connections.get(), 4096);
        assert!(config.keep_alive > Duration::from_secs(60), "nginx keeps a connection for 60 s");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (name, value, expected) in [
            ("PORT", "http", "PORT=\"http\": expected a port number"),
            ("HOST", "localhost", "expected an IP address"),
            ("MODEL_ENGINE", "tract", "expected auto, rten or onnxruntime"),
            ("QUEUE_SIZE", "0", "expected 1 to 10000"),
            ("QUEUE_SIZE", "18446744073709551615", "expected 1 to 10000"),
            ("MODEL_THREADS", "100000", "MODEL_THREADS=100000: expected 1 to 1024"),
            ("MAX_CONNECTIONS", "18446744073709551616", "expected 1 to 1048576"),
            ("REQUEST_TIMEOUT_SECONDS", "-1", "expected 0 to 3600 seconds"),
            ("DRAIN_DELAY_SECONDS", "NaN", "expected 0 to 3600 seconds"),
        ] {
            let error = with(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
