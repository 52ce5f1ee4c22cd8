//! All limits of the data plane with their defaults. Flags take their defaults from here; tests compare
//! `docs/limits.md`, the chart and the manifests with them.

use std::time::Duration;

use crate::snapshot::regex_steps::MAX_REGEX_STEPS;

/// Limits on clients and endpoints: sizes, counts and timeouts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyLimits {
    /// Maximum time from the first byte of a request to the end of its head. The connection is closed when it expires.
    pub header_timeout: Duration,
    /// Maximum size of request line and header fields together, and of the trailers of a chunked body. Larger ones get
    /// 431.
    pub max_request_head: usize,
    /// Maximum number of header fields of a request. More get 431.
    pub max_request_fields: usize,
    /// Maximum steps of the regular expressions of routes for one request: states times bytes. A request that would
    /// take more gets 414 or 431.
    pub max_regex_steps: u64,
    /// Maximum number of Portico processes that forward a request. One more rejects it with 508.
    pub max_hops: u8,
    /// Maximum time of a TLS handshake, including the wait for its first byte. The connection is closed when it
    /// expires.
    pub handshake_timeout: Duration,
    /// Concurrent TLS handshakes of the whole process. Further handshakes are queued.
    pub max_handshakes: usize,
    /// Maximum time to receive a PROXY header. The connection is closed when it expires.
    pub proxy_header_timeout: Duration,
    /// How long an idle client connection is kept open.
    pub client_idle_timeout: Duration,
    /// How long an HTTP/1 connection keeps its buffers after a request. They are allocated again for the next one.
    pub park_after: Duration,
    /// How long a client may send nothing while the endpoint waits for more of the request body, before a response has
    /// begun. Then 408.
    pub request_body_timeout: Duration,
    /// Bytes of a request body that a client must send in a second on average, while the endpoint waits for them; 0 for
    /// no minimum. Then 408, or an aborted response.
    pub client_min_rate: u64,
    /// Bytes of a response that a client must read in a second on average, while there is more to send; 0 for no
    /// minimum. Then the response is aborted.
    pub response_min_rate: u64,
    /// How long clients may take in addition to what these rates permit.
    pub min_rate_grace_period: Duration,
    /// How long an endpoint may neither respond nor read more of the request. Then 504.
    pub response_timeout: Duration,
    /// How long a response may make no progress because the endpoint sends nothing or the client does not read. Then it
    /// is aborted.
    pub stall_timeout: Duration,
    /// The same for a client that does not read, while connections to endpoints are scarce, or bytes of which its
    /// response holds some: those of `max_unforwarded_bytes` on HTTP/2, and those of `max_buffered_bytes`.
    pub scarce_stall_timeout: Duration,
    /// Maximum concurrent streams of a client's HTTP/2 connection. More are refused.
    pub max_streams: u32,
    /// HTTP/2 flow-control windows of one stream, and of all streams of a client connection.
    ///
    /// The h2 library also charges every queued frame with the difference between its size and 256 bytes, and closes
    /// the connection when the sum exceeds half of the connection window. The connection window must therefore be much
    /// larger than a stream's: small messages of a few gRPC streams whose backends pause must fit.
    pub stream_window: u32,
    pub connection_window: u32,
    /// How often the HTTP/2 connection of a client is pinged, and how long the acknowledgment of a ping may take, also
    /// from an endpoint.
    pub ping_interval: Duration,
    pub ping_timeout: Duration,
    /// How long an upgraded connection, such as a WebSocket, may be idle in both directions. Then it is closed.
    pub upgrade_idle_timeout: Duration,
    /// How long a connection of a TCP listener, or one with TLS passthrough, may be idle in both directions. Then it is
    /// closed.
    pub stream_idle_timeout: Duration,
    /// How long a UDP session is kept open while no datagram is forwarded in either direction.
    pub udp_idle_timeout: Duration,
    /// Maximum UDP sessions of the whole process, divided among the workers. Beyond it, the session that has been idle
    /// for longest ends in favor of a new one.
    pub max_udp_sessions: usize,
    /// Maximum connections of one client to TCP listeners and to TLS listeners that forward connections, over all
    /// ports; 0 for no limit. More are reset.
    pub max_stream_connections_per_client: u32,
    /// Maximum UDP sessions of one client, over all ports; 0 for no limit. Datagrams that would begin more are dropped.
    pub max_udp_sessions_per_client: u32,
    /// Grace period of an upgraded connection after its listener is removed.
    pub tunnel_grace_period: Duration,
    /// Grace period for requests in flight and TCP connections after their listener is removed, and for TCP connections
    /// after their endpoint is removed. Then the connection is closed.
    pub listener_grace_period: Duration,
    /// Maximum client connections of the whole process. Beyond it, new ones wait in the accept queue of the kernel,
    /// while idle ones are closed.
    pub max_connections: usize,
    /// Maximum connections to endpoints of the whole process. Namespaces, Services and clients have shares. Beyond
    /// these, requests wait for up to the connect timeout, at most 5 seconds, then 503.
    pub max_upstream_connections: usize,
    /// Maximum time to connect to one endpoint. When it expires, the next endpoint is tried.
    pub connect_timeout: Duration,
    /// Maximum size of status line and header fields of a response. A larger one is invalid: 502.
    pub max_response_head: usize,
    /// Maximum number of header fields of a response. A response with more is invalid: 502.
    pub max_response_fields: usize,
    /// Maximum idle connections per endpoint, in each worker.
    pub max_idle_per_endpoint: usize,
    /// Maximum concurrent requests on one HTTP/2 connection to an endpoint, within the endpoint's own limit. Beyond it,
    /// another connection is opened.
    pub max_upstream_streams: usize,
    /// How long the endpoint of an HTTP/2 connection with requests may send nothing before it is pinged.
    pub upstream_ping_interval: Duration,
    /// How long an idle connection to an endpoint is kept open.
    pub upstream_idle_timeout: Duration,
    /// How long a connection to an endpoint may have been idle to get a request that must not be sent twice. Servers
    /// commonly close idle connections after 5 seconds or more, and a request that crosses the close is lost.
    pub max_idle_for_unrepeatable: Duration,
    /// Maximum bytes of bodies that the whole process keeps in memory: those that plugins read, and copies for retries
    /// and mirrors. Beyond it, requests wait for up to 5 seconds, then 503; copies are not kept.
    pub max_buffered_bytes: usize,
    /// Maximum bytes of bodies that the whole process has received and not yet forwarded, on HTTP/2 connections of
    /// clients. Beyond it, connections with such request bodies are not read, and those with such responses get no more
    /// of them.
    pub max_unforwarded_bytes: usize,
    /// Maximum size of a request body that is buffered for retries, where the rule allows them.
    pub max_replay_body: usize,
    /// Maximum time of an authorization server for its decision, from connecting to the end of its response.
    pub authorization_timeout: Duration,
    /// Maximum mirrored copies in flight, in each worker. Further requests are not mirrored.
    pub max_mirror_copies: usize,
    /// Maximum size of a request body that is mirrored. Requests with larger bodies are not mirrored.
    pub max_mirror_body: usize,
    /// Maximum time of a mirrored copy, from connecting to the end of its response.
    pub mirror_timeout: Duration,
}

impl ProxyLimits {
    pub const DEFAULT: ProxyLimits = ProxyLimits {
        header_timeout: Duration::from_secs(10),
        max_request_head: 64 * 1024,
        max_request_fields: 100,
        max_regex_steps: MAX_REGEX_STEPS,
        max_hops: 8,
        handshake_timeout: Duration::from_secs(10),
        max_handshakes: 4096,
        proxy_header_timeout: Duration::from_secs(5),
        client_idle_timeout: Duration::from_secs(75),
        park_after: Duration::from_secs(1),
        request_body_timeout: Duration::from_secs(60),
        client_min_rate: 0,
        response_min_rate: 0,
        min_rate_grace_period: Duration::from_secs(10),
        response_timeout: Duration::from_secs(60),
        stall_timeout: Duration::from_secs(300),
        scarce_stall_timeout: Duration::from_secs(30),
        max_streams: 128,
        stream_window: 128 * 1024,
        connection_window: 16 * 1024 * 1024,
        ping_interval: Duration::from_secs(30),
        ping_timeout: Duration::from_secs(20),
        upgrade_idle_timeout: Duration::from_secs(300),
        stream_idle_timeout: Duration::from_secs(300),
        udp_idle_timeout: Duration::from_secs(60),
        max_udp_sessions: 10_000,
        max_stream_connections_per_client: 0,
        max_udp_sessions_per_client: 0,
        tunnel_grace_period: Duration::from_secs(60),
        listener_grace_period: Duration::from_secs(60),
        max_connections: 65_536,
        max_upstream_connections: 65_536,
        connect_timeout: Duration::from_secs(5),
        max_response_head: 64 * 1024,
        max_response_fields: 100,
        max_idle_per_endpoint: 128,
        max_upstream_streams: 100,
        // Servers of gRPC permit one ping in five minutes without data, and close the connection after two more:
        // https://github.com/grpc/proposal/blob/master/A8-client-side-keepalive.md. The rest is for clocks.
        upstream_ping_interval: Duration::from_secs(310),
        upstream_idle_timeout: Duration::from_secs(60),
        max_idle_for_unrepeatable: Duration::from_secs(3),
        max_buffered_bytes: 128 * 1024 * 1024,
        max_unforwarded_bytes: 256 * 1024 * 1024,
        max_replay_body: 64 * 1024,
        authorization_timeout: Duration::from_secs(5),
        max_mirror_copies: 256,
        max_mirror_body: 64 * 1024,
        mirror_timeout: Duration::from_secs(15),
    };
}

/// Maximum number of endpoints tried for one TCP connection, or for one request unless its rule configures retries.
pub const MAX_ENDPOINTS: usize = 3;

impl Default for ProxyLimits {
    fn default() -> Self {
        ProxyLimits::DEFAULT
    }
}
