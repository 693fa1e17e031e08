//! How many files and sockets this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// As many as a busy server needs; more would only let a leak grow.
const WANTED: [u64; 2] = [65_536, /* the most that macOS takes */ 10_240];

/// Raises the soft limit of open files as far as the hard one allows; the limit that is in force then.
#[must_use]
pub fn raise_descriptor_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    for wanted in WANTED {
        let wanted = maximum.map_or(wanted, |maximum| maximum.min(wanted));
        if current.is_none_or(|current| current >= wanted) {
            break;
        }
        if setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).is_ok() {
            return wanted;
        }
    }
    current.unwrap_or(WANTED[0])
}
