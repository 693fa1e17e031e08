//! Open files: each connection is one, and most shells allow few.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the rest of the program has open beside the generator's connections: logs, watches, the terminal.
const BESIDE: u64 = 128;

/// Raises this process' limit of open files so that so many connections fit, as far as the hard limit lets it; gives
/// back the limit that holds then.
pub fn allow(connections: usize) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let (Some(current), needed) = (current, connections as u64 + BESIDE) else { return u64::MAX };
    let wanted = needed.min(maximum.unwrap_or(u64::MAX));
    if wanted > current && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).is_ok() {
        wanted
    } else {
        current
    }
}
