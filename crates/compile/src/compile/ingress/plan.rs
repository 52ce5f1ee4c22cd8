//! What an Ingress compiles to, in any dialect: its routes, certificates and diagnostics.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::dialects::nginx::SharedParts;
use crate::api::networking::Ingress;
use crate::api::{Object, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::budgets::{PathExpressions, RouterHost};
use crate::compile::certificates;
use crate::compile::certificates::SecretCache;
use crate::compile::ingress_class::dialect::Dialect;
use crate::diagnostic::Diagnostic;
use crate::snapshot::certs::{Certificate, Certificates};
use crate::snapshot::handshake_limits::SuiteChoice;
use crate::snapshot::host::HostPattern;
use crate::snapshot::ingress_routes::RouteOrder;
use crate::snapshot::router::RouteMatch;
use crate::snapshot::router::by_conditions::{ConditionRoute, PathCondition};
use crate::snapshot::router::locations::HostLocation;
use crate::snapshot::rule::RouteRule;
use crate::snapshot::stream::StreamRoute;
use crate::upstream::UpstreamKey;

/// The compiled state of a served Ingress.
#[derive(Debug, Default)]
pub(super) struct IngressPlan {
    pub dialect: Dialect,
    pub generation: i64,
    pub created: Option<i64>,
    pub routes: Vec<Arc<ConditionRoute>>,
    /// The route of the default backend, which is used if this is the oldest Ingress with one.
    pub default_route: Option<Arc<ConditionRoute>>,
    /// Where the paths of `routes` are in the Ingress: for each [`TieBreaker::rule`] of a route, one for each path.
    /// Empty if the routes are not those of the Ingress.
    ///
    /// [`TieBreaker::rule`]: crate::snapshot::router::TieBreaker::rule
    pub path_positions: Vec<Box<[PathPosition]>>,
    /// The routes of an Ingress in a dialect that orders them by host, which has no `routes` and no `default_route`.
    pub by_host: Option<RoutesByHost>,
    /// The locations of an Ingress in the dialect of ingress-nginx, which has neither `routes` nor `by_host`.
    pub by_location: Option<Vec<HostLocations>>,
    pub location_parts: SharedParts,
    pub certificates: Vec<HostCertificate>,
    /// The hosts whose TLS connections are forwarded without being decrypted.
    pub passthrough: Vec<PassthroughHost>,
    /// What handshakes for hosts may use.
    pub handshakes: Vec<(HostPattern, SuiteChoice)>,
    /// Each once, sorted.
    pub upstreams: Box<[UpstreamKey]>,
    /// Errors that prevent parts of the Ingress from being served.
    pub errors: Vec<Diagnostic>,
    /// Diagnostics about parts that are served, but possibly not as intended.
    pub notes: Vec<Diagnostic>,
}

impl IngressPlan {
    /// The regular expressions of the paths, and the hosts whose requests are matched with them.
    pub(super) fn path_expressions(&self) -> (PathExpressions, BTreeSet<RouterHost>) {
        let mut expressions = Vec::new();
        let mut hosts = BTreeSet::new();
        for path in self.by_host.iter().flat_map(|routes| &routes.paths) {
            if let Some(expression) = path.route_match.path_expression() {
                expressions.push(expression);
                hosts.insert(RouterHost { listener: None, host: path.host.to_string().into() });
            }
        }
        for host in self.by_location.iter().flatten() {
            let of_host = host.all().filter_map(|location| location.path.expression()?.size());
            let before = expressions.len();
            expressions.extend(of_host);
            if expressions.len() > before {
                hosts.insert(RouterHost { listener: None, host: host.host.to_string().into() });
            }
        }
        for route in self.routes.iter().chain(&self.default_route) {
            let of_route = route.paths.iter().filter_map(PathCondition::expression);
            let before = expressions.len();
            expressions.extend(of_route);
            if expressions.len() > before {
                let names = route.hosts.iter().map(|host| host.name.to_string());
                let any = route.hosts.is_empty().then(|| "*".to_owned());
                hosts.extend(names.chain(any).map(|host| RouterHost { listener: None, host: host.into() }));
            }
        }
        (expressions.into(), hosts)
    }

    /// Compares with the previous plan of the Ingress, and shares its routes if they are equal. Most edits of labels
    /// and of referenced objects do not change what is served.
    pub(super) fn share_equal_parts(&mut self, before: &IngressPlan) -> EqualParts {
        let routes = self.created == before.created
            && (&self.routes, &self.default_route) == (&before.routes, &before.default_route)
            && (&self.by_host, &self.by_location) == (&before.by_host, &before.by_location);
        if routes {
            // The router finds the routes to replace by identity.
            self.routes.clone_from(&before.routes);
            self.default_route.clone_from(&before.default_route);
        }
        let tls = (&self.certificates, &self.passthrough, &self.handshakes)
            == (&before.certificates, &before.passthrough, &before.handshakes);
        EqualParts { routes, tls }
    }

    /// The rules, in no order; one with several paths may be repeated.
    pub(super) fn rules(&self) -> impl Iterator<Item = &Arc<RouteRule>> {
        let by_host = self.by_host.iter().flat_map(|routes| {
            let of_paths = routes.paths.iter().map(|path| &path.route_match);
            of_paths.chain(&routes.default_backend).map(|route_match| &route_match.rule)
        });
        let by_location = self.by_location.iter().flatten().flat_map(HostLocations::all);
        let by_location = by_location.map(|location| &location.rule);
        self.routes.iter().chain(&self.default_route).map(|route| &route.rule).chain(by_host).chain(by_location)
    }

    pub(super) fn has_default_backend(&self) -> bool {
        let host_default = self.by_host.as_ref().and_then(|routes| routes.default_backend.as_ref());
        self.default_route.is_some() || host_default.is_some()
    }

    /// The hosts whose routers contain paths of this Ingress.
    pub(super) fn router_hosts(&self) -> impl Iterator<Item = &HostPattern> {
        let by_host = self.by_host.iter().flat_map(|routes| &routes.paths).map(|path| &path.host);
        by_host.chain(self.by_location.iter().flatten().map(|host| &host.host))
    }

    /// The order of the routes.
    pub(super) fn order(&self) -> RouteOrder {
        match (&self.by_host, &self.by_location) {
            (Some(_), _) => RouteOrder::ByHost,
            (None, Some(_)) => RouteOrder::ByLocation,
            (None, None) => RouteOrder::ByConditions,
        }
    }
}

/// Which parts of two plans of an Ingress are equal.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EqualParts {
    /// The routes, and therefore the routers of their hosts.
    pub routes: bool,
    /// The certificates, and the connections that pass through.
    pub tls: bool,
}

/// The position of a path in its Ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PathPosition {
    pub rule: usize,
    /// Among the paths of the rule.
    pub path: usize,
}

/// `spec.rules[0].http.paths[0]`
impl fmt::Display for PathPosition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "spec.rules[{}].http.paths[{}]", self.rule, self.path)
    }
}

/// Where the TLS connections of a host are forwarded, if the Ingress decides about it.
#[derive(Debug, PartialEq)]
pub(super) struct PassthroughHost {
    pub host: HostPattern,
    /// Whether it is the backend of the path `/`, which precedes default backends.
    pub is_written: bool,
    pub route: Arc<StreamRoute>,
}

/// The certificate of one host.
#[derive(Clone, Debug)]
pub(super) struct HostCertificate {
    pub host: HostPattern,
    pub certificate: Arc<Certificate>,
    /// The entry of `spec.tls` that assigns it.
    pub field: String,
}

impl PartialEq for HostCertificate {
    fn eq(&self, other: &HostCertificate) -> bool {
        Arc::ptr_eq(&self.certificate, &other.certificate) && (&self.host, &self.field) == (&other.host, &other.field)
    }
}

/// The routes of an Ingress, ordered by host and path.
#[derive(Debug, Default, PartialEq)]
pub(super) struct RoutesByHost {
    pub paths: Vec<HostPath>,
    /// The match of the default backend, which is used if this is the oldest Ingress with one.
    pub default_backend: Option<RouteMatch>,
}

/// One path of an Ingress, with its host.
#[derive(Debug, PartialEq)]
pub(super) struct HostPath {
    pub host: HostPattern,
    pub route_match: RouteMatch,
    pub field: String,
}

/// What an Ingress has for one host of a dialect with locations.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct HostLocations {
    pub host: HostPattern,
    pub paths: Vec<LocationsOfPath>,
    /// The location of the root, which is used if no Ingress has one for the host, and this is the oldest Ingress with
    /// the host. `None` if it has one in `paths`.
    pub root: Option<HostLocation>,
    /// The redirect of exactly the root, which precedes all locations.
    pub app_root: Option<HostLocation>,
    /// Whether the Ingress has only a default backend, whose root precedes those of rules without a host.
    pub is_catch_all: bool,
    /// Whether the host verifies the certificates of its clients.
    pub verifies_clients: bool,
}

impl HostLocations {
    fn all(&self) -> impl Iterator<Item = &HostLocation> {
        let of_paths = self.paths.iter().flat_map(|path| &path.locations).map(|(_, location)| location);
        of_paths.chain(&self.root).chain(&self.app_root)
    }
}

/// One path of an Ingress with its locations: none if it has an expression that cannot be used.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LocationsOfPath {
    pub is_exact: bool,
    pub path: Box<str>,
    pub locations: Vec<(LocationPrecedence, HostLocation)>,
    pub field: String,
}

/// Which of several locations that match the same requests is used: the lowest, then that of the oldest Ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LocationPrecedence {
    /// An Ingress says it for the host, whatever paths others have.
    Forced,
    /// The path is written in the Ingress.
    Written,
    /// The path of a prefix, with and without a slash at its end.
    OfPrefix,
    /// A path is redirected to the same one with a slash at its end.
    AddsSlash,
}

/// The usable certificates, by host. An invalid certificate affects its own hosts only.
pub(super) fn certificates(
    cx: CompileContext<'_>,
    secrets: &mut SecretCache,
    ingress: &Object<Ingress>,
    errors: &mut Vec<Diagnostic>,
    notes: &mut Vec<Diagnostic>,
) -> Vec<HostCertificate> {
    let mut certificates = Vec::new();
    for (index, tls) in ingress.spec.tls.iter().enumerate() {
        let field = format!("spec.tls[{index}]");
        let Some(name) = tls.secret_name.as_deref().filter(|name| !name.is_empty()) else { continue };
        if tls.hosts.is_empty() {
            let remedy = "list the hosts of the certificate";
            notes.push(Diagnostic::warning(
                format!("{field}.hosts"),
                "the entry has no hosts, so the Secret is not used",
                remedy,
            ));
            continue;
        }
        let secret = ObjectKey::new(&ingress.meta.key.namespace, name);
        match certificates::from_secret(cx.store, secrets, &secret) {
            Ok(certificate) => certificates.extend(tls.hosts.iter().map(|host| HostCertificate {
                host: HostPattern::parse(Some(host)),
                certificate: Arc::clone(&certificate),
                field: field.clone(),
            })),
            Err(mut problem) => {
                problem.message.push_str(", so its hosts use the default certificate");
                errors.push(problem.at(format!("{field}.secretName")));
            }
        }
    }
    certificates
}

/// The certificate of hosts without one. Without it, handshakes for them are rejected.
pub(super) fn default_certificates(cx: CompileContext<'_>, secrets: &mut SecretCache) -> Arc<Certificates> {
    let settings = cx.inputs.ingress;
    let secret = settings.default_secret.as_ref();
    let from_secret = secret.and_then(|secret| certificates::from_secret(cx.store, secrets, secret).ok());
    let default = from_secret.or_else(|| settings.default_certificate.clone());
    Arc::new(Certificates::new(default.into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::router::{PathMatch, TieBreaker};
    use crate::snapshot::rule::{Action, Filters, RouteFailure, RuleId};

    /// A rule for a path of a host.
    fn host_path(host: &str, path: PathMatch) -> HostPath {
        let id = RuleId { route: "Ingress/a/b".into(), rule: "0.0".into() };
        let action = Action::Fail(RouteFailure::NoService);
        let rule = RouteRule { id, filters: Filters::default(), plugins: None, action, options: None };
        let route_match = RouteMatch {
            path,
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
            call: None,
            server_names: Arc::default(),
            tie_breaker: TieBreaker { created: None, route: "a/b".into(), rule: 0, index: 0 },
            rule: Arc::new(rule),
        };
        HostPath { host: HostPattern::parse(Some(host)), route_match, field: "spec".to_owned() }
    }

    #[test]
    fn expressions_of_the_order_by_host_count_toward_the_budget() {
        let paths = vec![
            host_path("a.example", PathMatch::Regex("/user/[0-9]+".into())),
            host_path("*.b.example", PathMatch::Regex("/[a-f]*".into())),
            host_path("c.example", PathMatch::Prefix("/plain".into())),
        ];
        let plan =
            IngressPlan { by_host: Some(RoutesByHost { paths, default_backend: None }), ..IngressPlan::default() };
        let (expressions, hosts) = plan.path_expressions();
        let prefixes: Vec<&[u8]> = expressions.iter().map(|(prefix, _)| &**prefix).collect();
        assert_eq!(prefixes, [&b"/user/"[..], b"/"]);
        assert!(expressions.iter().all(|(_, states)| *states > 0));
        let hosts: Vec<&str> = hosts.iter().map(|host| &*host.host).collect();
        assert_eq!(hosts, ["*.b.example", "a.example"]);
    }
}
