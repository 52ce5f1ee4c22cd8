//! Compiles an HTTPRoute: where it attaches, and its rules for the proxy.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::attachment::{self, Attachment, ParentResult};
use super::backends;
use super::filters::{self, FilterLevel};
use super::gateway::GatewayPlan;
use super::ingress::http_route_annotations::{self, RouteAnnotations, RuleAnnotations};
use super::ingress::upstream_tls;
use super::matches;
use super::plugins::{PluginSite, Plugins, RuleChain};
use super::retry;
use super::verdict::{Code, Condition, ParentVerdict, Verdict};
use super::{CompileInputs, PlanMap};
use crate::api::core::Service;
use crate::api::gateway::{BackendObjectReference, BackendRef, HttpRoute, HttpRouteRule};
use crate::api::{Kind, Object, ObjectKey};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::RouteNames;
use crate::snapshot::host::HostPattern;
use crate::snapshot::router::{Candidate, PathMatch, RouteAge};
use crate::snapshot::rule::{Action, Backend, BackendTarget, RouteFailure, RouteRule, RuleId, Split};
use crate::snapshot::timeouts_and_retries::TimeoutsAndRetries;
use crate::store::Store;
use crate::upstream::UpstreamKey;

/// The compiled state of a route: its parts of the snapshot and its verdict.
#[derive(Debug)]
pub(super) struct RoutePlan {
    pub attachments: Vec<Attachment>,
    /// Its hostnames; `Any` if it has none.
    pub hosts: Vec<HostPattern>,
    pub candidates: Vec<Candidate>,
    pub upstreams: BTreeSet<UpstreamKey>,
    /// Services used by the route whose TLS settings are invalid, so that connections to them are impossible.
    pub unreachable_services: BTreeSet<ObjectKey>,
    pub verdict: Verdict,
}

pub(super) fn plan(
    store: &Store,
    inputs: &CompileInputs<'_>,
    gateways: &PlanMap<GatewayPlan>,
    plugins: &Plugins,
    route: &Object<HttpRoute>,
) -> RoutePlan {
    let on_route = http_route_annotations::read(inputs, &route.meta);
    let own = route.spec.hostnames.iter().map(|name| HostPattern::parse(Some(name)));
    let mut hosts: Vec<_> = own.chain(on_route.hosts.iter().cloned()).collect();
    if hosts.is_empty() {
        hosts.push(HostPattern::Any);
    }
    let secure_ports = http_route_annotations::secure_ports(gateways, route, &hosts);
    let rules = translate_rules(store, inputs, plugins, route, on_route, &secure_ports);
    let origin = attachment::RouteOrigin { kind: Kind::HttpRoute, key: &route.meta.key, hosts: &hosts };

    let mut verdict = Verdict { generation: route.meta.generation, ..Verdict::default() };
    let mut attachments = Vec::new();
    for (index, reference) in route.spec.parent_refs.iter().enumerate() {
        let field = format!("spec.parentRefs[{index}]");
        match attachment::resolve_parent(store, gateways, &origin, reference, &field) {
            ParentResult::NotServed(note) => verdict.diagnostics.extend(note),
            ParentResult::Missing(problem) => verdict.diagnostics.push(problem),
            ParentResult::Served(controller, Err(condition)) => {
                verdict.parents.push(ParentVerdict {
                    controller,
                    index,
                    parent: reference.clone(),
                    conditions: vec![condition, rules.resolved_refs.clone()],
                });
            }
            ParentResult::Served(controller, Ok(mut attachment)) => {
                let mut conditions = Vec::new();
                if rules.dropped.is_empty() {
                    conditions.push(Condition::without_diagnostics(Code::RouteAccepted));
                } else if rules.any_served {
                    conditions.push(Condition::without_diagnostics(Code::RouteAccepted));
                    conditions.push(Condition::new(Code::RoutePartiallyInvalid, rules.dropped.clone()));
                } else {
                    conditions.push(Condition::new(Code::RouteUnsupportedValue, rules.dropped.clone()));
                    // Its matches still respond with an error, so that a less specific route does not serve requests
                    // that this one protects.
                    attachment.accepted = false;
                }
                conditions.insert(1, rules.resolved_refs.clone());
                verdict.parents.push(ParentVerdict { controller, index, parent: reference.clone(), conditions });
                attachments.push(attachment);
            }
        }
    }
    if route.spec.use_default_gateways.as_deref().is_some_and(|scope| scope != "None") {
        verdict.diagnostics.push(Diagnostic::warning(
            "spec.useDefaultGateways",
            "routes attach only to the Gateways in their parentRefs",
            "add the Gateway to parentRefs",
        ));
    }
    if route.spec.parent_refs.is_empty() && verdict.diagnostics.is_empty() {
        verdict.diagnostics.push(Diagnostic::warning(
            "spec.parentRefs",
            "the route has no parent",
            "add the Gateway to attach to",
        ));
    }
    if !attachments.is_empty() {
        verdict.diagnostics.extend(rules.notes);
    }
    let TranslatedRules { candidates, upstreams, unreachable_services: unspoken, .. } = rules;
    RoutePlan { attachments, hosts, candidates, upstreams, unreachable_services: unspoken, verdict }
}

/// The translated rules of a route, the same for every parent.
struct TranslatedRules {
    candidates: Vec<Candidate>,
    upstreams: BTreeSet<UpstreamKey>,
    unreachable_services: BTreeSet<ObjectKey>,
    resolved_refs: Condition,
    /// Diagnostics about rules that are not served.
    dropped: Vec<Diagnostic>,
    any_served: bool,
    /// Diagnostics about rules that are served, but possibly not as intended.
    notes: Vec<Diagnostic>,
}

/// `secure_ports`: the ports to which clients are redirected for TLS.
fn translate_rules(
    store: &Store,
    inputs: &CompileInputs<'_>,
    plugins: &Plugins,
    route: &Object<HttpRoute>,
    mut on_route: RouteAnnotations,
    secure_ports: &BTreeSet<u16>,
) -> TranslatedRules {
    let mut rules = TranslatedRules {
        candidates: Vec::new(),
        upstreams: BTreeSet::new(),
        unreachable_services: BTreeSet::new(),
        resolved_refs: Condition::without_diagnostics(Code::RouteResolvedRefs),
        dropped: std::mem::take(&mut on_route.dropped),
        any_served: false,
        notes: std::mem::take(&mut on_route.notes),
    };
    let is_refused = !rules.dropped.is_empty();
    let name: Arc<str> = Arc::from(route.meta.key.to_string());
    let id: Arc<str> = Arc::from(format!("{}/{name}", Kind::HttpRoute));
    for (index, raw) in route.spec.rules.iter().enumerate() {
        let rule_name = raw.name.clone().unwrap_or_else(|| index.to_string());
        let id = RuleId { route: id.clone(), rule: Arc::from(rule_name) };
        let mut translated = translate_rule(store, inputs, &route.meta.key, raw, &format!("spec.rules[{index}]"), id);
        let chained = plugin_chain(store, inputs, plugins, route, index, &translated.extensions);
        let mut annotated = rule_annotations(store, &on_route, route, index);
        annotated.set_redirect_port(secure_ports);
        // A route with Kong's annotations or plugins uses Kong's headers towards clients and backends.
        translated.rule.kong = annotated.behavior.or_else(|| chained.is_attached.then(Box::default));
        if let (Some(of_service), Action::Forward(split)) =
            (annotated.timeouts_and_retries, &mut translated.rule.action)
        {
            let own = split.timeouts_and_retries.take().map(|own| *own).unwrap_or_default();
            // The rule's own fields override the annotations of the Service.
            let TimeoutsAndRetries { request, backend_request, retry, .. } = own;
            let retry = retry.or(of_service.retry.clone());
            split.timeouts_and_retries =
                Some(Box::new(TimeoutsAndRetries { request, backend_request, retry, ..of_service }));
        }
        if is_refused {
            translated.rule.action = Action::Fail(RouteFailure::Unsupported);
        }
        for key in &translated.upstreams {
            let service = format!("Service {}/{}", key.namespace, key.service);
            let at = format!("spec.rules[{index}]");
            let remark = upstream_tls::unverified_note(key.tls.as_ref(), &service, &at);
            rules.notes.extend(remark.filter(|remark| !rules.notes.contains(remark)));
        }
        for note in annotated.notes {
            if !rules.notes.contains(&note) {
                rules.notes.push(note);
            }
        }
        translated.rule.plugins = chained.report_into(&mut rules.notes);
        rules.any_served |= !is_refused && translated.dropped.is_empty();
        rules.dropped.extend(translated.dropped);
        rules.notes.extend(translated.notes);
        rules.upstreams.extend(translated.upstreams);
        rules.unreachable_services.extend(translated.unreachable_services);
        for (code, problem) in translated.unresolved {
            // The first reason becomes the condition's reason; the message has all diagnostics.
            if rules.resolved_refs.diagnostics.is_empty() {
                rules.resolved_refs.code = code;
            }
            rules.resolved_refs.diagnostics.push(problem);
        }
        let rule = Arc::new(translated.rule);
        for (match_index, parsed) in translated.matches.into_iter().enumerate() {
            rules.candidates.push(Candidate {
                path: parsed.path,
                method: parsed.method,
                headers: parsed.headers,
                query: parsed.query,
                server_names: Arc::clone(&on_route.server_names),
                age: RouteAge {
                    created: route.meta.created,
                    route: name.clone(),
                    rule: u16::try_from(index).unwrap_or(u16::MAX),
                    index: u16::try_from(match_index).unwrap_or(u16::MAX),
                },
                rule: rule.clone(),
            });
        }
    }
    rules
}

/// The Services of a rule that the route may refer to. The settings of other Services must not affect it.
fn permitted_services<'a>(
    store: &'a Store,
    route: &'a Object<HttpRoute>,
    index: usize,
) -> impl Iterator<Item = (&'a Object<Service>, &'a BackendRef)> {
    let from = (Kind::HttpRoute, &*route.meta.key.namespace);
    route.spec.rules[index].backend_refs.iter().filter_map(move |backend| {
        let service = backends::resolve_service(store, from, &backend.target, "").ok()?;
        Some((service, backend))
    })
}

/// The settings of a rule from Kong's annotations.
fn rule_annotations(
    store: &Store,
    on_route: &RouteAnnotations,
    route: &Object<HttpRoute>,
    index: usize,
) -> RuleAnnotations {
    let asked = permitted_services(store, route, index).filter(|(_, backend)| backend.weight > 0);
    let services: Vec<_> =
        asked.filter_map(|(service, backend)| Some((service, u16::try_from(backend.target.port?).ok()?))).collect();
    http_route_annotations::read_rule(store, on_route, &services, &format!("spec.rules[{index}]"))
}

/// The plugins that run for the requests of a rule.
fn plugin_chain(
    store: &Store,
    inputs: &CompileInputs<'_>,
    plugins: &Plugins,
    route: &Object<HttpRoute>,
    index: usize,
    extensions: &[(ObjectKey, String)],
) -> RuleChain {
    let ObjectKey { namespace, name } = &route.meta.key;
    let backends: Vec<_> =
        permitted_services(store, route, index).map(|(service, _)| (Kind::Service, &service.meta)).collect();
    let names = RouteNames {
        route: format!("httproute.{namespace}.{name}.{index}.0").into(),
        service: format!("httproute.{namespace}.{name}.{index}").into(),
    };
    let scope = format!("{}/{namespace}/{name}/{index}", Kind::HttpRoute);
    plugins.chain(
        store,
        inputs,
        &PluginSite {
            kind: Kind::HttpRoute,
            meta: &route.meta,
            extensions,
            backends: &backends,
            names: Arc::new(names),
            scope: scope.into(),
        },
    )
}

struct TranslatedRule {
    /// KongPlugins of filters, each with the path of its field.
    extensions: Vec<(ObjectKey, String)>,
    rule: RouteRule,
    matches: Vec<matches::ParsedMatch>,
    upstreams: BTreeSet<UpstreamKey>,
    unreachable_services: BTreeSet<ObjectKey>,
    dropped: Vec<Diagnostic>,
    unresolved: Vec<(Code, Diagnostic)>,
    notes: Vec<Diagnostic>,
}

fn translate_rule(
    store: &Store,
    inputs: &CompileInputs<'_>,
    route: &ObjectKey,
    raw: &HttpRouteRule,
    field: &str,
    id: RuleId,
) -> TranslatedRule {
    let mut dropped = Vec::new();
    let mut unresolved = Vec::new();
    let mut upstreams = BTreeSet::new();
    let mut unspoken = BTreeSet::new();

    let parsed: Vec<_> = match &raw.matches[..] {
        [] => vec![matches::match_all()],
        all => all
            .iter()
            .enumerate()
            .filter_map(|(index, raw)| matches::parse(raw, &format!("{field}.matches[{index}]"), &mut dropped))
            .collect(),
    };
    // The API requires exactly one match, by prefix, for a filter that replaces the prefix.
    let prefix = match &parsed[..] {
        [matches::ParsedMatch { path: PathMatch::Prefix(prefix), .. }] if raw.matches.len() <= 1 => Some(&**prefix),
        _ => None,
    };

    unsupported_fields(raw, field, &mut dropped);
    let tries = retry::translate(raw, field, &mut dropped);
    let from = (Kind::HttpRoute, &*route.namespace);
    let mut mirrored = Vec::new();
    let mut resolve = |target: &BackendObjectReference, field: &str| {
        let resolved = backends::resolve(store, inputs, from, target, field);
        let upstream = match &resolved {
            Ok((_, BackendTarget::Upstream(upstream))) => Some(upstream.clone()),
            Ok((_, BackendTarget::Fail(_))) | Err(_) => None,
        };
        mirrored.push((backends::service_key(&route.namespace, target), resolved));
        upstream
    };
    let is_plugin = |name: &str| store.kong_plugins.contains_key(&ObjectKey::new(&route.namespace, name));
    let own = filters::translate(&raw.filters, FilterLevel::Rule, prefix, field, &is_plugin, &mut resolve);
    let unresolved_filter = !own.unresolved.is_empty();
    dropped.extend(own.unsupported);
    unresolved.extend(own.unresolved.into_iter().map(|problem| (Code::RouteInvalidKind, problem)));

    let mut backends = Vec::new();
    for (index, backend) in raw.backend_refs.iter().enumerate() {
        let field = format!("{field}.backendRefs[{index}]");
        let own = filters::translate(&backend.filters, FilterLevel::Backend, prefix, &field, &is_plugin, &mut resolve);
        dropped.extend(own.unsupported);
        let mut target = match backends::resolve(store, inputs, from, &backend.target, &field) {
            Ok((key, target)) => {
                upstreams.insert(key);
                target
            }
            Err((code, problem, target)) => {
                if code == Code::RouteInvalidBackendTls {
                    unspoken.insert(backends::service_key(&route.namespace, &backend.target));
                }
                unresolved.push((code, problem));
                target
            }
        };
        if !own.unresolved.is_empty() {
            target = BackendTarget::Fail(RouteFailure::Unsupported);
            unresolved.extend(own.unresolved.into_iter().map(|problem| (Code::RouteInvalidKind, problem)));
        }
        let weight = u32::try_from(backend.weight).unwrap_or(0);
        backends.push(Backend { weight, filters: own.filters, target });
    }

    for (service, resolved) in mirrored {
        match resolved {
            Ok((key, _)) => drop(upstreams.insert(key)),
            Err((code, problem, _)) => {
                if code == Code::RouteInvalidBackendTls {
                    unspoken.insert(service);
                }
                unresolved.push((code, problem));
            }
        }
    }

    let mut notes = Vec::new();
    if own.redirect.is_some() && !own.filters.mirrors.is_empty() {
        notes.push(Diagnostic::warning(
            format!("{field}.filters"),
            "the rule redirects, so it has no requests to mirror",
            "remove the mirror, or move it to a separate rule",
        ));
    }

    let action = if !dropped.is_empty() || unresolved_filter {
        Action::Fail(RouteFailure::Unsupported)
    } else if let Some(redirect) = own.redirect {
        Action::Redirect(redirect)
    } else {
        match Split::new(backends) {
            Some(mut split) => {
                split.timeouts_and_retries = tries;
                Action::Forward(split)
            }
            None => Action::Fail(RouteFailure::NoBackends),
        }
    };
    let rule = RouteRule { id, filters: own.filters, plugins: None, action, kong: None };
    let named = own.extensions.into_iter();
    let extensions = named.map(|(name, field)| (ObjectKey::new(&route.namespace, &name), field)).collect();
    TranslatedRule {
        extensions,
        rule,
        matches: parsed,
        upstreams,
        unreachable_services: unspoken,
        dropped,
        unresolved,
        notes,
    }
}

/// Valid fields that are not supported: the rule is not served without them.
fn unsupported_fields(raw: &HttpRouteRule, field: &str, problems: &mut Vec<Diagnostic>) {
    let mut refuse = |part: &str, message: &str| {
        let remedy = "remove it, if requests may be served without it";
        problems.push(Diagnostic::error(
            format!("{field}.{part}"),
            format!("{message} not served by this version"),
            remedy,
        ));
    };
    if raw.session_persistence.is_some() {
        refuse("sessionPersistence", "session persistence is");
    }
}
