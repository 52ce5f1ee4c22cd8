//! What is measured: requests, connections, servers, and how much of a peer's CPU time Portico may take.

use std::time::Duration;

use crate::plan::{Plan, Protocol, RequestShape};
use crate::server::variant::ServerVariant;
use crate::server::{CACHE_HOST, H2C_HOST, HOST, Server, WEBSOCKET_HOST};
use crate::tls::Tls;
use crate::token_pool::{TokenAlgorithm, TokenLoad, UNCACHED};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) exchange: Exchange,
    /// Requests per second at the fixed rate: well below the capacity of all servers, so that there is no queueing.
    pub(crate) rate: u32,
    pub(crate) tls_mode: TlsMode,
    pub(crate) connections: Connections,
    pub(crate) servers: Servers,
    /// Measure latencies at half of each server's own capacity.
    pub(crate) at_half_load: bool,
    /// The highest ratio of CPU time to that of a peer.
    pub(crate) targets: &'static [Target],
    /// The host of the requests, which selects the protocol to the backend.
    pub(crate) host: &'static str,
    /// Servers that cannot serve the requests of this case.
    pub(crate) unsupported: &'static [&'static str],
    /// Part of `make bench-full`, but not of `make bench`.
    pub(crate) full_only: bool,
}

/// The servers of a case. All cases with the same servers are measured with the same processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Servers {
    pub(crate) access_log: bool,
    /// The configuration of Portico and the peers; of Portico alone if peers cannot have it.
    pub(crate) variant: ServerVariant,
    /// A second Portico, which is measured like a peer.
    pub(crate) reference: Option<Reference>,
}

/// Portico with a configuration with which that of a case is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) name: &'static str,
    pub(crate) variant: ServerVariant,
    /// Filters of its route add the header fields that the plugins of the case add.
    pub(crate) imitates: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Exchange {
    /// GET with a response of this many bytes.
    Download(usize),
    /// POST of this many bytes, with a response of 64 bytes.
    Upload(usize),
    /// Unary gRPC call with a message of this many bytes, with a message of 64 bytes as response.
    Call(usize),
    /// WebSocket message of this many bytes, and its echo.
    Message(usize),
    /// Message of this many bytes in a bidirectional gRPC call, and its echo.
    CallMessage(usize),
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
    /// HTTP/2 connections, and the gRPC calls of each, which stay open.
    Calls { connections: usize, streams: usize },
    /// This number of WebSockets.
    WebSockets(usize),
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

const ALIKE: Servers = Servers { access_log: false, variant: ServerVariant::PLAIN, reference: None };
pub(crate) const LOGGING: Servers = Servers { access_log: true, ..ALIKE };

const ONE_ROUTE: Reference = Reference { name: "portico, 1 route", variant: ServerVariant::PLAIN, imitates: false };
const ONE_WORKER: Reference = Reference { name: "portico, 1 worker", ..ONE_ROUTE };
const NO_POLICY: Reference = Reference { name: "portico, no policy", ..ONE_ROUTE };
/// Its route has no plugins, and the requests and responses have the bytes of those of the chain on both sides.
const SAME_FIELDS: Reference = Reference { name: "portico, same fields", variant: chain(0), imitates: true };

const fn chain(length: usize) -> ServerVariant {
    ServerVariant { chain: Some(length), ..ServerVariant::PLAIN }
}

const fn routes(routes: usize) -> Servers {
    Servers { variant: ServerVariant { routes, ..ServerVariant::PLAIN }, reference: Some(ONE_ROUTE), ..ALIKE }
}

const fn plugins(length: usize) -> Servers {
    Servers { variant: chain(length), reference: Some(SAME_FIELDS), ..ALIKE }
}

const TWO_WORKERS: Servers =
    Servers { variant: ServerVariant { workers: 2, ..ServerVariant::PLAIN }, reference: Some(ONE_WORKER), ..ALIKE };

const fn tokens(algorithm: TokenAlgorithm, tokens: usize) -> Servers {
    let tokens = Some(TokenLoad { algorithm, tokens });
    Servers { variant: ServerVariant { tokens, ..ServerVariant::PLAIN }, ..ALIKE }
}

const WITH_POLICY: Servers =
    Servers { variant: ServerVariant { policy: true, ..ServerVariant::PLAIN }, reference: Some(NO_POLICY), ..ALIKE };

const PLAIN: Case = Case {
    name: "HTTP/1.1, 64 bytes",
    exchange: Exchange::Download(64),
    rate: 5000,
    tls_mode: TlsMode::None,
    connections: Connections::Kept(64),
    servers: ALIKE,
    at_half_load: false,
    targets: SMALL,
    host: HOST,
    unsupported: &[],
    full_only: false,
};
/// 32 connections, so that the bodies in flight fit into the caches of most processors.
const LONG: Case = Case { rate: 1000, connections: Connections::Kept(32), targets: AS_THE_BEST, ..PLAIN };
/// Few connections: each response takes milliseconds.
const VERY_LONG: Case = Case { rate: 20, connections: Connections::Kept(8), targets: AS_THE_BEST, ..PLAIN };
const HTTP2: Case = Case { tls_mode: TlsMode::Full, targets: &[], ..PLAIN };

/// Responses that the server has stored: Portico in memory, nginx in files, which the system has in memory.
const CACHED: Case = Case {
    connections: Connections::Kept(32),
    targets: &[target("nginx", 1.0)],
    host: CACHE_HOST,
    unsupported: NOT_CACHING,
    ..PLAIN
};

/// Requests with a JWT, which the proxy verifies: by the plugin jwt, and by Envoy's jwt_authn.
const TOKEN: Case = Case { rate: 2000, targets: &[], unsupported: NOT_VERIFYING, full_only: true, ..PLAIN };

/// The order of the table.
const CASES: &[Case] = &[
    PLAIN,
    Case { name: "HTTP/1.1, 1 kB", exchange: Exchange::Download(1000), at_half_load: true, ..PLAIN },
    Case { name: "HTTP/1.1, 64 bytes, access log", servers: LOGGING, ..PLAIN },
    Case { name: "HTTP/1.1, 1 kB, access log", exchange: Exchange::Download(1000), servers: LOGGING, ..PLAIN },
    Case { name: "HTTP/1.1, 100 kB", exchange: Exchange::Download(100_000), ..LONG },
    Case { name: "HTTP/1.1, 10 MB", exchange: Exchange::Download(10_000_000), ..VERY_LONG },
    Case { name: "HTTP/1.1, upload of 1 kB", exchange: Exchange::Upload(1000), targets: &[], full_only: true, ..PLAIN },
    Case { name: "HTTP/1.1, upload of 100 kB", exchange: Exchange::Upload(100_000), ..LONG },
    Case { name: "HTTP/1.1, upload of 10 MB", exchange: Exchange::Upload(10_000_000), ..VERY_LONG },
    Case { name: "HTTP/1.1, 1 kB, from the cache", exchange: Exchange::Download(1000), ..CACHED },
    Case { name: "HTTP/1.1, 100 kB, from the cache", exchange: Exchange::Download(100_000), rate: 1000, ..CACHED },
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
        full_only: true,
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
        full_only: true,
        ..HTTP2
    },
    Case {
        name: "HTTP/1.1, HTTP/2 to the backend",
        targets: &[],
        host: H2C_HOST,
        unsupported: NOT_NGINX,
        full_only: true,
        ..PLAIN
    },
    Case {
        name: "HTTP/2 over TLS, 1 connection with 100 streams, HTTP/2 to the backend",
        connections: Connections::Http2 { connections: 1, streams: 100 },
        host: H2C_HOST,
        unsupported: NOT_NGINX,
        full_only: true,
        ..HTTP2
    },
    Case {
        name: "gRPC over TLS, unary calls, 1 connection with 100 streams",
        exchange: Exchange::Call(64),
        connections: Connections::Http2 { connections: 1, streams: 100 },
        targets: BELOW_THE_BEST,
        host: H2C_HOST,
        ..HTTP2
    },
    Case {
        name: "gRPC over TLS, messages of 100 bidirectional calls on 1 connection",
        exchange: Exchange::CallMessage(64),
        connections: Connections::Calls { connections: 1, streams: 100 },
        targets: AS_THE_BEST,
        host: H2C_HOST,
        ..HTTP2
    },
    Case {
        name: "WebSocket, messages of 64 bytes",
        exchange: Exchange::Message(64),
        connections: Connections::WebSockets(64),
        targets: AS_THE_BEST,
        host: WEBSOCKET_HOST,
        ..PLAIN
    },
    Case {
        name: "WebSocket, messages of 64 kB",
        exchange: Exchange::Message(64_000),
        connections: Connections::WebSockets(32),
        host: WEBSOCKET_HOST,
        ..LONG
    },
    Case {
        name: "HTTP/1.1, 64 bytes, 1,000 routes",
        servers: routes(1000),
        targets: &[target(ONE_ROUTE.name, 1.03)],
        full_only: true,
        ..PLAIN
    },
    Case {
        name: "HTTP/1.1, 64 bytes, 10,000 routes",
        servers: routes(10_000),
        targets: &[target(ONE_ROUTE.name, 1.03)],
        ..PLAIN
    },
    Case {
        name: "HTTP/1.1, 64 bytes, 2 workers",
        servers: TWO_WORKERS,
        targets: &[target(ONE_WORKER.name, 1.05)],
        ..PLAIN
    },
    Case {
        name: "HTTP/1.1, 64 bytes, all blocks of a policy",
        servers: WITH_POLICY,
        targets: &[target(NO_POLICY.name, 1.05)],
        ..PLAIN
    },
    Case {
        name: "HTTP/1.1, 64 bytes, 3 plugins",
        servers: plugins(3),
        targets: &[target(SAME_FIELDS.name, 1.1)],
        ..PLAIN
    },
    Case { name: "HTTP/1.1, 64 bytes, 8 plugins", servers: plugins(8), targets: &[], ..PLAIN },
    Case { name: "token RS256, known", servers: tokens(TokenAlgorithm::Rs256, 1), ..TOKEN },
    Case { name: "token RS256, another for each request", servers: tokens(TokenAlgorithm::Rs256, UNCACHED), ..TOKEN },
    Case { name: "token ES256, another for each request", servers: tokens(TokenAlgorithm::Es256, UNCACHED), ..TOKEN },
    Case { name: "token EdDSA, another for each request", servers: tokens(TokenAlgorithm::EdDsa, UNCACHED), ..TOKEN },
];

/// These have no cache, or are configured without one.
const NOT_CACHING: &[&str] = &["haproxy", "envoy", "traefik", "caddy"];

/// These are not configured to verify tokens.
const NOT_VERIFYING: &[&str] = &["nginx", "haproxy", "traefik", "caddy"];

/// nginx forwards over HTTP/2 only with `grpc_pass`, which is meant for gRPC.
const NOT_NGINX: &[&str] = &["nginx"];

/// The cases whose names contain this word. Without a word, all, or all that are not part of `make bench-full` only.
pub(crate) fn selected(word: Option<&str>, full: bool) -> Vec<&'static Case> {
    let is_selected = |case: &&Case| match word {
        Some(word) => case.name.contains(word),
        None => full || !case.full_only,
    };
    CASES.iter().filter(is_selected).collect()
}

/// The cases by their servers, in the order of the first case with these servers.
pub(crate) fn by_servers(cases: &[&'static Case]) -> Vec<(Servers, Vec<&'static Case>)> {
    let mut groups: Vec<(Servers, Vec<&'static Case>)> = Vec::new();
    for &case in cases {
        match groups.iter_mut().find(|(servers, _)| *servers == case.servers) {
            Some((_, group)) => group.push(case),
            None => groups.push((case.servers, vec![case])),
        }
    }
    groups
}

impl Case {
    pub(crate) fn measures_handshakes(&self) -> bool {
        matches!(self.connections, Connections::Single(_)) && self.tls_mode != TlsMode::None
    }

    pub(crate) fn is_supported_by(&self, server: &str) -> bool {
        !self.unsupported.contains(&server)
    }

    /// The request to a server with one route, one worker and no plugins.
    pub(crate) fn shape(&self) -> RequestShape {
        match self.exchange {
            Exchange::Download(bytes) => RequestShape::get(self.host, &format!("/bytes/{bytes}")),
            Exchange::Upload(bytes) => RequestShape::post(self.host, "/", bytes, false),
            Exchange::Call(bytes) => RequestShape::call(self.host, bytes),
            Exchange::Message(bytes) => RequestShape::message(self.host, bytes),
            Exchange::CallMessage(bytes) => RequestShape::call_message(self.host, bytes),
        }
    }

    /// Requests to this server for this time, without a fixed rate.
    pub(crate) fn plan(&self, server: &Server, duration: Duration) -> anyhow::Result<Plan> {
        let (protocol, kept, single_use, streams) = match self.connections {
            Connections::Kept(count) => (Protocol::Http1, count, 0, 1),
            Connections::Single(count) => (Protocol::Http1, 0, count, 1),
            Connections::Http2 { connections, streams } => (Protocol::Http2, connections * streams, 0, streams),
            Connections::Calls { connections, streams } => (Protocol::GrpcStream, connections * streams, 0, streams),
            Connections::WebSockets(count) => (Protocol::WebSocket, count, 0, 1),
        };
        let (target, tls) = match self.tls_mode {
            TlsMode::None => (server.address, None),
            TlsMode::Full => (server.tls_address, Some(Tls::new(self.host, protocol)?)),
            TlsMode::Resumed => (server.tls_address, Some(Tls::new(self.host, protocol)?.resuming())),
        };
        let shapes = server.variant.requests(&self.shape());
        Ok(Plan { single_use, tls, protocol, streams, ..Plan::new(target, shapes, duration, kept) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::compare::ratio::{PORTICO, is_portico};
    use crate::compare::{ROUNDS, SECONDS, measure};

    #[test]
    fn names_are_unique_because_they_identify_the_rounds() {
        let names: BTreeSet<_> = CASES.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), CASES.len());
    }

    #[test]
    fn references_are_named_after_portico_and_send_requests_of_the_same_length() {
        let length = |variant: ServerVariant| {
            let request = variant.requests(&RequestShape::get(HOST, "/")).swap_remove(0);
            request.host.len() + request.fields.len()
        };
        for case in CASES {
            let Servers { variant, reference, .. } = case.servers;
            for target in case.targets {
                if let Peers::Named(peer) = target.peers {
                    let is_measured = if is_portico(peer) {
                        reference.is_some_and(|reference| reference.name == peer)
                    } else {
                        variant.fits_peers()
                    };
                    assert!(is_measured, "{}: {peer}", case.name);
                }
            }
            if let Some(reference) = reference {
                assert!(is_portico(reference.name) && reference.name != PORTICO, "{}", reference.name);
                assert_ne!(reference.variant, variant, "{}", case.name);
                assert_eq!(length(reference.variant), length(variant), "{}", case.name);
                // Otherwise the chain would be charged with the bytes of the fields that it adds.
                assert_eq!(reference.imitates, variant.chain.is_some(), "{}", case.name);
            }
        }
    }

    #[test]
    fn a_word_selects_cases_of_both_commands() {
        let count = |word, full| selected(word, full).len();
        assert_eq!(count(None, true), CASES.len());
        assert_eq!(CASES.len() - count(None, false), CASES.iter().filter(|case| case.full_only).count());
        assert_eq!((count(Some("000 routes"), false), count(Some("of no case"), true)), (2, 0));
    }

    #[test]
    fn each_case_is_in_the_group_of_its_servers() {
        let groups = by_servers(&selected(None, true));
        let names: BTreeSet<&str> = groups.iter().flat_map(|(_, cases)| cases).map(|case| case.name).collect();
        assert_eq!(names.len(), CASES.len());
        assert!(groups.iter().all(|(servers, cases)| cases.iter().all(|case| case.servers == *servers)));
        // All cases without a reference and tokens share two groups.
        let plain =
            groups.iter().filter(|(servers, _)| servers.reference.is_none() && servers.variant.tokens.is_none());
        assert_eq!(plain.map(|(servers, _)| servers.access_log).collect::<Vec<_>>(), [false, true]);
    }

    /// The other 17 of the 55 minutes are for the build, the starts of servers, idle connections, failures and picks.
    #[test]
    fn the_rounds_of_make_bench_take_at_most_38_minutes() {
        let minutes: f64 = selected(None, false).into_iter().map(minutes_of).sum();
        assert!(minutes <= 38.0, "{minutes}");
    }

    /// How long all rounds of a case take with Portico and three peers.
    fn minutes_of(case: &Case) -> f64 {
        let peers = if case.servers.variant.fits_peers() { 3_usize.saturating_sub(case.unsupported.len()) } else { 0 };
        let servers = 1 + peers + usize::from(case.servers.reference.is_some());
        let measurements = 2 + usize::from(case.at_half_load);
        let seconds = measure::WARM_UP.as_secs_f64() + SECONDS * measurements as f64 + OVERHEAD_SECONDS;
        seconds * (servers * ROUNDS) as f64 / 60.0
    }

    /// For opening connections, and for the last responses of a measurement.
    const OVERHEAD_SECONDS: f64 = 0.1;
}
