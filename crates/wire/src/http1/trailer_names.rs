//! Which fields may be trailers at all, in every version of HTTP.
//!
//! RFC 9110, section 6.5.1 excludes fields that a recipient needs before the body: about the framing and the encoding
//! of the body, the route, conditions, credentials, and the control of caches and retries. Fields of the connection
//! (section 7.6.1) are about no message, and are malformed in HTTP/2. The number of hops is no trailer, because
//! recipients may merge trailers into the header.

use http::HeaderName;
use http::header::{
    AGE, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    COOKIE, DATE, EXPECT, EXPIRES, HOST, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
    LOCATION, MAX_FORWARDS, PRAGMA, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE, RETRY_AFTER, SET_COOKIE, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE, VARY, WWW_AUTHENTICATE,
};

use crate::hop_count::HopCount;

/// Whether the field may be a trailer.
pub fn is_permitted_trailer(name: &HeaderName) -> bool {
    !FORBIDDEN.contains(name) && !HopCount::is_field(name)
}

static FORBIDDEN: [HeaderName; 34] = [
    AGE,
    AUTHORIZATION,
    CACHE_CONTROL,
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    COOKIE,
    DATE,
    EXPECT,
    EXPIRES,
    HOST,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    HeaderName::from_static("keep-alive"),
    LOCATION,
    MAX_FORWARDS,
    PRAGMA,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    RANGE,
    RETRY_AFTER,
    SET_COOKIE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    VARY,
    WWW_AUTHENTICATE,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_about_the_connection_and_the_whole_message_are_no_trailers() {
        let forbidden = [
            "connection keep-alive proxy-connection te transfer-encoding upgrade",
            "content-length content-encoding content-range content-type trailer host max-forwards expect range",
            "if-match if-none-match if-modified-since if-unmodified-since if-range",
            "authorization proxy-authorization www-authenticate proxy-authenticate cookie set-cookie",
            "age cache-control date expires location pragma retry-after vary",
        ];
        for name in forbidden.iter().flat_map(|names| names.split(' ')) {
            assert!(!is_permitted_trailer(&name.parse().unwrap()), "{name}");
        }
        for name in
            ["grpc-status", "grpc-message", "grpc-status-details-bin", "digest", "etag", "server-timing", "x-sum"]
        {
            assert!(is_permitted_trailer(&name.parse().unwrap()), "{name}");
        }
    }
}
