//! Counts what each client has open, in all workers together, so that no client can have more than its limit.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::counted_address::counted_address;

/// The open connections, or UDP sessions, of all clients.
pub(in crate::proxy) struct ClientCounts {
    /// Maximum for one client; 0 for no limit.
    limit: u32,
    /// Each client belongs to the shard that the hash of its address selects.
    shards: [Mutex<HashMap<IpAddr, u32>>; SHARDS],
    hasher: RandomState,
}

/// One open connection or session. Dropping it makes room for another one.
pub(in crate::proxy) struct ClientPermit {
    /// `None` without a limit.
    counted: Option<(Arc<ClientCounts>, IpAddr)>,
}

/// The client already has as many connections or sessions as it may have.
#[derive(Debug)]
pub(in crate::proxy) struct ClientLimitReached;

impl ClientCounts {
    pub(in crate::proxy) fn new(limit: u32) -> Arc<Self> {
        Arc::new(ClientCounts { limit, shards: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() })
    }

    /// Counts a connection or session of the client.
    pub(in crate::proxy) fn admit(self: &Arc<Self>, client: IpAddr) -> Result<ClientPermit, ClientLimitReached> {
        if self.limit == 0 {
            return Ok(ClientPermit { counted: None });
        }
        let client = counted_address(client);
        let mut clients = self.shard(client).lock();
        let count = clients.entry(client).or_default();
        // A new entry is below every limit, so no entry of 0 remains.
        if *count >= self.limit {
            return Err(ClientLimitReached);
        }
        *count += 1;
        Ok(ClientPermit { counted: Some((Arc::clone(self), client)) })
    }

    fn shard(&self, client: IpAddr) -> &Mutex<HashMap<IpAddr, u32>> {
        &self.shards[self.hasher.hash_one(client) as usize % SHARDS]
    }
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        let Some((counts, client)) = self.counted.take() else { return };
        let mut clients = counts.shard(client).lock();
        if let Some(count) = clients.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&client);
            }
        }
    }
}

/// More than the workers of most machines.
const SHARDS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_client_has_its_own_limit() {
        let counts = ClientCounts::new(2);
        let first = counts.admit(address("192.0.2.1")).unwrap();
        let _second = counts.admit(address("::ffff:192.0.2.1")).unwrap();
        assert!(counts.admit(address("192.0.2.1")).is_err());
        assert!(counts.admit(address("192.0.2.2")).is_ok());
        drop(first);
        assert!(counts.admit(address("192.0.2.1")).is_ok());
    }

    #[test]
    fn network_of_64_bits_is_one_client() {
        let counts = ClientCounts::new(1);
        let _first = counts.admit(address("2001:db8::1")).unwrap();
        assert!(counts.admit(address("2001:db8::ffff:0:0:1")).is_err());
        assert!(counts.admit(address("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn clients_without_connections_take_no_memory() {
        let counts = ClientCounts::new(1);
        for number in 0..1000_u32 {
            let client = IpAddr::from(number.to_be_bytes());
            let _permit = counts.admit(client).unwrap();
            assert!(counts.admit(client).is_err());
        }
        assert!(counts.shards.iter().all(|shard| shard.lock().is_empty()));
        let unlimited = ClientCounts::new(0);
        let _permits = [unlimited.admit(address("::1")), unlimited.admit(address("::1"))].map(Result::unwrap);
        assert!(unlimited.shards.iter().all(|shard| shard.lock().is_empty()));
    }
}
