//! HTTP/2 from clients: the same requests, many at a time on one connection.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use portico::proxy::Limits;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::harness::{Endpoint, Gate, Options, route, to, within};

/// A client's connection of HTTP/2.
pub(crate) struct Client {
    pub(crate) send: SendRequest<Bytes>,
    pub(crate) connection: JoinHandle<Result<(), h2::Error>>,
}

/// An answer that was read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Client {
        Client::with(address, &client::Builder::new()).await
    }

    pub(crate) async fn with(address: SocketAddr, builder: &client::Builder) -> Client {
        let socket = TcpStream::connect(address).await.unwrap();
        let (send, connection) = builder.handshake(socket).await.unwrap();
        let connection = tokio::spawn(connection);
        Client { send, connection }
    }

    /// Sends a head, and the body behind it if there is one to come.
    pub(crate) async fn start(&self, request: Request<()>, end: bool) -> (ResponseFuture, SendStream<Bytes>) {
        let mut send = within("room for a stream", self.send.clone().ready()).await.unwrap();
        send.send_request(request, end).unwrap()
    }

    pub(crate) async fn ask(&self, request: Request<()>) -> Result<Answer, h2::Error> {
        let (answer, _) = self.start(request, true).await;
        read(answer).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(get(path)).await.unwrap()
    }

    /// The end of the connection, with the client's streams left to finish.
    pub(crate) async fn end(self) -> Result<(), h2::Error> {
        drop(self.send);
        within("the end of the connection", self.connection).await.unwrap()
    }
}

pub(crate) fn get(path: &str) -> Request<()> {
    Request::get(format!("http://a.example{path}")).body(()).unwrap()
}

pub(crate) fn post(path: &str) -> Request<()> {
    Request::post(format!("http://a.example{path}")).body(()).unwrap()
}

pub(crate) async fn read(answer: ResponseFuture) -> Result<Answer, h2::Error> {
    let answer = within("an answer", answer).await?;
    let (head, mut body) = answer.into_parts();
    let (bytes, trailers) = read_body(&mut body).await?;
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: bytes, trailers })
}

pub(crate) async fn read_body(body: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = within("more of the body", body.data()).await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, within("trailers", body.trailers()).await?))
}

/// Sends all of it as the window allows.
pub(crate) async fn send_all(stream: &mut SendStream<Bytes>, bytes: &[u8]) -> Result<(), h2::Error> {
    let mut rest = Bytes::copy_from_slice(bytes);
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let room = within("room in the window", poll_fn(|cx| stream.poll_capacity(cx))).await;
        let room = room.ok_or(Reason::CANCEL)??;
        stream.send_data(rest.split_to(room.min(rest.len())), false)?;
    }
    stream.send_data(Bytes::new(), true)
}

#[tokio::test]
async fn a_request_goes_to_an_endpoint_of_http1() {
    let endpoint = Endpoint::ok().await;
    let gate = Gate::open(to(endpoint.address)).await;
    let client = Client::connect(gate.address).await;
    let mut request = get("/x/../y?z=1");
    request.headers_mut().append("cookie", "a=1".parse().unwrap());
    request.headers_mut().append("cookie", "b=2".parse().unwrap());
    request.headers_mut().append("te", "trailers".parse().unwrap());
    let answer = client.ask(request).await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]));
    assert!(answer.headers.contains_key("x-request-id"));
    let seen = endpoint.log.requests().remove(0);
    assert!(seen.starts_with("GET /y?z=1 HTTP/1.1\r\n"), "{seen}");
    for field in ["host: a.example", "cookie: a=1; b=2", "te: trailers", "x-forwarded-host: a.example"] {
        assert!(seen.contains(&format!("\r\n{field}\r\n")), "no {field} in {seen}");
    }
}
