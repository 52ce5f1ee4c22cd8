//! Backends: one that fails every second time, and one of `tonic` that records a span of its own.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use bytes::{Buf, BufMut};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::UnaryService;
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status};

use super::jaeger::curl;

/// Responds with 503 to the first request, and to every second one after that, except to those of `/stream`.
pub(super) async fn flaky_backend(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address).await?;
    let requests = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let requests = Arc::clone(&requests);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    if socket.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let is_counted = !head.starts_with(b"GET /stream ");
                let status =
                    if is_counted && requests.fetch_add(1, Relaxed).is_multiple_of(2) { "503 Busy" } else { "200 OK" };
                let response = format!("HTTP/1.1 {status}\r\ncontent-length: 4\r\nconnection: close\r\n\r\ndone");
                drop(socket.write_all(response.as_bytes()).await);
            });
        }
    });
    Ok(())
}

/// Starts a server of the method `/shop.Cart/Get`, whose span is a child of the attempt of the gateway.
pub(super) async fn grpc_backend(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address).await?;
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let service = service_fn(async |request: hyper::Request<hyper::body::Incoming>| {
                    let mut grpc = tonic::server::Grpc::new(BytesCodec);
                    Ok::<_, Infallible>(grpc.unary(Instrumented, request).await)
                });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                drop(server.serve_connection(TokioIo::new(socket), service).await);
            });
        }
    });
    Ok(())
}

/// Calls the method by the gateway at this URL.
pub(super) async fn call(gateway: &'static str) -> Result<()> {
    let channel = Endpoint::from_static(gateway).connect().await?;
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await?;
    let path = http::uri::PathAndQuery::from_static("/shop.Cart/Get");
    let response = grpc.unary(Request::new(b"hello".to_vec()), path, BytesCodec).await?;
    ensure!(response.get_ref() == b"hello", "{response:?}");
    Ok(())
}

/// Responds with the message of the call.
struct Instrumented;

impl UnaryService<Vec<u8>> for Instrumented {
    type Response = Vec<u8>;
    type Future = Ready<Result<Response<Vec<u8>>, Status>>;

    fn call(&mut self, request: Request<Vec<u8>>) -> Self::Future {
        let parent = request.metadata().get("traceparent").and_then(|value| value.to_str().ok());
        let exported = parent.context("no traceparent").and_then(export_span);
        ready(
            exported.map(|()| Response::new(request.into_inner())).map_err(|error| Status::internal(error.to_string())),
        )
    }
}

/// Sends the span of a call to Jaeger.
fn export_span(traceparent: &str) -> Result<()> {
    let parts: Vec<&str> = traceparent.split('-').collect();
    let [_, trace, parent, "01"] = parts[..] else { anyhow::bail!("not recorded: {traceparent}") };
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let (start, end) = (now.to_string(), (now + 1_000).to_string());
    let span = json!({
        "traceId": trace, "spanId": "00c0ffee00c0ffee", "parentSpanId": parent, "name": "shop.Cart/Get", "kind": 2,
        "startTimeUnixNano": start, "endTimeUnixNano": end,
    });
    let resource = json!({"attributes": [{"key": "service.name", "value": {"stringValue": "cart"}}]});
    let message = json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]});
    let url = "http://127.0.0.1:4318/v1/traces";
    curl(&["--fail", "--header", "Content-Type: application/json", "--data", &message.to_string(), url]).map(drop)
}

/// Messages without an encoding.
#[derive(Clone, Copy)]
pub(crate) struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = BytesCodec;
    type Decoder = BytesCodec;

    fn encoder(&mut self) -> BytesCodec {
        BytesCodec
    }

    fn decoder(&mut self) -> BytesCodec {
        BytesCodec
    }
}

impl Encoder for BytesCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&message);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}
