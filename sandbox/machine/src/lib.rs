//! How large the machine is, as the node's capacity. The seam between Linux and macOS.

use anyhow::{Context as _, Result};

/// CPUs that this process may use.
#[must_use]
pub fn cpus() -> u32 {
    std::thread::available_parallelism().ok().and_then(|n| u32::try_from(n.get()).ok()).unwrap_or(1)
}

/// Memory of the machine, or of the cgroup that we are in if that is less.
///
/// # Errors
/// When the system does not say.
#[cfg(target_os = "linux")]
pub fn memory_bytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let total = meminfo_total_bytes(&text).context("finding MemTotal in /proc/meminfo")?;
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let limit = limit.and_then(|text| text.trim().parse::<u64>().ok());
    Ok(limit.map_or(total, |limit| limit.min(total)))
}

#[cfg(target_os = "linux")]
fn meminfo_total_bytes(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Memory of the machine.
///
/// # Errors
/// When the system does not say.
#[cfg(not(target_os = "linux"))]
pub fn memory_bytes() -> Result<u64> {
    let output = std::process::Command::new("sysctl").args(["-n", "hw.memsize"]).output();
    let output = output.context("running sysctl -n hw.memsize")?;
    String::from_utf8_lossy(&output.stdout).trim().parse().context("reading what sysctl -n hw.memsize says")
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn meminfo_is_read_in_bytes() {
        assert_eq!(super::meminfo_total_bytes("MemTotal:       16 kB\nMemFree: 1 kB\n"), Some(16 << 10));
        assert_eq!(super::meminfo_total_bytes("MemFree: 1 kB\n"), None);
        assert!(super::memory_bytes().unwrap() > 1 << 20);
    }
}
