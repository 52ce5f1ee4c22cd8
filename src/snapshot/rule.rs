//! What happens to a request once its rule is known: filters, then one action.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode};

use crate::upstream::Upstream;

/// One rule of one route, everything parsed.
#[derive(Debug)]
pub struct Rule {
    pub id: RuleId,
    pub filters: Filters,
    pub action: Action,
}

/// Which rule this is, for logs and metrics.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleId {
    /// `HTTPRoute/namespace/name`.
    pub route: Arc<str>,
    /// The name of the rule, or its index written out.
    pub rule: Arc<str>,
}

/// Header edits and rewrites, at rule or backend level.
#[derive(Debug, Default)]
pub struct Filters {
    pub request_headers: Option<HeaderEdits>,
    pub response_headers: Option<HeaderEdits>,
    pub rewrite: Option<Rewrite>,
}

/// `remove` first, then `set`, then `add`: no name is in two of them, so the order shows only in what is written.
#[derive(Debug, Default)]
pub struct HeaderEdits {
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub add: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

#[derive(Debug, Default)]
pub struct Rewrite {
    /// The Host that the backend sees.
    pub host: Option<HeaderValue>,
    pub path: Option<PathEdit>,
}

/// Gateway API §3.5: the query string always stays.
#[derive(Debug, PartialEq, Eq)]
pub enum PathEdit {
    Full(Box<str>),
    /// Replaces the prefix that the rule matched. Both without their trailing slash.
    Prefix {
        strip: Box<str>,
        with: Box<str>,
    },
}

#[derive(Debug)]
pub enum Action {
    Redirect(Redirect),
    Forward(Split),
    /// The rule cannot be honored; whoever matches it gets this, never a less specific rule.
    Fail(Failure),
}

/// What is not set stays as the request has it.
#[derive(Debug)]
pub struct Redirect {
    pub scheme: Option<Scheme>,
    pub host: Option<Box<str>>,
    pub path: Option<PathEdit>,
    pub port: Option<u16>,
    pub status: StatusCode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

/// Backends and their shares.
#[derive(Debug)]
pub struct Split {
    /// Only those with a share.
    pub backends: Vec<Backend>,
    /// Sum of the weights, never 0.
    pub total: u32,
}

#[derive(Debug)]
pub struct Backend {
    pub weight: u32,
    pub filters: Filters,
    pub target: Target,
}

#[derive(Debug)]
pub enum Target {
    Upstream(Arc<Upstream>),
    /// An invalid backend: its share of the requests gets an error.
    Fail(Failure),
}

/// Why a rule or backend answers an error instead of forwarding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// The rule has no backend that could take a request (500).
    NoBackends,
    /// The backend does not exist or may not be used (500).
    InvalidBackend,
    /// The rule has a filter or field that cannot be honored (500).
    Unsupported,
}
