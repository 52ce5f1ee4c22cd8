//! The condition that a request is a gRPC call.

use std::fmt;

use http::HeaderMap;
use http::header::CONTENT_TYPE;

use super::header::ValueMatch;
use super::request::RoutingRequest;
use crate::plugin_api::media_type::grpc_suffix;
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
    grpc_suffix(headers).is_some_and(|suffix| matches!(suffix, [] | [b'+' | b';' | b' ' | b'\t', ..]))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::plugin_api::media_type::is_grpc;

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
