//! The slots of a Redis cluster: which slot a key has, and which node has a slot.
//!
//! <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/> defines both.

use redis::Value;

use super::sentinel::MAX_HOST_BYTES;

/// Host and port of a node.
pub(super) type NodeAddress = (String, u16);

/// The slot of a key. If the key has a hash tag, the text between the first `{` and the next `}`, keys with the same
/// one have the same slot.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let length = rest.iter().position(|byte| *byte == b'}')?;
        (length > 0).then(|| &rest[..length])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16 with the polynomial 0x1021 and without reflection, which the specification calls XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
            },
        )
    })
}

/// The node of each slot.
#[derive(Debug)]
pub(super) struct SlotMap {
    pub(super) nodes: Vec<NodeAddress>,
    /// For each slot, one more than the index of its node, and 0 if no node has it.
    slots: Box<[u16]>,
}

impl SlotMap {
    pub(super) fn empty() -> Self {
        SlotMap { nodes: Vec::new(), slots: Box::default() }
    }

    /// The index of the node that has a slot.
    pub(super) fn index(&self, slot: u16) -> Option<usize> {
        self.slots.get(usize::from(slot))?.checked_sub(1).map(usize::from)
    }

    /// Reads a reply to `CLUSTER SLOTS` of the node `asked`. `None` if it is malformed, has no slots or too many nodes.
    pub(super) fn from_reply(reply: &Value, asked: &str) -> Option<SlotMap> {
        let Value::Array(ranges) = reply else { return None };
        let mut map = SlotMap { nodes: Vec::new(), slots: vec![0; usize::from(SLOTS)].into() };
        for range in ranges {
            let Value::Array(range) = range else { return None };
            // After the first and the last slot, the master comes first and its replicas follow.
            let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = range.as_slice() else {
                return None;
            };
            let [host, Value::Int(port), ..] = master.as_slice() else { return None };
            let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
            let address = (host_of(host, asked)?, u16::try_from(*port).ok().filter(|port| *port != 0)?);
            let index = map.nodes.iter().position(|node| *node == address).unwrap_or_else(|| {
                map.nodes.push(address);
                map.nodes.len() - 1
            });
            if map.nodes.len() > MAX_NODES {
                return None;
            }
            map.slots.get_mut(first..=last)?.fill(u16::try_from(index + 1).ok()?);
        }
        (!map.nodes.is_empty()).then_some(map)
    }
}

/// The host of a node. A node that does not know its own name sends an empty one, or none.
fn host_of(value: &Value, asked: &str) -> Option<String> {
    match value {
        Value::Nil => Some(asked.to_owned()),
        Value::BulkString(host) if host.is_empty() => Some(asked.to_owned()),
        Value::BulkString(host) => {
            let host = std::str::from_utf8(host).ok()?;
            (host != "?" && host.len() <= MAX_HOST_BYTES).then(|| host.to_owned())
        }
        _ => None,
    }
}

/// Host and port of a redirection, `host:port`. An empty host is that of the node that has sent it. The host may be an
/// IPv6 address without brackets.
pub(super) fn redirected_address(text: &str, sender: &str) -> Option<NodeAddress> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let host = if host.is_empty() { sender } else { host };
    (host != "?" && host.len() <= MAX_HOST_BYTES).then(|| (host.to_owned(), port))
}

/// The number of slots of every cluster.
const SLOTS: u16 = 16_384;
/// The most nodes of a cluster, each of which has a connection.
pub(super) const MAX_NODES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // The first two are in the specification, the others are results of `CLUSTER KEYSLOT` of Redis 7.0.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (key, slot) in [("foo", 12182), ("{foo}bar", 12182), ("a{foo}{bar}", 12182), ("", 0)] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        assert_eq!(slot_of(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS, "an empty tag is none");
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        assert_eq!(slot_of(b"foo{bar"), crc16(b"foo{bar") % SLOTS, "a tag without an end is none");
    }

    fn node(host: &str, port: i64) -> Value {
        Value::Array(vec![Value::BulkString(host.into()), Value::Int(port), Value::BulkString(b"id".to_vec())])
    }

    fn range(first: i64, last: i64, nodes: Vec<Value>) -> Value {
        Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat())
    }

    #[test]
    fn maps_have_the_masters_of_slots() {
        let reply = Value::Array(vec![
            range(0, 99, vec![node("10.0.0.1", 7000), node("10.0.0.2", 7000)]),
            range(200, 16_383, vec![node("", 7001)]),
        ]);
        let map = SlotMap::from_reply(&reply, "10.0.0.9").unwrap();
        let node_of = |slot| map.index(slot).map(|index| &map.nodes[index]);
        assert_eq!(node_of(0), Some(&("10.0.0.1".to_owned(), 7000)));
        assert_eq!(node_of(100), None, "no node has the slot");
        assert_eq!(node_of(16_383), Some(&("10.0.0.9".to_owned(), 7001)), "the node that was asked");
        assert_eq!(node_of(u16::MAX), None);
        assert_eq!(SlotMap::empty().index(0), None);
    }

    #[test]
    fn malformed_maps_are_rejected() {
        let too_many = (0..100).map(|index| range(index, index, vec![node("a", 7000 + index)])).collect();
        for reply in [
            Value::Nil,
            Value::Array(Vec::new()),
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![range(0, 16_384, vec![node("a", 1)])]),
            Value::Array(vec![range(5, 3, vec![node("a", 1)])]),
            Value::Array(vec![range(-1, 3, vec![node("a", 1)])]),
            Value::Array(vec![range(0, 3, vec![node("a", 0)])]),
            Value::Array(vec![range(0, 3, vec![node("?", 1)])]),
            Value::Array(vec![range(0, 3, vec![node(&"a".repeat(300), 1)])]),
            Value::Array(vec![range(0, 3, Vec::new())]),
            Value::Array(too_many),
        ] {
            assert!(SlotMap::from_reply(&reply, "b").is_none(), "{reply:?}");
        }
    }

    #[test]
    fn redirections_are_read_strictly() {
        let address = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(redirected_address("10.0.0.1:7000", "b"), address("10.0.0.1", 7000));
        assert_eq!(redirected_address("fd00::1:7000", "b"), address("fd00::1", 7000));
        assert_eq!(redirected_address(":7000", "b"), address("b", 7000));
        for invalid in ["", "a", "a:", "a:0", "a:65536", "?:1"] {
            assert_eq!(redirected_address(invalid, "b"), None, "{invalid}");
        }
    }
}
