//! The binds of a snapshot by address. A changed copy shares all other binds, so that an edit of one route does not
//! cost what the binds of all Gateways would.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Index;
use std::sync::Arc;

use super::Bind;
use crate::bind_address::BindAddress;
use crate::persistent_map::{MapIndex, PersistentMap};

/// The binds, in the order of their addresses.
#[derive(Clone, Default)]
pub struct BindMap {
    binds: PersistentMap<ByAddress>,
    /// Copies with the same addresses share this set.
    addresses: Arc<BTreeSet<BindAddress>>,
}

/// The index of the binds.
struct ByAddress;

impl MapIndex for ByAddress {
    type Entry = (BindAddress, Arc<Bind>);
    type Key = BindAddress;

    fn key((address, _): &Self::Entry) -> Option<&BindAddress> {
        Some(address)
    }
}

impl BindMap {
    pub fn get(&self, address: &BindAddress) -> Option<&Arc<Bind>> {
        self.binds.get(address).map(|(_, bind)| bind)
    }

    /// Sets or removes the bind of an address.
    pub fn set(&mut self, address: BindAddress, bind: Option<Arc<Bind>>) {
        if bind.is_some() != self.contains(&address) {
            let addresses = Arc::make_mut(&mut self.addresses);
            if bind.is_some() {
                addresses.insert(address)
            } else {
                addresses.remove(&address)
            };
        }
        match bind {
            Some(bind) => self.binds.insert((address, bind)),
            None => self.binds.remove(address),
        }
    }

    pub fn contains(&self, address: &BindAddress) -> bool {
        self.get(address).is_some()
    }

    /// All addresses. The same `Arc` in a changed copy with the same addresses, so that what depends on them alone can
    /// be skipped.
    pub fn addresses(&self) -> &Arc<BTreeSet<BindAddress>> {
        &self.addresses
    }

    pub fn iter(&self) -> impl Iterator<Item = (&BindAddress, &Arc<Bind>)> {
        self.addresses.iter().filter_map(|address| Some((address, self.get(address)?)))
    }

    pub fn is_empty(&self) -> bool {
        self.binds.is_empty()
    }
}

impl Index<&BindAddress> for BindMap {
    type Output = Arc<Bind>;

    fn index(&self, address: &BindAddress) -> &Arc<Bind> {
        self.get(address).unwrap_or_else(|| panic!("nothing is bound to {address}"))
    }
}

impl FromIterator<(BindAddress, Arc<Bind>)> for BindMap {
    fn from_iter<I: IntoIterator<Item = (BindAddress, Arc<Bind>)>>(binds: I) -> Self {
        let mut map = BindMap::default();
        binds.into_iter().for_each(|(address, bind)| map.set(address, Some(bind)));
        map
    }
}

impl<const N: usize> From<[(BindAddress, Arc<Bind>); N]> for BindMap {
    fn from(binds: [(BindAddress, Arc<Bind>); N]) -> Self {
        binds.into_iter().collect()
    }
}

impl fmt::Debug for BindMap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::host::HostMap;

    fn bind() -> Arc<Bind> {
        Arc::new(Bind::with_http(HostMap::default(), None))
    }

    fn address(port: u16) -> BindAddress {
        BindAddress::tcp(([127, 0, 0, 1], port).into())
    }

    #[test]
    fn replaced_bind_leaves_the_others_and_the_addresses_shared() {
        let before: BindMap = (1..=300).map(|port| (address(port), bind())).collect();
        let mut after = before.clone();
        after.set(address(7), Some(bind()));
        assert!(Arc::ptr_eq(after.addresses(), before.addresses()));
        let replaced = after.iter().filter(|(address, bind)| !Arc::ptr_eq(bind, &before[address]));
        assert_eq!(replaced.map(|(address, _)| *address).collect::<Vec<_>>(), [address(7)]);

        after.set(address(9), None);
        after.set(address(9), None);
        after.set(address(301), Some(bind()));
        assert!(before.contains(&address(9)) && !before.contains(&address(301)));
        let expected: Vec<_> = (1..=301).filter(|port| *port != 9).map(address).collect();
        assert_eq!(after.iter().map(|(address, _)| *address).collect::<Vec<_>>(), expected);
        assert!(after.addresses().iter().eq(&expected) && !after.is_empty());
    }
}
