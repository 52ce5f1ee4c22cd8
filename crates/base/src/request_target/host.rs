//! The host of a request, validated.

use std::borrow::Cow;
use std::net::SocketAddr;

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Uri, Version};

use super::error::{InvalidHost, InvalidTarget, TargetError};

/// The host of a request.
#[derive(Debug, PartialEq, Eq)]
pub struct RequestHost {
    /// As in the request, with its port.
    pub raw: HeaderValue,
    /// The length of the name or address in `raw`, without the port.
    name_length: usize,
    /// Whether the name in `raw` has letters in upper case.
    has_uppercase: bool,
    /// Whether `raw` is not the Host field, because that is missing or the target overrides it (RFC 9112, section
    /// 3.2.2).
    pub is_overridden: bool,
}

impl RequestHost {
    /// Reads the host. `local` is the listening address, the default for HTTP/1.0 requests without Host (RFC 9112,
    /// section 3.3).
    pub fn from_request(
        version: Version,
        uri: &Uri,
        headers: &HeaderMap,
        local: SocketAddr,
    ) -> Result<RequestHost, TargetError> {
        let mut fields = headers.get_all(HOST).iter();
        let field = fields.next();
        if fields.next().is_some() {
            return Err(InvalidHost::Several.into());
        }
        // The field must be present and valid even when the target overrides it: a proxy in front may have used it.
        let host = match field {
            Some(field) => Some(RequestHost::parse(field.clone()).ok_or(InvalidHost::Malformed)?),
            None if version == Version::HTTP_11 => {
                return Err(InvalidHost::Absent.into());
            }
            None => None,
        };
        let replacement = match (uri.authority(), host) {
            (None, Some(host)) => return Ok(host),
            (Some(authority), host) => {
                // From HTTP/2 on, Host is optional and must equal `:authority` (RFC 9113, section 8.3.1).
                let differs =
                    |host: &RequestHost| !host.raw.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes());
                if version >= Version::HTTP_2 && host.as_ref().is_some_and(differs) {
                    return Err(InvalidHost::DiffersFromAuthority.into());
                }
                HeaderValue::from_str(authority.as_str()).ok()
            }
            (None, None) if version == Version::HTTP_10 => HeaderValue::try_from(local.to_string()).ok(),
            (None, None) => return Err(InvalidHost::Absent.into()),
        };
        let host = replacement.and_then(RequestHost::parse).ok_or(InvalidTarget::Authority)?;
        Ok(RequestHost { is_overridden: true, ..host })
    }

    /// Reads a host with an optional port.
    pub fn parse(raw: HeaderValue) -> Option<RequestHost> {
        let name_length = host_name_length(raw.as_bytes())?;
        let has_uppercase = raw.as_bytes()[..name_length].iter().any(u8::is_ascii_uppercase);
        Some(RequestHost { raw, name_length, has_uppercase, is_overridden: false })
    }

    /// The name that listeners and routes are matched with: lower case, without port and without the trailing dot.
    pub fn name(&self) -> Cow<'_, str> {
        let name = &self.raw.as_bytes()[..self.name_length];
        let name = std::str::from_utf8(name).expect("a host that was read consists of ASCII characters");
        let name = name.strip_suffix('.').unwrap_or(name);
        if self.has_uppercase { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) }
    }

    /// Whether the client has named a port.
    pub fn has_port(&self) -> bool {
        self.name_length < self.raw.len()
    }

    /// The port that the client has named. None also if it is empty or too large.
    pub fn port(&self) -> Option<u16> {
        let port = self.raw.as_bytes().get(self.name_length + 1..)?;
        std::str::from_utf8(port).ok()?.parse().ok()
    }

    /// Whether [`RequestHost::name`] is the host as it is in the request.
    pub fn is_bare_name(&self) -> bool {
        let raw = self.raw.as_bytes();
        self.name_length == raw.len() && !self.has_uppercase && !raw.ends_with(b".")
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

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
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
}
