//! A completed request as log plugins read it: its head, its attempts, its times and its sizes.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use tokio::time::Instant;

use super::fields::UrlEncodedForm;
use super::masking::LogMask;
use super::repeated_query::replace_values;
use super::scheme::Scheme;

/// What is known about a request when it ends. Borrowed from the record of the request.
pub struct CompletedRequest<'r> {
    pub id: &'r HeaderValue,
    /// When the first byte of the request arrived.
    pub started_at: SystemTime,
    /// The same moment as `started_at`.
    pub started_instant: Instant,
    /// The head of the request and of the response, if a plugin of the chain reads them.
    pub heads: Option<&'r LoggedHeads>,
    /// The TLS parameters of the client's connection.
    pub tls: Option<LoggedTls<'r>>,
    /// The attempts to get a response from an endpoint, in order.
    pub attempts: &'r [Attempt],
    /// The calls of authorization servers, in order. Only of requests that are traced.
    pub authorizations: &'r [AuthorizationCall],
    /// From the first byte of the request until it was ready to be forwarded. `None` if it was not forwarded.
    pub before_upstream: Option<Duration>,
    /// From the first byte of the request until the head of the response was ready.
    pub until_response: Option<Duration>,
    /// The reason of the request error, if there is one.
    pub error: Option<&'static str>,
    /// Where the request contains credentials.
    pub credentials: &'r CredentialLocations,
}

/// The heads of a request, copied for plugins that read them.
#[derive(Debug)]
pub struct LoggedHeads {
    pub method: Method,
    /// The target as the client sent it.
    pub target: Uri,
    pub version: Version,
    /// The client address, taken from forwarding headers if the peer is trusted.
    pub client: IpAddr,
    /// The scheme that the client used, taken from forwarding headers if the peer is trusted.
    pub scheme: Scheme,
    /// The host that the client used, with its port if it has one, taken from forwarding headers if the peer is
    /// trusted.
    pub host: HeaderValue,
    /// The port that the client used: that of the listener, as clients see it, unless a trusted peer reports another.
    pub port: u16,
    /// The headers as the client sent them, without hop-by-hop headers that were removed before routing.
    pub request: HeaderMap,
    /// The headers of the response that the client got. Empty if there was no response.
    pub response: HeaderMap,
    /// The target that was sent to the endpoint. `None` if the request was not forwarded.
    pub upstream_target: Option<Uri>,
}

/// TLS parameters of a client's connection.
#[derive(Clone, Copy, Debug)]
pub struct LoggedTls<'r> {
    /// For example `TLSv1.3`.
    pub version: &'static str,
    /// For example `TLS13_AES_256_GCM_SHA384`.
    pub cipher: Option<&'static str>,
    pub server_name: Option<&'r str>,
}

/// One attempt to get a response from an endpoint.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub endpoint: SocketAddr,
    pub started_at: Instant,
    /// Duration of connecting, including the TLS handshake. `None` if a kept connection was used.
    pub connect: Option<Duration>,
    pub tls_handshake: Option<Duration>,
    /// From the start until the head of the response. `None` if there was no response.
    pub first_byte: Option<Duration>,
    /// From the start until the response ended or the attempt failed.
    pub total: Duration,
    pub outcome: AttemptOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The endpoint responded.
    Status(StatusCode),
    /// There was no response, for this reason of a request error. The status is the one that the client gets if the
    /// attempt is the last one.
    Failed { reason: &'static str, status: StatusCode },
    /// The request ended before the attempt did.
    Unfinished,
}

/// The reason of a request error if an endpoint has refused the connection.
pub const CONNECTION_REFUSED: &str = "connection_refused";

impl Attempt {
    pub fn start(endpoint: SocketAddr, now: Instant) -> Self {
        Attempt {
            endpoint,
            started_at: now,
            connect: None,
            tls_handshake: None,
            first_byte: None,
            total: Duration::ZERO,
            outcome: AttemptOutcome::Unfinished,
        }
    }
}

/// The call of an authorization server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationCall {
    /// The name of the server.
    pub server: String,
    pub started_at: Instant,
    /// `None` until the server has decided. Stays so if the request ends meanwhile.
    pub result: Option<(Instant, AuthorizationResult)>,
}

/// What an authorization server has decided, or why it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizationResult {
    Allowed,
    Denied(StatusCode),
    Failed(&'static str),
}

/// The names under which the plugins of a chain read credentials. Logs contain [`REDACTED`] instead of their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialLocations {
    pub headers: Vec<HeaderName>,
    /// Names of query parameters.
    pub parameters: Vec<Box<str>>,
    /// Names of cookies, which are compared case-insensitively.
    pub cookies: Vec<Box<str>>,
    /// What else logs must not contain.
    pub masks: Vec<Arc<LogMask>>,
}

/// Of a chain without plugins that read credentials.
pub static NO_CREDENTIALS: CredentialLocations =
    CredentialLocations { headers: Vec::new(), parameters: Vec::new(), cookies: Vec::new(), masks: Vec::new() };

/// Takes the place of a credential.
pub const REDACTED: &str = "REDACTED";

impl CredentialLocations {
    pub fn add(&mut self, other: CredentialLocations) {
        self.headers.extend(other.headers);
        self.parameters.extend(other.parameters);
        self.cookies.extend(other.cookies);
        self.masks.extend(other.masks);
    }

    /// Whether a query parameter with this decoded name is a credential.
    pub fn has_parameter(&self, name: &[u8]) -> bool {
        self.parameters.iter().any(|parameter| parameter.as_bytes() == name)
    }

    /// Whether a header with this name is a credential as a whole.
    pub fn has_header(&self, name: &HeaderName) -> bool {
        [http::header::AUTHORIZATION, http::header::PROXY_AUTHORIZATION].contains(name) || self.headers.contains(name)
    }

    /// Whether a cookie with this name is a credential.
    pub fn has_cookie(&self, name: &str) -> bool {
        self.cookies.iter().any(|cookie| cookie.eq_ignore_ascii_case(name))
    }

    /// The query with the values of credentials replaced. `None` if it contains none.
    pub fn redact_query(&self, query: &str) -> Option<String> {
        let form = UrlEncodedForm(query.as_bytes());
        if self.parameters.is_empty() || !form.pairs().any(|pair| self.has_parameter(&pair.name())) {
            return None;
        }
        let mut redacted = String::with_capacity(query.len());
        for (index, (raw, pair)) in query.split('&').zip(form.pairs()).enumerate() {
            if index > 0 {
                redacted.push('&');
            }
            match raw.split_once('=').filter(|_| self.has_parameter(&pair.name())) {
                Some((name, _)) => redacted.extend([name, "=", REDACTED]),
                None => redacted.push_str(raw),
            }
        }
        Some(redacted)
    }

    /// A text with the values of credentials replaced, wherever it repeats a query: in a URL, or encoded in a value.
    /// What is masked is replaced as well. `None` if it contains neither.
    pub fn redact_text(&self, text: &str) -> Option<String> {
        let mut redacted = match self.parameters.is_empty() {
            true => None,
            false => replace_values(text, |name| self.has_parameter(name), REDACTED),
        };
        for mask in &self.masks {
            redacted = mask.mask_text(redacted.as_deref().unwrap_or(text)).or(redacted);
        }
        redacted
    }

    /// The value of a header field of a request or a response with credentials replaced. `None` if it contains none.
    pub fn redact_header(&self, name: &HeaderName, text: &str) -> Option<Cow<'static, str>> {
        if self.has_header(name) {
            return Some(Cow::Borrowed(REDACTED));
        }
        let has_cookies = [http::header::COOKIE, http::header::SET_COOKIE].contains(name);
        let redacted = if has_cookies { self.redact_cookies(text) } else { None };
        let redacted = self.redact_text(redacted.as_deref().unwrap_or(text)).or(redacted);
        redacted.map(Cow::Owned)
    }

    /// A Cookie header with the values of credentials replaced. `None` if it contains none.
    pub fn redact_cookies(&self, header: &str) -> Option<String> {
        let is_credential = |pair: &str| self.has_cookie(pair.split('=').next().unwrap_or_default().trim());
        if self.cookies.is_empty() || !header.split(';').any(is_credential) {
            return None;
        }
        let pairs: Vec<String> = header
            .split(';')
            .map(|pair| match pair.split_once('=').filter(|_| is_credential(pair)) {
                Some((name, _)) => format!("{name}={REDACTED}"),
                None => pair.to_owned(),
            })
            .collect();
        Some(pairs.join(";"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locations() -> CredentialLocations {
        CredentialLocations {
            headers: vec![HeaderName::from_static("apikey")],
            parameters: vec!["api key".into(), "jwt".into()],
            cookies: vec!["Token".into()],
            masks: Vec::new(),
        }
    }

    #[test]
    fn credentials_in_queries_are_replaced() {
        let cases = [
            ("a=b&jwt=secret&c", Some("a=b&jwt=REDACTED&c")),
            ("api+key=secret&api%20key=secret", Some("api+key=REDACTED&api%20key=REDACTED")),
            ("&%6Awt=secret&&x", Some("&%6Awt=REDACTED&&x")),
            ("a=jwt&jwtx=b", None),
            ("jwt", Some("jwt")),
            ("", None),
        ];
        for (query, expected) in cases {
            assert_eq!(locations().redact_query(query).as_deref(), expected, "{query}");
        }
        assert_eq!(CredentialLocations::default().redact_query("jwt=a"), None);
    }

    #[test]
    fn credentials_in_repeated_targets_are_replaced() {
        let cases = [
            ("https://a.example/b?jwt=secret", Some("https://a.example/b?jwt=REDACTED")),
            ("https://a.example/?c=d&jwt=secret=%26more&e=f#g", Some("https://a.example/?c=d&jwt=REDACTED&e=f#g")),
            ("/a?api%20key=secret#jwt=secret", Some("/a?api%20key=REDACTED#jwt=REDACTED")),
            (
                "</a?jwt=secret>; rel=next, </b?api+key=secret>",
                Some("</a?jwt=REDACTED>; rel=next, </b?api+key=REDACTED>"),
            ),
            ("0; url=/a?%6Awt=secret", Some("0; url=/a?%6Awt=REDACTED")),
            // Encoded once and twice.
            ("next=%2Fa%3Fjwt%3Dsecret%26b%3Dc&d=e", Some("next=%2Fa%3Fjwt%3DREDACTED%26b%3Dc&d=e")),
            ("%2Fa%3fb%26api%2520key%3dse%2526cret", Some("%2Fa%3fb%26api%2520key%3dREDACTED")),
            ("n=%252Fa%253Fjwt%253Dsecret%2526b%26c", Some("n=%252Fa%253Fjwt%253DREDACTED%2526b%26c")),
            ("jwt=", Some("jwt=REDACTED")),
            ("jwt=ä&b", Some("jwt=REDACTED&b")),
            ("see a=jwt and jwtx=b, jwt or %3", None),
            ("ä%C3%A4%", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(locations().redact_text(text).as_deref(), expected, "{text}");
        }
        assert_eq!(CredentialLocations::default().redact_text("?jwt=a"), None);
        let headers = [
            ("referer", "/a?jwt=secret", Some("/a?jwt=REDACTED")),
            ("set-cookie", "token=secret; Path=/", Some("token=REDACTED; Path=/")),
            ("cookie", "token=secret; back=/?jwt=secret", Some("token=REDACTED; back=/?jwt=REDACTED")),
            ("apikey", "secret", Some("REDACTED")),
            ("location", "/a?b=c", None),
        ];
        for (name, text, expected) in headers {
            let name = HeaderName::from_static(name);
            assert_eq!(locations().redact_header(&name, text).as_deref(), expected, "{name}: {text}");
        }
    }

    #[test]
    fn credentials_in_cookies_are_replaced() {
        let cases = [
            ("a=b; token=secret; c=d", Some("a=b; token=REDACTED; c=d")),
            ("TOKEN=secret=more", Some("TOKEN=REDACTED")),
            ("tokens=a; b=token=c", None),
        ];
        for (header, expected) in cases {
            assert_eq!(locations().redact_cookies(header).as_deref(), expected, "{header}");
        }
    }

    #[test]
    fn authorization_is_always_a_credential() {
        for (name, expected) in
            [("authorization", true), ("proxy-authorization", true), ("apikey", true), ("cookie", false)]
        {
            assert_eq!(locations().has_header(&HeaderName::from_static(name)), expected, "{name}");
        }
        assert!(CredentialLocations::default().has_header(&http::header::AUTHORIZATION));
    }
}
