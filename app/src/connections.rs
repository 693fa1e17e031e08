//! The open connections: how many, how long each may keep us waiting, and which one goes when a new one finds no place.
//!
//! A client can open connections and send nothing, half a head or half a body; probes must get in all the same. So
//! every wait for a client has an end, and when all places are taken, the connection that has waited for its client the
//! longest goes. One whose request is here whole is never closed: it gets its answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use crate::config::Config;

/// All of them.
pub(crate) struct Connections {
    limit: usize,
    keep_alive: Duration,
    header_timeout: Duration,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    open: HashMap<u64, Entry>,
    /// Those that wait for their client, by their turns: the first has waited the longest.
    waiting: BTreeMap<u64, u64>,
    /// Numbers given out, for connections and for turns.
    count: u64,
}

struct Entry {
    turn: Option<u64>,
    evicted: Arc<Notify>,
}

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Phase {
    /// The next request has not begun.
    Idle,
    /// Its head arrives.
    Head,
    /// Its body arrives. How long that may take is up to whoever reads it.
    Body,
    /// All of it is here.
    Answering,
}

/// A place among them, free again when this is dropped.
pub(crate) struct Place {
    connections: Arc<Connections>,
    id: u64,
    phase: watch::Sender<Phase>,
    evicted: Arc<Notify>,
}

impl Connections {
    /// `limit` of them, with the timeouts of `config`.
    pub(crate) fn new(limit: usize, config: &Config) -> Arc<Connections> {
        let Config { keep_alive, header_timeout, .. } = *config;
        Arc::new(Connections { limit, keep_alive, header_timeout, table: Mutex::default() })
    }

    /// A place for a new connection; at the limit that of the one that has waited the longest, which is told to close.
    /// None if every one of them is being answered.
    pub(crate) fn admit(self: &Arc<Connections>) -> Option<Place> {
        let mut table = self.table.lock();
        if table.open.len() >= self.limit {
            let (_, longest) = table.waiting.pop_first()?;
            if let Some(entry) = table.open.remove(&longest) {
                entry.evicted.notify_one();
            }
        }
        table.count += 1;
        let (id, evicted) = (table.count, Arc::<Notify>::default());
        table.open.insert(id, Entry { turn: None, evicted: evicted.clone() });
        table.queue(id);
        Some(Place { connections: self.clone(), id, phase: watch::Sender::new(Phase::Idle), evicted })
    }

    /// How many are open.
    pub(crate) fn open(&self) -> usize {
        self.table.lock().open.len()
    }
}

impl Table {
    /// Waits from now on. One that was told to close is no longer there.
    fn queue(&mut self, id: u64) {
        self.leave_queue(id);
        if let Some(entry) = self.open.get_mut(&id) {
            self.count += 1;
            entry.turn = Some(self.count);
            self.waiting.insert(self.count, id);
        }
    }

    fn leave_queue(&mut self, id: u64) {
        if let Some(turn) = self.open.get_mut(&id).and_then(|entry| entry.turn.take()) {
            self.waiting.remove(&turn);
        }
    }
}

impl Place {
    pub(crate) fn enter(&self, phase: Phase) {
        match phase {
            Phase::Idle | Phase::Body => self.connections.table.lock().queue(self.id),
            // A head that trickles in is no new sign of its client.
            Phase::Head => {}
            Phase::Answering => self.connections.table.lock().leave_queue(self.id),
        }
        self.phase.send_replace(phase);
    }

    /// Bytes came: the head of a request, if none has begun.
    pub(crate) fn received(&self) {
        if *self.phase.borrow() == Phase::Idle {
            self.enter(Phase::Head);
        }
    }

    /// Resolves, with the reason, when the connection is to be closed without further ado.
    pub(crate) async fn lost(&self) -> &'static str {
        let mut phases = self.phase.subscribe();
        loop {
            let phase = *phases.borrow_and_update();
            let (patience, reason) = match phase {
                Phase::Idle => (self.connections.keep_alive, "no request came"),
                Phase::Head => {
                    (self.connections.header_timeout, "the head of a request did not arrive in time")
                }
                Phase::Body | Phase::Answering => (Duration::MAX, ""),
            };
            tokio::select! {
                () = self.evicted.notified() => return "its place was needed",
                _ = phases.changed() => {}
                () = sleep(patience) => return reason,
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.connections.table.lock();
        table.leave_queue(self.id);
        table.open.remove(&self.id);
    }
}
