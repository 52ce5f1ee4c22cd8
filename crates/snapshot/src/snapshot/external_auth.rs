//! The external authorization filter: a server allows or denies each request before it is forwarded.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::plugin_api::AssertedFields;
use crate::upstream::Upstream;

/// The authorization server, what it gets of a request, and what it may change.
#[derive(Clone, Debug, PartialEq)]
pub struct ExternalAuthFilter {
    /// Distinguishes servers, and what they get, in the keys of stored responses.
    pub name: Arc<str>,
    pub upstream: Arc<Upstream>,
    pub protocol: AuthorizationProtocol,
    /// The maximum size of a body, which is sent to the server; a larger one is rejected. With 0, the server gets no
    /// body, and bodies have no limit.
    pub max_body: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorizationProtocol {
    Http(HttpAuthorization),
    Grpc(GrpcAuthorization),
}

/// A request to the server for each request: status 200 allows, any other response goes to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAuthorization {
    /// Prepended to the path of the request. Empty, or begins with a slash and ends without one.
    pub path_prefix: Box<str>,
    /// The headers of the request that are sent, apart from Host and Content-Length.
    pub request_headers: Box<[HeaderName]>,
    /// The headers of the response that replace those of the request, which no client may send. `None`: all that can be
    /// part of a request.
    pub response_headers: Option<AssertedFields>,
}

/// Calls of Envoy's `ext_authz`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcAuthorization {
    /// The authority of the calls.
    pub authority: HeaderValue,
    /// The headers of the request that are sent. `None`: all.
    pub request_headers: Option<Box<[HeaderName]>>,
}

impl ExternalAuthFilter {
    /// The headers about which the server decides for each request. `None` if only its responses name them.
    pub(crate) fn asserted_fields(&self) -> Option<&AssertedFields> {
        match &self.protocol {
            AuthorizationProtocol::Http(settings) => settings.response_headers.as_ref(),
            AuthorizationProtocol::Grpc(_) => None,
        }
    }

    /// Whether the server gets the header because the configuration lists it.
    pub fn reads(&self, name: &HeaderName) -> bool {
        match &self.protocol {
            AuthorizationProtocol::Http(settings) => settings.request_headers.contains(name),
            AuthorizationProtocol::Grpc(settings) => {
                settings.request_headers.as_ref().is_some_and(|listed| listed.contains(name))
            }
        }
    }

    /// Text for dumps, without the upstream.
    pub(super) fn describe(&self) -> Vec<String> {
        let names = |names: &[HeaderName]| names.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
        let mut lines = match &self.protocol {
            AuthorizationProtocol::Http(HttpAuthorization { path_prefix, request_headers, response_headers }) => {
                let mut lines = vec!["HTTP".to_owned()];
                lines.extend((!path_prefix.is_empty()).then(|| format!("path {path_prefix}")));
                lines.push(format!("request headers {}", names(request_headers)));
                lines.push(match response_headers {
                    Some(listed) => format!("response headers {}", names(listed.names())),
                    None => "all response headers".to_owned(),
                });
                lines
            }
            AuthorizationProtocol::Grpc(GrpcAuthorization { authority: _, request_headers }) => {
                let headers = match request_headers {
                    Some(listed) => format!("request headers {}", names(listed)),
                    None => "all request headers".to_owned(),
                };
                vec!["gRPC".to_owned(), headers]
            }
        };
        lines.extend((self.max_body > 0).then(|| format!("body up to {} bytes", self.max_body)));
        lines
    }
}
