//! CORS as a gateway answers it (`gateway-api.md` §3.7): which origins may read an answer, and the fields that say so.
//!
//! Everything that does not depend on the request is written out when it is compiled.

use std::fmt;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// The filter, everything parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    pub origins: Origins,
    pub credentials: bool,
    pub methods: List,
    pub headers: List,
    pub expose: List,
    /// Seconds.
    pub max_age: HeaderValue,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    Any,
    These(Box<[Origin]>),
}

/// Names separated by commas, or all there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum List {
    None,
    Any,
    These(HeaderValue),
}

/// One origin, or many that differ in the labels on the left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    https: bool,
    host: HostPart,
    port: u16,
}

/// Lower case, since schemes and hosts compare without regard to it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum HostPart {
    Exact(Box<str>),
    /// What the host ends with: empty for any host, else with its leading dot, of which the star stands for at least one
    /// character to the left, dots included.
    EndsWith(Box<str>),
}

impl Origin {
    /// `https://a.example`, `http://*.example:8080`, `https://*`. None if it is none of these.
    pub fn parse(text: &str) -> Option<Origin> {
        let (https, host, port) = split(text)?;
        let host = host.to_ascii_lowercase();
        let host = match host.strip_prefix('*') {
            Some(rest) if rest.contains('*') || !(rest.is_empty() || rest.starts_with('.')) => return None,
            Some(rest) => HostPart::EndsWith(rest.into()),
            None if host.is_empty() || host.contains('*') => return None,
            None => HostPart::Exact(host.into()),
        };
        Some(Origin { https, host, port })
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

/// Scheme, host and port of an origin. The port may be left out if it is the scheme's.
fn split(origin: &str) -> Option<(bool, &str, u16)> {
    let (scheme, rest) = origin.split_once("://")?;
    let https = scheme.eq_ignore_ascii_case("https");
    if !https && !scheme.eq_ignore_ascii_case("http") || rest.contains(['/', '@', '?', '#']) {
        return None;
    }
    // An address of IPv6 stands in brackets, so that its colons are not taken for that of the port.
    match rest.rfind(':').filter(|colon| !rest[*colon..].contains(']')) {
        Some(colon) => Some((https, &rest[..colon], rest[colon + 1..].parse().ok()?)),
        None => Some((https, rest, if https { 443 } else { 80 })),
    }
}

impl List {
    /// A star that stands alone means all; nothing means none.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<List> {
        let names: Vec<_> = names.into_iter().collect();
        match names[..] {
            [] => Some(List::None),
            ["*"] => Some(List::Any),
            _ => HeaderValue::try_from(names.join(", ")).ok().map(List::These),
        }
    }
}

/// The fields of one answer. An answer has no CORS fields but these: what the endpoint says about it does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    fields: Vec<(HeaderName, HeaderValue)>,
    /// The names of all fields of the answer are to be told, since a star would be taken literally.
    expose_all: bool,
}

/// Whether this is the question of a browser before the request it is about. Any other OPTIONS is a request like all.
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS && headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

impl Cors {
    /// The answer to a preflight. Without fields, if the origin is not allowed: then the browser goes no further.
    pub fn preflight(&self, request: &HeaderMap) -> Grant {
        let mut grant = self.grant(request);
        if grant.fields.is_empty() {
            return grant;
        }
        // Browsers need no permission for GET, HEAD and POST, so a list need not name them.
        let methods = self.methods.or_asked_for(request.get(ACCESS_CONTROL_REQUEST_METHOD));
        let headers = self.headers.or_asked_for(request.get(ACCESS_CONTROL_REQUEST_HEADERS));
        grant.fields.extend(methods.map(|methods| (ACCESS_CONTROL_ALLOW_METHODS, methods)));
        grant.fields.extend(headers.map(|headers| (ACCESS_CONTROL_ALLOW_HEADERS, headers)));
        grant.fields.push((ACCESS_CONTROL_MAX_AGE, self.max_age.clone()));
        // There is nothing to name in an answer that has nothing.
        grant.expose_all = false;
        grant
    }

    /// What the answer to any other request says.
    pub fn actual(&self, request: &HeaderMap) -> Grant {
        self.grant(request)
    }

    fn grant(&self, request: &HeaderMap) -> Grant {
        let mut grant = Grant::default();
        let Some(origin) = request.get(ORIGIN).filter(|origin| self.allows(origin)) else { return grant };
        // A star would do where every origin is allowed without credentials, and clients of other gateways look for theirs.
        grant.fields.push((ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()));
        if self.credentials {
            grant.fields.push((ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")));
        }
        match &self.expose {
            List::None => {}
            List::Any if self.credentials => grant.expose_all = true,
            List::Any => grant.fields.push((ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"))),
            List::These(names) => grant.fields.push((ACCESS_CONTROL_EXPOSE_HEADERS, names.clone())),
        }
        grant
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        match &self.origins {
            Origins::Any => true,
            Origins::These(origins) => origin
                .to_str()
                .ok()
                .and_then(split)
                .is_some_and(|(https, host, port)| origins.iter().any(|origin| origin.matches(https, host, port))),
        }
    }
}

impl List {
    /// What is allowed of what was asked for. If all is, then what was asked for: a star means all only without credentials,
    /// and its answer would be the same.
    fn or_asked_for(&self, asked: Option<&HeaderValue>) -> Option<HeaderValue> {
        match self {
            List::None => None,
            List::Any => asked.cloned(),
            List::These(names) => Some(names.clone()),
        }
    }
}

/// A line for each thing that is said.
impl Cors {
    pub(super) fn lines(&self) -> Vec<String> {
        let Cors { origins, credentials, methods, headers, expose, max_age } = self;
        let mut lines = vec![match origins {
            Origins::Any => "origins *".to_owned(),
            Origins::These(origins) if origins.is_empty() => "no origins".to_owned(),
            Origins::These(origins) => {
                let origins: Vec<_> = origins.iter().map(Origin::to_string).collect();
                format!("origins {}", origins.join(", "))
            }
        }];
        lines.extend(credentials.then(|| "credentials".to_owned()));
        for (name, list) in [("methods", methods), ("headers", headers), ("expose", expose)] {
            match list {
                List::None => {}
                List::Any => lines.push(format!("{name} *")),
                List::These(names) => lines.push(format!("{name} {}", String::from_utf8_lossy(names.as_bytes()))),
            }
        }
        lines.push(format!("max age {}", String::from_utf8_lossy(max_age.as_bytes())));
        lines
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        match &self.host {
            HostPart::Exact(host) => write!(formatter, "{scheme}://{host}:{}", self.port),
            HostPart::EndsWith(end) => write!(formatter, "{scheme}://*{end}:{}", self.port),
        }
    }
}

impl Grant {
    /// Writes the fields into an answer, in place of those it has.
    pub fn apply(self, answer: &mut HeaderMap) {
        for name in &OURS {
            answer.remove(name);
        }
        if self.expose_all {
            let names: Vec<&str> = answer.keys().map(HeaderName::as_str).collect();
            if let Ok(names) = HeaderValue::try_from(names.join(", ")) {
                answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, names);
            }
        }
        answer.extend(self.fields);
        // Also without any field: the answer to another origin has some, and caches have to know.
        answer.append(VARY, HeaderValue::from_static("Origin"));
    }
}

static OURS: [HeaderName; 6] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];

#[cfg(test)]
mod tests;
