//! A `tonic` server of the service Echo, which is that of gRPC's examples: one method for each shape of calls. It also
//! has reflection, and is written without generated code, so that the tests need no compiler of protocol buffers.

use std::convert::Infallible;
use std::future::pending;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt, TryStreamExt};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::server::Grpc;
use tonic::transport::server::{Server, TcpIncoming};
use tonic::transport::{Identity, ServerTlsConfig};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::reflection;
use crate::harness::TEST_TIMEOUT;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EchoRequest {
    #[prost(string, tag = "1")]
    pub(crate) message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EchoResponse {
    #[prost(string, tag = "1")]
    pub(crate) message: String,
}

/// The message to which the server responds with [`failure`].
pub(crate) const FAIL: &str = "fail";
/// The message to which the server never responds.
pub(crate) const WAIT: &str = "wait";

/// A status with everything that a server can send in trailers.
pub(crate) fn failure() -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert("failed-step", "second".parse().unwrap());
    metadata.insert_bin("failed-state-bin", MetadataValue::from_bytes(&[0, 10, 128, 255]));
    let message = "not ready: 100% of ✓ are missing\n\"für immer\"";
    let details = Bytes::from_static(b"\x08\x09\x12\x00details\xff");
    Status::with_details_and_metadata(Code::FailedPrecondition, message, details, metadata)
}

/// A running server. On drop, it accepts no more connections.
pub(crate) struct EchoServer {
    pub(crate) port: u16,
    calls: Arc<Calls>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl EchoServer {
    /// Its responses have this name in their metadata.
    pub(crate) async fn start(name: &'static str) -> Self {
        EchoServer::start_with(Server::builder(), name).await
    }

    pub(crate) async fn start_with_tls(name: &'static str, identity: Identity) -> Self {
        let tls = ServerTlsConfig::new().identity(identity);
        EchoServer::start_with(Server::builder().tls_config(tls).unwrap(), name).await
    }

    async fn start_with(server: Server, name: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let calls = Arc::new(Calls { name, received: Mutex::default(), open: watch::Sender::new(0) });
        let of_service = Arc::clone(&calls);
        let service = service_fn(move |request| {
            let calls = Arc::clone(&of_service);
            async move { Ok::<_, Infallible>(calls.serve(request).await) }
        });
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let signal = async { drop(stopped.await) };
            server.serve_with_incoming_shutdown(service, TcpIncoming::from(listener), signal).await.unwrap();
        });
        EchoServer { port, calls, stop, task }
    }

    /// Metadata of the calls since the last time, in the order of their beginning.
    pub(crate) fn take_received(&self) -> Vec<MetadataMap> {
        std::mem::take(&mut *self.calls.received.lock().unwrap())
    }

    /// Waits until this many calls are open.
    pub(crate) async fn wait_for_open_calls(&self, count: usize) {
        let mut open = self.calls.open.subscribe();
        let reached = tokio::time::timeout(TEST_TIMEOUT, open.wait_for(|open| *open == count)).await;
        assert!(reached.is_ok(), "{} calls are open, and not {count}", *self.calls.open.borrow());
    }

    /// Closes the listening socket, then each connection when its calls have ended.
    pub(crate) async fn stop(self) {
        self.stop.send(()).expect("the server runs");
        tokio::time::timeout(TEST_TIMEOUT, self.task).await.expect("the server stops").unwrap();
    }
}

/// The calls of a server.
struct Calls {
    name: &'static str,
    received: Mutex<Vec<MetadataMap>>,
    open: watch::Sender<usize>,
}

/// The replies to a call.
type Replies = BoxStream<'static, Result<EchoResponse, Status>>;

impl Calls {
    async fn serve(self: &Arc<Self>, request: http::Request<Body>) -> http::Response<Body> {
        let mut grpc = Grpc::new(ProstCodec::default());
        match request.uri().path() {
            "/grpc.examples.echo.Echo/UnaryEcho" => grpc.unary(service_fn(|call| self.unary(call)), request).await,
            "/grpc.examples.echo.Echo/ClientStreamingEcho" => {
                grpc.client_streaming(service_fn(|call| self.client_streaming(call)), request).await
            }
            "/grpc.examples.echo.Echo/ServerStreamingEcho" => {
                grpc.server_streaming(service_fn(|call| self.server_streaming(call)), request).await
            }
            "/grpc.examples.echo.Echo/BidirectionalStreamingEcho" => {
                grpc.streaming(service_fn(|call| self.bidirectional_streaming(call)), request).await
            }
            reflection::PATH => reflection::serve(request).await,
            path => Status::unimplemented(format!("{} does not have {path}", self.name)).into_http(),
        }
    }

    async fn unary(self: &Arc<Self>, call: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        let open = OpenCall::begin(self, call.metadata());
        reply(call.into_inner()).await.map(|reply| open.respond(reply))
    }

    /// Responds with all messages, joined by spaces.
    async fn client_streaming(
        self: &Arc<Self>,
        call: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<EchoResponse>, Status> {
        let open = OpenCall::begin(self, call.metadata());
        let replies: Vec<_> = call.into_inner().and_then(reply).map_ok(|reply| reply.message).try_collect().await?;
        Ok(open.respond(EchoResponse { message: replies.join(" ") }))
    }

    /// Responds with a message for each word.
    async fn server_streaming(self: &Arc<Self>, call: Request<EchoRequest>) -> Result<Response<Replies>, Status> {
        let open = OpenCall::begin(self, call.metadata());
        let message = call.into_inner().message;
        let words: Vec<_> = message.split(' ').map(|word| Ok(EchoRequest { message: word.to_owned() })).collect();
        Ok(open.reply_to_each(stream::iter(words)))
    }

    async fn bidirectional_streaming(
        self: &Arc<Self>,
        call: Request<Streaming<EchoRequest>>,
    ) -> Result<Response<Replies>, Status> {
        let open = OpenCall::begin(self, call.metadata());
        Ok(open.reply_to_each(call.into_inner()))
    }
}

async fn reply(request: EchoRequest) -> Result<EchoResponse, Status> {
    match &*request.message {
        FAIL => Err(failure()),
        WAIT => pending().await,
        _ => Ok(EchoResponse { message: request.message }),
    }
}

/// A call that has not ended. `tonic` drops it at the end of the call, also when the client cancels it.
struct OpenCall {
    calls: Arc<Calls>,
    /// Metadata of the response: the name of the server, and custom metadata of the request.
    metadata: MetadataMap,
}

impl OpenCall {
    fn begin(calls: &Arc<Calls>, received: &MetadataMap) -> Self {
        let mut metadata = MetadataMap::new();
        metadata.insert("server", calls.name.parse().unwrap());
        for label in received.get_all("label") {
            metadata.append("label", label.clone());
        }
        for token in received.get_all_bin("token-bin") {
            metadata.append_bin("token-bin", token.clone());
        }
        calls.received.lock().unwrap().push(received.clone());
        calls.open.send_modify(|open| *open += 1);
        OpenCall { calls: Arc::clone(calls), metadata }
    }

    fn respond<T>(&self, content: T) -> Response<T> {
        let mut response = Response::new(content);
        *response.metadata_mut() = self.metadata.clone();
        response
    }

    fn reply_to_each(
        self,
        requests: impl Stream<Item = Result<EchoRequest, Status>> + Send + 'static,
    ) -> Response<Replies> {
        self.respond(()).map(|()| {
            // The call is open until this stream is dropped.
            let replies = requests.and_then(move |request| {
                let _open = &self;
                reply(request)
            });
            replies.boxed()
        })
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.calls.open.send_modify(|open| *open -= 1);
    }
}
