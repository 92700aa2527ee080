//! How many connections one client address may have open.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// Open connections by client address.
#[derive(Debug)]
pub(crate) struct ClientConnections {
    open: Mutex<HashMap<IpAddr, usize>>,
    max_per_client: usize,
}

impl ClientConnections {
    pub(crate) fn new(max_per_client: usize) -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), max_per_client: max_per_client.max(1) })
    }

    /// A permit for one more connection of this address, unless it has all that one client may have.
    pub(crate) fn acquire(self: &Arc<Self>, address: IpAddr) -> Option<ClientPermit> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= self.max_per_client {
            return None;
        }
        *count += 1;
        Some(ClientPermit { clients: Arc::clone(self), address })
    }
}

/// One open connection of a client address.
#[derive(Debug)]
pub(crate) struct ClientPermit {
    clients: Arc<ClientConnections>,
    address: IpAddr,
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        let mut open = self.clients.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_cannot_use_up_the_connections_of_others() {
        let clients = ClientConnections::new(2);
        let (greedy, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut held: Vec<_> = (0..2).map(|_| clients.acquire(greedy).unwrap()).collect();
        assert!(clients.acquire(greedy).is_none());
        assert!(clients.acquire(other).is_some());
        held.pop();
        assert!(clients.acquire(greedy).is_some());
        drop(held);
        assert!(clients.open.lock().unwrap().is_empty());
    }
}
