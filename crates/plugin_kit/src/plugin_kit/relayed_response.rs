//! The response of a server that a plugin has asked in place of the backend, as the reply to the client.

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, StatusCode};

use crate::plugin_api::remote_request::RemoteResponse;
use crate::plugin_api::reply::{Reply, ReplyBody};
use crate::plugin_api::streamed_response::StreamedResponse;

/// Fields about a connection or the framing of a message (RFC 9110, section 7.6.1).
static OF_CONNECTION: [HeaderName; 8] =
    [CONNECTION, CONTENT_LENGTH, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// Whether a field is about a connection or the framing of a message, so that it is not relayed.
pub fn is_of_connection(name: &HeaderName) -> bool {
    OF_CONNECTION.contains(name) || name == "keep-alive" || name == "proxy-connection"
}

/// Removes the fields that are about the connection, also those that `Connection` names.
pub fn remove_fields_of_connection(headers: &mut HeaderMap) {
    let mut named = Vec::new();
    for value in headers.get_all(CONNECTION) {
        let names = value.to_str().unwrap_or_default().split(',');
        named.extend(names.filter_map(|name| name.trim().parse::<HeaderName>().ok()));
    }
    for name in named.iter().chain(&OF_CONNECTION) {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

/// The reply with the status, the fields and the body of the response.
pub fn relay(status: StatusCode, response: RemoteResponse) -> Box<Reply> {
    let RemoteResponse { mut headers, body, .. } = response;
    remove_fields_of_connection(&mut headers);
    collected_reply(status, headers, body)
}

/// The reply with the status and the fields of the response, whose body streams.
pub fn relay_stream(response: StreamedResponse) -> Box<Reply> {
    let StreamedResponse { status, mut headers, body } = response;
    // The length of the body is known with it. That of a response to HEAD is not, and the field remains in it.
    let length = headers.get(CONTENT_LENGTH).cloned();
    remove_fields_of_connection(&mut headers);
    headers.extend(length.map(|length| (CONTENT_LENGTH, length)));
    reply_with(status, headers, body.into_reply_body())
}

/// A reply in place of a response of the backend. It is counted and logged like that one.
pub fn reply_of_backend(status: StatusCode, headers: HeaderMap, body: Bytes) -> Box<Reply> {
    reply_with(status, headers, ReplyBody::Raw(body))
}

/// Like [`reply_of_backend`], with a body that counts as one in memory until the client has it.
pub fn collected_reply(status: StatusCode, headers: HeaderMap, body: Bytes) -> Box<Reply> {
    reply_with(status, headers, ReplyBody::Collected(body))
}

fn reply_with(status: StatusCode, headers: HeaderMap, body: ReplyBody) -> Box<Reply> {
    // It would end no request: the client could take the next response for that of this one.
    if status.is_informational() {
        let message = "An invalid response was received from the upstream server";
        return Reply::negotiated(StatusCode::BAD_GATEWAY, message, "invalid_response");
    }
    Box::new(Reply { status, headers, body, reason: Reply::NO_REASON })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin_api::scripted_server::response;

    #[test]
    fn informational_responses_are_errors() {
        for status in [101, 103] {
            let streamed = StreamedResponse::from(response(status, "upgrade: x", ""));
            let relayed = relay(StatusCode::from_u16(status).unwrap(), response(status, "upgrade: x", ""));
            for reply in [relayed, relay_stream(streamed)] {
                assert_eq!((reply.status.as_u16(), reply.reason), (502, "invalid_response"));
                assert!(reply.headers.is_empty());
            }
        }
    }

    #[test]
    fn fields_of_the_connection_are_not_relayed() {
        let headers = "connection: x-hop, close\nx-hop: 1\nkeep-alive: 5\ncontent-length: 9\nx-a: 1\nx-a: 2";
        let reply = relay(StatusCode::OK, response(200, headers, "ok"));
        let names: Vec<_> =
            reply.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(names, [("x-a", "1"), ("x-a", "2")]);
    }
}
