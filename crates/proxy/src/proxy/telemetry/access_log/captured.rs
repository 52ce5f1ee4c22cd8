//! What templates read of the heads of a request and its response, copied only if a template names it.

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};

use crate::access_log_syntax::{LineTemplate, LineVariable, SeriesLabel};

/// What the templates in use read of heads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct FieldCapture {
    request: Vec<HeaderName>,
    response: Vec<HeaderName>,
    /// Whether the sizes of heads are read.
    sizes: bool,
    /// Whether names are read that the dialect of the rule has for its upstreams.
    pub(super) upstream_names: bool,
}

/// What was copied of the heads of one request.
#[derive(Debug, Default)]
pub(in crate::proxy) struct CapturedHeads {
    pub(super) request: Vec<(HeaderName, HeaderValue)>,
    pub(super) response: Vec<(HeaderName, HeaderValue)>,
    /// Bytes in the form of HTTP/1.1, whichever version was used.
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
}

impl FieldCapture {
    pub(super) fn add(&mut self, template: &LineTemplate) {
        for variable in template.variables() {
            match variable {
                LineVariable::RequestField(name) => self.request.push(name.clone()),
                LineVariable::ResponseField(name) => self.response.push(name.clone()),
                LineVariable::RequestBytes | LineVariable::ResponseBytes => self.sizes = true,
                LineVariable::UpstreamName
                | LineVariable::AlternativeUpstream
                | LineVariable::Label(
                    SeriesLabel::RouteNamespace
                    | SeriesLabel::RouteName
                    | SeriesLabel::UpstreamService
                    | SeriesLabel::UpstreamPort,
                ) => self.upstream_names = true,
                _ => {}
            }
        }
        for names in [&mut self.request, &mut self.response] {
            names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
            names.dedup();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.request.is_empty() && self.response.is_empty() && !self.sizes
    }

    /// Copies the fields of a request, as the client has sent them.
    pub(super) fn request<B>(&self, request: &Request<B>) -> Box<CapturedHeads> {
        let mut heads = CapturedHeads { request: copied(&self.request, request.headers()), ..CapturedHeads::default() };
        if self.sizes {
            heads.request_bytes = request_head_bytes(request);
        }
        Box::new(heads)
    }

    /// Copies the fields of a response, as the client gets them.
    pub(super) fn response<B>(&self, response: &Response<B>, heads: &mut CapturedHeads) {
        heads.response = copied(&self.response, response.headers());
        if self.sizes {
            heads.response_bytes = response_head_bytes(response);
        }
    }
}

/// The bytes of the head of a request in the form of HTTP/1.1.
pub(in crate::proxy) fn request_head_bytes<B>(request: &Request<B>) -> u64 {
    let target = request.uri().path_and_query().map_or(1, |target| target.as_str().len());
    let line = request.method().as_str().len() + target + "  HTTP/1.1\r\n".len();
    (line + fields_size(request.headers())) as u64
}

/// The bytes of the head of a response in the form of HTTP/1.1.
pub(in crate::proxy) fn response_head_bytes<B>(response: &Response<B>) -> u64 {
    ("HTTP/1.1 200 OK\r\n".len() + fields_size(response.headers())) as u64
}

fn copied(names: &[HeaderName], headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let values = |name| headers.get_all(name).iter().map(move |value| (HeaderName::clone(name), value.clone()));
    names.iter().flat_map(values).collect()
}

fn fields_size(headers: &HeaderMap) -> usize {
    let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum();
    fields + "\r\n".len()
}
