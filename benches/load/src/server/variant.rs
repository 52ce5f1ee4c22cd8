//! Variants of the servers' configuration: more routes, more workers, a chain of plugins, or a policy; and the requests
//! for each.

use std::sync::Arc;

use super::objects::API_KEY;
use super::{HOST, Peer};
use crate::plan::RequestShape;
use crate::token_pool::{TOKEN_HOST, TokenLoad};

/// What cases change in the configuration of the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerVariant {
    /// Routes to the backend, 1 to 10,000, each with a host of its own. The first is that of [`HOST`]. All variants
    /// also have the routes for WebSocket messages and for HTTP/2 to the backend.
    pub(crate) routes: usize,
    /// The threads that serve requests; in nginx, processes.
    pub(crate) workers: usize,
    /// Length of the chain of plugins at [`CHAIN_HOST`]: a further route, which only Portico can have. `None` without
    /// this route.
    pub(crate) chain: Option<usize>,
    /// Whether the Service of the backend has a BackendPolicy, which only Portico can have.
    pub(crate) policy: bool,
    /// The tokens of requests to [`TOKEN_HOST`]: a further route, which only Portico and Envoy have. `None` without
    /// this route.
    pub(crate) tokens: Option<TokenLoad>,
}

/// The host of the route with a chain of plugins.
pub(crate) const CHAIN_HOST: &str = "chain.example";

impl ServerVariant {
    /// One route, one worker, no plugins, no policy and no tokens.
    pub(crate) const PLAIN: ServerVariant =
        ServerVariant { routes: 1, workers: 1, chain: None, policy: false, tokens: None };

    /// Whether proxies other than Portico can have this configuration.
    pub(crate) fn fits_peers(self) -> bool {
        self.chain.is_none() && !self.policy
    }

    /// Whether this proxy can have the configuration.
    pub(crate) fn fits(self, peer: Peer) -> bool {
        self.fits_peers() && (self.tokens.is_none() || peer == Peer::Envoy)
    }

    /// The hosts of all routes to the backend other than the first.
    pub(crate) fn further_hosts(self) -> impl Iterator<Item = String> {
        (1..self.routes).map(host_of)
    }

    /// Requests like this one, for the hosts that a case measures. All variants have requests of the same length if
    /// they all have a chain, or none of them.
    pub(crate) fn requests(self, shape: &RequestShape) -> Vec<RequestShape> {
        // Variants do not change the routes of the other hosts, which differ in the protocol to the backend.
        if shape.host != HOST {
            return vec![shape.clone()];
        }
        if let Some(tokens) = self.tokens {
            let fields = tokens.fields().expect("a new key signs tokens");
            let request = |fields| RequestShape { host: TOKEN_HOST.to_owned(), fields, ..shape.clone() };
            return fields.into_iter().map(request).collect();
        }
        let fields: Arc<str> = if self.chain.is_some() { chain_fields().into() } else { "".into() };
        let request = |host| RequestShape { host, fields: Arc::clone(&fields), ..shape.clone() };
        self.requested_hosts().into_iter().map(request).collect()
    }

    /// Up to [`MAX_REQUESTED_HOSTS`] hosts, which are evenly distributed over the routes.
    fn requested_hosts(self) -> Vec<String> {
        if self.chain.is_some() {
            return vec![CHAIN_HOST.to_owned()];
        }
        (0..self.routes).step_by(self.routes.div_ceil(MAX_REQUESTED_HOSTS)).map(host_of).collect()
    }
}

/// The host of a route. All have the same length, so that requests have the same number of bytes.
fn host_of(number: usize) -> String {
    if number == 0 { HOST.to_owned() } else { format!("r{number:04}.example") }
}

/// Header lines that the chain reads: the credential, and the name of the client for bot-detection.
fn chain_fields() -> String {
    format!("apikey: {API_KEY}\r\nuser-agent: Mozilla/5.0 (X11; Linux x86_64)\r\n")
}

/// So many that requests use the routes in turn, and so few that all are in use after the warm-up.
const MAX_REQUESTED_HOSTS: usize = 100;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::server::H2C_HOST;
    use crate::token_pool::TokenAlgorithm;

    fn hosts_of(variant: ServerVariant) -> Vec<String> {
        variant.requests(&RequestShape::get(HOST, "/")).into_iter().map(|request| request.host).collect()
    }

    #[test]
    fn requests_use_hosts_of_the_routes_and_have_the_same_length() {
        for (routes, requested) in [(1, 1), (60, 60), (100, 100), (1000, 100), (10_000, 100)] {
            let variant = ServerVariant { routes, ..ServerVariant::PLAIN };
            let hosts: BTreeSet<String> = variant.further_hosts().chain([HOST.to_owned()]).collect();
            assert_eq!(hosts.len(), routes);
            assert!(hosts.iter().all(|host| host.len() == HOST.len()), "{routes} routes");
            let in_requests: BTreeSet<String> = hosts_of(variant).into_iter().collect();
            assert_eq!(in_requests.len(), requested, "{routes} routes");
            assert!(in_requests.is_subset(&hosts), "{routes} routes");
        }
    }

    #[test]
    fn requests_for_other_hosts_stay_as_they_are() {
        let plain = ServerVariant::PLAIN;
        for variant in [plain, ServerVariant { routes: 1000, ..plain }, ServerVariant { chain: Some(3), ..plain }] {
            let requests = variant.requests(&RequestShape::get(H2C_HOST, "/"));
            let requests: Vec<_> = requests.iter().map(|request| (request.host.as_str(), &*request.fields)).collect();
            assert_eq!(requests, [(H2C_HOST, "")], "{variant:?}");
        }
    }

    #[test]
    fn only_envoy_is_compared_with_tokens() {
        let tokens = Some(TokenLoad { algorithm: TokenAlgorithm::EdDsa, tokens: 3 });
        let variant = ServerVariant { tokens, ..ServerVariant::PLAIN };
        let requests = variant.requests(&RequestShape::get(HOST, "/"));
        assert_eq!(requests.len(), 3);
        assert!(requests.iter().all(|request| request.host == TOKEN_HOST && request.fields.contains("Bearer ey")));
        assert!(variant.fits(Peer::Envoy) && !variant.fits(Peer::Nginx));
        assert!(ServerVariant::PLAIN.fits(Peer::Nginx));
    }

    #[test]
    fn requests_to_chains_have_the_same_bytes_whatever_their_length() {
        let requests = |length| {
            let variant = ServerVariant { chain: Some(length), ..ServerVariant::PLAIN };
            assert!(!variant.fits_peers());
            let requests = variant.requests(&RequestShape::get(HOST, "/"));
            requests.into_iter().map(|request| (request.host, request.fields)).collect::<Vec<_>>()
        };
        assert_eq!(requests(0), requests(8));
        assert_eq!(requests(3)[0].0, CHAIN_HOST);
        assert!(requests(3)[0].1.contains(API_KEY));
        assert!(ServerVariant::PLAIN.fits_peers());
        assert!(!ServerVariant { policy: true, ..ServerVariant::PLAIN }.fits_peers());
    }
}
