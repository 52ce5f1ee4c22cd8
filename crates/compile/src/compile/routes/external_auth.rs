//! Translates the ExternalAuth filter of the API to that of the snapshot.

use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST};
use http::{HeaderName, HeaderValue};

use super::filter_parts::{FilterBackend, ResolveBackend};
use crate::api::gateway::{ExternalAuth, GrpcAuth, HttpAuth};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::field_names::is_framing;
use crate::snapshot::external_auth::{AuthorizationProtocol, ExternalAuthFilter, GrpcAuthorization, HttpAuthorization};
use crate::upstream::UpstreamKey;

/// `field` is the path of the filter. Invalid values are reported in `unsupported`, and the rule is then not served.
/// `None` if there is no server to send requests to, so that the rule or backend must not be served.
pub(in crate::compile) fn translate(
    raw: &ExternalAuth,
    field: &str,
    resolve: ResolveBackend<'_>,
    unsupported: &mut Vec<Diagnostic>,
) -> Option<ExternalAuthFilter> {
    let mut translator = Translator { field: format!("{field}.externalAuth"), unsupported };
    let backend_field = format!("{}.backendRef", translator.field);
    let backend = match &*raw.protocol {
        "HTTP" => FilterBackend::HttpAuthorization,
        "GRPC" => FilterBackend::GrpcAuthorization,
        other => {
            translator.reject("protocol", format!("protocol {other} is not served"), "use HTTP or GRPC");
            return None;
        }
    };
    // The lists are read before the reference is resolved, so that all problems are reported together.
    let http = (backend == FilterBackend::HttpAuthorization).then(|| translator.http(raw.http.as_ref()));
    let request_headers = translator.listed_for_grpc(raw.grpc.as_ref());
    let upstream = resolve(&raw.backend_ref, backend, &backend_field)?;
    let protocol = match http {
        Some(http) => AuthorizationProtocol::Http(http),
        None => {
            AuthorizationProtocol::Grpc(GrpcAuthorization { authority: authority(&upstream.key)?, request_headers })
        }
    };
    let max_size = raw.forward_body.as_ref().and_then(|body| body.max_size).unwrap_or(0);
    let max_body = usize::try_from(max_size).unwrap_or(0);
    let UpstreamKey { namespace, service, port, .. } = &upstream.key;
    let name = format!("{namespace}/{service}:{port} {max_body} {protocol:?}").into();
    Some(ExternalAuthFilter { name, upstream, protocol, max_body })
}

/// The authority of calls to a Service. The names of a Service are those of DNS, so they are part of a header value.
fn authority(upstream: &UpstreamKey) -> Option<HeaderValue> {
    let UpstreamKey { service, namespace, port, .. } = upstream;
    HeaderValue::try_from(format!("{service}.{namespace}.svc:{port}")).ok()
}

/// What happens with the headers in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeaderUse {
    /// The server gets them.
    Sent,
    /// The response of the server replaces them.
    Copied,
}

/// Reads the fields of one filter. Its methods take paths of fields within the filter.
struct Translator<'a> {
    /// The path of the filter.
    field: String,
    unsupported: &'a mut Vec<Diagnostic>,
}

impl Translator<'_> {
    fn reject(&mut self, subfield: &str, message: String, remedy: &str) {
        self.unsupported.push(Diagnostic::error(format!("{}.{subfield}", self.field), message, remedy));
    }

    fn http(&mut self, raw: Option<&HttpAuth>) -> HttpAuthorization {
        let path_prefix = raw.and_then(|http| http.path.as_deref()).and_then(|path| self.path_prefix(path));
        let mut request_headers = vec![AUTHORIZATION];
        let sent = raw.map_or(&[][..], |http| &http.allowed_headers);
        for name in self.header_names("http.allowedHeaders", sent, HeaderUse::Sent) {
            // Host and Content-Length are sent in any case, with values of their own.
            if name != HOST && name != CONTENT_LENGTH && !request_headers.contains(&name) {
                request_headers.push(name);
            }
        }
        let listed = raw.map_or(&[][..], |http| &http.allowed_response_headers);
        let response_headers = self.header_names("http.allowedResponseHeaders", listed, HeaderUse::Copied);
        HttpAuthorization {
            path_prefix: path_prefix.unwrap_or_default().into(),
            request_headers: request_headers.into(),
            response_headers: (!listed.is_empty()).then(|| response_headers.iter().collect()),
        }
    }

    /// The names that a call contains. `None` for all.
    fn listed_for_grpc(&mut self, raw: Option<&GrpcAuth>) -> Option<Box<[HeaderName]>> {
        let listed = raw.map_or(&[][..], |grpc| &grpc.allowed_headers);
        let names = self.header_names("grpc.allowedHeaders", listed, HeaderUse::Sent);
        (!listed.is_empty()).then(|| names.into())
    }

    /// Parses a list of header names, without duplicates.
    fn header_names(&mut self, subfield: &str, listed: &[String], header_use: HeaderUse) -> Vec<HeaderName> {
        let mut names = Vec::new();
        for (index, name) in listed.iter().enumerate() {
            let subfield = format!("{subfield}[{index}]");
            match HeaderName::try_from(name) {
                // A valid name, but certainly meant as a pattern.
                Ok(_) if name.contains('*') => {
                    let message = format!("{name:?} is a pattern, and the list has the names of headers");
                    self.reject(&subfield, message, "write the whole name");
                }
                Ok(HOST | CONTENT_LENGTH) if header_use == HeaderUse::Copied => {
                    let message = format!("{name} of a response cannot replace that of the request");
                    self.reject(&subfield, message, "remove the entry");
                }
                // Content-Length is sent with a value of its own.
                Ok(parsed) if is_framing(&parsed) && parsed != CONTENT_LENGTH => {
                    self.reject(&subfield, format!("the proxy sets {name} itself"), "remove the entry");
                }
                Ok(parsed) if names.contains(&parsed) => {}
                Ok(parsed) => names.push(parsed),
                Err(_) => {
                    let message = format!("{name:?} is not a header name");
                    self.reject(&subfield, message, "use letters, digits and hyphens");
                }
            }
        }
        names
    }

    /// The prefix without a slash at its end. `/` and an empty path add nothing.
    fn path_prefix(&mut self, path: &str) -> Option<String> {
        let prefix = path.trim_end_matches('/');
        let is_segment_valid = |segment: &str| !segment.is_empty() && !is_dot_segment(segment);
        let problem = match prefix.strip_prefix('/') {
            None if prefix.is_empty() => return None,
            None => format!("{path:?} does not begin with a slash"),
            Some(rest) if !rest.split('/').all(is_segment_valid) => {
                format!("{path:?} has an empty segment, \".\" or \"..\"")
            }
            Some(_) if HeaderValue::from_str(prefix).is_err() || prefix.contains(['?', '#', ' ']) => {
                format!("{path:?} has characters that are not part of a path")
            }
            Some(_) => return Some(prefix.to_owned()),
        };
        self.reject("http.path", problem, "write a path such as /authorize");
        None
    }
}

/// Whether a server may read the segment as `.` or `..`.
fn is_dot_segment(segment: &str) -> bool {
    matches!(&*segment.to_ascii_lowercase().replace("%2e", "."), "." | "..")
}
