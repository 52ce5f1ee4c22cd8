//! The redirect from a host to the same one with or without `www`.

use http::{HeaderValue, StatusCode};

use super::redirect_to;
use crate::plugin_api::{ClientInfo, Reply};

/// Redirects all requests to another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRedirect {
    pub host: Box<str>,
    pub status: StatusCode,
}

impl HostRedirect {
    /// As in ingress-nginx, the URL always has the port, and loses one slash at its end. `raw_target` is the path and
    /// query that the client sent.
    pub(super) fn reply(&self, client: ClientInfo<'_>, raw_target: &str) -> Box<Reply> {
        let target = raw_target.strip_suffix('/').unwrap_or(raw_target);
        let url = format!("{}://{}:{}{target}", client.scheme, self.host, client.port);
        redirect_to(self.status, HeaderValue::try_from(url).ok())
    }
}
