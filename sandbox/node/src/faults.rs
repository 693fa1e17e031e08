//! Faults on purpose, for tests: images that are refused, probes that fail, addresses at which nobody answers. Empty
//! unless a test asked for one.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use sandbox_contract::Refusal;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;

use crate::image::Reference;
use crate::pod::stop::after;

#[derive(Default)]
pub(crate) struct Faults(Mutex<State>);

#[derive(Default)]
struct State {
    refused: BTreeMap<String, Refusal>,
    /// By namespace, until when.
    failing_probes: BTreeMap<String, Instant>,
    /// What takes no connection of those that come; nothing where they are refused.
    silent: Option<VecDeque<Silence>>,
}

/// A socket that answers nobody: the one connection that may wait for it to accept waits, and the kernel drops what
/// else comes, as a node drops what comes for an address that nobody has.
struct Silence {
    _full: TcpListener,
    _waiting: Option<TcpStream>,
}

/// Addresses that are kept silent; the oldest are refused again.
const MOST_SILENT: usize = 256;

impl Silence {
    async fn at(address: SocketAddr) -> io::Result<Silence> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Connections of the pod that was there may still be about to end.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let full = socket.listen(0)?;
        // Whoever was quicker waits in our place.
        let waiting = tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(address)).await;
        Ok(Silence { _full: full, _waiting: waiting.ok().transpose()? })
    }
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// `image` is `repository` (all its tags) or `repository:tag`.
    pub(crate) fn refuse(&self, image: &str, refusal: Refusal) {
        self.lock().refused.insert(image.to_owned(), refusal);
    }

    pub(crate) fn refusal(&self, reference: &Reference) -> Option<Refusal> {
        let name = reference.name_and_tag();
        let refused = &self.lock().refused;
        let repository = name.rsplit_once(':').map_or(name.as_str(), |(repository, _)| repository);
        refused.get(&name).or_else(|| refused.get(repository)).copied()
    }

    pub(crate) fn fail_probes(&self, namespace: &str, time: Duration) {
        self.lock().failing_probes.insert(namespace.to_owned(), after(time));
    }

    /// The failure that every probe of this namespace has now.
    pub(crate) fn of_probe(&self, namespace: &str) -> Option<String> {
        let until = self.lock().failing_probes.get(namespace).copied();
        until.filter(|until| Instant::now() < *until).map(|_| "a fault on purpose: not yet".to_owned())
    }

    pub(crate) fn open_black_hole(&self) {
        self.lock().silent.get_or_insert_default();
    }

    /// A pod has ended that listened there.
    pub(crate) async fn ended(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        if self.lock().silent.is_none() {
            return;
        }
        for address in addresses {
            let silence = Silence::at(address).await;
            match (silence, &mut self.lock().silent) {
                (Ok(silence), Some(silent)) => {
                    silent.push_back(silence);
                    if silent.len() > MOST_SILENT {
                        silent.pop_front();
                    }
                }
                (Ok(_), None) => {}
                (Err(error), _) => tracing::warn!("keeping {address} silent: {error}"),
            }
        }
    }

    pub(crate) fn clear(&self) {
        *self.lock() = State::default();
    }
}
