//! Times as Kubernetes writes them.

use std::time::Duration;

use jiff::Timestamp;

/// Now, to the second: `2026-01-02T03:04:05Z`.
pub(crate) fn now() -> String {
    seconds(Timestamp::now())
}

/// A timestamp to the second.
pub(crate) fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A timestamp to the millisecond, for what is over within a second: a window of 200 ms that began after a moment would
/// seem to have begun before it.
pub(crate) fn milliseconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// Now plus a number of seconds.
pub(crate) fn in_seconds(count: i64) -> String {
    let later = Timestamp::now().checked_add(jiff::SignedDuration::from_secs(count));
    seconds(later.unwrap_or(Timestamp::MAX))
}

/// Now minus a number of seconds; `None` when no clock has gone so far.
pub(crate) fn seconds_ago(count: i64) -> Option<Timestamp> {
    Timestamp::now().checked_sub(jiff::SignedDuration::from_secs(count)).ok()
}

/// How long ago a stored time was; `None` when it can't be read.
pub(crate) fn since(text: &str) -> Option<Duration> {
    let then: Timestamp = text.parse().ok()?;
    Some(Duration::try_from(Timestamp::now().duration_since(then)).unwrap_or_default())
}

/// An age as kubectl shows it: two units at most, shorter the older it is.
pub(crate) fn human(age: Duration) -> String {
    let s = age.as_secs();
    let (m, h, d) = (s / 60, s / 3600, s / 86_400);
    let two = |big: u64, unit: char, small: u64, small_unit: char| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    match s {
        0..120 => format!("{s}s"),
        120..600 => two(m, 'm', s % 60, 's'),
        600..10_800 => format!("{m}m"),
        10_800..28_800 => two(h, 'h', m % 60, 'm'),
        28_800..172_800 => format!("{h}h"),
        172_800..691_200 => two(d, 'd', h % 24, 'h'),
        691_200..63_072_000 => format!("{d}d"),
        63_072_000..252_288_000 => two(d / 365, 'y', d % 365, 'd'),
        _ => format!("{}y", d / 365),
    }
}

/// An age from a stored time, or `<unknown>`.
pub(crate) fn age(text: &str) -> String {
    since(text).map_or_else(|| "<unknown>".to_owned(), human)
}
