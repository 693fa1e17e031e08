//! Accepting, whatever happens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};

use crate::connection::Connection;
use crate::room::Room;

/// After an error that is not the client's, e.g. no descriptors left.
const PAUSE: Duration = Duration::from_millis(20);
/// Errors are logged once in this time, with how many there were.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Accepts connections into a room.
pub struct Listener {
    listener: TcpListener,
    room: Arc<Room>,
    /// Accepted, and waiting for a place.
    next: Option<(TcpStream, SocketAddr)>,
    logged: Option<Instant>,
    unlogged: u64,
}

impl Listener {
    /// A listener whose connections take their places in `room`.
    #[must_use]
    pub fn new(listener: TcpListener, room: Arc<Room>) -> Listener {
        Listener { listener, room, next: None, logged: None, unlogged: 0 }
    }

    /// The next connection. Cancel safe: none is lost.
    pub async fn accept(&mut self) -> (TcpStream, SocketAddr, Arc<Connection>) {
        loop {
            if self.next.is_some() {
                let place = Connection::admit(&self.room).await;
                if let Some((stream, remote)) = self.next.take() {
                    return (stream, remote, place);
                }
            }
            match self.listener.accept().await {
                Ok((stream, remote)) => {
                    // What is written is meant to be sent now; where that can't be set, it is sent a little later.
                    let _ = stream.set_nodelay(true);
                    self.next = Some((stream, remote));
                }
                Err(error) => {
                    self.log(&error);
                    // Neither a client that was gone at once nor a lack of descriptors ends a server.
                    if !is_of_the_client(&error) {
                        self.room.make_room();
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
    }

    fn log(&mut self, error: &std::io::Error) {
        if self.logged.is_some_and(|at| at.elapsed() < LOG_EVERY) {
            self.unlogged += 1;
            return;
        }
        match std::mem::take(&mut self.unlogged) {
            0 => tracing::warn!("accepting a connection: {error}"),
            more => tracing::warn!("accepting a connection: {error} ({more} more errors before)"),
        }
        self.logged = Some(Instant::now());
    }
}

fn is_of_the_client(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
