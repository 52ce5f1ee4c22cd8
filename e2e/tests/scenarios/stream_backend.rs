//! A backend of test streams in this process. It replies to each line of a TCP or TLS connection, to each datagram, and
//! to each message of a gRPC call.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Context, Result};
use futures_util::{StreamExt, stream};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::StreamBody;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use portico_e2e::cluster::ADDRESS;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::scenarios::stream_client::Protocol;
use crate::scenarios::stream_messages::{Conversation, GRPC_STATUS, GrpcReader, grpc_message};

/// Larger than any datagram of the tests.
const MAX_DATAGRAM: usize = 1500;

/// A server for each protocol. They stop when dropped.
pub(crate) struct StreamBackend {
    name: &'static str,
    addresses: Vec<(Protocol, SocketAddr)>,
    _servers: JoinSet<()>,
}

impl StreamBackend {
    pub(crate) async fn start(name: &'static str, tls: Arc<ServerConfig>) -> Result<StreamBackend> {
        let (mut addresses, mut servers) = (Vec::new(), JoinSet::new());
        let numbers = Numbers { name, next: Arc::default() };
        for protocol in Protocol::ALL {
            let numbers = numbers.clone();
            let listen = async || TcpListener::bind((ADDRESS, 0)).await.context("cannot bind a port for the backend");
            let address = match protocol {
                Protocol::Udp => {
                    let socket = UdpSocket::bind((ADDRESS, 0)).await.context("cannot bind a port for the backend")?;
                    let address = socket.local_addr()?;
                    servers.spawn(serve_datagrams(socket, numbers));
                    address
                }
                Protocol::Tcp => {
                    let listener = listen().await?;
                    let address = listener.local_addr()?;
                    servers.spawn(accept(listener, move |stream| serve_lines(stream, numbers.begin())));
                    address
                }
                Protocol::Tls => {
                    let listener = listen().await?;
                    let address = listener.local_addr()?;
                    let acceptor = TlsAcceptor::from(tls.clone());
                    servers.spawn(accept(listener, move |stream| {
                        let (acceptor, conversation) = (acceptor.clone(), numbers.begin());
                        async move { serve_lines(acceptor.accept(stream).await?, conversation).await }
                    }));
                    address
                }
                Protocol::Grpc => {
                    let listener = listen().await?;
                    let address = listener.local_addr()?;
                    servers.spawn(accept(listener, move |stream| serve_calls(stream, numbers.clone())));
                    address
                }
            };
            addresses.push((protocol, address));
        }
        Ok(StreamBackend { name, addresses, _servers: servers })
    }

    /// The EndpointSlice with this backend as the only endpoint of the Service; without an endpoint if `is_removed`.
    pub(crate) fn endpoint_slice(&self, service: &str, is_removed: bool) -> Value {
        let ports = self.addresses.iter().map(|(protocol, address)| {
            json!({ "name": protocol.name(), "port": address.port(), "protocol": protocol.transport() })
        });
        let endpoint = json!({ "addresses": [ADDRESS], "conditions": { "ready": true } });
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": self.name, "labels": { "kubernetes.io/service-name": service } },
            "endpoints": if is_removed { vec![] } else { vec![endpoint] },
            "ports": ports.collect::<Vec<_>>(),
        })
    }
}

/// Numbers the connections of a backend.
#[derive(Clone)]
struct Numbers {
    name: &'static str,
    next: Arc<AtomicU64>,
}

impl Numbers {
    fn begin(&self) -> Conversation {
        Conversation::new(self.name, self.next.fetch_add(1, Relaxed))
    }
}

/// Serves each connection in a task. Its errors are reported by the client.
async fn accept<Serving>(listener: TcpListener, serve: impl Fn(TcpStream) -> Serving)
where
    Serving: Future<Output = Result<()>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    // Accepting fails only without free file descriptors. Clients then get no reply, which fails the test.
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        stream.set_nodelay(true).ok();
        connections.spawn(serve(stream));
    }
}

async fn serve_lines(stream: impl AsyncRead + AsyncWrite + Unpin, mut conversation: Conversation) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        let reply = conversation.reply(line.trim_end());
        stream.write_all(format!("{reply}\n").as_bytes()).await?;
        // TLS buffers what was written.
        stream.flush().await?;
        line.clear();
    }
    Ok(stream.shutdown().await?)
}

async fn serve_datagrams(socket: UdpSocket, numbers: Numbers) {
    let mut conversations: HashMap<SocketAddr, Conversation> = HashMap::new();
    let mut buffer = [0; MAX_DATAGRAM];
    // Receiving fails if an earlier reply could not be delivered, since Portico had closed the session.
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let conversation = conversations.entry(client).or_insert_with(|| numbers.begin());
        let reply = conversation.reply(&String::from_utf8_lossy(&buffer[..length]));
        socket.send_to(reply.as_bytes(), client).await.ok();
    }
}

async fn serve_calls(stream: TcpStream, numbers: Numbers) -> Result<()> {
    let service = service_fn(|request: Request<Incoming>| {
        let body = replies(GrpcReader::new(request.into_body()), numbers.begin());
        let response = Response::builder().header(CONTENT_TYPE, "application/grpc").body(body);
        async { response }
    });
    Ok(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await?)
}

/// The body with a reply to each message, and the trailers when the client has ended the call.
fn replies(messages: GrpcReader, conversation: Conversation) -> impl Body<Data = Bytes, Error = anyhow::Error> {
    let replies = stream::unfold((messages, conversation), |(mut messages, mut conversation)| async {
        let text = messages.next().await.transpose()?;
        let reply = text.and_then(|text| grpc_message(&conversation.reply(&text)));
        Some((reply.map(Frame::data), (messages, conversation)))
    });
    let trailers = HeaderMap::from_iter([(http::HeaderName::from_static(GRPC_STATUS), HeaderValue::from_static("0"))]);
    StreamBody::new(replies.chain(stream::iter([Ok(Frame::trailers(trailers))])))
}
