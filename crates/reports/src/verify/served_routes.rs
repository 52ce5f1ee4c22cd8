//! The routes that the gateway serves, as `/debug/snapshot` lists them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Deserialize;

/// The fields of the snapshot's dump that requests are planned and explained with.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ServedRoutes {
    binds: Vec<ServedBind>,
}

#[derive(Debug, Deserialize)]
struct ServedBind {
    /// `127.0.0.1:80`, or `127.0.0.1:53/UDP`
    address: String,
    #[serde(default)]
    listeners: Vec<ServedListener>,
}

/// An HTTP listener.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ServedListener {
    /// `namespace/gateway/listener`
    pub listener: String,
    pub hostname: String,
    /// The port that clients see.
    pub port: u16,
    /// Present if the listener serves TLS.
    certificates: Option<Vec<String>>,
    client_certificates: Option<String>,
    #[serde(default)]
    pub hosts: Vec<ServedHost>,
}

/// The matches of one hostname, in the order in which they are tried.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ServedHost {
    pub host: String,
    pub matches: Vec<ServedMatch>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct ServedMatch {
    /// `Exact /a`, `PathPrefix /`, `RegularExpression /a.*`; in Kong's order `Exact /a`, `Prefix /`, `Regex ~/a`, `any
    /// path`.
    pub path: String,
    pub method: Option<String>,
    pub call: Option<String>,
    #[serde(default)]
    pub headers: Vec<String>,
    #[serde(default)]
    pub query: Vec<String>,
    /// `Kind/namespace/name`
    pub route: String,
    pub rule: String,
}

impl ServedRoutes {
    /// The listeners with the routes that each of them serves.
    pub(super) fn by_route(&self) -> BTreeMap<&str, Vec<(SocketAddr, &ServedListener)>> {
        let mut routes: BTreeMap<&str, Vec<(SocketAddr, &ServedListener)>> = BTreeMap::new();
        for bind in &self.binds {
            // Those of UDP have no HTTP listeners.
            let Ok(address) = bind.address.parse() else { continue };
            for listener in &bind.listeners {
                for served in listener.hosts.iter().flat_map(|host| &host.matches) {
                    let listeners = routes.entry(&served.route).or_default();
                    if !listeners.last().is_some_and(|(_, last)| std::ptr::eq(*last, listener)) {
                        listeners.push((address, listener));
                    }
                }
            }
        }
        routes
    }
}

impl ServedListener {
    pub(super) fn is_tls(&self) -> bool {
        self.certificates.is_some()
    }

    pub(super) fn requires_client_certificate(&self) -> bool {
        self.client_certificates.as_deref() == Some("required")
    }

    /// The matches of a rule, with their hosts and their positions in the order in which they are tried.
    pub(super) fn matches_of(&self, route: &str, rule: Option<&str>) -> Vec<Position<'_>> {
        let all = self.hosts.iter().flat_map(|host| host.matches.iter().map(move |served| (&*host.host, served)));
        let all = all.enumerate().map(|(index, (host, served))| Position { index, host, served });
        all.filter(|position| position.served.route == route && rule.is_none_or(|rule| position.served.rule == rule))
            .collect()
    }
}

/// A match, and where it is in its listener.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position<'a> {
    pub index: usize,
    pub host: &'a str,
    pub served: &'a ServedMatch,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn routes_are_found_on_all_their_listeners() {
        let entry = |route: &str, path: &str| json!({ "path": path, "route": route, "rule": "0", "action": {} });
        let listener = |name: &str, tls: bool| {
            let a_prefix = entry("HTTPRoute/default/a", "PathPrefix /");
            let hosts = json!([
                { "host": "a.example", "matches": [entry("HTTPRoute/default/a", "Exact /a"), a_prefix] },
                { "host": "*", "matches": [entry("HTTPRoute/default/b", "PathPrefix /")] },
            ]);
            let mut listener = json!({ "listener": name, "hostname": "*", "port": 80, "hosts": hosts });
            if tls {
                listener["certificates"] = json!([]);
            }
            listener
        };
        let dump = json!({ "binds": [
            { "address": "127.0.0.1:53/UDP", "udp": {} },
            { "address": "127.0.0.1:80", "listeners": [listener("default/web/http", false)] },
            { "address": "127.0.0.1:443", "listeners": [listener("default/web/https", true)] },
        ] });
        let served: ServedRoutes = serde_json::from_value(dump).unwrap();
        let routes = served.by_route();
        assert_eq!(routes.keys().copied().collect::<Vec<_>>(), ["HTTPRoute/default/a", "HTTPRoute/default/b"]);
        let listeners = &routes["HTTPRoute/default/a"];
        let names =
            listeners.iter().map(|(address, listener)| (address.port(), &*listener.listener, listener.is_tls()));
        let expected = [(80, "default/web/http", false), (443, "default/web/https", true)];
        assert_eq!(names.collect::<Vec<_>>(), expected);
        let positions = listeners[0].1.matches_of("HTTPRoute/default/b", Some("0"));
        assert_eq!(positions.iter().map(|found| (found.index, found.host)).collect::<Vec<_>>(), [(2, "*")]);
        assert!(listeners[0].1.matches_of("HTTPRoute/default/b", Some("1")).is_empty());
    }
}
