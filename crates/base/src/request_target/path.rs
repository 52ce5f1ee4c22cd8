//! The path and query of a request, validated and normalized.

use std::borrow::Cow;

use http::uri::PathAndQuery;
use http::{Method, Uri};

use super::error::{InvalidTarget, TargetError};
use super::path_encoding::{encode_non_ascii, is_unreserved, resolve_dots};

/// The path and query of a request.
#[derive(Debug, PartialEq, Eq)]
pub struct RequestPath {
    /// As in the request.
    raw: PathAndQuery,
    /// The path with dot segments resolved, unreserved characters decoded and bytes that are not ASCII encoded. None if
    /// that changes nothing.
    normalized: Option<String>,
}

impl RequestPath {
    /// Parses the target. `None` for `OPTIONS *`, which is about the server and has no path.
    pub fn parse(method: &Method, uri: &Uri) -> Result<Option<RequestPath>, TargetError> {
        if method == Method::CONNECT {
            return Err(TargetError::Connect);
        }
        match (uri.scheme_str(), uri.authority()) {
            (None, None) => {}
            (Some(scheme), Some(_)) if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") => {}
            (Some(_), _) => return Err(InvalidTarget::Scheme.into()),
            (None, Some(_)) => return Err(InvalidTarget::HostWithoutPath.into()),
        }
        let path = uri.path();
        if path == "*" {
            if method == Method::OPTIONS {
                return Ok(None);
            }
            return Err(InvalidTarget::Asterisk.into());
        }
        let Some(raw) = uri.path_and_query().filter(|_| path.starts_with('/')) else {
            return Err(InvalidTarget::NoSlash.into());
        };
        let normalized = match normalize(path)? {
            Cow::Borrowed(_) => None,
            Cow::Owned(path) => Some(path),
        };
        Ok(Some(RequestPath { raw: raw.clone(), normalized }))
    }

    /// The normalized path.
    pub fn path(&self) -> &str {
        self.normalized.as_deref().unwrap_or_else(|| self.raw.path())
    }

    pub fn query(&self) -> Option<&str> {
        self.raw.query()
    }

    /// The path and query as the client sent them.
    pub fn raw(&self) -> &str {
        self.raw.as_str()
    }

    /// The path as the client sent it.
    pub fn raw_path(&self) -> &str {
        self.raw.path()
    }

    /// The path and query as the client sent them, even if the normalized path differs. `None` if the client sent no
    /// path.
    pub fn sent(&self) -> Option<&PathAndQuery> {
        Some(&self.raw).filter(|raw| raw.as_str().starts_with('/'))
    }

    /// The path and query as the client sent them, unless the path differs from that.
    pub fn unchanged(&self) -> Option<&PathAndQuery> {
        // In the form `http://host?query` the path is empty, which means `/`.
        let is_unchanged = self.normalized.is_none() && self.raw.as_str().starts_with('/');
        is_unchanged.then_some(&self.raw)
    }

    /// Replaces the path with one that is normalized further.
    pub fn replace(&mut self, path: String) {
        self.normalized = Some(path);
    }
}

/// Normalizes a path. The backend gets the path that was matched, so spellings that parsers could read as different
/// paths become one. Reserved characters stay as written: `%2F` is not a slash. Bytes that are not ASCII are encoded,
/// as most clients do: a rule for `/café` must not depend on that.
fn normalize(path: &str) -> Result<Cow<'_, str>, InvalidTarget> {
    // One pass: no segment starts with a dot, and no byte but possibly the last is a percent sign or a quotation mark.
    let is_plain = |pair: (u8, u8)| pair != (b'/', b'.') && pair.0 != b'%' && pair.0 != b'"';
    let is_normalized = path.bytes().zip(path.bytes().skip(1)).all(is_plain);
    if is_normalized && !path.ends_with(['%', '"']) && path.is_ascii() {
        return Ok(Cow::Borrowed(path));
    }
    // The library rejects other delimiters. Encoding it would differ from what other servers do with it.
    if path.contains('"') {
        return Err(InvalidTarget::QuotationMark);
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
        return Err(InvalidTarget::TooLong);
    }
    Ok(Cow::Owned(encoded))
}

/// The maximum length of a path, in bytes: that of a target in the `http` crate.
const MAX_PATH: usize = u16::MAX as usize - 1;

fn decode_unreserved(path: &str) -> Result<Cow<'_, str>, InvalidTarget> {
    let mut decoded: Option<String> = None;
    let mut rest = path;
    while let Some(percent) = rest.find('%') {
        let [high, low] = *rest.as_bytes().get(percent + 1..percent + 3).unwrap_or_default() else {
            return Err(InvalidTarget::BrokenEscape);
        };
        let (Some(high), Some(low)) = (hex(high), hex(low)) else { return Err(InvalidTarget::BrokenEscape) };
        let byte = high << 4 | low;
        if byte == 0 {
            return Err(InvalidTarget::EscapedNul);
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
            assert!(normalize(path).is_err(), "{path}");
        }
    }

    proptest::proptest! {
        /// Rules are compared with requests, so both must be decoded alike.
        #[test]
        fn rules_and_requests_are_decoded_alike(path in "/([a/%.]|%[0-7][0-9a-fA-F])*") {
            if let Ok(decoded) = decode_unreserved(&path) {
                proptest::prop_assert_eq!(decoded, crate::request_target::path_encoding::decode_unreserved(&path));
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
                let in_requests = crate::request_target::path_encoding::path_in_requests(path.path());
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
        fn arbitrary_paths_do_not_panic(path in ".*") {
            drop(normalize(&format!("/{path}")));
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
