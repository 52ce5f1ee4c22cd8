//! What happens to a request once its rule is known: filters, then one action.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::cors::Cors;
use super::kong;
pub use super::path_edit::PathEdit;
pub use super::redirect::{Redirect, Scheme};
use super::tries::Tries;
use crate::plugin::Chain;
use crate::upstream::Upstream;

/// One rule of one route, everything parsed.
#[derive(Debug)]
pub struct Rule {
    pub id: RuleId,
    pub filters: Filters,
    /// What requests meet before anything else of the rule, and answers last.
    pub plugins: Option<Arc<Chain>>,
    pub action: Action,
    /// If the rule comes from an Ingress, or has annotations or plugins of Kong: how its requests go on. Nothing else is
    /// treated as Kong would. Filters have the last word over what this makes of path and Host.
    pub kong: Option<Box<kong::Manner>>,
}

/// Which rule this is, for logs and metrics.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleId {
    /// `HTTPRoute/namespace/name`.
    pub route: Arc<str>,
    /// The name of the rule, or its index written out.
    pub rule: Arc<str>,
}

/// What happens to a request besides its action, at rule or backend level.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    pub request_headers: Option<HeaderEdits>,
    pub response_headers: Option<HeaderEdits>,
    pub rewrite: Option<Rewrite>,
    pub cors: Option<Box<Cors>>,
    pub mirrors: Box<[Mirror]>,
}

/// Copies of requests go there, and nobody waits for what comes of it.
#[derive(Clone, Debug)]
pub struct Mirror {
    pub upstream: Arc<Upstream>,
    /// So many out of `of` requests, on average.
    pub share: u32,
    pub of: u32,
}

impl Mirror {
    /// Whether this request is one of them. A draw out of `0..of`; a larger one wraps around.
    pub fn is_drawn(&self, draw: u32) -> bool {
        draw % self.of.max(1) < self.share
    }
}

/// `remove` first, then `set`, then `add`: no name is in two of them, so the order shows only in what is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub add: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

impl HeaderEdits {
    /// `set` replaces all lines of a name by one, `add` appends a line of its own, `remove` drops all lines.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The Host that the backend sees.
    pub host: Option<HeaderValue>,
    pub path: Option<PathEdit>,
}

#[derive(Debug)]
pub enum Action {
    Redirect(Redirect),
    Forward(Split),
    /// The rule cannot be honored; whoever matches it gets this, never a less specific rule.
    Fail(Failure),
}

/// Backends and their shares.
#[derive(Debug)]
pub struct Split {
    backends: Box<[Backend]>,
    total: u64,
    /// How long and how often, if the rule says so.
    pub tries: Option<Box<Tries>>,
}

impl Split {
    /// Backends of weight 0 get nothing and are left out; without any other there is nothing to split.
    pub fn new(backends: Vec<Backend>) -> Option<Self> {
        let backends: Box<[Backend]> = backends.into_iter().filter(|backend| backend.weight > 0).collect();
        let total = backends.iter().map(|backend| u64::from(backend.weight)).sum();
        (total > 0).then_some(Split { backends, total, tries: None })
    }

    /// Only those with a share; at least one.
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// Sum of the weights, never 0.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The backend that a draw out of `0..total` falls to; a larger draw wraps around.
    pub fn pick(&self, draw: u64) -> &Backend {
        let mut draw = draw % self.total;
        for backend in &self.backends {
            match draw.checked_sub(u64::from(backend.weight)) {
                Some(rest) => draw = rest,
                None => return backend,
            }
        }
        // Not reached, since the draw is below the sum of what was subtracted.
        &self.backends[self.backends.len() - 1]
    }
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
    /// A route of Kong's without a service that could be asked (503).
    NoService,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Failure::NoBackends => "no backends",
            Failure::InvalidBackend => "invalid backend",
            Failure::Unsupported => "unsupported",
            Failure::NoService => "no service",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(weight: u32) -> Backend {
        Backend { weight, filters: Filters::default(), target: Target::Fail(Failure::InvalidBackend) }
    }

    #[test]
    fn each_backend_gets_exactly_its_share() {
        let cases: [&[u32]; 4] = [&[1], &[9, 1], &[0, 2, 0, 3], &[1, 1, 1]];
        for weights in cases {
            let split = Split::new(weights.iter().map(|weight| backend(*weight)).collect()).unwrap();
            let expected: Vec<u32> = weights.iter().copied().filter(|weight| *weight > 0).collect();
            let mut drawn = vec![0; expected.len()];
            for draw in 0..split.total() {
                let picked = split.pick(draw);
                drawn[split.backends().iter().position(|backend| std::ptr::eq(backend, picked)).unwrap()] += 1;
            }
            assert_eq!(drawn, expected, "{weights:?}");
        }
    }

    #[test]
    fn nothing_to_split() {
        assert!(Split::new(Vec::new()).is_none());
        assert!(Split::new(vec![backend(0), backend(0)]).is_none());
    }

    #[test]
    fn large_weights_neither_overflow_nor_panic() {
        let split = Split::new(vec![backend(u32::MAX), backend(u32::MAX)]).unwrap();
        assert_eq!(split.total(), 2 * u64::from(u32::MAX));
        assert!(std::ptr::eq(split.pick(u64::from(u32::MAX)), &split.backends()[1]));
        split.pick(u64::MAX);
    }

    #[test]
    fn header_edits() {
        let pair = |name: &'static str, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let edits = HeaderEdits {
            set: vec![pair("x-set", "new"), pair("x-set-too", "fresh")],
            add: vec![pair("x-add", "second"), pair("x-add-too", "first")],
            remove: vec![HeaderName::from_static("x-remove"), HeaderName::from_static("x-absent")],
        };
        let mut headers: HeaderMap = [
            pair("x-set", "old"),
            pair("x-set", "older"),
            pair("x-add", "first"),
            pair("x-remove", "a"),
            pair("x-remove", "b"),
            pair("x-other", "stays"),
        ]
        .into_iter()
        .collect();
        edits.apply(&mut headers);
        let expected: HeaderMap = [
            pair("x-set", "new"),
            pair("x-set-too", "fresh"),
            pair("x-add", "first"),
            pair("x-add", "second"),
            pair("x-add-too", "first"),
            pair("x-other", "stays"),
        ]
        .into_iter()
        .collect();
        assert_eq!(headers, expected);
    }
}
