//! Container logs: written in the CRI format, read back as `kubectl logs` asks.

mod read;
mod write;

pub(crate) use read::read;
pub(crate) use write::RunLog;
