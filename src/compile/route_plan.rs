//! The compiled state of a route of any kind, and its attachment to the parents.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::CompileContext;
use super::attachment::{self, Attachment, ParentResult, RouteOrigin};
use super::backend_client::BackendClient;
use super::budgets::{PathExpressions, RouterHost};
use super::listener::ListenerPlan;
use super::parent_plans::ParentPlans;
use super::verdict::{Code, Condition, ParentVerdict, Verdict, parent_field};
use crate::api::gateway::{ALL_DEFAULT_GATEWAYS, ParentReference};
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::diagnostic::Diagnostic;
use crate::snapshot::host::HostPattern;
use crate::snapshot::router::RouteMatches;
use crate::snapshot::stream::StreamRoute;
use crate::store::Store;
use crate::upstream::UpstreamKey;

/// The compiled state of a route: its parts of the snapshot.
#[derive(Debug)]
pub(super) struct RoutePlan {
    pub attachments: Box<[Attachment]>,
    pub rules: PlannedRules,
    /// The rules for Gateways with another client certificate for backends than the first one, if the route has such
    /// backends.
    pub rules_of_gateways: Box<[(ObjectKey, PlannedRules)]>,
    /// Each once, sorted.
    pub upstreams: Box<[UpstreamKey]>,
    /// Services to which the route refers but cannot connect, because their TLS settings are invalid.
    pub unreachable_services: BTreeSet<ObjectKey>,
}

/// What a route adds to its listeners.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum PlannedRules {
    Http {
        /// Its hostnames and those of its annotations; `Any` if it has none.
        hosts: Box<[HostPattern]>,
        matches: RouteMatches,
    },
    /// A listener uses the oldest of its stream routes with a host. `created` is in seconds since 1970.
    Stream {
        /// As for HTTP; `Any` for TCP and UDP.
        hosts: Box<[HostPattern]>,
        created: Option<i64>,
        route: Arc<StreamRoute>,
        /// For listeners that pass TLS through, if `route` is for those that terminate it.
        passthrough: Option<Arc<StreamRoute>>,
    },
}

impl RoutePlan {
    /// The regular expressions of the paths, and the hosts of the listeners whose requests are matched with them.
    pub(super) fn path_expressions(&self) -> (PathExpressions, BTreeSet<RouterHost>) {
        let PlannedRules::Http { hosts, matches } = &self.rules else { return Default::default() };
        let expressions: PathExpressions = matches.path_expressions().collect();
        if expressions.is_empty() {
            return Default::default();
        }
        let listeners = self.attachments.iter().flat_map(|attachment| &attachment.listeners);
        let router_hosts = listeners.flat_map(|listener| {
            let host = |host: &HostPattern| host.to_string().into();
            let id = (listener.declared_by.clone(), Arc::clone(&listener.name));
            hosts.iter().map(move |pattern| RouterHost { listener: Some(id.clone()), host: host(pattern) })
        });
        (expressions, router_hosts.collect())
    }

    /// Whether the routers would be the same with another plan of the route.
    pub(super) fn is_alike_for_routers(&self, other: &RoutePlan) -> bool {
        self.attachments == other.attachments
            && self.rules == other.rules
            && self.rules_of_gateways == other.rules_of_gateways
    }

    /// The plan of a route that no parent accepts: it has a verdict, and keeps nothing else.
    pub(super) fn unattached() -> Self {
        RoutePlan {
            attachments: Box::default(),
            rules: PlannedRules::Http { hosts: Box::default(), matches: RouteMatches::default() },
            rules_of_gateways: Box::default(),
            upstreams: Box::default(),
            unreachable_services: BTreeSet::new(),
        }
    }

    /// The rules for the listeners of a Gateway.
    pub(super) fn rules_for(&self, gateway: &ObjectKey) -> &PlannedRules {
        let own = self.rules_of_gateways.iter().find(|(key, _)| key == gateway);
        own.map_or(&self.rules, |(_, rules)| rules)
    }

    /// The matches of an HTTP route for the listeners of a Gateway.
    pub(super) fn matches(&self, gateway: &ObjectKey) -> Option<&RouteMatches> {
        match self.rules_for(gateway) {
            PlannedRules::Http { matches, .. } => Some(matches),
            PlannedRules::Stream { .. } => None,
        }
    }
}

/// The parents that a route names; none if it does not exist.
pub(super) fn parent_refs<'s>(store: &'s Store, id: &ObjectId) -> &'s [ParentReference] {
    parent_fields(store, id).0
}

/// The fields `parentRefs` and `useDefaultGateways` of a route; empty if it does not exist.
fn parent_fields<'s>(store: &'s Store, id: &ObjectId) -> (&'s [ParentReference], Option<&'s str>) {
    macro_rules! fields {
        ($routes:ident) => {
            (store.$routes.get(&id.key)).map(|route| (&*route.spec.parent_refs, &route.spec.use_default_gateways))
        };
    }
    let fields = match id.kind {
        Kind::HttpRoute => fields!(http_routes),
        Kind::GrpcRoute => fields!(grpc_routes),
        Kind::TcpRoute => fields!(tcp_routes),
        Kind::TlsRoute => fields!(tls_routes),
        Kind::UdpRoute => fields!(udp_routes),
        _ => None,
    };
    fields.map_or((&[], None), |(named, default_scope)| (named, default_scope.as_deref()))
}

/// Whether this process serves a parent of this route, by its name or as a default Gateway.
pub(super) fn is_served_route(store: &Store, plans: &ParentPlans, route: &ObjectId) -> bool {
    let (named, default_scope) = parent_fields(store, route);
    has_served_parent(plans, &route.key, &plans.parents_of(&route.key.namespace, named, default_scope))
}

/// A kind of route that attaches to listeners of Gateways and is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouteKind {
    /// HTTPRoute and GRPCRoute.
    Request,
    Tcp,
    Tls,
    Udp,
}

impl RouteKind {
    /// `None` for kinds that are not served routes of Gateways.
    pub(crate) fn of(kind: Kind) -> Option<RouteKind> {
        match kind {
            Kind::HttpRoute | Kind::GrpcRoute => Some(RouteKind::Request),
            Kind::TcpRoute => Some(RouteKind::Tcp),
            Kind::TlsRoute => Some(RouteKind::Tls),
            Kind::UdpRoute => Some(RouteKind::Udp),
            _ => None,
        }
    }
}

/// The results for the rules of a route that its conditions report. They are the same for every parent.
pub(super) struct RuleResults<'a> {
    pub resolved_refs: &'a Condition,
    /// Why requests get an error in place of the backend's response because of plugins.
    pub plugins_resolved: Option<&'a Condition>,
    /// Diagnostics about rules that are not served.
    pub dropped: &'a [Diagnostic],
    pub any_served: bool,
}

/// The clients of the Gateways that accept a route.
pub(super) struct BackendClients {
    /// That of most Gateways: the only one, unless Gateways have different certificates.
    pub first: BackendClient,
    /// Each with its Gateways.
    pub others: Vec<(BackendClient, Vec<ObjectKey>)>,
}

/// The parents of a route that this process serves.
pub(super) struct ServedParents<'a>(Vec<ServedParent<'a>>);

/// A parent that this process serves.
struct ServedParent<'a> {
    /// Index into `spec.parentRefs`; `None` for a default Gateway.
    index: Option<usize>,
    reference: &'a ParentReference,
    controller: Arc<str>,
    /// An attachment, or an Accepted condition with status False.
    result: Result<Attachment, Condition>,
}

/// Whether this process serves one of the parents. If not, the route belongs to another controller, or to none.
pub(super) fn has_served_parent(plans: &ParentPlans, route: &ObjectKey, parents: &[ParentReference]) -> bool {
    parents.iter().any(|parent| plans.parent(&route.namespace, parent).is_some())
}

/// Attaches the route to its parents, before its rules are translated: those of a route without a served parent are
/// not. Adds diagnostics about parents that are not served to the verdict. The first `named_count` parents are those in
/// `spec.parentRefs`, the others are default Gateways.
pub(super) fn resolve_parents<'a>(
    cx: CompileContext<'_>,
    plans: &ParentPlans,
    origin: &RouteOrigin<'_>,
    parents: &'a [ParentReference],
    named_count: usize,
    verdict: &mut Verdict,
) -> ServedParents<'a> {
    let mut served = Vec::new();
    for (index, reference) in parents.iter().enumerate() {
        let index = (index < named_count).then_some(index);
        let field = parent_field(index);
        match attachment::resolve_parent(cx.store, plans, origin, reference, &field) {
            ParentResult::NotServed(note) => verdict.diagnostics.extend(note),
            ParentResult::Missing(problem) => verdict.diagnostics.push(problem),
            ParentResult::Served(controller, result) => {
                served.push(ServedParent { index, reference, controller, result });
            }
        }
    }
    ServedParents(served)
}

impl ServedParents<'_> {
    /// Whether this process serves none of the parents.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a parent accepts the route.
    pub(super) fn is_attached(&self) -> bool {
        self.0.iter().any(|parent| parent.result.is_ok())
    }

    /// The listeners that accept the route.
    pub(super) fn listeners<'g>(&self, plans: &'g ParentPlans) -> impl Iterator<Item = &'g ListenerPlan> {
        let attachments = self.0.iter().filter_map(|parent| parent.result.as_ref().ok());
        attachments.flat_map(|attachment| {
            let listeners = attachment.listeners.iter();
            listeners.filter_map(|listener| plans.listener(&attachment.gateway, listener))
        })
    }

    /// How connections to the backends of the route authenticate themselves.
    pub(super) fn backend_clients(&self, plans: &ParentPlans) -> BackendClients {
        let mut clients: Vec<(BackendClient, Vec<ObjectKey>)> = Vec::new();
        for attachment in self.0.iter().filter_map(|parent| parent.result.as_ref().ok()) {
            let Some(plan) = plans.gateways.get(&attachment.gateway) else { continue };
            match clients.iter_mut().find(|(client, _)| *client == plan.backend_client) {
                // A route may have several parents with one Gateway.
                Some((_, known)) if known.contains(&attachment.gateway) => {}
                Some((_, known)) => known.push(attachment.gateway.clone()),
                None => clients.push((plan.backend_client.clone(), vec![attachment.gateway.clone()])),
            }
        }
        let mut clients = clients.into_iter();
        let first = clients.next().map(|(client, _)| client).unwrap_or_default();
        BackendClients { first, others: clients.collect() }
    }

    /// Adds the conditions for each parent to the verdict, and returns the attachments. A parent that does not accept
    /// the route has the condition ResolvedRefs as well.
    pub(super) fn report(self, rules: &RuleResults<'_>, verdict: &mut Verdict) -> Box<[Attachment]> {
        let mut attachments = Vec::new();
        for ServedParent { index, reference, controller, result } in self.0 {
            let conditions = match result {
                Err(condition) => vec![condition, rules.resolved_refs.clone()],
                Ok(mut attachment) => {
                    // A route of which no rule is served does not count as attached. It still stays in the routers and
                    // responds with errors, so that a less specific route does not serve requests that this one
                    // protects.
                    attachment.is_counted = rules.any_served || rules.dropped.is_empty();
                    attachments.push(attachment);
                    conditions_if_attached(rules)
                }
            };
            verdict.parents.push(ParentVerdict { controller, index, parent: reference.clone(), conditions });
        }
        attachments.into_boxed_slice()
    }
}

/// The conditions for a parent to which the route is attached.
fn conditions_if_attached(rules: &RuleResults<'_>) -> Vec<Condition> {
    let resolved = rules.resolved_refs.clone();
    let dropped = || rules.dropped.to_vec();
    let mut conditions = if rules.dropped.is_empty() {
        vec![Condition::without_diagnostics(Code::RouteAccepted), resolved]
    } else if rules.any_served {
        let partially_invalid = Condition::new(Code::RoutePartiallyInvalid, dropped());
        vec![Condition::without_diagnostics(Code::RouteAccepted), resolved, partially_invalid]
    } else {
        vec![Condition::new(Code::RouteUnsupportedValue, dropped()), resolved]
    };
    conditions.extend(rules.plugins_resolved.cloned());
    conditions
}

/// Notes on a route that lacks parents, or relies on default Gateways that do not exist.
pub(super) fn parent_notes(
    plans: &ParentPlans,
    parents: &[ParentReference],
    default_scope: Option<&str>,
) -> Option<Diagnostic> {
    match default_scope {
        Some(ALL_DEFAULT_GATEWAYS) => (!plans.has_default_gateways()).then(|| {
            let remedy = "set spec.defaultScope to All in a Gateway of Portico, or name the Gateway in parentRefs";
            Diagnostic::warning("spec.useDefaultGateways", "there is no default Gateway", remedy)
        }),
        None | Some("" | "None") => parents
            .is_empty()
            .then(|| Diagnostic::warning("spec.parentRefs", "the route has no parent", "add the Gateway to attach to")),
        Some(other) => {
            let message = format!("{other} is not a supported value, so the route attaches only by parentRefs");
            Some(Diagnostic::warning("spec.useDefaultGateways", message, "use All or None"))
        }
    }
}
