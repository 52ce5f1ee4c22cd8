//! The content types of gRPC-Web.

use http::{HeaderMap, HeaderValue};

use crate::plugin_api::media_type::MediaType;

/// How the messages of a call are encoded, in both directions.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WebFormat {
    /// The body is in base64.
    pub(super) is_text: bool,
    /// Each message is in a frame. Otherwise, the body is one message.
    pub(super) is_framed: bool,
    pub(super) codec: Codec,
    pub(super) media_type: HeaderValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Proto,
    Json,
}

impl WebFormat {
    /// `None` if the request is not one of gRPC-Web.
    pub(super) fn of(headers: &HeaderMap) -> Option<WebFormat> {
        let media_type = MediaType::of(headers)?.essence;
        let (is_text, is_framed, codec, name) = match &*media_type {
            "application/grpc-web" => (false, true, Codec::Proto, "application/grpc-web"),
            "application/grpc-web+proto" => (false, true, Codec::Proto, "application/grpc-web+proto"),
            "application/grpc-web+json" => (false, true, Codec::Json, "application/grpc-web+json"),
            "application/grpc-web-text" => (true, true, Codec::Proto, "application/grpc-web-text"),
            "application/grpc-web-text+proto" => (true, true, Codec::Proto, "application/grpc-web-text+proto"),
            "application/grpc-web-text+json" => (true, true, Codec::Json, "application/grpc-web-text+json"),
            "application/json" => (false, false, Codec::Json, "application/json"),
            _ => return None,
        };
        Some(WebFormat { is_text, is_framed, codec, media_type: HeaderValue::from_static(name) })
    }

    /// Whether the body of the request differs from that of the call.
    pub(super) fn changes_requests(&self) -> bool {
        self.is_text || self.codec == Codec::Json
    }
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_TYPE;

    use super::*;

    #[test]
    fn content_types_are_recognized() {
        for (value, expected) in [
            ("application/grpc-web", Some((false, true, Codec::Proto))),
            ("Application/GRPC-Web+Proto; charset=utf-8", Some((false, true, Codec::Proto))),
            ("application/grpc-web-text", Some((true, true, Codec::Proto))),
            ("application/grpc-web-text+json", Some((true, true, Codec::Json))),
            ("application/json;charset=utf-8", Some((false, false, Codec::Json))),
            ("application/grpc", None),
            ("application/grpc-web+thrift", None),
            ("application/grpc-web-textual", None),
            ("text/plain", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]);
            let found = WebFormat::of(&headers).map(|format| (format.is_text, format.is_framed, format.codec));
            assert_eq!(found, expected, "{value}");
        }
        assert_eq!(WebFormat::of(&HeaderMap::new()), None);
    }
}
