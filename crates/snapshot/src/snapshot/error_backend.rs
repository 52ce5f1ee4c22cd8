//! The backend that responds in place of errors: for the locations of ingress-nginx.

use std::fmt;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::upstream::Upstream;

/// What replaces the errors of a location.
#[derive(Debug, PartialEq)]
pub struct ErrorBackend {
    /// The statuses that are replaced, sorted. None of a location that has only a substitute for its Service.
    pub statuses: Box<[u16]>,
    /// Whether those of endpoints are replaced, too, and not only those of Portico.
    pub replaces_endpoint_errors: bool,
    /// Which Service responds. `None`: errors become status 404.
    pub upstream: Option<Arc<Upstream>>,
    /// The headers with the names of the location: of its Ingress and its Service.
    pub names: Box<[(HeaderName, HeaderValue)]>,
}

impl ErrorBackend {
    /// Whether a response with this status is replaced. `of_endpoint`: an endpoint has sent it.
    pub fn replaces(&self, status: u16, of_endpoint: bool) -> bool {
        // Clients open another connection because of it.
        status != MISDIRECTED
            && (!of_endpoint || self.replaces_endpoint_errors)
            && self.statuses.binary_search(&status).is_ok()
    }
}

const MISDIRECTED: u16 = 421;

/// Text for dumps.
impl fmt::Display for ErrorBackend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statuses: Vec<String> = self.statuses.iter().map(u16::to_string).collect();
        match (&self.upstream, &statuses[..]) {
            (Some(upstream), []) => write!(formatter, "without endpoints by {}", upstream.key),
            (Some(upstream), statuses) => write!(formatter, "errors {} by {}", statuses.join(", "), upstream.key),
            (None, statuses) => write!(formatter, "errors {} by status 404", statuses.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_statuses_are_replaced() {
        let error_backend = |replaces_endpoint_errors| ErrorBackend {
            statuses: [404, 503].into(),
            replaces_endpoint_errors,
            upstream: None,
            names: Box::default(),
        };
        for (status, of_endpoint, expected) in
            [(404, false, [true, true]), (404, true, [false, true]), (500, false, [false; 2]), (500, true, [false; 2])]
        {
            let found = [false, true].map(|replaces| error_backend(replaces).replaces(status, of_endpoint));
            assert_eq!(found, expected, "{status}, of an endpoint: {of_endpoint}");
        }
        assert_eq!(error_backend(true).to_string(), "errors 404, 503 by status 404");
    }
}
