//! The ports that ListenerSets want, to find the changes that concern no port: most do not, and a Gateway may have
//! thousands of ListenerSets, of which all would be read to find its ports again.

use std::collections::{BTreeMap, BTreeSet};

use super::listener_protocol::port;
use super::listener_set;
use crate::api::ObjectKey;
use crate::store::Store;
use crate::transport_protocol::TransportPort;

/// The wanted ports of all ListenerSets at the last update.
#[derive(Debug, Default)]
pub struct ListenerSetPorts {
    sets: BTreeMap<ObjectKey, WantedPorts>,
}

#[derive(Debug, PartialEq)]
struct WantedPorts {
    gateway: Option<ObjectKey>,
    /// The oldest ListenerSets get their ports if all together want too many.
    created: Option<i64>,
    ports: BTreeSet<TransportPort>,
}

impl ListenerSetPorts {
    /// Updates these ListenerSets. Returns whether one of them wants other ports than before, or those of another
    /// Gateway.
    pub fn update<'a>(&mut self, store: &Store, changed: impl IntoIterator<Item = &'a ObjectKey>) -> bool {
        let mut is_different = false;
        for key in changed {
            let wanted = store.listener_sets.get(key).map(|set| WantedPorts {
                gateway: listener_set::gateway_key(set),
                created: set.meta.created,
                ports: set.spec.listeners.iter().filter_map(port).collect(),
            });
            is_different |= self.sets.get(key) != wanted.as_ref();
            match wanted {
                Some(wanted) => drop(self.sets.insert(key.clone(), wanted)),
                None => drop(self.sets.remove(key)),
            }
        }
        is_different
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::{Kind, ObjectId};
    use crate::store::{AnyObject, Batch};

    fn set(gateway: &str, created: &str, listeners: Value) -> AnyObject {
        let metadata = json!({ "namespace": "a", "name": "set", "creationTimestamp": created });
        let spec = json!({ "parentRef": { "name": gateway }, "listeners": listeners });
        AnyObject::parse(Kind::ListenerSet, json!({ "metadata": metadata, "spec": spec })).unwrap()
    }

    #[test]
    fn only_changes_that_concern_ports_are_found() {
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
        let http = |host: &str| json!({ "name": host, "port": 80, "protocol": "HTTP", "hostname": host });
        let of_protocol = |name: &str, port: u16| json!({ "name": name, "port": port, "protocol": name });
        let mut store = Store::default();
        let mut ports = ListenerSetPorts::default();
        let key = ObjectKey::new("a", "set");
        let mut change = |object: Option<AnyObject>| {
            store.apply(match object {
                Some(object) => Batch { upserts: vec![object], ..Batch::default() },
                None => Batch { removes: vec![ObjectId::new(Kind::ListenerSet, key.clone())], ..Batch::default() },
            });
            ports.update(&store, [&key])
        };
        for (what, object, is_different) in [
            ("a new ListenerSet", set("gw", old, json!([http("a.example")])), true),
            ("another host", set("gw", old, json!([http("b.example")])), false),
            ("two listeners of a port", set("gw", old, json!([http("a.example"), http("b.example")])), false),
            ("a protocol without port", set("gw", old, json!([http("a.example"), of_protocol("SCTP", 81)])), false),
            ("a second port", set("gw", old, json!([http("a.example"), of_protocol("TCP", 81)])), true),
            ("the other transport", set("gw", old, json!([http("a.example"), of_protocol("UDP", 81)])), true),
            ("another age", set("gw", new, json!([http("a.example"), of_protocol("UDP", 81)])), true),
            ("another Gateway", set("other", new, json!([http("a.example"), of_protocol("UDP", 81)])), true),
        ] {
            assert_eq!(change(Some(object)), is_different, "{what}");
        }
        assert!(change(None), "a removed ListenerSet");
        assert!(!change(None), "no ListenerSet, as before");
    }
}
