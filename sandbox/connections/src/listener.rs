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
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Accepts connections into a room.
pub struct Listener {
    listener: TcpListener,
    room: Arc<Room>,
    /// Accepted, and waiting for a place.
    next: Option<(TcpStream, SocketAddr)>,
    said: Option<Instant>,
    unsaid: u64,
}

impl Listener {
    /// A listener whose connections take their places in `room`.
    #[must_use]
    pub fn new(listener: TcpListener, room: Arc<Room>) -> Listener {
        Listener { listener, room, next: None, said: None, unsaid: 0 }
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
                    self.say(&error);
                    // Neither a client that was gone at once nor a lack of descriptors ends a server.
                    if !is_of_the_client(&error) {
                        self.room.make_room();
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
    }

    fn say(&mut self, error: &std::io::Error) {
        if self.said.is_some_and(|said| said.elapsed() < SAY_EVERY) {
            self.unsaid += 1;
            return;
        }
        match std::mem::take(&mut self.unsaid) {
            0 => tracing::warn!("accepting a connection: {error}"),
            more => tracing::warn!("accepting a connection: {error} ({more} more errors before)"),
        }
        self.said = Some(Instant::now());
    }
}

fn is_of_the_client(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
