//! Compiles TCPRoutes, TLSRoutes and UDPRoutes: where a route attaches, and to which backends its connections or
//! datagrams are forwarded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::plan::{PlannedRules, RoutePlan};
use crate::api::gateway::{
    BackendRef, ParentReference, StreamRouteRule, StreamRouteSpec, TcpRoute, TlsRoute, TlsRouteSpec, UdpRoute,
};
use crate::api::{Kind, Meta, Object, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::backend::StreamBackend;
use crate::compile::backend::reference;
use crate::compile::gateways::listener_protocol::ListenerProtocol;
use crate::compile::ingress_class::foreign_annotations;
use crate::compile::kong::plugins::{Plugins, StreamPluginSite, StreamPlugins};
use crate::compile::kong::service_annotations;
use crate::compile::objects::reference_grants::Referrer;
use crate::compile::parents::attachment::RouteOrigin;
use crate::compile::parents::plans::ParentPlans;
use crate::compile::parents::references;
use crate::compile::parents::served_parents::{BackendClients, RuleResults, resolve_parents};
use crate::diagnostic::Diagnostic;
use crate::snapshot::host::HostPattern;
use crate::snapshot::rule::{Backend, Filters, RouteFailure, RuleId, WeightedBackends};
use crate::snapshot::stream::{StreamAction, StreamRoute};
use crate::transport_protocol::TransportProtocol;
use crate::upstream::UpstreamKey;
use crate::verdict::{Code, Condition, Verdict};

/// A route for connections or datagrams, whatever its kind.
pub(in crate::compile) struct StreamRouteSource<'a> {
    kind: Kind,
    meta: &'a Meta,
    parents: &'a [ParentReference],
    default_gateways: Option<&'a str>,
    /// `Any` for a kind without hostnames.
    hosts: Vec<HostPattern>,
    rules: &'a [StreamRouteRule],
}

impl<'a> From<&'a Object<TcpRoute>> for StreamRouteSource<'a> {
    fn from(route: &'a Object<TcpRoute>) -> Self {
        StreamRouteSource::without_hosts(Kind::TcpRoute, &route.meta, &route.spec)
    }
}

impl<'a> From<&'a Object<UdpRoute>> for StreamRouteSource<'a> {
    fn from(route: &'a Object<UdpRoute>) -> Self {
        StreamRouteSource::without_hosts(Kind::UdpRoute, &route.meta, &route.spec)
    }
}

impl<'a> StreamRouteSource<'a> {
    fn without_hosts(kind: Kind, meta: &'a Meta, spec: &'a StreamRouteSpec) -> Self {
        let StreamRouteSpec { parent_refs, use_default_gateways, rules } = spec;
        StreamRouteSource {
            kind,
            meta,
            parents: parent_refs,
            default_gateways: use_default_gateways.as_deref(),
            hosts: vec![HostPattern::Any],
            rules,
        }
    }
}

impl<'a> From<&'a Object<TlsRoute>> for StreamRouteSource<'a> {
    fn from(route: &'a Object<TlsRoute>) -> Self {
        let TlsRouteSpec { parent_refs, use_default_gateways, hostnames, rules } = &route.spec;
        let mut hosts: Vec<_> = hostnames.iter().map(|name| HostPattern::parse(Some(name))).collect();
        // Version v1alpha2 allows a route without hostnames.
        if hosts.is_empty() {
            hosts.push(HostPattern::Any);
        }
        StreamRouteSource {
            kind: Kind::TlsRoute,
            meta: &route.meta,
            parents: parent_refs,
            default_gateways: use_default_gateways.as_deref(),
            hosts,
            rules,
        }
    }
}

/// The server names of a TLSRoute, as log plugins write them.
fn server_names(hosts: &[HostPattern]) -> Vec<String> {
    hosts.iter().filter(|host| **host != HostPattern::Any).map(ToString::to_string).collect()
}

/// Plans a route, and decides its verdict. Its first rule is served: version v1 of the API allows only one. It is
/// translated only if this process serves a parent.
pub(in crate::compile) fn plan(
    cx: CompileContext<'_>,
    parent_plans: &ParentPlans,
    plugins: &Plugins,
    route: StreamRouteSource<'_>,
) -> (RoutePlan, Verdict) {
    let StreamRouteSource { kind, meta, parents, default_gateways, hosts, rules } = route;
    let mut verdict = Verdict { generation: meta.generation, ..Verdict::default() };
    let origin = RouteOrigin { kind, key: &meta.key, hosts: &hosts };
    let all_parents = parent_plans.parents_of(&meta.key.namespace, parents, default_gateways);
    let served_parents = resolve_parents(cx, parent_plans, &origin, &all_parents, parents.len(), &mut verdict);
    verdict.diagnostics.extend(references::parent_notes(parent_plans, parents, default_gateways));
    if served_parents.is_empty() {
        return (RoutePlan::unattached(), verdict);
    }
    verdict.diagnostics.extend(foreign_annotations::notes(meta, &format!("a {kind}")));
    let (first_rule, more_rules) = match rules {
        [] => (None, &[][..]),
        [first, more @ ..] => (Some(first), more),
    };
    let has_listener = |protocol| served_parents.listeners(parent_plans).any(|listener| listener.protocol == protocol);
    let (terminates, passes) =
        (has_listener(ListenerProtocol::TlsTerminate), has_listener(ListenerProtocol::TlsPassthrough));
    let from = Referrer { kind, namespace: &meta.key.namespace };
    let backend_refs = first_rule.map_or(&[][..], |rule| &rule.backend_refs);
    let resolve =
        |client, is_encrypted| ResolvedBackends::new(cx.with_backend_client(client), from, is_encrypted, backend_refs);
    // With listeners of both modes, connections of only one mode begin with the client's ClientHello.
    let is_encrypted = kind == Kind::TlsRoute && !terminates;
    let BackendClients { first: first_client, others: other_clients } = served_parents.backend_clients(parent_plans);
    let mut backends = resolve(&first_client, is_encrypted);
    let passed_through = (terminates && passes).then(|| resolve(&first_client, true));
    // The plugins of a Service run even if only some of the resolutions can use it.
    if let Some(passed_through) = &passed_through {
        backends.add_services(&passed_through.services);
    }
    let mut of_gateways = Vec::new();
    for (client, gateways) in &other_clients {
        let others = resolve(client, is_encrypted);
        backends.add_services(&others.services);
        if others.upstreams != backends.upstreams {
            backends.resolved_refs.add_all(&others.resolved_refs);
            of_gateways.push((others, gateways));
        }
    }
    let ResolvedBackends { backends, mut upstreams, services, resolved_refs } = backends;
    let services = services.into_iter().filter_map(|(key, field)| Some((&cx.store.services.get(&key)?.meta, field)));
    let services: Vec<_> = services.collect();
    let server_names = server_names(&hosts);
    let site = StreamPluginSite { kind, meta, services: &services, rule: 0, server_names, backends: &backends };
    let StreamPlugins { chain, missing_guards: mut unsupported, diagnostics } = plugins.stream_chain(cx, &site);
    verdict.diagnostics.extend(diagnostics);
    if let Some(problem) = cx.inputs.budgets.refusal(cx.store, kind, &meta.key) {
        if problem.is_error() { &mut unsupported } else { &mut verdict.diagnostics }.push(problem);
    }
    let is_served = unsupported.is_empty();
    // All that is not served: the whole rule, or further rules.
    let mut dropped = unsupported;
    dropped.extend((0..more_rules.len()).map(|index| {
        let what = if kind == Kind::UdpRoute { "datagrams" } else { "connections" };
        let message = format!("only the first rule of a {kind} is served, since nothing distinguishes its {what}");
        Diagnostic::error(format!("spec.rules[{}]", index + 1), message, "move the backends to the first rule")
    }));

    // A plugin that cannot run is among what is dropped.
    let plugins_resolved = None;
    let results =
        RuleResults { resolved_refs: &resolved_refs, plugins_resolved, dropped: &dropped, any_served: is_served };
    let is_attached = served_parents.is_attached();
    let attachments = served_parents.report(&results, &mut verdict);
    if !is_attached {
        return (RoutePlan::unattached(), verdict);
    }

    let action = |backends| match WeightedBackends::new(backends) {
        _ if !is_served => StreamAction::Reset(RouteFailure::Unsupported),
        Some(split) => StreamAction::Forward(split),
        None => StreamAction::Reset(RouteFailure::NoBackends),
    };
    let rule = first_rule.and_then(|rule| rule.name.as_deref()).unwrap_or("0");
    let id = RuleId { route: format!("{kind}/{}", meta.key).into(), rule: rule.into() };
    let stream_route = |action| Arc::new(StreamRoute { id: id.clone(), plugins: chain.clone(), action, options: None });
    let route = stream_route(action(backends));
    let passthrough = passed_through.filter(|passed_through| passed_through.upstreams != upstreams).map(|resolved| {
        upstreams.extend(resolved.upstreams);
        stream_route(action(resolved.backends))
    });
    let planned = |route| {
        let (hosts, created, passthrough) = (hosts.as_slice().into(), meta.created, passthrough.clone());
        PlannedRules::Stream { hosts, created, route, passthrough }
    };
    let rules = planned(route);
    let mut rules_of_gateways = Vec::new();
    for (others, gateways) in of_gateways {
        upstreams.extend(others.upstreams);
        let route = stream_route(action(others.backends));
        rules_of_gateways.extend(gateways.iter().map(|gateway| (gateway.clone(), planned(Arc::clone(&route)))));
    }
    let (rules_of_gateways, upstreams) = (rules_of_gateways.into(), upstreams.into_iter().collect());
    let plan = RoutePlan { attachments, rules, rules_of_gateways, upstreams, unreachable_services: BTreeSet::new() };
    (plan, verdict)
}

/// The backends of a rule, with what is wrong with them.
struct ResolvedBackends {
    backends: Vec<Backend>,
    upstreams: BTreeSet<UpstreamKey>,
    /// The Services, each with the field that refers to it.
    services: BTreeMap<ObjectKey, String>,
    resolved_refs: Condition,
}

impl Default for ResolvedBackends {
    fn default() -> Self {
        ResolvedBackends {
            backends: Vec::new(),
            upstreams: BTreeSet::new(),
            services: BTreeMap::new(),
            resolved_refs: Condition::without_diagnostics(Code::RouteResolvedRefs),
        }
    }
}

impl ResolvedBackends {
    fn new(cx: CompileContext<'_>, from: Referrer<'_>, is_encrypted: bool, backend_refs: &[BackendRef]) -> Self {
        let mut resolved = ResolvedBackends::default();
        for (index, backend) in backend_refs.iter().enumerate() {
            resolved.add(cx, from, is_encrypted, backend, &format!("spec.rules[0].backendRefs[{index}]"));
        }
        resolved
    }

    fn add_services(&mut self, services: &BTreeMap<ObjectKey, String>) {
        self.services.extend(services.iter().map(|(service, field)| (service.clone(), field.clone())));
    }

    /// Adds the backend at `field`. One that cannot be resolved keeps its share of the connections, which are reset, or
    /// of the sessions, whose datagrams are dropped.
    fn add(
        &mut self,
        cx: CompileContext<'_>,
        from: Referrer<'_>,
        is_encrypted: bool,
        backend: &BackendRef,
        field: &str,
    ) {
        let settings = service_annotations::for_gateway_api;
        let transport = if from.kind == Kind::UdpRoute { TransportProtocol::Udp } else { TransportProtocol::Tcp };
        let stream = StreamBackend { transport, is_encrypted };
        let resolved = reference::resolve_stream(cx, from, &backend.target, settings, stream, field);
        match resolved.upstream {
            Ok(key) => {
                self.upstreams.insert(key);
                self.services.extend(resolved.service.map(|service| (service, field.to_owned())));
            }
            Err((code, problem)) => self.resolved_refs.add(code, problem),
        }
        let weight = u32::try_from(backend.weight).unwrap_or(0);
        self.backends.push(Backend { weight, filters: Filters::default(), target: resolved.target });
    }
}
