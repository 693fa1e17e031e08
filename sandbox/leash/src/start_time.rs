//! When a process was started: with its pid, this says which process it is, as pids are used again.

/// The start time of process `pid`, in the system's own words: only good for comparing. `None`: no such process.
#[cfg(target_os = "linux")]
#[must_use]
pub fn start_time(pid: i32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc(5): the name (field 2) is in parentheses and may hold anything; starttime is field 22.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19).map(str::to_owned)
}

/// The start time of process `pid`, in the system's own words: only good for comparing. `None`: no such process.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn start_time(pid: i32) -> Option<String> {
    let output =
        std::process::Command::new("ps").args(["-o", "lstart=", "-p", &pid.to_string()]).output().ok()?;
    let started = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!started.is_empty()).then_some(started)
}
