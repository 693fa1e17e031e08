//! What process groups use, from the system. The seam between Linux and macOS.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// What one process group uses.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GroupUse {
    /// CPU time of its processes and of their children that have ended.
    pub(crate) cpu: Duration,
    /// Resident memory of all its processes. Pages shared between processes count for each.
    pub(crate) rss_bytes: u64,
}

/// Looks at every process once. Blocks for some milliseconds.
#[cfg(target_os = "linux")]
pub(crate) fn of_groups(groups: &HashSet<i32>) -> HashMap<i32, GroupUse> {
    let mut found: HashMap<i32, GroupUse> = HashMap::new();
    if groups.is_empty() {
        return found;
    }
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let page_bytes = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let Ok(processes) = std::fs::read_dir("/proc") else { return found };
    for process in processes.flatten() {
        if !process.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit) {
            continue;
        }
        // A process that ends meanwhile is passed over.
        let Ok(stat) = std::fs::read_to_string(process.path().join("stat")) else { continue };
        // proc(5); the name in parentheses may hold anything. After it: state is field 3, pgrp 5, utime 14, stime 15,
        // cutime 16, cstime 17, rss 24 (pages).
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field =
            |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let Some(pgid) = i32::try_from(field(5)).ok().filter(|pgid| groups.contains(pgid)) else { continue };
        let ticks: u64 = (14..=17).map(field).sum();
        let usage = found.entry(pgid).or_default();
        usage.cpu += Duration::from_nanos(ticks.saturating_mul(1_000_000_000 / ticks_per_second.max(1)));
        usage.rss_bytes += field(24) * page_bytes;
    }
    found
}

/// Looks at every process once. Blocks for some milliseconds.
#[cfg(not(target_os = "linux"))]
pub(crate) fn of_groups(groups: &HashSet<i32>) -> HashMap<i32, GroupUse> {
    let mut found: HashMap<i32, GroupUse> = HashMap::new();
    let output = std::process::Command::new("ps").args(["-A", "-o", "pgid=,rss=,time="]).output();
    let Ok(output) = output else { return found };
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let mut words = line.split_ascii_whitespace();
        let pgid = words.next().and_then(|word| word.parse().ok());
        let Some(pgid) = pgid.filter(|pgid| groups.contains(pgid)) else { continue };
        let rss_kib: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        let cpu = words.next().and_then(cpu_time).unwrap_or_default();
        let usage = found.entry(pgid).or_default();
        usage.cpu += cpu;
        usage.rss_bytes += rss_kib * 1024;
    }
    found
}

/// `[hours:]minutes:seconds.hundredths` of ps(1).
#[cfg(not(target_os = "linux"))]
fn cpu_time(text: &str) -> Option<Duration> {
    let seconds = text.split(':').try_fold(0.0, |sum, part| Some(sum * 60.0 + part.parse::<f64>().ok()?))?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt as _;

    #[test]
    fn a_busy_group_uses_cpu_and_memory() {
        let script = "while :; do :; done & while :; do :; done";
        let mut child =
            std::process::Command::new("sh").args(["-c", script]).process_group(0).spawn().unwrap();
        let pgid = i32::try_from(child.id()).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        loop {
            let usage = of_groups(&HashSet::from([pgid])).get(&pgid).copied().unwrap_or_default();
            if usage.cpu >= Duration::from_millis(100) && usage.rss_bytes > 100_000 {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{usage:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        crate::container::process::kill_group(pgid);
        child.wait().unwrap();
    }
}
