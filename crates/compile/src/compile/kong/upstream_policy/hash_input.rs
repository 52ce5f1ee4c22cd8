//! What is hashed of a request, as Kong's kinds name it.

use http::HeaderName;

use super::findings::Findings;
use crate::api::kong::{KongIngressUpstream, UpstreamHash, UpstreamHashFallback};
use crate::compile::policies::cookie::{CookieProblem, CookieSpec};
use crate::upstream::settings::{HashKey, HashSource, SameSite};

/// The input of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HashInput<'o> {
    /// `none`: nothing is hashed.
    Nothing,
    Ip,
    Consumer,
    Path,
    Header(&'o str),
    Cookie {
        name: &'o str,
        path: &'o str,
    },
    QueryArg(&'o str),
    UriCapture(&'o str),
}

impl<'o> HashInput<'o> {
    /// The input in `spec.hashOn`; `None` if there is none, or an invalid one.
    pub(super) fn of_policy(hash: &'o UpstreamHash, findings: &mut Findings) -> Option<Self> {
        let UpstreamHash { input, header, cookie, cookie_path, query_arg, uri_capture } = hash;
        let path = cookie_path.as_deref().unwrap_or("/");
        let cookie = cookie.as_deref().map(|name| HashInput::Cookie { name, path });
        let field = "spec.hashOn";
        first_of(input, header, cookie, query_arg, uri_capture, field, findings)?.checked(field, findings)
    }

    /// The input in `spec.hashOnFallback`, which cannot be a cookie.
    pub(super) fn of_fallback(hash: &'o UpstreamHashFallback, findings: &mut Findings) -> Option<Self> {
        let UpstreamHashFallback { input, header, cookie, cookie_path, query_arg, uri_capture } = hash;
        let field = "spec.hashOnFallback";
        for (is_set, name) in [(cookie.is_some(), "cookie"), (cookie_path.is_some(), "cookiePath")] {
            if is_set {
                findings.note(
                    format!("{field}.{name}"),
                    "a fallback cannot be a cookie, so it has no effect",
                    "remove it",
                );
            }
        }
        first_of(input, header, None, query_arg, uri_capture, field, findings)?.checked(field, findings)
    }

    /// The input in `upstream.hash_on`.
    pub(super) fn of_kong_ingress(upstream: &'o KongIngressUpstream, findings: &mut Findings) -> Option<Self> {
        let names = HashFields {
            field: "upstream.hash_on",
            header: upstream.hash_on_header.as_deref(),
            query_arg: upstream.hash_on_query_arg.as_deref(),
            uri_capture: upstream.hash_on_uri_capture.as_deref(),
            cookie: upstream.hash_on_cookie.as_deref(),
            cookie_path: upstream.hash_on_cookie_path.as_deref(),
        };
        let uses_cookie =
            [&upstream.hash_on, &upstream.hash_fallback].iter().any(|input| input.as_deref() == Some("cookie"));
        names.read(upstream.hash_on.as_deref(), uses_cookie, findings)
    }

    /// The input in `upstream.hash_fallback`. A cookie is that of `hash_on_cookie`.
    pub(super) fn of_kong_ingress_fallback(upstream: &'o KongIngressUpstream, findings: &mut Findings) -> Option<Self> {
        let names = HashFields {
            field: "upstream.hash_fallback",
            header: upstream.hash_fallback_header.as_deref(),
            query_arg: upstream.hash_fallback_query_arg.as_deref(),
            uri_capture: upstream.hash_fallback_uri_capture.as_deref(),
            cookie: upstream.hash_on_cookie.as_deref(),
            cookie_path: upstream.hash_on_cookie_path.as_deref(),
        };
        // `hash_on` reports the cookie if nothing uses it.
        names.read(upstream.hash_fallback.as_deref(), true, findings)
    }

    /// The key to hash; `None` if nothing is hashed.
    pub(super) fn key(self) -> Option<HashKey> {
        let source = match self {
            HashInput::Nothing => return None,
            // Kong hashes the whole address.
            HashInput::Ip => HashSource::ClientIp { ipv6_prefix: 128 },
            HashInput::Consumer => HashSource::Consumer,
            HashInput::Path => HashSource::Path,
            HashInput::Header(name) => HashSource::Header(HeaderName::try_from(name).ok()?),
            HashInput::Cookie { name, path } => HashSource::Cookie(cookie(name, path).build().ok()?),
            HashInput::QueryArg(name) => HashSource::QueryValues(name.into()),
            HashInput::UriCapture(name) => HashSource::UriCapture(name.into()),
        };
        Some(HashKey { source, regex: None })
    }

    /// Reports a name that no request can have.
    fn checked(self, field: &str, findings: &mut Findings) -> Option<Self> {
        let mut problem = |what: String, remedy: &str| {
            findings.problem(field, format!("{what}, so it is not hashed"), remedy);
            None
        };
        match self {
            HashInput::Header(name) if HeaderName::try_from(name).is_err() => {
                problem(format!("{name:?} is not the name of a header"), "write a name such as x-user")
            }
            HashInput::Cookie { name, path } => match cookie(name, path).build() {
                Ok(_) => Some(self),
                Err(problems) => {
                    for CookieProblem { message, remedy, .. } in problems {
                        problem(message, remedy);
                    }
                    None
                }
            },
            HashInput::QueryArg("") => problem("the name of a parameter is empty".to_owned(), "write its name"),
            HashInput::UriCapture("") => problem("the name of a group is empty".to_owned(), "write its name"),
            input => Some(input),
        }
    }
}

/// The fields that name an input in a KongIngress.
struct HashFields<'o> {
    /// `upstream.hash_on` or `upstream.hash_fallback`.
    field: &'static str,
    header: Option<&'o str>,
    query_arg: Option<&'o str>,
    uri_capture: Option<&'o str>,
    cookie: Option<&'o str>,
    cookie_path: Option<&'o str>,
}

impl<'o> HashFields<'o> {
    fn read(&self, input: Option<&str>, uses_cookie: bool, findings: &mut Findings) -> Option<HashInput<'o>> {
        let field = self.field;
        let unused = [
            ("header", self.header.is_some() && input != Some("header")),
            ("query_arg", self.query_arg.is_some() && input != Some("query_arg")),
            ("uri_capture", self.uri_capture.is_some() && input != Some("uri_capture")),
            ("cookie", self.cookie.is_some() && !uses_cookie),
            ("cookie_path", self.cookie_path.is_some() && !uses_cookie),
        ];
        for (name, _) in unused.into_iter().filter(|(_, is_unused)| *is_unused) {
            let message = format!("{field} does not select it, so it has no effect");
            findings.note(format!("{field}_{name}"), message, "remove it");
        }
        let mut named = |name: &str, value: Option<&'o str>| {
            if value.is_none() {
                let message = format!("{name} needs the field {field}_{name}, so it is not hashed");
                findings.problem(field, message, "write it");
            }
            value
        };
        let found = match input? {
            "none" => HashInput::Nothing,
            "ip" => HashInput::Ip,
            "consumer" => HashInput::Consumer,
            "path" => HashInput::Path,
            "header" => HashInput::Header(named("header", self.header)?),
            "query_arg" => HashInput::QueryArg(named("query_arg", self.query_arg)?),
            "uri_capture" => HashInput::UriCapture(named("uri_capture", self.uri_capture)?),
            "cookie" => {
                let path = self.cookie_path.unwrap_or("/");
                HashInput::Cookie { name: named("cookie", self.cookie)?, path }
            }
            other => {
                let message = format!("{other:?} is not an input of a hash, so it is not hashed");
                let remedy = "write none, consumer, ip, header, cookie, path, query_arg or uri_capture";
                findings.problem(field, message, remedy);
                return None;
            }
        };
        found.checked(field, findings)
    }
}

/// The input of a KongUpstreamPolicy, whose schema allows one at most.
fn first_of<'o>(
    input: &'o Option<String>,
    header: &'o Option<String>,
    cookie: Option<HashInput<'o>>,
    query_arg: &'o Option<String>,
    uri_capture: &'o Option<String>,
    field: &str,
    findings: &mut Findings,
) -> Option<HashInput<'o>> {
    let input = match input.as_deref() {
        None => None,
        Some("none") => Some(HashInput::Nothing),
        Some("ip") => Some(HashInput::Ip),
        Some("consumer") => Some(HashInput::Consumer),
        Some("path") => Some(HashInput::Path),
        Some(other) => {
            let message = format!("{other:?} is not an input of a hash, so it is not hashed");
            findings.problem(format!("{field}.input"), message, "write ip, consumer, path or none");
            None
        }
    };
    input
        .or_else(|| header.as_deref().map(HashInput::Header))
        .or(cookie)
        .or_else(|| query_arg.as_deref().map(HashInput::QueryArg))
        .or_else(|| uri_capture.as_deref().map(HashInput::UriCapture))
}

/// The cookie that is generated, which clients forget when they close, as with Kong.
fn cookie<'o>(name: &'o str, path: &'o str) -> CookieSpec<'o> {
    CookieSpec { name, path, max_age: None, same_site: SameSite::Lax }
}
