//! The condition that a request is a gRPC call.

use std::fmt;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};

use super::{RoutingRequest, ValueMatch};
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
        is_call(request.headers) && self.method.as_ref().is_none_or(has_method)
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
fn is_call(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let suffix = content_type.and_then(|content_type| content_type.strip_prefix(GRPC));
    suffix.is_some_and(|suffix| matches!(suffix, [] | [b'+' | b';', ..]))
}

/// Whether a request or response is gRPC or gRPC-Web.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(GRPC))
}

const GRPC: &[u8] = b"application/grpc";
