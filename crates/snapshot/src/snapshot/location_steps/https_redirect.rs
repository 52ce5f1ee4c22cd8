//! The redirect of a location from plain text to HTTPS.

use http::StatusCode;

use crate::plugin_api::{ClientInfo, Scheme};

/// Redirects requests in plain text to the same host and target over HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpsRedirectOfLocation {
    pub status: StatusCode,
    /// Whether the target keeps a slash at its end. nginx removes one otherwise, even that of a query.
    pub keeps_trailing_slash: bool,
    /// The port in the URL; `None` for none.
    pub port: Option<u16>,
}

impl HttpsRedirectOfLocation {
    /// The URL for a request. `None` if the client uses HTTPS. `raw_target`: path and query as the
    /// client sent them.
    pub(super) fn target(self, client: ClientInfo<'_>, raw_target: &str) -> Option<String> {
        if client.scheme == Scheme::Https {
            return None;
        }
        let target = match raw_target.strip_suffix('/') {
            Some(target) if !self.keeps_trailing_slash => target,
            _ => raw_target,
        };
        let host = without_port(client.host);
        Some(match self.port {
            // As in ingress-nginx, also the default port.
            Some(port) => format!("https://{host}:{port}{target}"),
            None => format!("https://{host}{target}"),
        })
    }
}

/// The host without its port. IPv6 addresses keep their brackets.
pub(super) fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_lose_their_port() {
        for (host, expected) in
            [("a.example", "a.example"), ("a.example:8080", "a.example"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]")]
        {
            assert_eq!(without_port(host), expected);
        }
    }
}
