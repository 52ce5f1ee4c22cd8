//! HTTP/1 framing: hyper reads the requests that the framing guard accepts as a strict server does, with the same
//! heads, bodies and ends. What the guard rejects may have any meaning.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, ReadBuf};

use crate::http1::fuzzing::strict_reader::{self, StrictRequest};
use crate::proxy::ProxyLimits;
use crate::proxy::http::chunk_joining::check_and_join;
use crate::proxy::http::guard::{FramingGuard, GuardRejection};
use crate::proxy::http::http_worker::http1_builder;

/// The input is what a client sends on a connection.
pub(crate) fn requests(input: &[u8]) {
    let rejection = guard(&[input]);
    let step = 1 + input.len() % 11;
    for step in [1, step] {
        let in_parts = guard(&input.chunks(step).collect::<Vec<_>>());
        assert_eq!(in_parts, rejection, "the guard decides the same if {step} bytes arrive at a time");
    }
    let strict = strict_reader::read(input);
    // Either at once or in small parts, so that both are tested at the speed of one.
    let seen = read_by_hyper(input, if input.len().is_multiple_of(2) { input.len().max(1) } else { step });
    for (index, seen) in seen.iter().enumerate() {
        let is_rejected = rejection.is_some_and(|rejection| rejection.first_request <= index as u64 + 1);
        if !is_rejected {
            let strict = strict.get(index);
            seen.expect_same(strict.unwrap_or_else(|| panic!("only hyper reads request {}: {seen:?}", index + 1)));
        }
    }
}

/// The input is a chunked body, followed by another request.
pub(crate) fn chunked_body(input: &[u8]) {
    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n";
    requests(&[HEAD, input, NEXT].concat());
}

fn guard(parts: &[&[u8]]) -> Option<GuardRejection> {
    let mut guard = FramingGuard::default();
    let mut rejections = parts.iter().filter_map(|part| guard.read(part, |_| {}));
    let first = rejections.next();
    assert_eq!(rejections.next(), None, "at most one rejection");
    first
}

/// A request that hyper has read.
#[derive(Debug)]
struct SeenRequest {
    method: String,
    uri: Uri,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
    trailers: Vec<(Vec<u8>, Vec<u8>)>,
    is_complete: bool,
}

impl SeenRequest {
    fn expect_same(&self, strict: &StrictRequest) {
        assert_eq!(self.method.as_bytes(), strict.method, "method");
        assert_eq!(self.fields, strict.fields, "fields");
        let target = std::str::from_utf8(&strict.target).expect("hyper accepts targets of ASCII characters only");
        if target.starts_with('/') {
            assert_eq!(self.uri.path_and_query().map(|path| path.as_str()), Some(target), "target");
        } else {
            let query = target.split_once('?').map(|(_, query)| query);
            assert_eq!(self.uri.query(), query, "query of the target {target}");
            let authority = self.uri.authority().map_or("", |authority| authority.as_str());
            assert!(target.contains(authority), "the target {target} has the authority {authority}");
        }
        if self.is_complete {
            assert!(strict.is_complete, "only hyper finds the end of the body: {self:?} {strict:?}");
            assert_eq!(self.body, strict.body, "body");
            assert_eq!(self.trailers, strict.trailers, "trailers");
        } else {
            // hyper may stop in the middle of a chunk, and passes on what it has decoded so far.
            let shorter = self.body.len().min(strict.body.len());
            assert_eq!(self.body[..shorter], strict.body[..shorter], "beginning of the body");
        }
    }
}

/// The requests that hyper reads if the client sends `step` bytes at a time and then closes the connection.
fn read_by_hyper(input: &[u8], step: usize) -> Vec<SeenRequest> {
    let requests = RefCell::new(Vec::new());
    let seen_requests = &requests;
    let service = service_fn(move |request: Request<Incoming>| async move {
        let seen = read_request(request).await;
        seen_requests.borrow_mut().push(seen);
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let parts = Parts { rest: input, step, guard: FramingGuard::default() };
    let io = TokioIo::new(tokio::io::join(parts, tokio::io::sink()));
    let connection = http1_builder(&ProxyLimits::default()).serve_connection(io, service);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without I/O needs nothing");
    // The result is an error if hyper rejects a request.
    drop(runtime.block_on(connection));
    requests.into_inner()
}

async fn read_request(request: Request<Incoming>) -> SeenRequest {
    let (head, mut body) = request.into_parts();
    let mut seen = SeenRequest {
        method: head.method.to_string(),
        uri: head.uri,
        fields: sorted(&head.headers),
        body: Vec::new(),
        trailers: Vec::new(),
        is_complete: true,
    };
    while let Some(frame) = body.frame().await {
        match frame.map(|frame| frame.into_data()) {
            Ok(Ok(data)) => seen.body.extend_from_slice(&data),
            Ok(Err(frame)) => seen.trailers = frame.trailers_ref().map(sorted).unwrap_or_default(),
            Err(_) => {
                seen.is_complete = false;
                break;
            }
        }
    }
    seen
}

fn sorted(fields: &HeaderMap) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pair = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec())
    };
    let mut fields: Vec<_> = fields.iter().map(pair).collect();
    fields.sort();
    fields
}

/// Bytes that arrive in parts, with small chunks joined.
struct Parts<'i> {
    rest: &'i [u8],
    step: usize,
    guard: FramingGuard,
}

impl AsyncRead for Parts<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let length = self.step.min(self.rest.len()).min(buffer.remaining());
        let (part, rest) = self.rest.split_at(length);
        self.rest = rest;
        let before = buffer.filled().len();
        buffer.put_slice(part);
        let (length, _) = check_and_join(&mut self.guard, &mut buffer.filled_mut()[before..]);
        buffer.set_filled(before + length);
        Poll::Ready(Ok(()))
    }
}
