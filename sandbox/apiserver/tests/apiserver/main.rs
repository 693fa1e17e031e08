//! The API server from outside: through its in-process client, over sockets, and with the stock kubectl.

mod apply;
mod fuzz;
mod in_process;
mod kubectl;
mod limits;
mod raw;
mod sockets;
mod support;
mod tables;
