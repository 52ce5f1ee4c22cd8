//! What a match of a rule says: the requests that it applies to, and what serves them.

use http::{HeaderName, HeaderValue, Method, Uri};

use super::regex_sample;
use crate::api::kong::annotations::{FORCE_SSL_REDIRECT, PROTOCOLS, list};
use crate::api::{Kind, Meta, ObjectId};
use crate::request_target::RequestPath;

/// One match of one rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Expectation {
    pub object: ObjectId,
    /// The name of the rule, or its index. `None` if any rule of the object may serve the request: those of an Ingress
    /// differ in their backends only.
    pub rule: Option<String>,
    /// The field of the match: `spec.rules[0].matches[1]`.
    pub field: String,
    /// The path as the gateway writes it, such as `PathPrefix /a`. `None` if there are several forms.
    pub served_path: Option<String>,
    /// Hostnames; `*` for all.
    pub hosts: Vec<String>,
    /// The Gateways, ListenerSets and listeners that the route refers to.
    pub parents: Vec<Parent>,
    /// Whether annotations require HTTPS: requests in plain text are not forwarded.
    pub requires_https: bool,
    /// The requests that match, or why none can be derived.
    pub requests: Result<RequestShape, String>,
    pub action: ExpectedAction,
}

impl Expectation {
    /// `Kind/namespace/name`
    pub(super) fn served_route(&self) -> String {
        format!("{}/{}", self.object.kind, self.object.key)
    }
}

/// A Gateway or ListenerSet in the `parentRefs` of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parent {
    pub object: ObjectId,
    /// `None` for all listeners.
    pub section: Option<String>,
    /// `None` for all ports.
    pub port: Option<u16>,
}

impl Parent {
    /// Whether a listener is one that the reference selects: `namespace/gateway/name`, or, of a ListenerSet,
    /// `namespace/gateway/namespace/set/name`, which is not one of the Gateway.
    pub(super) fn selects(&self, listener: &str, port: u16) -> bool {
        let Some((declared_by, name)) = listener.rsplit_once('/') else { return false };
        let declared_by = match self.object.kind {
            Kind::ListenerSet => declared_by.splitn(3, '/').nth(2),
            _ => Some(declared_by),
        };
        declared_by.is_some_and(|object| object == self.object.key.to_string())
            && self.section.as_ref().is_none_or(|wanted| wanted == name)
            && self.port.is_none_or(|wanted| wanted == port)
    }
}

/// Requests that match, from which the first one that reaches the rule is used. A more specific rule may serve one of
/// them without making the rule unreachable.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RequestShape {
    /// At least one.
    pub paths: Vec<String>,
    /// At least one.
    pub methods: Vec<Method>,
    pub query: String,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub is_grpc: bool,
}

/// What a rule does with its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ExpectedAction {
    /// Forwards to one of these backends.
    Forward(Vec<ExpectedBackend>),
    Redirect,
    /// Anything: a backend of a kind that is not compared, or a rule without one.
    NotCompared,
}

/// A Service as a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExpectedBackend {
    /// `namespace/name`
    pub service: String,
    /// `None` if the port is given by its name.
    pub port: Option<u16>,
}

impl ExpectedBackend {
    /// Whether this is the backend `namespace/service:port`, which may be followed by details.
    pub(super) fn is(&self, backend: &str) -> bool {
        let name = backend.split(' ').next().unwrap_or_default();
        let Some((service, port)) = name.rsplit_once(':') else { return false };
        service == self.service && self.port.is_none_or(|wanted| port.parse() == Ok(wanted))
    }
}

impl std::fmt::Display for ExpectedBackend {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            Some(port) => write!(formatter, "{}:{port}", self.service),
            None => formatter.write_str(&self.service),
        }
    }
}

/// The methods of requests to a match without a method. A rule with the same path may name the first of them.
pub(super) const ANY_METHOD: [Method; 3] = [Method::GET, Method::HEAD, Method::POST];

/// The paths for a prefix: itself, and one below it that no exact path is likely to name.
pub(super) fn paths_below(prefix: &str) -> Vec<String> {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let own = if prefix.is_empty() { "/" } else { prefix };
    vec![own.to_owned(), format!("{prefix}/portico-verify")]
}

/// A path that a regular expression matches.
pub(super) fn path_sample(pattern: &str) -> Result<String, String> {
    let is_path_character =
        |character: char| character.is_ascii_alphanumeric() || "/-_~.!$&'()*+,;=:@".contains(character);
    let path = regex_sample::sample(pattern, is_path_character)?;
    let uri = Uri::try_from(&*path).ok();
    let target = uri.and_then(|uri| RequestPath::parse(&Method::GET, &uri).ok().flatten());
    // Rules are matched with the normalized path of a request, which the expression may not match.
    if target.is_none_or(|target| target.path() != path) {
        return Err(format!("the regular expression {pattern} matches {path:?}, which is not a path of requests"));
    }
    Ok(path)
}

/// A header field that meets a condition.
pub(super) fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let name = HeaderName::try_from(name).map_err(|_| format!("{name:?} is not a header name"))?;
    if SET_BY_CLIENT.contains(&name.as_str()) {
        return Err(format!("the field {name} follows from the request itself; send a request by hand"));
    }
    let value = HeaderValue::from_str(value).map_err(|_| format!("{value:?} is not a value of a header field"))?;
    Ok((name, value))
}

/// Characters of a sample for the value of a header field.
pub(super) fn is_value_character(character: char) -> bool {
    character.is_ascii_graphic() || character == ' '
}

/// Fields that the client sets, so that a condition on them cannot be chosen freely.
const SET_BY_CLIENT: [&str; 9] =
    ["host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "keep-alive", "expect"];

/// A method of a match.
pub(super) fn method(name: &str) -> Result<Method, String> {
    match Method::try_from(name) {
        Ok(Method::CONNECT) => Err("requests with CONNECT are refused, so the match has no effect".to_owned()),
        Ok(method) => Ok(method),
        Err(_) => Err(format!("{name:?} is not a method")),
    }
}

/// The protocols that annotations require.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequiredProtocols {
    pub https: bool,
    pub grpc: bool,
}

impl RequiredProtocols {
    pub(super) fn of(meta: &Meta) -> Self {
        let annotation = |key: &str| meta.annotations.get(key).map(|value| value.trim());
        let names: Vec<&str> = annotation(PROTOCOLS).into_iter().flat_map(list).collect();
        let all = |accepted: [&str; 2]| !names.is_empty() && names.iter().all(|name| accepted.contains(name));
        RequiredProtocols {
            https: all(["https", "grpcs"]) || annotation(FORCE_SSL_REDIRECT) == Some("true"),
            grpc: all(["grpc", "grpcs"]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ObjectKey;

    #[test]
    fn parents_select_listeners() {
        let web = ObjectKey::new("default", "web");
        let parent = |section: Option<&str>, port| Parent {
            object: ObjectId::new(Kind::Gateway, web.clone()),
            section: section.map(str::to_owned),
            port,
        };
        let set = |name: &str| Parent {
            object: ObjectId::new(Kind::ListenerSet, ObjectKey::new("shop", name)),
            ..parent(None, None)
        };
        for (parent, listener, expected) in [
            (parent(None, None), "default/web/http", true),
            (parent(Some("http"), None), "default/web/http", true),
            (parent(Some("https"), None), "default/web/http", false),
            (parent(None, Some(80)), "default/web/http", true),
            (parent(None, Some(81)), "default/web/http", false),
            (parent(None, None), "default/web2/http", false),
            (parent(None, None), "default/web/shop/listeners/http", false),
            (set("listeners"), "default/web/shop/listeners/http", true),
            (set("others"), "default/web/shop/listeners/http", false),
            (set("listeners"), "shop/listeners/http", false),
        ] {
            assert_eq!(parent.selects(listener, 80), expected, "{parent:?}");
        }
    }

    #[test]
    fn backends_are_compared_by_service_and_port() {
        let backend = |port| ExpectedBackend { service: "default/shop".to_owned(), port };
        for (backend, selected, expected) in [
            (backend(Some(80)), "default/shop:80", true),
            (backend(Some(80)), "default/shop:80 via ClusterIP", true),
            (backend(Some(81)), "default/shop:80", false),
            (backend(None), "default/shop:80", true),
            (backend(None), "other/shop:80", false),
            (backend(None), "", false),
        ] {
            assert_eq!(backend.is(selected), expected, "{backend:?} {selected}");
        }
    }

    #[test]
    fn annotations_require_protocols() {
        for (key, value, https, grpc) in [
            (PROTOCOLS, "http, https", false, false),
            (PROTOCOLS, "https", true, false),
            (PROTOCOLS, "grpc,grpcs", false, true),
            (PROTOCOLS, "grpcs", true, true),
            (PROTOCOLS, "", false, false),
            (FORCE_SSL_REDIRECT, "true", true, false),
            (FORCE_SSL_REDIRECT, "false", false, false),
        ] {
            let mut meta = Meta::new(ObjectKey::new("default", "a"));
            meta.annotations.insert(key.into(), value.into());
            assert_eq!(RequiredProtocols::of(&meta), RequiredProtocols { https, grpc }, "{key}: {value}");
        }
    }

    #[test]
    fn samples_of_paths_are_paths() {
        assert_eq!(paths_below("/"), ["/", "/portico-verify"]);
        assert_eq!(paths_below("/shop/"), ["/shop", "/shop/portico-verify"]);
        assert_eq!(path_sample("/users/[0-9]+").as_deref(), Ok("/users/0"));
        assert!(path_sample("users").unwrap_err().contains("is not a path"));
        assert!(path_sample(r"/a\?b").is_err(), "a question mark begins the query");
        assert!(path_sample(r"/a/\.\./b").unwrap_err().contains("is not a path"), "it is normalized to /b");
    }

    #[test]
    fn fields_that_the_client_sets_are_refused() {
        assert!(header("Host", "a").is_err() && header("a b", "c").is_err() && header("x", "\n").is_err());
        assert_eq!(header("X-Canary", "1"), Ok(("x-canary".parse().unwrap(), HeaderValue::from_static("1"))));
        assert!(method("CONNECT").is_err() && method("a b").is_err());
    }
}
