//! The route table: the matches of a snapshot, one line each, with what happens to their requests.

use std::fmt::Write as _;
use std::net::SocketAddr;

use serde::Serialize;

use super::{ActionDump, BackendDump, MatchDump, StreamDump};
use crate::snapshot::Snapshot;

/// One line of the route table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteTableRow {
    pub address: SocketAddr,
    /// `namespace/gateway/listener`.
    pub listener: String,
    pub host: String,
    /// `PathPrefix /a GET x: 1 ?q=2`
    pub matches: String,
    /// `Kind/namespace/name`, for example `HTTPRoute/default/web`.
    pub route: String,
    pub rule: String,
    /// `default/a:80 90%, default/b:80 10%`; empty if the rule does not forward.
    pub backends: String,
    /// `forward`, `redirect 302`, `fail: no backends`.
    pub action: String,
}

impl Snapshot {
    /// The route table, one line per match, in the order in which matches are evaluated.
    pub fn rows(&self) -> Vec<RouteTableRow> {
        let mut rows = Vec::new();
        for bind in self.dump_binds() {
            let socket = bind.address.socket;
            rows.extend(bind.tcp.as_ref().and_then(|stream| RouteTableRow::for_stream(socket, "*", "TCP", stream)));
            rows.extend(bind.udp.as_ref().and_then(|stream| RouteTableRow::for_stream(socket, "*", "UDP", stream)));
            rows.extend(bind.tls_streams.iter().filter_map(|entry| {
                let host = entry.host.as_ref().filter(|host| *host != "*").unwrap_or(&entry.hostname);
                RouteTableRow::for_stream(socket, host, "TLS", &entry.stream)
            }));
            for listener in bind.listeners {
                for host in listener.hosts {
                    // A route without hostnames serves the hostname of its listener.
                    let name = if host.host == "*" { &listener.hostname } else { &host.host };
                    let row = |dumped| RouteTableRow::new(socket, &listener.listener, name, dumped);
                    rows.extend(host.matches.iter().map(row));
                }
            }
        }
        rows
    }
}

impl ActionDump {
    /// The columns `action` and `backends` of the route table.
    fn columns(&self) -> (String, String) {
        match self {
            ActionDump::Forward(backends) => ("forward".to_owned(), shares(backends)),
            ActionDump::Redirect(redirect) => (format!("redirect {}", redirect.status), String::new()),
            ActionDump::Fail(failure) => (format!("fail: {failure}"), String::new()),
        }
    }
}

impl RouteTableRow {
    /// The row of a listener for connections or UDP sessions. `None` if it has no route.
    fn for_stream(address: SocketAddr, host: &str, protocol: &str, dumped: &StreamDump) -> Option<Self> {
        let (action, backends) = dumped.action.columns();
        Some(RouteTableRow {
            address,
            listener: dumped.listener.clone(),
            host: host.to_owned(),
            matches: protocol.to_owned(),
            route: dumped.route.clone()?,
            rule: dumped.rule.clone()?,
            backends,
            action,
        })
    }

    fn new(address: SocketAddr, listener: &str, host: &str, dumped: &MatchDump) -> Self {
        let mut matches = dumped.path.clone();
        let query = dumped.query.iter().map(|parameter| format!("?{parameter}"));
        let server_names = dumped.server_names.iter().map(|name| format!("sni {name}"));
        let (method, headers) = (dumped.method.iter().cloned(), dumped.headers.iter().cloned());
        for condition in method.chain(dumped.call.clone()).chain(headers).chain(query).chain(server_names) {
            matches.push(' ');
            matches.push_str(&condition);
        }
        let (action, backends) = dumped.action.columns();
        RouteTableRow {
            address,
            listener: listener.to_owned(),
            host: host.to_owned(),
            matches,
            route: dumped.route.clone(),
            rule: dumped.rule.clone(),
            backends,
            action,
        }
    }
}

/// The names of the backends, `default/a:80 90%, default/b:80 10%`; a single backend has no percentage.
fn shares(backends: &[BackendDump]) -> String {
    let total: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
    let mut text = String::new();
    for backend in backends {
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(backend.upstream.as_deref().or(backend.fail.as_deref()).unwrap_or_default());
        if backends.len() > 1 {
            let share = 100.0 * f64::from(backend.weight) / total as f64;
            write!(text, " {}%", (share * 10.0).round() / 10.0).expect("writing to a string cannot fail");
        }
    }
    text
}
