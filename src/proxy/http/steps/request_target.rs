//! The host and the path of a request, validated and normalized.

use std::borrow::Cow;
use std::net::SocketAddr;

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

use crate::http2_frames::{FRAGMENT_HOST, UNREADABLE_HOST};
use crate::plugin_api::path_encoding::{encode_non_ascii, is_unreserved, resolve_dots};
use crate::proxy::http::record::request_error::RequestError;

/// The host of a request.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::proxy) struct RequestHost {
    /// As in the request, with its port.
    pub(in crate::proxy) raw: HeaderValue,
    /// The length of the name or address in `raw`, without the port.
    name_length: usize,
    /// Whether the name in `raw` has letters in upper case.
    has_uppercase: bool,
    /// Whether `raw` is not the Host field, because that is missing or the target overrides it (RFC 9112, section
    /// 3.2.2).
    pub(in crate::proxy) is_overridden: bool,
}

impl RequestHost {
    /// Reads the host. `local` is the listening address, the default for HTTP/1.0 requests without Host (RFC 9112,
    /// section 3.3).
    pub(in crate::proxy) fn from_request(
        version: Version,
        uri: &Uri,
        headers: &HeaderMap,
        local: SocketAddr,
    ) -> Result<RequestHost, RequestError> {
        const INVALID_HOST: RequestError =
            RequestError::InvalidHost("the Host header is not a host name or address with an optional port");
        let mut fields = headers.get_all(HOST).iter();
        let field = fields.next();
        if let Some(second) = fields.next() {
            let more_than_one = RequestError::InvalidHost("the request has more than one Host header");
            return Err(rejection_mark(version, second).unwrap_or(more_than_one));
        }
        // The field must be present and valid even when the target overrides it: a proxy in front may have used it.
        let host = match field {
            Some(field) => {
                let host = RequestHost::parse(field.clone());
                Some(host.ok_or_else(|| rejection_mark(version, field).unwrap_or(INVALID_HOST))?)
            }
            None if version == Version::HTTP_11 => {
                return Err(RequestError::InvalidHost("the request has no Host header"));
            }
            None => None,
        };
        let replacement = match (uri.authority(), host) {
            (None, Some(host)) => return Ok(host),
            (Some(authority), host) => {
                // In HTTP/2, Host is optional and must equal `:authority` (RFC 9113, section 8.3.1).
                let differs =
                    |host: &RequestHost| !host.raw.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes());
                if version == Version::HTTP_2 && host.as_ref().is_some_and(differs) {
                    return Err(RequestError::InvalidHost("the Host header differs from the :authority"));
                }
                HeaderValue::from_str(authority.as_str()).ok()
            }
            (None, None) if version == Version::HTTP_10 => HeaderValue::try_from(local.to_string()).ok(),
            (None, None) => return Err(RequestError::InvalidHost("the request has no Host header")),
        };
        let host = replacement.and_then(RequestHost::parse).ok_or(RequestError::InvalidTarget(
            "the target's authority is not a host name or address with an optional port",
        ))?;
        Ok(RequestHost { is_overridden: true, ..host })
    }

    /// Reads a host with an optional port.
    pub(in crate::proxy) fn parse(raw: HeaderValue) -> Option<RequestHost> {
        let name_length = host_name_length(raw.as_bytes())?;
        let has_uppercase = raw.as_bytes()[..name_length].iter().any(u8::is_ascii_uppercase);
        Some(RequestHost { raw, name_length, has_uppercase, is_overridden: false })
    }

    /// The name that listeners and routes are matched with: lower case, without port and without the trailing dot.
    pub(in crate::proxy) fn name(&self) -> Cow<'_, str> {
        let name = &self.raw.as_bytes()[..self.name_length];
        let name = std::str::from_utf8(name).expect("a host that was read consists of ASCII characters");
        let name = name.strip_suffix('.').unwrap_or(name);
        if self.has_uppercase { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) }
    }

    /// Whether [`RequestHost::name`] is the host as it is in the request.
    pub(in crate::proxy) fn is_bare_name(&self) -> bool {
        let raw = self.raw.as_bytes();
        self.name_length == raw.len() && !self.has_uppercase && !raw.ends_with(b".")
    }
}

/// The error of an HTTP/2 request that was rejected before it was read, if this Host field says so.
fn rejection_mark(version: Version, field: &HeaderValue) -> Option<RequestError> {
    match field.as_bytes() {
        FRAGMENT_HOST if version == Version::HTTP_2 => Some(RequestError::InvalidTarget("the target has a fragment")),
        UNREADABLE_HOST if version == Version::HTTP_2 => {
            Some(RequestError::InvalidTarget("its header block, or an earlier one of the connection, cannot be read"))
        }
        _ => None,
    }
}

/// The length of the name or address in a host of the form `name`, `name:port`, `[v6]` or `[v6]:port`. None for any
/// other: only characters valid in a host are accepted, so that no backend can parse a path, a user or a second host
/// from it.
fn host_name_length(host: &[u8]) -> Option<usize> {
    let is_address_byte = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    let is_name_byte = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let length = if let [b'[', rest @ ..] = host {
        let length = rest.iter().position(|byte| !is_address_byte(byte))?;
        if length == 0 || rest[length] != b']' {
            return None;
        }
        length + 2
    } else {
        host.iter().position(|byte| !is_name_byte(byte)).unwrap_or(host.len())
    };
    let is_valid_port = match &host[length..] {
        [] => true,
        [b':', port @ ..] => port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let name = &host[..length];
    (!name.is_empty() && name != b"." && is_valid_port).then_some(length)
}

/// The path and query of a request.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::proxy) struct RequestPath {
    /// As in the request.
    raw: PathAndQuery,
    /// The path with dot segments resolved, unreserved characters decoded and bytes that are not ASCII encoded. None if
    /// that changes nothing.
    normalized: Option<String>,
}

impl RequestPath {
    /// Parses the target. `None` for `OPTIONS *`, which is about the server and has no path.
    pub(in crate::proxy) fn parse(method: &Method, uri: &Uri) -> Result<Option<RequestPath>, RequestError> {
        if method == Method::CONNECT {
            return Err(RequestError::ConnectNotSupported);
        }
        match (uri.scheme_str(), uri.authority()) {
            (None, None) => {}
            (Some(scheme), Some(_)) if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") => {}
            (Some(_), _) => return Err(RequestError::InvalidTarget("the target's scheme is neither http nor https")),
            (None, Some(_)) => return Err(RequestError::InvalidTarget("the target is a host without a path")),
        }
        let path = uri.path();
        if path == "*" {
            if method == Method::OPTIONS {
                return Ok(None);
            }
            return Err(RequestError::InvalidTarget("the target * is for OPTIONS only"));
        }
        let Some(raw) = uri.path_and_query().filter(|_| path.starts_with('/')) else {
            return Err(RequestError::InvalidTarget("the target does not start with a slash"));
        };
        let normalized = match normalize(path)? {
            Cow::Borrowed(_) => None,
            Cow::Owned(path) => Some(path),
        };
        Ok(Some(RequestPath { raw: raw.clone(), normalized }))
    }

    /// The normalized path.
    pub(in crate::proxy) fn path(&self) -> &str {
        self.normalized.as_deref().unwrap_or_else(|| self.raw.path())
    }

    pub(in crate::proxy) fn query(&self) -> Option<&str> {
        self.raw.query()
    }

    /// The path and query as the client sent them, unless the path differs from that.
    pub(in crate::proxy) fn unchanged(&self) -> Option<&PathAndQuery> {
        // In the form `http://host?query` the path is empty, which means `/`.
        let is_unchanged = self.normalized.is_none() && self.raw.as_str().starts_with('/');
        is_unchanged.then_some(&self.raw)
    }

    /// Replaces the path with one that is normalized further.
    pub(in crate::proxy) fn replace(&mut self, path: String) {
        self.normalized = Some(path);
    }
}

/// Normalizes a path. The backend gets the path that was matched, so spellings that parsers could read as different
/// paths become one. Reserved characters stay as written: `%2F` is not a slash. Bytes that are not ASCII are encoded,
/// as most clients do: a rule for `/café` must not depend on that.
fn normalize(path: &str) -> Result<Cow<'_, str>, RequestError> {
    // One pass: no segment starts with a dot, and no byte but possibly the last is a percent sign or a quotation mark.
    let is_plain = |pair: (u8, u8)| pair != (b'/', b'.') && pair.0 != b'%' && pair.0 != b'"';
    let is_normalized = path.bytes().zip(path.bytes().skip(1)).all(is_plain);
    if is_normalized && !path.ends_with(['%', '"']) && path.is_ascii() {
        return Ok(Cow::Borrowed(path));
    }
    // The library rejects other delimiters. Encoding it would differ from what other servers do with it.
    if path.contains('"') {
        return Err(RequestError::InvalidTarget("the path has a quotation mark that is not encoded"));
    }
    let decoded = decode_unreserved(path)?;
    // Escaped dots count as dots, so segments are resolved after decoding.
    let resolved = match resolve_dots(&decoded) {
        Some(resolved) => Cow::Owned(resolved),
        None => decoded,
    };
    if resolved.is_ascii() {
        return Ok(resolved);
    }
    let encoded = encode_non_ascii(&resolved).into_owned();
    if encoded.len() > MAX_PATH {
        return Err(RequestError::InvalidTarget("the path is too long when its bytes that are not ASCII are encoded"));
    }
    Ok(Cow::Owned(encoded))
}

/// The maximum length of a path, in bytes: that of a target in the `http` crate.
const MAX_PATH: usize = u16::MAX as usize - 1;

fn decode_unreserved(path: &str) -> Result<Cow<'_, str>, RequestError> {
    const INVALID: RequestError =
        RequestError::InvalidTarget("the path has a percent sign that is not followed by two hexadecimal digits");
    let mut decoded: Option<String> = None;
    let mut rest = path;
    while let Some(percent) = rest.find('%') {
        let [high, low] = *rest.as_bytes().get(percent + 1..percent + 3).unwrap_or_default() else {
            return Err(INVALID);
        };
        let (Some(high), Some(low)) = (hex(high), hex(low)) else { return Err(INVALID) };
        let byte = high << 4 | low;
        if byte == 0 {
            return Err(RequestError::InvalidTarget("the path has an escaped NUL"));
        }
        let is_unreserved = is_unreserved(byte);
        if is_unreserved || decoded.is_some() {
            let decoded = decoded.get_or_insert_with(|| path[..path.len() - rest.len()].to_owned());
            decoded.push_str(&rest[..percent]);
            if is_unreserved {
                decoded.push(char::from(byte));
            } else {
                decoded.push_str(&rest[percent..percent + 3]);
            }
        }
        rest = &rest[percent + 3..];
    }
    Ok(match decoded {
        None => Cow::Borrowed(path),
        Some(decoded) => Cow::Owned(decoded + rest),
    })
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unchanged_targets_are_those_that_endpoints_may_get() {
        for (uri, expected) in [
            ("/a?b=%61", Some("/a?b=%61")),
            ("/a?", Some("/a?")),
            ("http://host/a?b", Some("/a?b")),
            ("http://host", Some("/")),
            // An endpoint must get `/?b`.
            ("http://host?b", None),
            ("/%61", None),
            ("/a/../b", None),
        ] {
            let path = RequestPath::parse(&Method::GET, &Uri::from_static(uri)).unwrap().unwrap();
            assert_eq!(path.unchanged().map(PathAndQuery::as_str), expected, "{uri}");
        }
    }

    #[test]
    fn paths_are_normalized() {
        let cases = [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a//b/", "/a//b/"),
            ("/%61%2Db%5f%7E%2e", "/a-b_~."),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%2fb%20c", "/a%2fb%20c"),
            ("/%41%20%42", "/A%20B"),
            ("/a%25%36%31", "/a%2561"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b/.", "/b/"),
            ("/a/b/..", "/a/"),
            ("/..", "/"),
            ("/../../etc/passwd", "/etc/passwd"),
            ("/a/..b/.c./d", "/a/..b/.c./d"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a//../b", "/a/b"),
            ("/.", "/"),
            ("/a%2f../b", "/a%2f../b"),
            ("/é%C3%A9", "/%C3%A9%C3%A9"),
            ("/é%c3%a9/../ü%7E", "/%C3%BC~"),
        ];
        for (path, expected) in cases {
            let normalized = normalize(path).unwrap();
            assert_eq!(normalized, expected, "{path}");
            assert_eq!(matches!(normalized, Cow::Owned(_)), path != expected, "{path}: owned only if it differs");
        }
        let too_long = format!("/{}", "é".repeat(MAX_PATH / 6 + 1));
        for path in [&*too_long, "/%", "/a%4", "/%zz", "/%+1", "/a%", "/%00", "/a%6", "/%é"] {
            assert!(matches!(normalize(path), Err(RequestError::InvalidTarget(_))), "{path}");
        }
    }

    proptest::proptest! {
        /// Rules are compared with requests, so both must be decoded alike.
        #[test]
        fn rules_and_requests_are_decoded_alike(path in "/([a/%.]|%[0-7][0-9a-fA-F])*") {
            if let Ok(decoded) = decode_unreserved(&path) {
                proptest::prop_assert_eq!(decoded, crate::plugin_api::path_encoding::decode_unreserved(&path));
            }
        }
    }

    proptest::proptest! {
        /// A configured path that equals the normalized path of a request must match it, so such paths are written as
        /// they are.
        #[test]
        fn normalized_paths_have_no_byte_that_is_encoded(path in "(/|[!#-~]|é|\\.|%2e|%2F|%c3){0,12}") {
            let Ok(uri) = Uri::try_from(format!("/{path}")) else { return Ok(()) };
            if let Ok(Some(path)) = RequestPath::parse(&Method::GET, &uri) {
                let in_requests = crate::plugin_api::path_encoding::path_in_requests(path.path());
                proptest::prop_assert_eq!(in_requests, path.path());
            }
        }

        #[test]
        fn path_normalization_is_idempotent(path in "(/|\\.|%2e|%2F|%61|a|%25){0,12}") {
            let path = format!("/{path}");
            if let Ok(once) = normalize(&path) {
                proptest::prop_assert!(once.starts_with('/'));
                proptest::prop_assert!(!once.split('/').any(|segment| segment == "." || segment == ".."));
                let twice = normalize(&once).unwrap();
                proptest::prop_assert_eq!(&*twice, &*once);
            }
        }

        #[test]
        fn accepted_hosts_are_unambiguous(host in proptest::collection::vec(proptest::num::u8::ANY, 0..12)) {
            let Ok(written) = HeaderValue::from_bytes(&host) else { return Ok(()) };
            let mut headers = HeaderMap::new();
            headers.insert(HOST, written);
            let (uri, local) = (Uri::from_static("/"), "10.0.0.1:80".parse().unwrap());
            if let Ok(host) = RequestHost::from_request(Version::HTTP_11, &uri, &headers, local) {
                let name = host.name().into_owned();
                proptest::prop_assert_eq!(host.is_bare_name(), name.as_bytes() == host.raw.as_bytes());
                proptest::prop_assert!(!name.is_empty() && name.is_ascii());
                proptest::prop_assert!(!name.contains(['/', '@', '?', '#', '\\', ' ', ',', '%']));
                // Parsing the name again gives the same name, except for trailing dots: each parse removes one.
                headers.insert(HOST, HeaderValue::try_from(&name).unwrap());
                let reparsed = RequestHost::from_request(Version::HTTP_11, &uri, &headers, local).unwrap();
                let reparsed = reparsed.name().into_owned();
                proptest::prop_assert_eq!(reparsed.trim_end_matches('.'), name.trim_end_matches('.'));
            }
        }

        #[test]
        fn arbitrary_paths_do_not_panic(path in ".*") {
            drop(normalize(&format!("/{path}")));
        }
    }

    #[test]
    fn hosts_are_validated() {
        let host = |version, uri: &str, fields: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(HOST, HeaderValue::from_static(field));
            }
            let local = "10.0.0.1:80".parse().unwrap();
            let host = RequestHost::from_request(version, &uri.parse().unwrap(), &headers, local).ok()?;
            assert_eq!(host.is_bare_name(), host.name().as_bytes() == host.raw.as_bytes(), "{host:?}");
            Some((host.name().into_owned(), host.raw.to_str().unwrap().to_owned()))
        };
        let some = |name: &str, written: &str| Some((name.to_owned(), written.to_owned()));
        let (http11, http10) = (Version::HTTP_11, Version::HTTP_10);
        assert_eq!(host(http11, "/", &["Example.COM:8080"]), some("example.com", "Example.COM:8080"));
        assert_eq!(host(http11, "/", &["example.com."]), some("example.com", "example.com."));
        assert_eq!(host(http11, "/", &["[::1]:80"]), some("[::1]", "[::1]:80"));
        assert_eq!(host(http11, "http://a.example/x", &["b.example"]), some("a.example", "a.example"));
        assert_eq!(host(http10, "/", &[]), some("10.0.0.1", "10.0.0.1:80"));
        assert_eq!(host(http11, "/", &[]), None);
        assert_eq!(host(http11, "http://a.example/x", &[]), None);
        assert_eq!(host(http11, "http://u@a.example/x", &["a.example"]), None);
        assert_eq!(host(http11, "/", &["a", "a"]), None);
        for bad in
            ["", ".", ":80", "a b", "a,b", "a/b", "u@a", "a:b", "a:123456", "[::1", "[]", "[::1]x", "a#", "a?", "a\\b"]
        {
            assert_eq!(host(http11, "/", &[bad]), None, "{bad}");
        }
    }

    #[test]
    fn target_forms_are_validated() {
        let is_rejected = |method, uri: &'static str| RequestPath::parse(&method, &Uri::from_static(uri)).is_err();
        assert!(is_rejected(Method::CONNECT, "a.example:443"));
        assert!(is_rejected(Method::GET, "a.example:443"));
        assert!(is_rejected(Method::GET, "*"));
        assert!(is_rejected(Method::GET, "ftp://a.example/x"));
        assert_eq!(RequestPath::parse(&Method::OPTIONS, &Uri::from_static("*")), Ok(None));
        let uri = Uri::from_static("http://a.example/x?y");
        let path = RequestPath::parse(&Method::GET, &uri).unwrap().unwrap();
        assert_eq!((path.path(), path.query()), ("/x", Some("y")));
    }
}
