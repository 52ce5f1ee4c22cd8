//! A request of a plugin to another server, its response, and the URL that a plugin's configuration contains.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use percent_encoding::percent_decode_str;

use super::remote::{Remote, RemoteTls};

/// A request for [`PluginServices::send`](super::PluginServices::send).
#[derive(Clone, Debug)]
pub struct RemoteRequest {
    pub remote: Remote,
    pub method: Method,
    pub target: PathAndQuery,
    /// All headers except Content-Length, including Host.
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Timeout of the whole exchange, with name resolution and connecting.
    pub timeout: Duration,
    /// How long the connection may stay idle afterwards. `None` closes it.
    pub keep_alive: Option<Duration>,
    /// Whether the server may get the request twice although its method is not idempotent: if it only asks something.
    /// See `RemoteClient`.
    pub is_repeatable: bool,
    pub response_body: ResponseBodyUse,
}

/// What happens with the body of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseBodyUse {
    /// The caller gets the body. A longer body is an error.
    Collect { max_bytes: usize },
    /// The response has no body for the caller. The connection is closed if the body is long or slow.
    Discard,
}

/// The response to a [`RemoteRequest`].
#[derive(Clone, Debug)]
pub struct RemoteResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why there is no response to a request that a client waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientRequestFailure {
    /// The client has its share of the requests. Says nothing about the server.
    Busy(String),
    /// As of other requests.
    Failed(String),
}

impl ClientRequestFailure {
    pub fn into_message(self) -> String {
        match self {
            ClientRequestFailure::Busy(message) | ClientRequestFailure::Failed(message) => message,
        }
    }
}

/// An `http` or `https` URL, split into what a request needs.
#[derive(Clone)]
pub struct RemoteUrl {
    /// A name, or an IP address without brackets.
    pub host: String,
    pub port: u16,
    pub is_secure: bool,
    /// The Host header, without user information.
    pub authority: HeaderValue,
    pub target: PathAndQuery,
    /// The value of Authorization, if the URL has user information. It is marked as sensitive.
    pub authorization: Option<HeaderValue>,
}

impl RemoteUrl {
    /// Parses a URL. Messages do not contain any part of it, because it may contain a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error: http::uri::InvalidUri| format!("the URL is not valid: {error}"))?;
        let is_secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("the URL must start with http:// or https://".to_owned()),
        };
        let authority = uri.authority().map_or("", http::uri::Authority::as_str);
        let (user_info, authority) = authority.rsplit_once('@').map_or((None, authority), |(user_info, authority)| {
            (Some(user_info).filter(|text| !text.is_empty()), authority)
        });
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err("the URL has no host".to_owned());
        }
        let default_port = if is_secure { 443 } else { 80 };
        // `port_u16` is also None for a port that is not a number.
        let port = match uri.port_u16() {
            Some(0) => return Err("the port of the URL must not be 0".to_owned()),
            Some(port) => port,
            None if authority.ends_with(host) || authority.ends_with(']') => default_port,
            None => return Err("the URL has an invalid port".to_owned()),
        };
        let host_header =
            HeaderValue::try_from(authority).map_err(|_| "the host of the URL is not valid".to_owned())?;
        Ok(RemoteUrl {
            host: host.to_owned(),
            port,
            is_secure,
            authority: host_header,
            target: uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")),
            authorization: user_info.map(basic_authorization),
        })
    }

    /// The server of the URL. `namespace`: where a name without dots is looked up.
    pub fn remote(&self, namespace: Option<&str>, verify: bool, timeout: Duration) -> Remote {
        Remote {
            host: self.host.clone(),
            port: self.port,
            namespace: namespace.map(str::to_owned),
            tls: self.is_secure.then_some(RemoteTls { server_name: None, verify, files: None }),
            timeout,
        }
    }
}

/// `Basic` credentials from the user information of a URL, in which characters may be percent-encoded.
fn basic_authorization(user_info: &str) -> HeaderValue {
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let decode = |text| percent_decode_str(text).collect::<Vec<u8>>();
    basic_credentials(&decode(user), &decode(password))
}

/// `Basic` credentials (RFC 7617), as a sensitive value.
pub fn basic_credentials(user: &[u8], password: &[u8]) -> HeaderValue {
    let credentials = [user, b":", password].concat();
    let text = format!("Basic {}", BASE64_STANDARD.encode(credentials));
    let mut value = HeaderValue::try_from(text).expect("base64 is a valid header value");
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split() {
        let cases = [
            ("http://logs.example", ("logs.example", 80, false, "logs.example", "/")),
            ("https://logs.example/in?a=b", ("logs.example", 443, true, "logs.example", "/in?a=b")),
            ("http://[::1]:81/", ("::1", 81, false, "[::1]:81", "/")),
            ("http://[::1]/x", ("::1", 80, false, "[::1]", "/x")),
            ("https://anna:secret@logs.example:8443", ("logs.example", 8443, true, "logs.example:8443", "/")),
        ];
        for (text, expected) in cases {
            let url = RemoteUrl::parse(text).unwrap();
            let authority = url.authority.to_str().unwrap();
            assert_eq!((&*url.host, url.port, url.is_secure, authority, url.target.as_str()), expected, "{text}");
        }
    }

    #[test]
    fn user_information_becomes_basic_authorization() {
        let url = RemoteUrl::parse("http://us%40er:p%3Aw@a.example/").unwrap();
        let authorization = url.authorization.unwrap();
        assert_eq!(authorization, format!("Basic {}", BASE64_STANDARD.encode("us@er:p:w")));
        assert!(authorization.is_sensitive() && format!("{authorization:?}") == "Sensitive");
        assert!(RemoteUrl::parse("http://a.example/").unwrap().authorization.is_none());
    }

    #[test]
    fn messages_about_invalid_urls_contain_no_part_of_them() {
        let cases = [
            ("ftp://u:secret@a.example", "must start with http://"),
            ("/secret", "must start with http://"),
            ("http://u:secret@", "is not valid"),
            ("http://u:secret@a.example:99999/", "invalid port"),
            ("http://u:secret@a.example:0/", "must not be 0"),
            ("http://u:secret@a b/", "is not valid"),
        ];
        for (text, expected) in cases {
            let error = RemoteUrl::parse(text).err().unwrap_or_else(|| panic!("{text} is accepted"));
            assert!(error.contains(expected) && !error.contains("secret"), "{text}: {error}");
        }
    }
}
