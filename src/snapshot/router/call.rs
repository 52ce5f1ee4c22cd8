//! The condition that a request is a gRPC call.

use std::fmt;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

use super::header::ValueMatch;
use super::request::RoutingRequest;
use crate::snapshot::regex_steps::RegexInput;

/// Matches gRPC calls only, and with a method only those of that method, whatever their service. A service is a
/// condition on the path.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallMatch {
    pub method: Option<ValueMatch<Box<str>>>,
}

impl CallMatch {
    pub(super) fn matches(&self, request: &RoutingRequest<'_>) -> bool {
        let has_method = |method: &ValueMatch<Box<str>>| {
            // `/package.Service/Method`
            let parts = request.path.strip_prefix('/').and_then(|path| path.split_once('/'));
            parts.is_some_and(|(_, called)| match method {
                ValueMatch::Exact(method) => **method == *called,
                ValueMatch::Regex(regex) => {
                    request.regex_steps.admit(regex.states(), called.len(), RegexInput::Target)
                        && regex.is_match(called.as_bytes())
                }
            })
        };
        let is_forwarded_as_call = is_call(request.headers) && !request.is_removed_by_connection(&CONTENT_TYPE);
        is_forwarded_as_call && self.method.as_ref().is_none_or(has_method)
    }

    /// A longer method takes precedence, and any call over a match for all requests.
    pub(super) fn precedence(call: Option<&CallMatch>) -> usize {
        let length = |method: &ValueMatch<Box<str>>| match method {
            ValueMatch::Exact(method) => method.chars().count(),
            ValueMatch::Regex(regex) => regex.as_str().chars().count(),
        };
        call.map_or(0, |call| 1 + call.method.as_ref().map_or(0, length))
    }
}

impl fmt::Display for CallMatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.method {
            None => formatter.write_str("gRPC"),
            Some(ValueMatch::Exact(method)) => write!(formatter, "gRPC method {method}"),
            Some(ValueMatch::Regex(regex)) => write!(formatter, "gRPC method ~ {}", regex.as_str()),
        }
    }
}

/// Whether a request is a gRPC call, whose content type may name a codec: `application/grpc+proto`. gRPC-Web, which
/// browsers use, is another protocol.
pub fn is_call(headers: &HeaderMap) -> bool {
    subtype_suffix(headers).is_some_and(|suffix| matches!(suffix, [] | [b'+' | b';' | b' ' | b'\t', ..]))
}

/// Whether a request or response is gRPC or gRPC-Web.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    subtype_suffix(headers).is_some()
}

/// What follows `application/grpc` in the content type. Media types are compared without case (RFC 9110, section
/// 8.3.1).
fn subtype_suffix(headers: &HeaderMap) -> Option<&[u8]> {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes)?;
    let (media_type, suffix) = content_type.split_at_checked(GRPC.len())?;
    media_type.eq_ignore_ascii_case(GRPC).then_some(suffix)
}

const GRPC: &[u8] = b"application/grpc";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_type_makes_a_call() {
        for (content_type, expected) in [
            ("application/grpc", (true, true)),
            ("Application/GRPC", (true, true)),
            ("APPLICATION/grpc+Proto", (true, true)),
            ("application/Grpc; charset=utf-8", (true, true)),
            ("application/grpc ;a=b", (true, true)),
            ("application/grpc-web", (false, true)),
            ("Application/GRPC-Web+proto", (false, true)),
            ("application/grpc-web-text", (false, true)),
            ("application/grp", (false, false)),
            ("text/application/grpc", (false, false)),
            ("application/json", (false, false)),
            ("", (false, false)),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
            assert_eq!((is_call(&headers), is_grpc(&headers)), expected, "{content_type}");
        }
        assert!(!is_call(&HeaderMap::new()) && !is_grpc(&HeaderMap::new()));
    }
}
