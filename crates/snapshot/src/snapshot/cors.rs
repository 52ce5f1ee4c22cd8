//! The CORS filter of the Gateway API: which origins are allowed, and the response headers for them.
//!
//! Values that do not depend on the request are computed when the filter is compiled.

use std::fmt;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// A CORS filter, fully parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsFilter {
    pub origins: AllowedOrigins,
    pub credentials: bool,
    /// The methods that requests may use.
    pub methods: CorsList,
    /// The headers that requests may contain.
    pub headers: CorsList,
    /// The response headers that scripts may read.
    pub expose: CorsList,
    /// The value of `Access-Control-Max-Age`, in seconds.
    pub max_age: HeaderValue,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigins {
    Any,
    Listed(Box<[OriginPattern]>),
}

/// A list of methods or header names, or a wildcard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsList {
    Empty,
    Any,
    /// Separated by commas.
    Names(HeaderValue),
}

/// One origin, or a pattern with a wildcard at the start of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPattern {
    https: bool,
    host: HostPart,
    port: u16,
}

/// The host of an origin, in lower case because hosts compare case-insensitively.
#[derive(Clone, Debug, PartialEq, Eq)]
enum HostPart {
    Exact(Box<str>),
    /// The suffix after the wildcard: empty for any host, otherwise with its leading dot. The wildcard stands for at
    /// least one character, including dots.
    EndsWith(Box<str>),
}

impl OriginPattern {
    /// Parses `https://a.example`, `http://*.example:8080`, `https://*`. `None` for anything else.
    pub fn parse(text: &str) -> Option<OriginPattern> {
        let (https, host, port) = split_origin(text)?;
        let host = host.to_ascii_lowercase();
        let host = match host.strip_prefix('*') {
            Some(rest) if rest.contains('*') || !(rest.is_empty() || rest.starts_with('.')) => return None,
            Some(rest) => HostPart::EndsWith(rest.into()),
            None if host.is_empty() || host.contains('*') => return None,
            None => HostPart::Exact(host.into()),
        };
        Some(OriginPattern { https, host, port })
    }

    fn matches(&self, https: bool, host: &str, port: u16) -> bool {
        self.https == https
            && self.port == port
            && match &self.host {
                HostPart::Exact(exact) => host.eq_ignore_ascii_case(exact),
                HostPart::EndsWith(suffix) => host
                    .len()
                    .checked_sub(suffix.len())
                    .is_some_and(|start| start > 0 && host.as_bytes()[start..].eq_ignore_ascii_case(suffix.as_bytes())),
            }
    }
}

/// Whether the scheme of an origin is HTTPS, its host, and its port or the default port of the scheme. `None` if the
/// text is not an `http` or `https` origin.
fn split_origin(origin: &str) -> Option<(bool, &str, u16)> {
    let (scheme, rest) = origin.split_once("://")?;
    let https = scheme.eq_ignore_ascii_case("https");
    if !https && !scheme.eq_ignore_ascii_case("http") || rest.contains(['/', '@', '?', '#']) {
        return None;
    }
    // IPv6 addresses are in brackets, so a colon inside them does not start the port.
    match rest.rfind(':').filter(|colon| !rest[*colon..].contains(']')) {
        Some(colon) => Some((https, &rest[..colon], rest[colon + 1..].parse().ok()?)),
        None => Some((https, rest, if https { 443 } else { 80 })),
    }
}

impl CorsList {
    /// A single `*` is [`CorsList::Any`]. `None` if a name is not allowed in a header value.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<CorsList> {
        let names: Vec<_> = names.into_iter().collect();
        match names[..] {
            [] => Some(CorsList::Empty),
            ["*"] => Some(CorsList::Any),
            _ => HeaderValue::try_from(names.join(", ")).ok().map(CorsList::Names),
        }
    }
}

/// The CORS headers of one response. They replace all CORS headers of the upstream's response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorsHeaders {
    fields: Vec<(HeaderName, HeaderValue)>,
    /// Whether `Access-Control-Expose-Headers` lists every header of the response. With credentials, browsers take `*`
    /// for a header name.
    expose_all: bool,
}

/// Whether this is a CORS preflight. Any other OPTIONS request is treated as an actual request.
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS && headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

impl CorsFilter {
    /// The headers of a preflight response. Empty if the origin is not allowed; the browser then blocks the request.
    pub fn preflight(&self, request: &HeaderMap) -> CorsHeaders {
        let mut cors_headers = self.headers_for_origin(request);
        if cors_headers.fields.is_empty() {
            return cors_headers;
        }
        // Browsers allow GET, HEAD and POST, which are CORS-safelisted, even if the list does not contain them.
        let methods = self.methods.allowed_in_preflight(request.get(ACCESS_CONTROL_REQUEST_METHOD));
        let headers = self.headers.allowed_in_preflight(request.get(ACCESS_CONTROL_REQUEST_HEADERS));
        cors_headers.fields.extend(methods.map(|methods| (ACCESS_CONTROL_ALLOW_METHODS, methods)));
        cors_headers.fields.extend(headers.map(|headers| (ACCESS_CONTROL_ALLOW_HEADERS, headers)));
        cors_headers.fields.push((ACCESS_CONTROL_MAX_AGE, self.max_age.clone()));
        // The preflight response has no other headers to expose.
        cors_headers.expose_all = false;
        cors_headers
    }

    /// The headers of the response to a request that is not a preflight.
    pub fn actual_request(&self, request: &HeaderMap) -> CorsHeaders {
        self.headers_for_origin(request)
    }

    fn headers_for_origin(&self, request: &HeaderMap) -> CorsHeaders {
        let mut cors_headers = CorsHeaders::default();
        let Some(origin) = request.get(ORIGIN).filter(|origin| self.allows(origin)) else { return cors_headers };
        // The origin is valid with and without credentials; browsers reject `*` with credentials.
        cors_headers.fields.push((ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()));
        if self.credentials {
            cors_headers.fields.push((ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")));
        }
        match &self.expose {
            CorsList::Empty => {}
            CorsList::Any if self.credentials => cors_headers.expose_all = true,
            CorsList::Any => cors_headers.fields.push((ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"))),
            CorsList::Names(names) => cors_headers.fields.push((ACCESS_CONTROL_EXPOSE_HEADERS, names.clone())),
        }
        cors_headers
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        match &self.origins {
            AllowedOrigins::Any => true,
            AllowedOrigins::Listed(origins) => origin
                .to_str()
                .ok()
                .and_then(split_origin)
                .is_some_and(|(https, host, port)| origins.iter().any(|origin| origin.matches(https, host, port))),
        }
    }
}

impl CorsList {
    /// The names in the response to a preflight: for [`CorsList::Any`], the requested names, because with credentials
    /// browsers read `*` as a name.
    fn allowed_in_preflight(&self, requested: Option<&HeaderValue>) -> Option<HeaderValue> {
        match self {
            CorsList::Empty => None,
            CorsList::Any => requested.cloned(),
            CorsList::Names(names) => Some(names.clone()),
        }
    }
}

impl CorsFilter {
    /// Text for dumps, one line for each setting.
    pub(super) fn describe(&self) -> Vec<String> {
        let CorsFilter { origins, credentials, methods, headers, expose, max_age } = self;
        let mut lines = vec![match origins {
            AllowedOrigins::Any => "origins *".to_owned(),
            AllowedOrigins::Listed(origins) if origins.is_empty() => "no origins".to_owned(),
            AllowedOrigins::Listed(origins) => {
                let origins: Vec<_> = origins.iter().map(OriginPattern::to_string).collect();
                format!("origins {}", origins.join(", "))
            }
        }];
        lines.extend(credentials.then(|| "credentials".to_owned()));
        for (name, list) in [("methods", methods), ("headers", headers), ("expose", expose)] {
            match list {
                CorsList::Empty => {}
                CorsList::Any => lines.push(format!("{name} *")),
                CorsList::Names(names) => lines.push(format!("{name} {}", String::from_utf8_lossy(names.as_bytes()))),
            }
        }
        lines.push(format!("max age {}", String::from_utf8_lossy(max_age.as_bytes())));
        lines
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        match &self.host {
            HostPart::Exact(host) => write!(formatter, "{scheme}://{host}:{}", self.port),
            HostPart::EndsWith(suffix) => write!(formatter, "{scheme}://*{suffix}:{}", self.port),
        }
    }
}

impl CorsHeaders {
    /// Replaces the CORS headers of a response.
    pub fn apply(self, response: &mut HeaderMap) {
        for name in &CORS_RESPONSE_HEADERS {
            response.remove(name);
        }
        if self.expose_all {
            let names: Vec<&str> = response.keys().map(HeaderName::as_str).collect();
            if let Ok(names) = HeaderValue::try_from(names.join(", ")) {
                response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, names);
            }
        }
        response.extend(self.fields);
        // Added for every origin, because caches must not reuse the response for an origin with other CORS headers.
        response.append(VARY, HeaderValue::from_static("Origin"));
    }
}

static CORS_RESPONSE_HEADERS: [HeaderName; 6] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];

#[cfg(test)]
mod tests;
