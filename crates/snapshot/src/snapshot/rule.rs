//! The rules of routes: filters, plugins, and the action for a matched request.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::cors::CorsFilter;
use super::external_auth::ExternalAuthFilter;
pub use super::path_edit::PathEdit;
pub use super::redirect::{RedirectAction, RedirectStyle, Scheme};
use super::rule_options::RuleOptions;
use super::timeouts_and_retries::TimeoutsAndRetries;
use crate::plugin_api::{AssertedFields, ChosenBackend};
use crate::plugin_chain::Chain;
use crate::upstream::{AffinitySettings, Upstream};

/// One rule of one route, fully parsed.
#[derive(Debug, PartialEq)]
pub struct RouteRule {
    pub id: RuleId,
    pub filters: Filters,
    /// The plugins process the request before the filters and the action, and the response after them.
    pub plugins: Option<Arc<Chain>>,
    pub action: Action,
    /// `None` if all options have their defaults, which saves memory. Use [`RouteRule::options`] to read them.
    pub options: Option<Box<RuleOptions>>,
}

impl RouteRule {
    /// Whether handshakes request the certificate of the client because a plugin of the rule reads it.
    pub(super) fn requests_client_certificate(&self) -> bool {
        self.plugins.as_ref().is_some_and(|chain| chain.requests_client_certificate())
    }

    /// The options of the rule. Its filters are applied after them, and override the path and Host that result.
    pub fn options(&self) -> &RuleOptions {
        self.options.as_deref().unwrap_or(RuleOptions::DEFAULT)
    }
}

/// Identifies a rule in logs and metrics.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleId {
    /// `Kind/namespace/name`, for example `HTTPRoute/default/web`.
    pub route: Arc<str>,
    /// The name of the rule, or its index in the route.
    pub rule: Arc<str>,
}

impl RuleId {
    /// The namespace of the route.
    pub fn namespace(&self) -> &str {
        self.route.split('/').nth(1).unwrap_or_default()
    }
}

/// The filters of a rule or a backend, except redirects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filters {
    pub request_headers: Option<HeaderEdits>,
    pub response_headers: Option<HeaderEdits>,
    pub rewrite: Option<Rewrite>,
    pub cors: Option<Box<CorsFilter>>,
    pub external_auth: Option<Box<ExternalAuthFilter>>,
    pub mirrors: Box<[Mirror]>,
}

impl Filters {
    /// The fields about which the authorization server decides.
    pub fn asserted_by_server(&self) -> Option<&AssertedFields> {
        self.external_auth.as_ref()?.asserted_fields()
    }
}

/// Sends copies of requests to an upstream and ignores the responses.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    pub upstream: Arc<Upstream>,
    /// The mirrored share of requests is `numerator / denominator`, on average.
    pub numerator: u32,
    pub denominator: u32,
}

impl Mirror {
    /// Whether this request is mirrored. `draw` is a random number in `0..denominator`; a larger number wraps around.
    pub fn is_sampled(&self, draw: u32) -> bool {
        draw % self.denominator.max(1) < self.numerator
    }
}

/// Changes of header fields. `remove` is applied first, then `set`, then `add`; no name is in two of these lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub add: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

impl HeaderEdits {
    /// `set` replaces all lines of a name with one, `add` appends a line, `remove` drops all lines.
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

/// Changes of Host and path before a request is forwarded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The Host header for the backend.
    pub host: Option<HeaderValue>,
    pub path: Option<PathEdit>,
}

/// What the proxy does with a matched request.
#[derive(Debug, PartialEq)]
pub enum Action {
    Redirect(RedirectAction),
    Forward(WeightedBackends),
    /// The rule is invalid. Every request that matches it gets this error; a less specific rule never replaces it.
    Fail(RouteFailure),
}

/// The backends of a rule, picked at random by weight.
#[derive(Debug, PartialEq)]
pub struct WeightedBackends {
    backends: Box<[Backend]>,
    total_weight: u64,
    /// Timeouts and retries, if the rule sets any.
    pub timeouts_and_retries: Option<Box<TimeoutsAndRetries>>,
    /// Whether a gRPC call ends when the time in its field `grpc-timeout` has passed.
    pub honors_call_deadlines: bool,
    affinity: Option<Arc<AffinitySettings>>,
    /// Whether the first backend that plugins may choose has none of the sessions of the rule.
    pub first_choice_lacks_sessions: bool,
    /// The backends that plugins may choose instead, by the indices of [`ChosenBackend`]. A second pointer, so that the
    /// many rules without any need the memory of one only.
    chosen_by_plugins: Option<Box<Box<[Backend]>>>,
    /// The fields about which the authorization servers of backends decide. `None` without such servers.
    asserted_by_servers: Option<Box<AssertedFields>>,
    /// What gets the requests for a backend without endpoints. It has none itself.
    substitute: Option<Box<WeightedBackends>>,
    /// What gets the requests of clients with TLS in place of the backends with these upstreams.
    over_tls: Option<Box<Box<[BackendOverTls]>>>,
}

impl WeightedBackends {
    /// Drops backends of weight 0. `None` if no other backend remains.
    pub fn new(backends: Vec<Backend>) -> Option<Self> {
        let backends: Box<[Backend]> = backends.into_iter().filter(|backend| backend.weight > 0).collect();
        let total_weight = backends.iter().map(|backend| u64::from(backend.weight)).sum();
        (total_weight > 0).then_some(WeightedBackends {
            asserted_by_servers: asserted_by_servers(backends.iter()),
            backends,
            total_weight,
            timeouts_and_retries: None,
            honors_call_deadlines: false,
            affinity: None,
            first_choice_lacks_sessions: false,
            chosen_by_plugins: None,
            substitute: None,
            over_tls: None,
        })
    }

    /// The fields about which the authorization server of any backend decides. Clients may not send them to the others
    /// either.
    pub fn asserted_by_servers(&self) -> Option<&AssertedFields> {
        self.asserted_by_servers.as_deref()
    }

    /// The backends with a weight above 0; at least one.
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// The backends that plugins of the rule may choose.
    pub fn chosen_by_plugins(&self) -> &[Backend] {
        self.chosen_by_plugins.as_deref().map_or(&[], |backends| backends)
    }

    /// Sets the backends that plugins of the rule may choose.
    pub fn set_chosen_by_plugins(&mut self, backends: Vec<Backend>) {
        self.chosen_by_plugins = (!backends.is_empty()).then(|| Box::new(backends.into()));
        self.asserted_by_servers = asserted_by_servers(self.all_backends());
        self.prepare_affinity();
    }

    /// The backends with a weight above 0, those that plugins may choose, that of the substitute, and those for clients
    /// with TLS.
    pub fn all_backends(&self) -> impl Iterator<Item = &Backend> {
        let substitute = self.substitute.iter().flat_map(|substitute| &substitute.backends);
        let over_tls = self.over_tls.iter().flat_map(|over_tls| over_tls.iter().map(|(_, backend)| backend));
        self.backends.iter().chain(self.chosen_by_plugins()).chain(substitute).chain(over_tls)
    }

    /// Sets what gets the requests of clients with TLS in place of the backends with these upstreams.
    pub fn set_over_tls(&mut self, over_tls: Vec<BackendOverTls>) {
        self.over_tls = (!over_tls.is_empty()).then(|| Box::new(over_tls.into()));
        self.prepare_affinity();
    }

    /// What gets a request of a client with TLS for one of the backends.
    pub fn over_tls<'b>(&'b self, backend: &'b Backend) -> &'b Backend {
        let (Some(over_tls), BackendTarget::Upstream(upstream)) = (&self.over_tls, &backend.target) else {
            return backend;
        };
        over_tls.iter().find(|(plain, _)| Arc::ptr_eq(plain, upstream)).map_or(backend, |(_, backend)| backend)
    }

    /// The backend that a plugin has chosen; `None` if it may be left out because no endpoint is available.
    ///
    /// # Panics
    ///
    /// If the rule does not have the backend: a rule has the backends that the plugins of its chain name.
    pub fn chosen(&self, chosen: ChosenBackend) -> Option<&Backend> {
        let backend = &self.chosen_by_plugins()[usize::from(chosen.index)];
        let is_available = match &backend.target {
            BackendTarget::Upstream(upstream) => !chosen.has_fallback || upstream.has_available_endpoint(),
            BackendTarget::Fail(_) => !chosen.has_fallback,
        };
        is_available.then_some(backend)
    }

    /// Sets what gets the requests for a backend without endpoints.
    pub fn set_substitute(&mut self, substitute: Option<WeightedBackends>) {
        self.substitute = substitute.map(Box::new);
    }

    /// The substitute and its backend, if it gets the requests for this backend now: that has no endpoints, or there is
    /// no such Service.
    pub fn in_place_of(&self, backend: &Backend) -> Option<(&WeightedBackends, &Backend)> {
        let substitute = self.substitute.as_deref()?;
        let is_empty = match &backend.target {
            // The alternatives that its policy names precede.
            BackendTarget::Upstream(upstream) => {
                upstream.endpoints().addresses.is_empty() && !upstream.has_alternatives()
            }
            BackendTarget::Fail(failure) => *failure == RouteFailure::NoService,
        };
        is_empty.then_some(substitute).zip(substitute.backends.first())
    }

    /// Whether a backend is that of the substitute.
    pub fn is_substitute(&self, backend: &Backend) -> bool {
        let own = self.substitute.as_deref().and_then(|substitute| substitute.backends.first());
        own.is_some_and(|own| std::ptr::eq(own, backend))
    }

    /// The sessions of the rule. `None` if it has none, so that those of each Service apply.
    pub fn affinity(&self) -> Option<&Arc<AffinitySettings>> {
        self.affinity.as_ref()
    }

    /// The sessions of the rule with one of its upstreams.
    pub fn affinity_with(&self, upstream: &Upstream) -> Option<&Arc<AffinitySettings>> {
        let is_first_choice = || {
            let first = self.chosen_by_plugins().first().map(|backend| &backend.target);
            matches!(first, Some(BackendTarget::Upstream(first)) if **first == *upstream)
        };
        self.affinity().filter(|_| !self.first_choice_lacks_sessions || !is_first_choice())
    }

    /// Sets the sessions of the rule, and prepares its upstreams for them.
    pub fn set_affinity(&mut self, affinity: Option<Arc<AffinitySettings>>) {
        self.affinity = affinity;
        self.prepare_affinity();
    }

    fn prepare_affinity(&self) {
        let Some(affinity) = &self.affinity else { return };
        for backend in self.all_backends() {
            match (&backend.target, &affinity.keys) {
                (BackendTarget::Upstream(upstream), None) => upstream.keep_affinity(),
                (BackendTarget::Upstream(upstream), Some(keys)) => upstream.keep_keyed_sessions(keys),
                (BackendTarget::Fail(_), _) => {}
            }
        }
    }

    /// The sum of the weights, never 0.
    pub fn total_weight(&self) -> u64 {
        self.total_weight
    }

    /// The backend for a random number below [`WeightedBackends::total_weight`]; a larger number wraps around.
    pub fn pick(&self, draw: u64) -> &Backend {
        let mut draw = draw % self.total_weight;
        for backend in &self.backends {
            match draw.checked_sub(u64::from(backend.weight)) {
                Some(rest) => draw = rest,
                None => return backend,
            }
        }
        // Unreachable: the draw is below the sum of the subtracted weights.
        &self.backends[self.backends.len() - 1]
    }
}

fn asserted_by_servers<'b>(backends: impl Iterator<Item = &'b Backend>) -> Option<Box<AssertedFields>> {
    let names = backends.filter_map(|backend| backend.filters.asserted_by_server()).flat_map(AssertedFields::names);
    let fields: AssertedFields = names.collect();
    (!fields.is_empty()).then(|| Box::new(fields))
}

/// The upstream of a backend, and what gets the requests of clients with TLS in its place.
type BackendOverTls = (Arc<Upstream>, Backend);

#[derive(Debug, PartialEq)]
pub struct Backend {
    pub weight: u32,
    pub filters: Filters,
    pub target: BackendTarget,
}

#[derive(Debug, PartialEq)]
pub enum BackendTarget {
    Upstream(Arc<Upstream>),
    /// An invalid backend: its share of the requests gets an error.
    Fail(RouteFailure),
}

/// Why a rule or backend responds with an error instead of forwarding, with the status code of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteFailure {
    /// The rule has no backend with a weight above 0 (500).
    NoBackends,
    /// The backend does not exist or may not be referenced (500).
    InvalidBackend,
    /// The rule has an unsupported filter or field (500).
    Unsupported,
    /// The authorization server of the rule or backend does not exist or may not be referenced (500).
    NoAuthorizationServer,
    /// The rule of an Ingress without a usable Service (503).
    NoService,
    /// The rule of an Ingress that has no Service on purpose: a plugin responds in its place (503).
    WithoutService,
    /// No location of the host has the path, and there is no default backend (404).
    NoDefaultBackend,
    /// The configuration asks for protection that the rule cannot have (503).
    UnsupportedProtection,
}

impl fmt::Display for RouteFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            RouteFailure::NoBackends => "no backends",
            RouteFailure::InvalidBackend => "invalid backend",
            RouteFailure::Unsupported => "unsupported",
            RouteFailure::NoAuthorizationServer => "no authorization server",
            RouteFailure::NoService => "no service",
            RouteFailure::WithoutService => "without service",
            RouteFailure::NoDefaultBackend => "no default backend",
            RouteFailure::UnsupportedProtection => "unsupported protection",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::UpstreamKey;

    fn backend(weight: u32) -> Backend {
        Backend { weight, filters: Filters::default(), target: BackendTarget::Fail(RouteFailure::InvalidBackend) }
    }

    #[test]
    fn backends_get_exactly_their_share() {
        let cases: [&[u32]; 4] = [&[1], &[9, 1], &[0, 2, 0, 3], &[1, 1, 1]];
        for weights in cases {
            let split = WeightedBackends::new(weights.iter().map(|weight| backend(*weight)).collect()).unwrap();
            let expected: Vec<u32> = weights.iter().copied().filter(|weight| *weight > 0).collect();
            let mut drawn = vec![0; expected.len()];
            for draw in 0..split.total_weight() {
                let picked = split.pick(draw);
                drawn[split.backends().iter().position(|backend| std::ptr::eq(backend, picked)).unwrap()] += 1;
            }
            assert_eq!(drawn, expected, "{weights:?}");
        }
    }

    #[test]
    fn no_split_without_weighted_backends() {
        assert!(WeightedBackends::new(Vec::new()).is_none());
        assert!(WeightedBackends::new(vec![backend(0), backend(0)]).is_none());
    }

    #[test]
    fn substitute_gets_only_what_has_no_service() {
        let failing = |failure| Backend { target: BackendTarget::Fail(failure), ..backend(1) };
        let (missing, closed) = (failing(RouteFailure::NoService), failing(RouteFailure::UnsupportedProtection));
        let mut split = WeightedBackends::new(vec![backend(1)]).unwrap();
        assert!(split.in_place_of(&missing).is_none() && !split.is_substitute(&missing));
        split.set_substitute(WeightedBackends::new(vec![backend(1)]));
        let (_, substitute) = split.in_place_of(&missing).unwrap();
        assert!(split.is_substitute(substitute) && !split.is_substitute(&missing));
        assert!(split.in_place_of(&closed).is_none(), "protection that is not in effect");
    }

    #[test]
    fn clients_with_tls_have_backends_of_their_own() {
        let upstream = |port| Arc::new(Upstream::new(UpstreamKey { port, ..UpstreamKey::default() }));
        let with =
            |upstream: &Arc<Upstream>| Backend { target: BackendTarget::Upstream(Arc::clone(upstream)), ..backend(1) };
        let [plain, over_tls, other] = [80, 443, 81].map(upstream);
        let mut split = WeightedBackends::new(vec![with(&plain), with(&other)]).unwrap();
        assert_eq!(split.over_tls(&split.backends()[0]), &with(&plain));
        split.set_over_tls(vec![(Arc::clone(&plain), with(&over_tls))]);
        assert_eq!(split.over_tls(&split.backends()[0]), &with(&over_tls));
        assert_eq!(split.over_tls(&split.backends()[1]), &with(&other));
        assert_eq!(split.all_backends().count(), 3);
    }

    #[test]
    fn large_weights_do_not_overflow() {
        let split = WeightedBackends::new(vec![backend(u32::MAX), backend(u32::MAX)]).unwrap();
        assert_eq!(split.total_weight(), 2 * u64::from(u32::MAX));
        assert!(std::ptr::eq(split.pick(u64::from(u32::MAX)), &split.backends()[1]));
        split.pick(u64::MAX);
    }

    #[test]
    fn header_edits_apply() {
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
