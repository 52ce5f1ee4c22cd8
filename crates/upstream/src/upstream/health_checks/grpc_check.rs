//! gRPC checks: a call of `grpc.health.v1.Health/Check`
//! (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use prost::Message;

use super::checker::{CheckFailure, CheckPass};
use super::http_check::{PRODUCT, absolute};
use super::http_connection::HttpConnection;
use crate::upstream::outcome::GRPC_STATUS;

/// Calls the health service of an endpoint.
pub(super) async fn check(
    connection: &mut HttpConnection,
    request: Request<Full<Bytes>>,
) -> Result<CheckPass, CheckFailure> {
    let response = connection.send(request).await.map_err(|error| CheckFailure::no_response(&error))?;
    if response.status() != StatusCode::OK {
        return Err(CheckFailure::Status(response.status()));
    }
    // A response without messages may have its trailers in its head.
    let (message, code, is_reusable) = match grpc_code(response.headers()) {
        Some(code) => (Bytes::new(), Some(code), false),
        None => read_message(response.into_body()).await?,
    };
    match code.ok_or(CheckFailure::NotGrpc)? {
        OK => {}
        UNIMPLEMENTED => {
            return Ok(CheckPass { warning: Some(NO_HEALTH_SERVICE), ..CheckPass::on_this_connection(is_reusable) });
        }
        code => return Err(CheckFailure::GrpcStatus(code)),
    }
    match serving_status(&message)? {
        SERVING => Ok(CheckPass::on_this_connection(is_reusable)),
        status => Err(CheckFailure::NotServing(status)),
    }
}

/// The call of the service with this name.
pub(super) fn request(
    service: &str,
    authority: &HeaderValue,
    timeout: Duration,
    is_encrypted: bool,
) -> Request<Full<Bytes>> {
    let message = HealthCheckRequest { service: service.to_owned() };
    let mut body = BytesMut::new();
    body.put_u8(NOT_COMPRESSED);
    // A name is shorter than a field of an object, and that than 4 GiB.
    body.put_u32(message.encoded_len() as u32);
    body.put_slice(&message.encode_to_vec());
    let mut request = Request::new(Full::new(body.freeze()));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = absolute(&Uri::from_static(METHOD), authority, is_encrypted);
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(USER_AGENT, PRODUCT);
    // At most eight digits.
    let millis = timeout.as_millis().clamp(1, 99_999_999);
    headers.insert(GRPC_TIMEOUT, HeaderValue::try_from(format!("{millis}m")).expect("digits are a valid value"));
    request
}

/// Reads the message and the trailers. The last value is whether the response was read to its end.
async fn read_message(mut body: Incoming) -> Result<(Bytes, Option<i32>, bool), CheckFailure> {
    let (mut message, mut code) = (BytesMut::new(), None);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| CheckFailure::incomplete(&error))?;
        match frame.into_data() {
            Ok(data) if message.len() + data.len() > MAX_BODY => return Err(CheckFailure::NotGrpc),
            Ok(data) => message.put(data),
            Err(frame) => code = frame.into_trailers().ok().as_ref().and_then(grpc_code),
        }
    }
    Ok((message.freeze(), code, true))
}

/// `grpc-status`.
fn grpc_code(fields: &HeaderMap) -> Option<i32> {
    fields.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// The status in the first message of a body.
fn serving_status(mut body: &[u8]) -> Result<i32, CheckFailure> {
    let prefix = body.split_off(..5).ok_or(CheckFailure::NotGrpc)?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    let message = usize::try_from(length).ok().and_then(|length| body.get(..length));
    match (prefix[0], message) {
        (NOT_COMPRESSED, Some(message)) => {
            HealthCheckResponse::decode(message).map(|response| response.status).map_err(|_| CheckFailure::NotGrpc)
        }
        // Compression was not offered.
        _ => Err(CheckFailure::NotGrpc),
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const METHOD: &str = "/grpc.health.v1.Health/Check";
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const NOT_COMPRESSED: u8 = 0;
const OK: i32 = 0;
const UNIMPLEMENTED: i32 = 12;
const SERVING: i32 = 1;
/// A response is a few bytes long.
const MAX_BODY: usize = 64 * 1024;
const NO_HEALTH_SERVICE: &str =
    "it does not implement grpc.health.v1.Health, so only the connection is checked; add the service, or use type TCP";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_decoded() {
        for (body, expected) in [
            (&b"\0\0\0\0\x02\x08\x01"[..], Some(1)),
            (b"\0\0\0\0\x02\x08\x02", Some(2)),
            // The default value is not encoded.
            (b"\0\0\0\0\0", Some(0)),
            (b"\0\0\0\0\x05\x08\x01\x12\x01a", Some(1)),
            (b"", None),
            (b"\0\0\0\0", None),
            (b"\0\0\0\0\x03\x08\x01", None),
            (b"\x01\0\0\0\x02\x08\x01", None),
            (b"\0\xff\xff\xff\xff\x08\x01", None),
            (b"\0\0\0\0\x02\x0a\xff", None),
        ] {
            assert_eq!(serving_status(body).ok(), expected, "{body:?}");
        }
    }

    #[tokio::test]
    async fn the_service_is_named() {
        let authority = HeaderValue::from_static("web.shop.svc");
        let request = request("shop.Cart", &authority, Duration::from_millis(1500), false);
        assert_eq!(request.uri(), "http://web.shop.svc/grpc.health.v1.Health/Check");
        assert_eq!(request.headers()["grpc-timeout"], "1500m");
        let mut body = request.into_body();
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.data_ref().unwrap(), &b"\0\0\0\0\x0b\x0a\x09shop.Cart"[..]);
    }
}
