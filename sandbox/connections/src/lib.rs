//! Connections to the sandbox's servers: how many there may be, and how long one may take for what. So a client that
//! sends nothing, half a request or connection after connection can hold back nobody else.
//!
//! A [`Listener`] accepts into a [`Room`]. A connection that waits for its client is the first to go when the room is
//! full, the longest waiting first; one with a request under way stays. How long it may wait, [`Connection::over`]
//! says.

mod connection;
mod descriptors;
mod held;
mod listener;
mod memory;
mod room;
mod stream;

pub use connection::{Connection, Limits, Over, UnderWay};
pub use descriptors::raise_descriptor_limit;
pub use held::Held;
pub use listener::Listener;
pub use memory::{Freed, Reclaim};
pub use room::Room;
pub use stream::Watched;
