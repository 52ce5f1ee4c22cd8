//! Request targets and hosts: the normalized path is one that no parser reads differently, and the host is the one that
//! the `http` crate finds.

use http::header::HOST;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

use super::{RequestHost, RequestPath, path_encoding};

/// The first line is the target, the second one is Host, and the third one `1.0`, `2` or the method.
pub(crate) fn check(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let mut next_line = || lines.next().unwrap_or_default();
    let (target, host, rest) = (next_line(), next_line(), next_line());
    let Ok(uri) = Uri::try_from(target) else { return };
    let (method, version) = match rest {
        b"1.0" => (Method::GET, Version::HTTP_10),
        b"2" => (Method::GET, Version::HTTP_2),
        method => (Method::from_bytes(method).unwrap_or(Method::GET), Version::HTTP_11),
    };
    if let Ok(Some(path)) = RequestPath::parse(&method, &uri) {
        check_path(&uri, &path);
    }
    let mut headers = HeaderMap::new();
    if !host.is_empty() {
        let Ok(host) = HeaderValue::from_bytes(host) else { return };
        headers.insert(HOST, host);
    }
    let local = ([10, 0, 0, 1], 80).into();
    if let Ok(host) = RequestHost::from_request(version, &uri, &headers, local) {
        check_host(&host);
    }
}

fn check_path(uri: &Uri, parsed: &RequestPath) {
    let path = parsed.path();
    assert!(path.starts_with('/'), "{path}");
    assert!(path.is_ascii(), "{path} has no unencoded bytes");
    let escapes = uri.path().bytes().filter(|byte| !byte.is_ascii()).count();
    assert!(path.len() <= uri.path().len() + 2 * escapes, "{path} is not longer than {uri}, except for escapes");
    assert!(!path.split('/').any(|segment| segment == "." || segment == ".."), "{path} has no dot segments");
    assert_eq!(parsed.query(), uri.query(), "the query is as in the request");
    let target = PathAndQuery::try_from(path).expect("a normalized path is a valid target");
    assert_eq!(target.path(), path, "the whole path is sent to the endpoint");
    assert_eq!(path_encoding::decode_unreserved(path), path, "rules and requests are decoded alike");
    let reparsed = RequestPath::parse(&Method::GET, &Uri::from(target));
    let reparsed = reparsed.ok().flatten().expect("a normalized path is valid");
    assert_eq!(reparsed.path(), path, "normalizing twice changes nothing");
    assert!(reparsed.unchanged().is_some(), "{path} is normalized");
}

fn check_host(host: &RequestHost) {
    let name = host.name();
    assert!(!name.is_empty() && name.is_ascii(), "{host:?}");
    assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase()), "{name} is in lower case");
    assert!(!name.contains(['/', '@', '?', '#', '\\', ' ', ',', '%']), "{name} is a host only");
    let raw = host.raw.to_str().expect("a host is ASCII");
    if let Ok(authority) = Authority::try_from(raw) {
        let without_dot = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        assert_eq!(without_dot(authority.host()), name, "the http crate reads the same host from {raw}");
    }
}
