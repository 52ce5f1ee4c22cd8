//! Responses to requests that cannot be parsed: regular error responses, which are counted and logged.

use std::io::Write as _;
use std::rc::Rc;
use std::time::SystemTime;

use bytes::Bytes;
use http::Response;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::client_stream::ClientStream;
use super::deadlines::{LINGER_BYTES, LINGER_TIMEOUT, SHUTDOWN_TIMEOUT};
use super::malformed_input::{MalformedInput, PartialHead, record_malformed};
use crate::forwarding_fields::X_REQUEST_ID;
use crate::http1::InvalidMessage;
use crate::proxy::connection::listener_connections::ConnectionRegistration;
use crate::proxy::http::exchange::activity::ActivityPhase;
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::record::request_error::RequestError;
use crate::proxy::http::steps::error_response::ErrorFormat;
use crate::proxy::http::steps::product_headers;

/// Responds to unparsable input with an error and closes the connection.
pub(in crate::proxy) async fn reject(
    mut stream: ClientStream,
    received: Bytes,
    error: InvalidMessage,
    exchange: Rc<ClientExchange>,
    registration: ConnectionRegistration,
) {
    let partial = PartialHead::parse(&received);
    drop(received);
    let error = match error {
        InvalidMessage::TooLarge => partial.size_error(&exchange.worker().limits),
        InvalidMessage::MajorVersion => RequestError::UnsupportedVersion,
        _ => RequestError::MalformedRequest,
    };
    let details = error.details();
    let id = exchange.http.request_ids.next();
    let mut response = ErrorFormat::for_http1(partial.method.as_ref(), &partial.headers).render_error(&details, &id);
    response.headers_mut().insert(X_REQUEST_ID, id.clone());
    product_headers::set_rejection_headers(&exchange, &id, response.headers_mut());
    let bytes = serialize_http1(&response);
    let input = MalformedInput {
        head: partial,
        status: response.status(),
        reason: details.reason,
        id: Some(id),
        bytes_out: response.body().len() as u64,
    };
    record_malformed(&exchange, input);
    exchange.activity.enter_phase(ActivityPhase::SendingResponse, Instant::now());
    let send = async {
        stream.write_all(&bytes).await?;
        stream.shutdown().await
    };
    // The connection is closed after this time, even if the client has not read the response.
    let sent = timeout(SHUTDOWN_TIMEOUT, send).await;
    drop(registration);
    if let Ok(Ok(())) = sent {
        lingering_close(stream).await;
    }
}

/// Reads and discards what the client still sends, for a limited time. Closing a socket with unread bytes sends a
/// reset, which may discard a response that the client has not read yet.
pub(in crate::proxy) async fn lingering_close(mut stream: ClientStream) {
    let mut remaining = LINGER_BYTES;
    let mut buffer = vec![0; 4096];
    let drain = async {
        while let Ok(read @ 1..) = stream.read(&mut buffer).await
            && read < remaining
        {
            remaining -= read;
        }
    };
    // A client that still sends after this time does not read the response.
    drop(timeout(LINGER_TIMEOUT, drain).await);
}

/// Serializes a response as HTTP/1.1 with `Connection: close`.
fn serialize_http1(response: &Response<Bytes>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512);
    const CANNOT_FAIL: &str = "writing to a Vec cannot fail";
    write!(bytes, "HTTP/1.1 {}\r\n", response.status()).expect(CANNOT_FAIL);
    for (name, value) in response.headers() {
        write!(bytes, "{name}: ").expect(CANNOT_FAIL);
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    if !response.headers().contains_key(CONTENT_LENGTH) {
        write!(bytes, "{CONTENT_LENGTH}: {}\r\n", response.body().len()).expect(CANNOT_FAIL);
    }
    let date = httpdate::fmt_http_date(SystemTime::now());
    write!(bytes, "{CONNECTION}: close\r\n{DATE}: {date}\r\n\r\n").expect(CANNOT_FAIL);
    bytes.extend_from_slice(response.body());
    bytes
}
