//! The table of an upstream that hashes. It depends on the identities and weights of the endpoints only: ejected
//! endpoints stay in it and are skipped, so that their keys return to them.

use super::maglev::Maglev;
use super::ring_hash::RingHash;
use crate::upstream::settings::HashTable;

/// Maps keys to endpoints.
#[derive(Debug)]
pub(super) struct EndpointTable {
    kind: TableKind,
    /// The endpoints of each position of the table, as ranges of `indexes`.
    members: Box<[Member]>,
    /// Positions in the list of endpoints.
    indexes: Box<[u32]>,
}

#[derive(Debug)]
enum TableKind {
    Maglev(Maglev),
    RingHash(RingHash),
}

/// What has one identity: an address, or a name with all its addresses.
#[derive(Debug)]
struct Member {
    first: u32,
    count: u32,
}

impl EndpointTable {
    /// The table for these endpoints: identity, weight and position of each. Those with one identity share its keys,
    /// since the addresses of a name may differ between replicas. `None` if there is nothing to choose.
    pub(super) fn build(table: HashTable, mut endpoints: Vec<(String, u32, u32)>) -> Option<Self> {
        endpoints.sort();
        let indexes = endpoints.iter().map(|(_, _, index)| *index).collect();
        let mut members: Vec<Member> = Vec::new();
        let mut identities: Vec<(String, u32)> = Vec::new();
        for (position, (identity, weight, _)) in endpoints.into_iter().enumerate() {
            match (identities.last(), members.last_mut()) {
                (Some((last, _)), Some(member)) if *last == identity => member.count += 1,
                _ => {
                    identities.push((identity, weight));
                    members.push(Member { first: position as u32, count: 1 });
                }
            }
        }
        let kind = match table {
            HashTable::Maglev { table_size } => TableKind::Maglev(Maglev::build(&identities, table_size)?),
            HashTable::RingHash { points } => TableKind::RingHash(RingHash::build(&identities, points)?),
        };
        Some(EndpointTable { kind, members: members.into(), indexes })
    }

    /// The first endpoint for a key that is usable.
    pub(super) fn find(&self, key: u64, is_usable: impl FnMut(usize) -> bool) -> Option<usize> {
        match &self.kind {
            TableKind::Maglev(table) => self.find_in(table.walk(key), key, is_usable),
            TableKind::RingHash(ring) => self.find_in(ring.walk(key), key, is_usable),
        }
    }

    fn find_in(
        &self,
        walk: impl Iterator<Item = usize>,
        key: u64,
        mut is_usable: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        let mut last = None;
        for position in walk.take(MAX_STEPS) {
            // Neighbors on the ring often belong to one endpoint.
            if last.replace(position) == Some(position) {
                continue;
            }
            if let Some(usable) = self.addresses(position, key).find(|index| is_usable(*index)) {
                return Some(usable);
            }
        }
        // Nearly all endpoints are unusable. All are looked at, in an order that depends on the key only.
        let start = (key % self.members.len() as u64) as usize;
        let positions = (start..self.members.len()).chain(0..start);
        positions.flat_map(|position| self.addresses(position, key)).find(|index| is_usable(*index))
    }

    /// The endpoints of a position, from the one that the key selects.
    fn addresses(&self, position: usize, key: u64) -> impl Iterator<Item = usize> {
        let Member { first, count } = self.members[position];
        let offset = if count == 1 { 0 } else { (key % u64::from(count)) as u32 };
        (0..count).map(move |number| self.indexes[(first + (offset + number) % count) as usize] as usize)
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let table = match &self.kind {
            TableKind::Maglev(table) => table.bytes(),
            TableKind::RingHash(ring) => ring.bytes(),
        };
        table + size_of_val(&*self.members) + size_of_val(&*self.indexes)
    }
}

/// How many positions of a table are looked at before all endpoints are.
const MAX_STEPS: usize = 512;
