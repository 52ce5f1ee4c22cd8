//! One way to ask over HTTP/1.1 and HTTP/2, plain and over TLS, for tables of what has to be the same over all four.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use portico::snapshot::host::{HostMap, HostPattern};
use portico::snapshot::{Bind, Snapshot};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::h2;
use crate::harness::{Client, Gate, Options, Route, listener, reserve, within};
use crate::secure::{Caller, Secure, certificate, open};

/// What carries a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wire {
    pub(crate) http2: bool,
    pub(crate) tls: bool,
}

pub(crate) const WIRES: [Wire; 4] = [
    Wire { http2: false, tls: false },
    Wire { http2: false, tls: true },
    Wire { http2: true, tls: false },
    Wire { http2: true, tls: true },
];

/// A request; what is not said is `GET /` of a.example.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) host: &'static str,
    pub(crate) fields: &'static [(&'static str, &'static str)],
    pub(crate) body: Option<&'static str>,
    /// The body has no end.
    pub(crate) stalls: bool,
    /// What follows the head of HTTP/1.1 as it is.
    pub(crate) raw: &'static str,
    /// The `:protocol` of an extended CONNECT.
    pub(crate) protocol: Option<&'static str>,
}

pub(crate) const ASK: Ask = Ask {
    method: "GET",
    path: "/",
    host: "a.example",
    fields: &[],
    body: None,
    stalls: false,
    raw: "",
    protocol: None,
};

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// In lower case, as they came.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    /// All fields of this name, joined.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let values: Vec<_> =
            self.fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.clone()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}

impl Wire {
    /// Listeners for a.example, which has the routes, and for b.example, which has none.
    pub(crate) async fn open(self, options: Options, routes: Vec<Route>) -> Gate {
        if self.tls {
            let both = certificate(&["a.example", "b.example"]);
            let secure = |hostname, routes| Secure { hostname, certificates: vec![Arc::clone(&both)], routes };
            return open(options, vec![secure("a.example", routes), secure("b.example", vec![])]).await;
        }
        let (address, reserved) = reserve();
        let listeners = HostMap::new([
            (HostPattern::parse(Some("a.example")), Arc::new(listener(routes))),
            (HostPattern::parse(Some("b.example")), Arc::new(listener(vec![]))),
        ]);
        let snapshot =
            Snapshot { binds: [(address, Arc::new(Bind { listeners, tls: None }))].into(), ..Snapshot::default() };
        let gate = Gate::start(options, address, reserved, snapshot);
        gate.proxy.reconcile().await;
        gate
    }

    /// The answer, on a connection of its own; None if it does not come to its end.
    pub(crate) async fn ask(self, gate: &Gate, ask: &Ask) -> Option<Reply> {
        if !self.tls {
            let client = gate.client().await;
            return if self.http2 { over_http2(client, "http", ask).await } else { over_http1(client, ask).await };
        }
        let protocol: &[u8] = if self.http2 { b"h2" } else { b"http/1.1" };
        let caller = Caller::new().adjust(|config| config.alpn_protocols = vec![protocol.to_vec()]);
        let client = caller.connect(gate, "a.example").await.unwrap();
        if self.http2 { over_http2(client, "https", ask).await } else { over_http1(client, ask).await }
    }
}

async fn over_http1<S: AsyncRead + AsyncWrite + Unpin>(mut client: Client<S>, ask: &Ask) -> Option<Reply> {
    let target = if ask.method == "CONNECT" { "a.example:443" } else { ask.path };
    let mut request = format!("{} {target} HTTP/1.1\r\nhost: {}\r\n", ask.method, ask.host);
    for (name, value) in ask.fields {
        request += &format!("{name}: {value}\r\n");
    }
    let body = ask.body.unwrap_or_default();
    if ask.body.is_some() {
        request += &format!("content-length: {}\r\n", body.len() + usize::from(ask.stalls));
    }
    client.send(request + "\r\n" + body + ask.raw).await;
    let answer = client.try_answer(ask.method == "HEAD").await?;
    let fields = answer.head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let fields = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    Some(Reply { status: answer.status, fields, body: answer.text() })
}

async fn over_http2<S>(client: Client<S>, scheme: &str, ask: &Ask) -> Option<Reply>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (send, connection) = within("settings", ::h2::client::handshake(client.socket)).await.unwrap();
    tokio::spawn(connection);
    let mut send = within("room for a stream", send.ready()).await.unwrap();
    let target = match ask.method {
        "CONNECT" if ask.protocol.is_none() => "a.example:443".to_owned(),
        _ => format!("{scheme}://{}{}", ask.host, ask.path),
    };
    let mut request = Request::builder().method(ask.method).uri(target);
    for (name, value) in ask.fields {
        request = request.header(*name, *value);
    }
    if let Some(protocol) = ask.protocol {
        within("the settings of the other side", async {
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
    let answer = h2::read(answer).await.ok()?;
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let fields = answer.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    Some(Reply { status: answer.status, fields, body: String::from_utf8_lossy(&answer.body).into_owned() })
}
