//! Addresses of pods. There is no network namespace: a pod gets a loopback address of its own where the system lets any
//! program bind all of 127/8 (Linux), else 127.0.0.1 and a port of its own for each container port (macOS).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

/// The node's own address.
pub(crate) const HOST_IP: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Hands out pod addresses.
pub(crate) struct Addresses {
    /// `None`: this system has only 127.0.0.1.
    network: Option<u8>,
    state: Mutex<State>,
}

struct State {
    /// The last two octets that are tried next. It only goes forward, so that an address that was just given back is
    /// not given out again at once: what still goes to the old pod must not reach a new one.
    next: u16,
    used: BTreeSet<Ipv4Addr>,
}

/// One pod's address; given back on drop.
pub(crate) struct PodAddress {
    pub(crate) ip: Ipv4Addr,
    /// Container port → the port that the process must listen on, where they differ.
    pub(crate) remapped: BTreeMap<u16, u16>,
    from: Arc<Addresses>,
}

impl Addresses {
    /// `dir` tells sandboxes on one machine apart: the network's second octet, and where in it to begin, come from a
    /// hash of it. Without `own`, ports are remapped even where they need not be.
    pub(crate) fn new(dir: &Path, own: bool) -> Addresses {
        let hash = Sha256::digest(dir.as_os_str().as_encoded_bytes());
        // 127.0.x.y is what people and other programs use.
        let network = 1 + hash[0] % 254;
        let probe = TcpListener::bind((Ipv4Addr::new(127, network, 1, 1), 0));
        let state = State { next: u16::from_be_bytes([hash[1], hash[2]]), used: BTreeSet::new() };
        Addresses { network: (own && probe.is_ok()).then_some(network), state: Mutex::new(state) }
    }

    /// An address on which every one of `ports` is free.
    pub(crate) fn allocate(self: &Arc<Addresses>, ports: &[u16]) -> Result<PodAddress> {
        let Some(network) = self.network else { return self.remap(ports) };
        let mut state = self.state.lock();
        for _ in 0..=u16::MAX {
            let [third, fourth] = state.next.to_be_bytes();
            state.next = state.next.wrapping_add(1);
            let ip = Ipv4Addr::new(127, network, third, fourth);
            // .0 and .255 are valid, but look like a network and its broadcast address.
            if matches!(fourth, 0 | 255)
                || state.used.contains(&ip)
                || !ports.iter().all(|&port| free(ip, port))
            {
                continue;
            }
            state.used.insert(ip);
            return Ok(PodAddress { ip, remapped: BTreeMap::new(), from: self.clone() });
        }
        bail!("no free pod address in 127.{network}.0.0/16")
    }

    fn remap(self: &Arc<Addresses>, ports: &[u16]) -> Result<PodAddress> {
        // All are bound before any is let go, so that they differ.
        let bound: io::Result<Vec<(u16, TcpListener)>> =
            ports.iter().map(|&port| Ok((port, TcpListener::bind((HOST_IP, 0))?))).collect();
        let remapped = bound.and_then(|bound| {
            bound.iter().map(|(port, listener)| Ok((*port, listener.local_addr()?.port()))).collect()
        });
        let remapped = remapped.context("finding free ports for the pod on 127.0.0.1")?;
        Ok(PodAddress { ip: HOST_IP, remapped, from: self.clone() })
    }
}

fn free(ip: Ipv4Addr, port: u16) -> bool {
    // Privileged ports can't be tried without privileges, and are not taken on an address nobody uses.
    TcpListener::bind((ip, port))
        .map_or_else(|error| error.kind() == io::ErrorKind::PermissionDenied, |_| true)
}

impl PodAddress {
    /// Where the process that serves container port `port` listens.
    pub(crate) fn dial(&self, port: u16) -> SocketAddr {
        (self.ip, self.remapped.get(&port).copied().unwrap_or(port)).into()
    }
}

impl Drop for PodAddress {
    fn drop(&mut self) {
        self.from.state.lock().used.remove(&self.ip);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_get_distinct_addresses_and_ports_in_use_are_passed_over() {
        let addresses = Arc::new(Addresses::new(Path::new("/some/dir"), true));
        let first = addresses.allocate(&[]).unwrap();
        let second = addresses.allocate(&[8000]).unwrap();
        assert_ne!(first.dial(8000), second.dial(8000));
        let _taken = TcpListener::bind(second.dial(8000)).unwrap();
        let again = Arc::new(Addresses::new(Path::new("/some/dir"), true));
        let third = again.allocate(&[8000]).unwrap();
        let fourth = again.allocate(&[8000]).unwrap();
        for address in [third, fourth] {
            assert_ne!(address.dial(8000), second.dial(8000));
        }
    }

    #[test]
    fn without_addresses_each_port_is_remapped() {
        let addresses = Arc::new(Addresses::new(Path::new("x"), false));
        let pod = addresses.allocate(&[80, 8000]).unwrap();
        assert_eq!(pod.ip, HOST_IP);
        assert_ne!(pod.dial(80), pod.dial(8000));
        assert!(pod.remapped[&8000] > 1023);
    }
}
