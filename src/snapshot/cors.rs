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

/// The filter, fully parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsFilter {
    pub origins: AllowedOrigins,
    pub credentials: bool,
    pub methods: CorsList,
    pub headers: CorsList,
    pub expose: CorsList,
    /// Seconds.
    pub max_age: HeaderValue,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigins {
    Any,
    Listed(Box<[OriginPattern]>),
}

/// A comma-separated list of names, or a wildcard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsList {
    None,
    Any,
    Names(HeaderValue),
}

/// One origin, or a pattern with a wildcard at the start of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPattern {
    https: bool,
    host: HostPart,
    port: u16,
}

/// In lower case, since schemes and hosts compare case-insensitively.
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
                HostPart::Exact(own) => host.eq_ignore_ascii_case(own),
                HostPart::EndsWith(end) => host
                    .len()
                    .checked_sub(end.len())
                    .is_some_and(|start| start > 0 && host.as_bytes()[start..].eq_ignore_ascii_case(end.as_bytes())),
            }
    }
}

/// Scheme, host and port of an origin. A missing port is the scheme's default.
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
    /// A lone star means all; an empty list means none.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<CorsList> {
        let names: Vec<_> = names.into_iter().collect();
        match names[..] {
            [] => Some(CorsList::None),
            ["*"] => Some(CorsList::Any),
            _ => HeaderValue::try_from(names.join(", ")).ok().map(CorsList::Names),
        }
    }
}

/// The CORS headers of one response. They replace all CORS headers of the upstream's response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorsHeaders {
    fields: Vec<(HeaderName, HeaderValue)>,
    /// `Access-Control-Expose-Headers` lists all headers of the response, since `*` is taken literally with
    /// credentials.
    expose_all: bool,
}

/// Whether this is a CORS preflight. Any other OPTIONS request is handled like every request.
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS && headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

impl CorsFilter {
    /// The headers of a preflight response. Empty if the origin is not allowed; the browser then blocks the request.
    pub fn preflight(&self, request: &HeaderMap) -> CorsHeaders {
        let mut grant = self.headers_for_origin(request);
        if grant.fields.is_empty() {
            return grant;
        }
        // GET, HEAD and POST are CORS-safelisted, so a list need not name them.
        let methods = self.methods.allowed_of(request.get(ACCESS_CONTROL_REQUEST_METHOD));
        let headers = self.headers.allowed_of(request.get(ACCESS_CONTROL_REQUEST_HEADERS));
        grant.fields.extend(methods.map(|methods| (ACCESS_CONTROL_ALLOW_METHODS, methods)));
        grant.fields.extend(headers.map(|headers| (ACCESS_CONTROL_ALLOW_HEADERS, headers)));
        grant.fields.push((ACCESS_CONTROL_MAX_AGE, self.max_age.clone()));
        // The preflight response has no other headers to expose.
        grant.expose_all = false;
        grant
    }

    /// The headers of the response to any other request.
    pub fn actual_request(&self, request: &HeaderMap) -> CorsHeaders {
        self.headers_for_origin(request)
    }

    fn headers_for_origin(&self, request: &HeaderMap) -> CorsHeaders {
        let mut grant = CorsHeaders::default();
        let Some(origin) = request.get(ORIGIN).filter(|origin| self.allows(origin)) else { return grant };
        // `*` would do for requests without credentials, but the Gateway API's conformance tests accept the origin,
        // too.
        grant.fields.push((ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()));
        if self.credentials {
            grant.fields.push((ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")));
        }
        match &self.expose {
            CorsList::None => {}
            CorsList::Any if self.credentials => grant.expose_all = true,
            CorsList::Any => grant.fields.push((ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"))),
            CorsList::Names(names) => grant.fields.push((ACCESS_CONTROL_EXPOSE_HEADERS, names.clone())),
        }
        grant
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
    /// The allowed names for a preflight. With a star, the requested names: with credentials, browsers read `*` as a
    /// name and not as a wildcard.
    fn allowed_of(&self, requested: Option<&HeaderValue>) -> Option<HeaderValue> {
        match self {
            CorsList::None => None,
            CorsList::Any => requested.cloned(),
            CorsList::Names(names) => Some(names.clone()),
        }
    }
}

/// Text for dumps, one line per setting.
impl CorsFilter {
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
                CorsList::None => {}
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
            HostPart::EndsWith(end) => write!(formatter, "{scheme}://*{end}:{}", self.port),
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
        // Also if this origin gets no CORS headers: another one may get some, so caches keep one response per origin.
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
