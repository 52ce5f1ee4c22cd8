//! Sends one request over HTTP/1.1 or HTTP/2, with or without TLS, for tests that expect the same result from all four.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use portico::snapshot::host::{HostMap, HostPattern};
use portico::snapshot::{Bind, BindAddress, Snapshot};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::h2;
use crate::harness::{Client, Options, Route, TestServer, listener, reserve_address, with_timeout};
use crate::tls_harness::{TlsCaller, TlsListener, certificate, start_tls_server};

/// The transport of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transport {
    pub(crate) http2: bool,
    pub(crate) tls: bool,
}

pub(crate) const TRANSPORTS: [Transport; 4] = [
    Transport { http2: false, tls: false },
    Transport { http2: false, tls: true },
    Transport { http2: true, tls: false },
    Transport { http2: true, tls: true },
];

/// A request; the default is `GET /` to a.example.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TransportRequest {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) host: &'static str,
    pub(crate) fields: &'static [(&'static str, &'static str)],
    pub(crate) body: Option<&'static str>,
    /// The body never ends.
    pub(crate) stalls: bool,
    /// Raw bytes after the head (HTTP/1.1 only).
    pub(crate) raw_body: &'static str,
    /// The `:protocol` of an extended CONNECT.
    pub(crate) protocol: Option<&'static str>,
}

pub(crate) const GET_ROOT: TransportRequest = TransportRequest {
    method: "GET",
    path: "/",
    host: "a.example",
    fields: &[],
    body: None,
    stalls: false,
    raw_body: "",
    protocol: None,
};

#[derive(Debug)]
pub(crate) struct TransportResponse {
    pub(crate) status: u16,
    /// Names in lower case, in the order received.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: String,
}

impl TransportResponse {
    /// All values of this header, joined.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let values: Vec<_> =
            self.fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.clone()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}

impl Transport {
    /// Starts listeners for a.example, with these routes, and for b.example, without routes.
    pub(crate) async fn start_server(self, options: Options, routes: Vec<Route>) -> TestServer {
        if self.tls {
            let both = certificate(&["a.example", "b.example"]);
            let secure = |hostname, routes| TlsListener { hostname, certificates: vec![Arc::clone(&both)], routes };
            return start_tls_server(options, vec![secure("a.example", routes), secure("b.example", vec![])]).await;
        }
        let (address, reserved) = reserve_address();
        let listeners = HostMap::new([
            (HostPattern::parse(Some("a.example")), Arc::new(listener(routes))),
            (HostPattern::parse(Some("b.example")), Arc::new(listener(vec![]))),
        ]);
        let snapshot = Snapshot {
            binds: [(BindAddress::tcp(address), Arc::new(Bind { listeners, tls: None }))].into(),
            ..Snapshot::default()
        };
        let server = TestServer::start(options, address, reserved, snapshot);
        server.proxy.reconcile().await;
        server
    }

    /// Sends the request on a new connection; None if the response is incomplete.
    pub(crate) async fn send(self, server: &TestServer, ask: &TransportRequest) -> Option<TransportResponse> {
        if !self.tls {
            let client = server.connect().await;
            return if self.http2 {
                send_over_http2(client, "http", ask).await
            } else {
                send_over_http1(client, ask).await
            };
        }
        let protocol: &[u8] = if self.http2 { b"h2" } else { b"http/1.1" };
        let caller = TlsCaller::new().adjust(|config| config.alpn_protocols = vec![protocol.to_vec()]);
        let client = caller.connect(server, "a.example").await.unwrap();
        if self.http2 { send_over_http2(client, "https", ask).await } else { send_over_http1(client, ask).await }
    }
}

async fn send_over_http1<S: AsyncRead + AsyncWrite + Unpin>(
    mut client: Client<S>,
    ask: &TransportRequest,
) -> Option<TransportResponse> {
    let target = if ask.method == "CONNECT" { "a.example:443" } else { ask.path };
    let mut request = format!("{} {target} HTTP/1.1\r\nhost: {}\r\n", ask.method, ask.host);
    for (name, value) in ask.fields {
        request += &format!("{name}: {value}\r\n");
    }
    let body = ask.body.unwrap_or_default();
    if ask.body.is_some() {
        request += &format!("content-length: {}\r\n", body.len() + usize::from(ask.stalls));
    }
    client.send(request + "\r\n" + body + ask.raw_body).await;
    let answer = client.try_response(ask.method == "HEAD").await?;
    let fields = answer.head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let fields = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    Some(TransportResponse { status: answer.status, fields, body: answer.text() })
}

async fn send_over_http2<S>(client: Client<S>, scheme: &str, ask: &TransportRequest) -> Option<TransportResponse>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (send, connection) = with_timeout("settings", ::h2::client::handshake(client.socket)).await.unwrap();
    tokio::spawn(connection);
    let mut send = with_timeout("a free stream", send.ready()).await.unwrap();
    let target = match ask.method {
        "CONNECT" if ask.protocol.is_none() => "a.example:443".to_owned(),
        _ => format!("{scheme}://{}{}", ask.host, ask.path),
    };
    let mut request = Request::builder().method(ask.method).uri(target);
    for (name, value) in ask.fields {
        request = request.header(*name, *value);
    }
    if let Some(protocol) = ask.protocol {
        with_timeout("the SETTINGS of the proxy", async {
            while !send.is_extended_connect_protocol_enabled() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        request = request.extension(::h2::ext::Protocol::from_static(protocol));
    }
    let (answer, mut stream) = send.send_request(request.body(()).unwrap(), ask.body.is_none()).unwrap();
    if let Some(body) = ask.body {
        stream.send_data(Bytes::from_static(body.as_bytes()), !ask.stalls).unwrap();
    }
    let answer = h2::read_response(answer).await.ok()?;
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let fields = answer.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    Some(TransportResponse { status: answer.status, fields, body: String::from_utf8_lossy(&answer.body).into_owned() })
}
