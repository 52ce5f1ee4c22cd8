//! What is measured: requests, connections, and how much of a peer's CPU time Portico may take.

use std::time::Duration;

use crate::plan::{Plan, Protocol, RequestShape};
use crate::server::{HOST, Server};
use crate::tls::Tls;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) exchange: Exchange,
    /// Requests per second at the fixed rate: well below the capacity of all servers, so that there is no queueing.
    pub(crate) rate: u32,
    pub(crate) tls_mode: TlsMode,
    pub(crate) connections: Connections,
    pub(crate) access_log: bool,
    /// Measure latencies at half of each server's own capacity.
    pub(crate) at_half_load: bool,
    /// The highest ratio of CPU time to that of a peer.
    pub(crate) targets: &'static [Target],
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Exchange {
    /// GET with a response of this many bytes.
    Download(usize),
    /// POST of this many bytes, with a response of 64 bytes.
    Upload(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsMode {
    /// Without TLS.
    None,
    /// Full handshakes.
    Full,
    /// Handshakes that resume a session.
    Resumed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connections {
    /// This number of HTTP/1.1 connections that stay open.
    Kept(usize),
    /// Each request has a connection of its own; this number at a time.
    Single(usize),
    /// HTTP/2 connections, and the concurrent streams of each.
    Http2 { connections: usize, streams: usize },
}

/// The highest ratio of Portico's CPU time to that of others, where a case has a target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) peers: Peers<'static>,
    pub(crate) ratio: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peers<'a> {
    Named(&'a str),
    /// The peer that takes the least.
    Best,
}

const fn target(peer: &'static str, ratio: f64) -> Target {
    Target { peers: Peers::Named(peer), ratio }
}

const fn best(ratio: f64) -> Target {
    Target { peers: Peers::Best, ratio }
}

const SMALL: &[Target] = &[target("nginx", 1.0), target("haproxy", 1.0), target("envoy", 0.35)];
const AS_THE_BEST: &[Target] = &[best(1.0)];
const BELOW_THE_BEST: &[Target] = &[best(0.9)];

const PLAIN: Case = Case {
    name: "HTTP/1.1, 64 bytes",
    exchange: Exchange::Download(64),
    rate: 5000,
    tls_mode: TlsMode::None,
    connections: Connections::Kept(64),
    access_log: false,
    at_half_load: false,
    targets: SMALL,
};
/// 32 connections, so that the bodies in flight fit into the caches of most processors.
const LONG: Case = Case { rate: 1000, connections: Connections::Kept(32), targets: AS_THE_BEST, ..PLAIN };
/// Few connections: each response takes milliseconds.
const VERY_LONG: Case = Case { rate: 20, connections: Connections::Kept(8), targets: AS_THE_BEST, ..PLAIN };
const HTTP2: Case = Case { tls_mode: TlsMode::Full, targets: &[], ..PLAIN };

/// The order of the table.
pub(crate) const CASES: &[Case] = &[
    PLAIN,
    Case { name: "HTTP/1.1, 1 kB", exchange: Exchange::Download(1000), at_half_load: true, ..PLAIN },
    Case { name: "HTTP/1.1, 64 bytes, access log", access_log: true, ..PLAIN },
    Case { name: "HTTP/1.1, 1 kB, access log", exchange: Exchange::Download(1000), access_log: true, ..PLAIN },
    Case { name: "HTTP/1.1, 100 kB", exchange: Exchange::Download(100_000), ..LONG },
    Case { name: "HTTP/1.1, 10 MB", exchange: Exchange::Download(10_000_000), ..VERY_LONG },
    Case { name: "HTTP/1.1, upload of 1 kB", exchange: Exchange::Upload(1000), targets: &[], ..PLAIN },
    Case { name: "HTTP/1.1, upload of 100 kB", exchange: Exchange::Upload(100_000), ..LONG },
    Case { name: "HTTP/1.1, upload of 10 MB", exchange: Exchange::Upload(10_000_000), ..VERY_LONG },
    Case {
        name: "HTTP/1.1, a connection for each request",
        rate: 1000,
        connections: Connections::Single(64),
        targets: &[target("nginx", 1.0)],
        ..PLAIN
    },
    Case { name: "HTTPS, 64 bytes", tls_mode: TlsMode::Full, targets: BELOW_THE_BEST, ..PLAIN },
    Case {
        name: "HTTPS, 100 kB",
        exchange: Exchange::Download(100_000),
        tls_mode: TlsMode::Full,
        targets: BELOW_THE_BEST,
        ..LONG
    },
    Case {
        name: "HTTPS, a full handshake for each request",
        rate: 500,
        tls_mode: TlsMode::Full,
        connections: Connections::Single(64),
        targets: BELOW_THE_BEST,
        ..PLAIN
    },
    Case {
        name: "HTTPS, a resumed handshake for each request",
        rate: 500,
        tls_mode: TlsMode::Resumed,
        connections: Connections::Single(64),
        targets: BELOW_THE_BEST,
        ..PLAIN
    },
    Case {
        name: "HTTP/2 over TLS, 64 connections with 1 stream",
        connections: Connections::Http2 { connections: 64, streams: 1 },
        ..HTTP2
    },
    Case {
        name: "HTTP/2 over TLS, 8 connections with 10 streams",
        connections: Connections::Http2 { connections: 8, streams: 10 },
        ..HTTP2
    },
    Case {
        name: "HTTP/2 over TLS, 1 connection with 100 streams",
        connections: Connections::Http2 { connections: 1, streams: 100 },
        targets: BELOW_THE_BEST,
        ..HTTP2
    },
    Case {
        name: "HTTP/2 over TLS, 100 kB",
        exchange: Exchange::Download(100_000),
        rate: 1000,
        connections: Connections::Http2 { connections: 4, streams: 8 },
        ..HTTP2
    },
];

impl Case {
    pub(crate) fn measures_handshakes(&self) -> bool {
        matches!(self.connections, Connections::Single(_)) && self.tls_mode != TlsMode::None
    }

    /// Requests to this server for this time, without a fixed rate.
    pub(crate) fn plan(&self, server: &Server, duration: Duration) -> anyhow::Result<Plan> {
        let shape = match self.exchange {
            Exchange::Download(bytes) => RequestShape::get(HOST, &format!("/bytes/{bytes}")),
            Exchange::Upload(bytes) => RequestShape::post(HOST, "/", bytes, false),
        };
        let (protocol, kept, single_use, streams) = match self.connections {
            Connections::Kept(count) => (Protocol::Http1, count, 0, 1),
            Connections::Single(count) => (Protocol::Http1, 0, count, 1),
            Connections::Http2 { connections, streams } => (Protocol::Http2, connections * streams, 0, streams),
        };
        let (target, tls) = match self.tls_mode {
            TlsMode::None => (server.address, None),
            TlsMode::Full => (server.tls_address, Some(Tls::new(HOST, protocol)?)),
            TlsMode::Resumed => (server.tls_address, Some(Tls::new(HOST, protocol)?.resuming())),
        };
        Ok(Plan { single_use, tls, protocol, streams, ..Plan::new(target, vec![shape], duration, kept) })
    }
}
