//! Sends one request over HTTP/1.1 or HTTP/2, with or without TLS, for tests that expect the same result of all four.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use portico::bind_address::BindAddress;
use portico::snapshot::host::{HostMap, HostPattern};
use portico::snapshot::{Bind, Snapshot};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::h2;
use crate::harness::{Client, Options, Route, TestServer, listener, reserve_address, with_timeout};
use crate::tls_harness::{TestTlsConnector, TlsListener, certificate, start_tls_server};

/// The HTTP version of a connection, and whether it uses TLS.
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
    /// Whether the end of the body is never sent.
    pub(crate) stalls: bool,
    /// Raw bytes after the head and the body (HTTP/1.1 only).
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
    /// Starts a proxy with a listener for a.example, which has these routes, and one for b.example, which has none.
    pub(crate) async fn start_server(self, options: Options, routes: Vec<Route>) -> TestServer {
        if self.tls {
            let certificate = certificate(&["a.example", "b.example"]);
            let tls_listener =
                |hostname, routes| TlsListener { hostname, certificates: vec![Arc::clone(&certificate)], routes };
            return start_tls_server(
                options,
                vec![tls_listener("a.example", routes), tls_listener("b.example", vec![])],
            )
            .await;
        }
        let (address, reserved) = reserve_address();
        let listeners = HostMap::new([
            (HostPattern::parse(Some("a.example")), Arc::new(listener(routes))),
            (HostPattern::parse(Some("b.example")), Arc::new(listener(vec![]))),
        ]);
        let snapshot = Snapshot {
            binds: [(BindAddress::tcp(address), Arc::new(Bind::with_http(listeners, None)))].into(),
            ..Snapshot::default()
        };
        let server = TestServer::start(options, address, reserved, snapshot);
        server.proxy.reconcile().await;
        server
    }

    /// Sends the request on a new connection; None if the response is incomplete.
    pub(crate) async fn send(self, server: &TestServer, request: &TransportRequest) -> Option<TransportResponse> {
        if !self.tls {
            let client = server.connect().await;
            return if self.http2 {
                send_over_http2(client, "http", request).await
            } else {
                send_over_http1(client, request).await
            };
        }
        let protocol: &[u8] = if self.http2 { b"h2" } else { b"http/1.1" };
        let connector = TestTlsConnector::new().with_alpn(&[protocol]);
        let client = connector.connect(server, "a.example").await.unwrap();
        if self.http2 {
            send_over_http2(client, "https", request).await
        } else {
            send_over_http1(client, request).await
        }
    }
}

async fn send_over_http1<S: AsyncRead + AsyncWrite + Unpin>(
    mut client: Client<S>,
    request: &TransportRequest,
) -> Option<TransportResponse> {
    let target = if request.method == "CONNECT" { "a.example:443" } else { request.path };
    let mut message = format!("{} {target} HTTP/1.1\r\nhost: {}\r\n", request.method, request.host);
    for (name, value) in request.fields {
        message += &format!("{name}: {value}\r\n");
    }
    let body = request.body.unwrap_or_default();
    if request.body.is_some() {
        message += &format!("content-length: {}\r\n", body.len() + usize::from(request.stalls));
    }
    message = message + "\r\n" + body + request.raw_body;
    client.send(&message).await;
    let response = client.try_response_to(&message).await?;
    let fields = response.head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let fields = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    Some(TransportResponse { status: response.status, fields, body: response.text() })
}

async fn send_over_http2<S>(client: Client<S>, scheme: &str, request: &TransportRequest) -> Option<TransportResponse>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = with_timeout("settings", ::h2::client::handshake(client.socket)).await.unwrap();
    tokio::spawn(connection);
    let mut sender = with_timeout("a free stream", sender.ready()).await.unwrap();
    let target = match request.method {
        "CONNECT" if request.protocol.is_none() => "a.example:443".to_owned(),
        _ => format!("{scheme}://{}{}", request.host, request.path),
    };
    let mut builder = Request::builder().method(request.method).uri(target);
    for (name, value) in request.fields {
        builder = builder.header(*name, *value);
    }
    if let Some(protocol) = request.protocol {
        with_timeout("the SETTINGS of the proxy", async {
            while !sender.is_extended_connect_protocol_enabled() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        builder = builder.extension(::h2::ext::Protocol::from_static(protocol));
    }
    let (response, mut stream) = sender.send_request(builder.body(()).unwrap(), request.body.is_none()).unwrap();
    if let Some(body) = request.body {
        stream.send_data(Bytes::from_static(body.as_bytes()), !request.stalls).unwrap();
    }
    let response = h2::read_response(response).await.ok()?;
    let to_text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let fields = response.headers.iter().map(|(name, value)| (name.to_string(), to_text(value))).collect();
    Some(TransportResponse {
        status: response.status,
        fields,
        body: String::from_utf8_lossy(&response.body).into_owned(),
    })
}
