//! The API server's clock. Timestamps in the API are written by the cluster's clock, which in a virtual machine
//! may be minutes away from this machine's; so no judgement compares the two.

use std::cell::Cell;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::Client;

/// A moment of the API server's clock, which remembers which later moments a judgement depends on, so that its
/// driver can look again just then.
#[derive(Debug)]
pub struct Clock {
    now: Timestamp,
    known: bool,
    next: Cell<Option<Timestamp>>,
}

impl Clock {
    /// A given moment.
    #[must_use]
    pub fn at(now: Timestamp) -> Clock {
        Clock { now, known: true, next: Cell::new(None) }
    }

    /// This moment, where the API server's clock is `offset` ahead of this machine's; without an offset this machine's
    /// must do.
    #[must_use]
    pub fn now_with(offset: Option<SignedDuration>) -> Clock {
        let here = Timestamp::now();
        let now = offset.and_then(|offset| here.checked_add(offset).ok()).unwrap_or(here);
        Clock { now, known: offset.is_some(), next: Cell::new(None) }
    }

    /// The same moment of a clock that may not be the API server's.
    #[must_use]
    pub fn unknown(self) -> Clock {
        Clock { known: false, ..self }
    }

    /// The moment itself.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Whether this is the API server's clock rather than our own.
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// Whether `from` plus `grace` is past. If not, the judgement is to be repeated then.
    pub fn passed(&self, from: Timestamp, grace: Duration) -> bool {
        let grace = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
        let Ok(due) = from.checked_add(grace) else { return false };
        if due <= self.now {
            return true;
        }
        let next = self.next.get().map_or(due, |next| next.min(due));
        self.next.set(Some(next));
        false
    }

    /// How long ago `then` was; zero if it is still to come.
    pub fn since(&self, then: Timestamp) -> Duration {
        Duration::try_from(self.now.duration_since(then)).unwrap_or_default()
    }

    /// How long from this moment until the judgement may change by time alone.
    pub fn next(&self) -> Option<Duration> {
        self.next.get().map(|next| Duration::try_from(next.duration_since(self.now)).unwrap_or_default())
    }
}

/// How far the API server's clock is ahead of this machine's, from the `Date` of one of its answers (whole seconds, so
/// half a second is the error to expect); nothing if it does not say.
pub async fn offset(client: &Client) -> Option<SignedDuration> {
    let request = http::Request::get("/version").body(kube::client::Body::empty()).ok()?;
    let asked = Timestamp::now();
    let answer = tokio::time::timeout(Duration::from_secs(2), client.send(request)).await.ok()?.ok()?;
    let answered = Timestamp::now();
    let date = answer.headers().get(http::header::DATE)?.to_str().ok()?;
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    let middle = asked.checked_add(answered.duration_since(asked) / 2).ok()?;
    Some(date.duration_since(middle) + SignedDuration::from_millis(500))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_earliest_moment_it_was_asked_for() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let clock = Clock::at(now);
        assert!(clock.passed(now - Duration::from_secs(5), Duration::from_secs(5)));
        assert_eq!(clock.next(), None);
        assert!(!clock.passed(now, Duration::from_secs(15)));
        assert!(!clock.passed(now, Duration::from_secs(4)));
        assert!(!clock.passed(now, Duration::MAX));
        assert_eq!(clock.next(), Some(Duration::from_secs(4)));
        assert_eq!(clock.since(now + Duration::from_secs(1)), Duration::ZERO);
    }
}
