//! Every limit of the data plane and its default, in one place. The table in the docs and the flags follow it.

use std::time::Duration;

/// What a stranger may ask of us, and how long we wait for whom.
#[derive(Clone, Debug)]
pub struct Limits {
    /// From the first byte of a request to the end of its head. The connection is closed after it.
    pub header_timeout: Duration,
    /// Request line and header fields together, and also the trailers of a chunked body. More is answered 431.
    pub max_head: usize,
    /// Header fields of a request. More is answered 431.
    pub max_fields: usize,
    /// For a TLS handshake, from the first byte that is waited for to the last one sent. The connection is closed after it.
    pub handshake_timeout: Duration,
    /// TLS handshakes at the same time, in the whole process. Further clients wait for their turn.
    pub max_handshakes: usize,
    /// For a PROXY header, of which version 2 may have 4096 bytes. The connection is closed after it.
    pub proxy_header_timeout: Duration,
    /// How long a connection without a request stays open.
    pub keep_alive: Duration,
    /// Silence of a client whose request body an endpoint would take, before an answer. Then 408.
    pub upload_timeout: Duration,
    /// An endpoint that neither answers nor takes more of the request. Then 504.
    pub answer_timeout: Duration,
    /// A response of which nothing moves, because the endpoint is silent or the client does not read. Then it is cut.
    pub stall_timeout: Duration,
    /// Streams of a client's HTTP/2 connection that are open at a time. More are refused.
    pub max_streams: u32,
    /// What a client may send ahead of us on one stream of HTTP/2, and on all streams of a connection.
    ///
    /// The library also charges every frame that waits to be read what it is smaller than 256 bytes, and ends the connection
    /// when that is more than half of the connection's window. So the window has to be much larger than a stream's: the
    /// small messages of a few gRPC streams whose backends pause must fit.
    pub stream_window: u32,
    pub connection_window: u32,
    /// How often a connection of HTTP/2 is asked whether it is still there, and how long the answer may take.
    pub ping_interval: Duration,
    pub ping_timeout: Duration,
    /// Silence on both sides of a connection that was upgraded, such as a WebSocket. Then it is closed.
    pub tunnel_idle: Duration,
    /// What such a connection still gets when its listener is gone.
    pub tunnel_leave: Duration,
    /// What the requests of a connection still get to finish when its listener is gone. Then it is cut.
    pub listener_leave: Duration,
    /// Client connections of the whole process. When it is reached, new ones wait in the queue of the system.
    pub max_connections: usize,
    /// Connections to endpoints of the whole process. When it is reached, who needs one waits for as long as connecting may
    /// take, then 503.
    pub max_upstream_connections: usize,
    /// Connecting to one endpoint. Then the next is tried.
    pub connect_timeout: Duration,
    /// Status line and header fields of an answer. More is a bad answer, 502.
    pub max_answer_head: usize,
    /// Header fields of an answer. More is a bad answer, 502.
    pub max_answer_fields: usize,
    /// Idle connections that each worker keeps per endpoint.
    pub idle_per_endpoint: usize,
    /// Requests at a time on one HTTP/2 connection to an endpoint, if the endpoint takes as many. Then another is opened.
    pub upstream_streams: usize,
    /// How long an idle connection to an endpoint is kept.
    pub upstream_idle: Duration,
    /// Body of a request that is kept to be sent again, where the rule allows that.
    pub replay_body: usize,
    /// Copies for mirrors that each worker has on their way. More are left out.
    pub mirror_copies: usize,
    /// Body of a request that is copied for mirrors. One that is larger is not mirrored.
    pub mirror_body: usize,
    /// From sending a copy to the end of its answer.
    pub mirror_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            header_timeout: Duration::from_secs(10),
            max_head: 64 * 1024,
            max_fields: 100,
            handshake_timeout: Duration::from_secs(10),
            max_handshakes: 4096,
            proxy_header_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(75),
            upload_timeout: Duration::from_secs(60),
            answer_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(300),
            max_streams: 128,
            stream_window: 128 * 1024,
            connection_window: 16 * 1024 * 1024,
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(20),
            tunnel_idle: Duration::from_secs(300),
            tunnel_leave: Duration::from_secs(60),
            listener_leave: Duration::from_secs(60),
            max_connections: 65_536,
            max_upstream_connections: 65_536,
            connect_timeout: Duration::from_secs(5),
            max_answer_head: 64 * 1024,
            max_answer_fields: 100,
            idle_per_endpoint: 128,
            upstream_streams: 100,
            upstream_idle: Duration::from_secs(60),
            replay_body: 64 * 1024,
            mirror_copies: 256,
            mirror_body: 64 * 1024,
            mirror_timeout: Duration::from_secs(15),
        }
    }
}
