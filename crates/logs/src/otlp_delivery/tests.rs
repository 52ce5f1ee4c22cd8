//! Tests of calls to a server of HTTP/2.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, DuplexStream};

use super::grpc_client::GrpcMethod;
use crate::plugin_api::remote::{Remote, RemoteStream};
use crate::plugin_api::services::PluginServices;

/// The head and the message of each call.
type ReceivedCalls = Arc<Mutex<Vec<(Request<()>, Bytes)>>>;

/// A server of gRPC at all addresses. The message of a call says how it ends.
#[derive(Default)]
struct GrpcServer {
    calls: ReceivedCalls,
    connections: AtomicUsize,
    /// Connections that are not served: nothing reads from them or writes to them.
    stuck: Option<Arc<Mutex<Vec<DuplexStream>>>>,
}

impl PluginServices for GrpcServer {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn connect(&self, remote: Remote) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, String>> {
        async move { Err(format!("{} is connected without HTTP/2", remote.host)) }.boxed()
    }

    fn connect_http2(&self, _: Remote) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, String>> {
        let (client, server) = tokio::io::duplex(1 << 16);
        self.connections.fetch_add(1, Relaxed);
        match &self.stuck {
            Some(stuck) => stuck.lock().push(server),
            None => drop(tokio::spawn(serve(server, Arc::clone(&self.calls)))),
        }
        async move { Ok(Box::new(client) as Box<dyn RemoteStream>) }.boxed()
    }
}

async fn serve(stream: DuplexStream, calls: ReceivedCalls) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (head, mut body) = request.into_parts();
        let calls = Arc::clone(&calls);
        tokio::spawn(async move {
            let mut message = Vec::new();
            while let Some(Ok(part)) = body.data().await {
                body.flow_control().release_capacity(part.len()).unwrap();
                message.extend_from_slice(&part);
            }
            let message = Bytes::from(message);
            calls.lock().push((Request::from_parts(head, ()), message.clone()));
            match &*message {
                b"hang" => std::future::pending().await,
                b"close" => drop(respond),
                b"trailers only" => {
                    let response = Response::builder().header("grpc-status", "14").body(()).unwrap();
                    respond.send_response(response, true).unwrap();
                }
                _ => {
                    let mut response = respond.send_response(Response::new(()), false).unwrap();
                    let length = if &*message == b"long" { 65_537 } else { 5 };
                    response.send_data(vec![0; length].into(), false).unwrap();
                    let trailers = HeaderMap::from_iter([(
                        http::HeaderName::from_static("grpc-status"),
                        HeaderValue::from_static("0"),
                    )]);
                    response.send_trailers(trailers).unwrap();
                }
            }
        });
    }
}

fn method(server: &Arc<GrpcServer>) -> GrpcMethod {
    let remote = Remote {
        host: "collector.example".to_owned(),
        port: 4317,
        namespace: None,
        tls: None,
        timeout: Duration::from_secs(5),
    };
    let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, HeaderValue::from_static("Bearer a"))]);
    let uri = "http://collector.example:4317/a.B/C".parse().unwrap();
    GrpcMethod::new(remote, uri, headers, Duration::from_secs(5), Arc::clone(server) as _)
}

#[tokio::test(start_paused = true)]
async fn calls_share_a_connection_and_have_their_fields() {
    let server = Arc::new(GrpcServer::default());
    let method = method(&server);
    // Larger than the window of a stream.
    let large = Bytes::from(vec![1; 1 << 20]);
    for message in [Bytes::from_static(b"first"), large.clone()] {
        let response = method.call(message).await.unwrap();
        assert_eq!((response.status.as_u16(), &*response.body), (200, &[0; 5][..]));
        assert_eq!(response.fields["grpc-status"], "0");
    }
    let response = method.call(Bytes::from_static(b"trailers only")).await.unwrap();
    assert_eq!(response.fields["grpc-status"], "14");
    let calls = server.calls.lock();
    assert_eq!(calls[1].1, large);
    let (request, _) = &calls[0];
    assert_eq!(request.uri().to_string(), "http://collector.example:4317/a.B/C");
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers"), ("authorization", "Bearer a")] {
        assert_eq!(request.headers()[name], value);
    }
    assert_eq!((request.method().as_str(), server.connections.load(Relaxed)), ("POST", 1));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_has_failed_is_not_used_again() {
    let server = Arc::new(GrpcServer::default());
    let method = method(&server);
    for (message, failure, connections) in [
        ("hang", "collector.example:4317: no response within 5s", 1),
        ("long", "collector.example:4317: the response is too large", 2),
        ("close", "collector.example:4317: ", 3),
    ] {
        let found = method.call(Bytes::from_static(message.as_bytes())).await.unwrap_err();
        assert!(found.starts_with(failure), "{found}");
        assert_eq!(server.connections.load(Relaxed), connections);
    }
    assert!(method.call(Bytes::from_static(b"last")).await.is_ok());
    assert_eq!(server.connections.load(Relaxed), 4);
}

#[tokio::test(start_paused = true)]
async fn connections_to_a_server_that_never_reads_are_closed() {
    let stuck = Arc::default();
    let server = Arc::new(GrpcServer { stuck: Some(Arc::clone(&stuck)), ..GrpcServer::default() });
    let method = method(&server);
    // More than the buffer of the connection takes.
    let large = Bytes::from(vec![1; 1 << 20]);
    for message in [Bytes::from_static(b"small"), large.clone(), large] {
        let failure = method.call(message).await.unwrap_err();
        assert_eq!(failure, "collector.example:4317: no response within 5s");
    }
    assert_eq!(server.connections.load(Relaxed), 3);
    tokio::time::sleep(Duration::from_secs(6)).await; // The grace of the last connection.
    let streams: Vec<DuplexStream> = std::mem::take(&mut *stuck.lock());
    assert_eq!(streams.len(), 3);
    for mut stream in streams {
        let mut sent = Vec::new();
        // Ends only if the other side has closed its end.
        tokio::time::timeout(Duration::from_secs(1), stream.read_to_end(&mut sent)).await.unwrap().unwrap();
        assert!(sent.starts_with(b"PRI * HTTP/2.0"));
    }
}
