//! One connection: whether a request is under way on it, and since when not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use crate::room::Room;

/// How long a connection may wait for its client.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For the first request, and for the rest of one that has begun to come in.
    pub head: Duration,
    /// For the next request.
    pub idle: Duration,
}

/// Why a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// A new connection needed its place.
    NoRoom,
    /// A request took too long to come in; whether any of it came.
    Head {
        /// Whether any of it came.
        begun: bool,
    },
    /// No further request came.
    Idle,
}

/// One connection's place in its room. Dropping it leaves the room.
#[derive(Debug)]
pub struct Connection {
    room: Arc<Room>,
    lost: CancellationToken,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    place: Place,
    /// Requests under way.
    requests: usize,
    /// When the last of them ended, or the present one began to come in.
    since: Instant,
    wait: Wait,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It may be closed for another one.
    Waiting(u64),
    Serving,
    /// It counts no more: it was closed, or is trusted.
    Outside,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// For the first byte of the first request.
    First,
    /// For the rest of a request.
    Head,
    /// For the next request.
    Idle,
}

impl Connection {
    /// A new connection, as soon as there is room for it.
    pub async fn admit(room: &Arc<Room>) -> Arc<Connection> {
        let (place, lost) = room.take().await;
        let since = Instant::now();
        let state = State { place: Place::Waiting(place), requests: 0, since, wait: Wait::First };
        Arc::new(Connection { room: Arc::clone(room), lost, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// A request is under way until the result is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Connection>) -> UnderWay {
        let mut state = self.lock();
        state.requests += 1;
        if let Place::Waiting(place) = state.place {
            state.place = if self.room.serve(place) { Place::Serving } else { Place::Outside };
        }
        UnderWay(Arc::clone(self))
    }

    fn end(&self) {
        let mut state = self.lock();
        state.requests -= 1;
        if state.requests > 0 {
            return;
        }
        state.since = Instant::now();
        state.wait = Wait::Idle;
        if state.place == Place::Serving {
            state.place = Place::Waiting(self.room.wait(&self.lost));
        }
    }

    /// Something came from the client.
    pub(crate) fn received(&self) {
        let mut state = self.lock();
        if state.requests == 0 && state.wait != Wait::Head {
            if state.wait == Wait::Idle {
                state.since = Instant::now();
            }
            state.wait = Wait::Head;
        }
    }

    /// Its client is known: it leaves the room for good and needs no place any more.
    pub fn trust(&self) {
        let mut state = self.lock();
        self.leave(&mut state);
    }

    fn leave(&self, state: &mut State) {
        let counts = match state.place {
            Place::Waiting(place) => self.room.serve(place),
            Place::Serving => true,
            Place::Outside => false,
        };
        state.place = Place::Outside;
        if counts {
            self.room.leave();
        }
    }

    /// Waits until the connection is to be closed. At most an eighth of the shortest limit late: looked at from time to
    /// time, so that requests cost nothing.
    pub async fn over(&self, limits: Limits) -> Over {
        let look = limits.head.min(limits.idle) / 8;
        loop {
            let left = match self.time_left(limits) {
                Err(over) => return over,
                Ok(left) => left.clamp(Duration::from_millis(1), look.max(Duration::from_millis(1))),
            };
            tokio::select! {
                () = self.lost.cancelled() => return Over::NoRoom,
                () = tokio::time::sleep(left) => {}
            }
        }
    }

    fn time_left(&self, limits: Limits) -> Result<Duration, Over> {
        let state = self.lock();
        if state.requests > 0 {
            return Ok(Duration::MAX);
        }
        let (limit, over) = match state.wait {
            Wait::First => (limits.head, Over::Head { begun: false }),
            Wait::Head => (limits.head, Over::Head { begun: true }),
            Wait::Idle => (limits.idle, Over::Idle),
        };
        limit.checked_sub(state.since.elapsed()).filter(|left| !left.is_zero()).ok_or(over)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut state = self.lock();
        self.leave(&mut state);
    }
}

/// A request under way.
#[derive(Debug)]
pub struct UnderWay(Arc<Connection>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const LONG: Limits = Limits { head: Duration::from_secs(60), idle: Duration::from_secs(60) };

    #[tokio::test]
    async fn who_waits_longest_goes_first_and_who_has_a_request_under_way_stays() {
        let room = Room::new(3);
        let (first, second, third) =
            (Connection::admit(&room).await, Connection::admit(&room).await, Connection::admit(&room).await);
        let under_way = first.begin();
        let fourth = Connection::admit(&room).await;
        assert_eq!(second.over(LONG).await, Over::NoRoom);
        drop(under_way);
        // The first waits since now only.
        let fifth = Connection::admit(&room).await;
        assert_eq!(third.over(LONG).await, Over::NoRoom);
        for connection in [&first, &fourth, &fifth] {
            assert_eq!(connection.over(LONG).now_or_never(), None);
        }
    }

    #[tokio::test]
    async fn with_a_request_under_way_everywhere_a_new_one_waits_for_an_end() {
        let room = Room::new(2);
        let (first, second) = (Connection::admit(&room).await, Connection::admit(&room).await);
        let requests = (first.begin(), second.begin());
        let mut waiting = Box::pin(Connection::admit(&room));
        assert!((&mut waiting).now_or_never().is_none());
        drop((requests.1, second));
        let _third = waiting.await;
        assert_eq!(first.over(LONG).now_or_never(), None);
    }

    #[tokio::test]
    async fn who_is_trusted_needs_no_place() {
        let room = Room::new(1);
        let known = Connection::admit(&room).await;
        known.trust();
        let other = Connection::admit(&room).await;
        drop(known.begin());
        let another = Connection::admit(&room).await;
        assert_eq!(other.over(LONG).await, Over::NoRoom);
        assert_eq!(known.over(LONG).now_or_never(), None);
        // Neither leaves twice.
        drop((known, other, another));
        assert!(Connection::admit(&room).now_or_never().is_some());
        assert!(!room.make_room(), "dropped at once");
    }

    #[tokio::test]
    async fn each_wait_has_its_limit() {
        let short = Duration::from_millis(20);
        let limits = Limits { head: short, idle: 3 * short };
        let room = Room::new(9);
        let connection = Connection::admit(&room).await;
        assert_eq!(connection.over(limits).await, Over::Head { begun: false });
        connection.received();
        assert_eq!(connection.over(limits).await, Over::Head { begun: true });
        let request = connection.begin();
        connection.received();
        let during = tokio::time::timeout(4 * short, connection.over(limits)).await;
        assert!(during.is_err(), "{during:?}");
        drop(request);
        let began = Instant::now();
        assert_eq!(connection.over(limits).await, Over::Idle);
        assert!(began.elapsed() >= limits.idle);
    }
}
