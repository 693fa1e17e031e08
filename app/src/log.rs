//! One line per event on stdout: JSON in the cluster, human on a terminal.

use std::io::IsTerminal as _;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One object a line, the fields at its top level.
    Json,
    /// For eyes.
    Human,
}

impl Default for Format {
    /// Human if stdout is a terminal.
    fn default() -> Format {
        if std::io::stdout().is_terminal() { Format::Human } else { Format::Json }
    }
}

impl FromStr for Format {
    type Err = ();

    fn from_str(text: &str) -> Result<Format, ()> {
        match text {
            "json" => Ok(Format::Json),
            "human" => Ok(Format::Human),
            _ => Err(()),
        }
    }
}

/// Sends events to stdout; `RUST_LOG` filters them (default `info`). Does nothing when called again.
pub fn init(format: Format) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    // It would tell of a log that nobody reads any more, or a full disk, by a macro that panics then.
    let builder = builder.log_internal_errors(false);
    let _ = match format {
        Format::Json => {
            builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
        }
        Format::Human => builder.try_init(),
    };
}
