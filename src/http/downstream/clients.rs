//! How many connections each client has open, so that one of them cannot take all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Open connections by client, all workers together. Asked once for a connection, never for a request.
#[derive(Debug, Default)]
pub struct Clients(Mutex<HashMap<IpAddr, usize>>);

/// One connection of a client, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Share {
    clients: Arc<Clients>,
    client: IpAddr,
}

impl Share {
    /// None: the client has `most` already.
    pub(crate) fn enter(clients: &Arc<Clients>, client: IpAddr, most: usize) -> Option<Self> {
        let client = network(client);
        let mut open = clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(client).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        drop(open);
        Some(Share { clients: Arc::clone(clients), client })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut clients = self.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = clients.get_mut(&self.client) {
            *open -= 1;
            if *open == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

/// Whoever has one address of IPv6 has the /64 around it (RFC 6177 §2).
pub(crate) fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_are_one_client() {
        let network = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("192.0.2.7"), "192.0.2.7");
    }
}
