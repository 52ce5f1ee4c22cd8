//! Clients of test streams: connections, UDP sessions and gRPC calls that stay open for many messages.

use std::collections::HashSet;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::header::{CONTENT_TYPE, TE};
use http::{Request, StatusCode};
use hyper::body::{Body, Bytes, Frame};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::scenarios::objects::SCENARIO_TIMEOUT;
use crate::scenarios::stream_messages::{GrpcReader, Reply, grpc_message};

/// The host of TLS connections and gRPC calls.
pub(crate) const HOST: &str = "streams.example";
/// How long a reply may take on a busy machine.
const REPLY_TIMEOUT: Duration = Duration::from_secs(25);
/// Larger than any datagram of the tests.
const MAX_DATAGRAM: usize = 1500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    /// TLS from the client to the backend.
    Tls,
    Udp,
    Grpc,
}

/// Where streams are opened.
pub(crate) struct StreamTarget {
    /// The address of the Gateway.
    address: IpAddr,
    tls: Arc<ClientConfig>,
    /// Ports of UDP sessions. A session outlives the client's socket, so a later stream from the same port would
    /// continue it.
    used_ports: Mutex<HashSet<u16>>,
}

/// An open stream, and where its last reply came from.
pub(crate) struct Stream {
    pub(crate) protocol: Protocol,
    transport: Transport,
    last: Reply,
}

enum Transport {
    /// A TCP or TLS connection, which carries lines.
    Lines(BufReader<Box<dyn Connection>>),
    Datagrams(UdpSocket),
    Call(Call),
}

trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection for S {}

/// A gRPC call on an HTTP/2 connection of its own.
struct Call {
    messages: mpsc::Sender<Bytes>,
    replies: GrpcReader,
    /// The connection closes without it.
    _sender: SendRequest<OutgoingMessages>,
    _driver: JoinSet<()>,
}

/// The body of a request whose end is not known.
struct OutgoingMessages(mpsc::Receiver<Bytes>);

impl Protocol {
    pub(crate) const ALL: [Protocol; 4] = [Protocol::Tcp, Protocol::Tls, Protocol::Udp, Protocol::Grpc];

    /// The name of the listener, of the route and of the port of the Service.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Tls => "tls",
            Protocol::Udp => "udp",
            Protocol::Grpc => "grpc",
        }
    }

    /// The protocol of the port of a Service.
    pub(crate) fn transport(self) -> &'static str {
        match self {
            Protocol::Udp => "UDP",
            Protocol::Tcp | Protocol::Tls | Protocol::Grpc => "TCP",
        }
    }

    /// The port of the listener, and of the Service.
    pub(crate) fn port(self) -> u16 {
        match self {
            Protocol::Tcp => 9000,
            Protocol::Tls => 443,
            Protocol::Udp => 9001,
            Protocol::Grpc => 80,
        }
    }
}

impl StreamTarget {
    pub(crate) fn new(address: IpAddr, tls: Arc<ClientConfig>) -> Self {
        StreamTarget { address, tls, used_ports: Mutex::default() }
    }

    /// Opens a stream and exchanges the first message.
    pub(crate) async fn open(&self, protocol: Protocol) -> Result<Stream> {
        let opening = async {
            let mut transport = self.connect(protocol).await?;
            let last = transport.exchange().await?;
            ensure!(last.position == 1, "the first reply of a stream is {last:?}");
            Ok(Stream { protocol, transport, last })
        };
        let opened = timeout(REPLY_TIMEOUT, opening).await.context("timeout").flatten();
        opened.with_context(|| format!("a new stream, {}", protocol.name()))
    }

    async fn connect(&self, protocol: Protocol) -> Result<Transport> {
        let address = SocketAddr::new(self.address, protocol.port());
        if protocol == Protocol::Udp {
            let socket = self.bind_unused_port().await?;
            socket.connect(address).await?;
            return Ok(Transport::Datagrams(socket));
        }
        let stream = TcpStream::connect(address).await.context("cannot connect")?;
        stream.set_nodelay(true)?;
        let connection: Box<dyn Connection> = match protocol {
            Protocol::Tls => {
                let name = ServerName::try_from(HOST)?;
                Box::new(TlsConnector::from(self.tls.clone()).connect(name, stream).await.context("no handshake")?)
            }
            Protocol::Grpc => return Ok(Transport::Call(Call::begin(stream).await?)),
            Protocol::Tcp | Protocol::Udp => Box::new(stream),
        };
        Ok(Transport::Lines(BufReader::new(connection)))
    }

    async fn bind_unused_port(&self) -> Result<UdpSocket> {
        loop {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.context("cannot bind a port")?;
            if self.used_ports.lock().unwrap().insert(socket.local_addr()?.port()) {
                return Ok(socket);
            }
        }
    }
}

impl Stream {
    /// The name of the backend of the last reply.
    pub(crate) fn backend(&self) -> &str {
        &self.last.backend
    }

    /// Exchanges a message. The same connection of the same backend must have got all messages.
    pub(crate) async fn continues(&mut self) -> Result<()> {
        let reply = self.exchange().await?;
        let position = self.last.position + 1;
        let expected = Reply { position, text: reply.text.clone(), ..self.last.clone() };
        ensure!(reply == expected, "{:?}: the reply is {reply:?} instead of {expected:?}", self.protocol);
        self.last = reply;
        Ok(())
    }

    /// Exchanges a message. Returns whether the stream has another backend than before, with a new connection.
    pub(crate) async fn has_moved(&mut self) -> Result<bool> {
        let reply = self.exchange().await?;
        let moved = reply.backend != self.last.backend;
        let is_next = reply.connection == self.last.connection && reply.position == self.last.position + 1;
        ensure!(if moved { reply.position == 1 } else { is_next }, "{reply:?} follows {:?}", self.last);
        self.last = reply;
        Ok(moved)
    }

    async fn exchange(&mut self) -> Result<Reply> {
        let reply = timeout(REPLY_TIMEOUT, self.transport.exchange()).await.context("timeout").flatten();
        reply.with_context(|| format!("a stream, {}, whose last reply is {:?}", self.protocol.name(), self.last))
    }

    /// Waits until Portico closes the connection. A reset is an error.
    pub(crate) async fn wait_until_closed(&mut self) -> Result<()> {
        let Transport::Lines(lines) = &mut self.transport else { bail!("{:?} has no connection", self.protocol) };
        let received = timeout(SCENARIO_TIMEOUT, lines.read_u8()).await.context("the connection is still open")?;
        match received {
            // Portico cannot end the TLS session, which is between client and backend.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            unexpected => bail!("{:?}: {unexpected:?} instead of the end of the connection", self.protocol),
        }
    }

    /// Ends the sending side of a gRPC call, which must then end with status 0.
    pub(crate) async fn finish_call(self) -> Result<()> {
        let Transport::Call(Call { messages, mut replies, _sender, _driver }) = self.transport else {
            bail!("{:?} is not a call", self.protocol);
        };
        drop(messages);
        let message = timeout(REPLY_TIMEOUT, replies.next()).await.context("the call did not end")??;
        ensure!(message.is_none(), "a message without a request: {message:?}");
        replies.check_status()
    }
}

impl Transport {
    /// Sends a new text, which the reply must contain.
    async fn exchange(&mut self) -> Result<Reply> {
        let text = format!("{:016x}", fastrand::u64(..));
        let reply = match self {
            Transport::Lines(lines) => {
                lines.write_all(format!("{text}\n").as_bytes()).await.context("cannot send")?;
                lines.flush().await.context("cannot send")?;
                let mut line = String::new();
                lines.read_line(&mut line).await.context("no reply")?;
                line.strip_suffix('\n').context("the connection was closed")?.to_owned()
            }
            Transport::Datagrams(socket) => {
                socket.send(text.as_bytes()).await.context("cannot send")?;
                let mut buffer = [0; MAX_DATAGRAM];
                let length = socket.recv(&mut buffer).await.context("no reply")?;
                String::from_utf8(buffer[..length].to_vec())?
            }
            Transport::Call(call) => {
                call.messages.send(grpc_message(&text)?).await.context("cannot send")?;
                call.replies.next().await?.context("the call was ended")?
            }
        };
        let reply: Reply = reply.parse()?;
        ensure!(reply.text == text, "{reply:?} is the reply to another message than {text}");
        Ok(reply)
    }
}

impl Call {
    async fn begin(stream: TcpStream) -> Result<Call> {
        let (mut sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        // Errors are reported to the caller of the request.
        driver.spawn(async { drop(connection.await) });
        let (messages, outgoing) = mpsc::channel(1);
        let request = Request::post(format!("http://{HOST}/test.Echo/Exchange"));
        let request = request.header(CONTENT_TYPE, "application/grpc").header(TE, "trailers");
        let response = sender.send_request(request.body(OutgoingMessages(outgoing))?).await.context("no response")?;
        ensure!(response.status() == StatusCode::OK, "{:?}", response.headers());
        Ok(Call { messages, replies: GrpcReader::new(response.into_body()), _sender: sender, _driver: driver })
    }
}

impl Body for OutgoingMessages {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|message| message.map(|message| Ok(Frame::data(message))))
    }
}
