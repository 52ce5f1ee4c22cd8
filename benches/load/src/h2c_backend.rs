//! HTTP/2 without TLS at the backend: the same responses as over HTTP/1.1, and those of gRPC calls.

use std::fmt::Write as _;
use std::io::Cursor;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::backend::{ECHO_HEAD_PATH, response_bytes};
use crate::grpc;
use crate::http2::{OutgoingBody, read_body};
use crate::pattern;

/// The part of the connection preface (RFC 9113, 3.4) that looks like the head of a request.
pub(crate) const PREFACE_HEAD: &str = "PRI * HTTP/2.0\r\n\r\n";

/// Serves a connection of which `received` was already read.
pub(crate) async fn serve(stream: TcpStream, received: Vec<u8>, name: &str) -> Result<()> {
    let (reader, writer) = stream.into_split();
    let stream = tokio::io::join(Cursor::new(received).chain(reader), writer);
    let name: Arc<str> = name.into();
    let service = service_fn(move |request: Request<Incoming>| respond(request, Arc::clone(&name)));
    let mut http = http2::Builder::new(TokioExecutor::new());
    // Responses over HTTP/1.1 have no date either.
    http.auto_date_header(false);
    http.serve_connection(TokioIo::new(stream), service).await?;
    Ok(())
}

async fn respond(request: Request<Incoming>, name: Arc<str>) -> Result<Response<OutgoingBody>> {
    let (head, incoming) = request.into_parts();
    let is_grpc = head.headers.get(CONTENT_TYPE).is_some_and(|content_type| content_type == grpc::CONTENT_TYPE);
    let path = head.uri.path();
    if path == grpc::STREAM_PATH {
        let mut response = Response::new(OutgoingBody::echo(incoming, grpc::success()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(grpc::CONTENT_TYPE));
        return Ok(response);
    }
    let checker = read_body(incoming, is_grpc).await?.checker;
    let mut response = Response::new(if is_grpc {
        OutgoingBody::message(response_bytes(path), Some(grpc::success()))
    } else if path == ECHO_HEAD_PATH {
        OutgoingBody::whole(text_of(&head).into())
    } else {
        OutgoingBody::whole(Bytes::from_static(pattern::body(response_bytes(path))))
    });
    let headers = response.headers_mut();
    if is_grpc {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(grpc::CONTENT_TYPE));
    }
    headers.insert("x-backend", HeaderValue::from_str(&name)?);
    for field in ["x-number", "x-rule"] {
        let value = head.headers.get(field).cloned();
        headers.insert(field, value.unwrap_or(HeaderValue::from_static("")));
    }
    let received = if checker.differs { HeaderValue::from_static("broken") } else { checker.length.into() };
    headers.insert("x-received", received);
    Ok(response)
}

/// The head of a request as HTTP/1.1 would have it, but with the version HTTP/2.0.
fn text_of(head: &Parts) -> String {
    let mut text = format!("{} {} {:?}\r\n", head.method, head.uri.path(), head.version);
    for (name, value) in &head.headers {
        // Writing to a String succeeds.
        write!(text, "{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes())).ok();
    }
    text + "\r\n"
}
