//! An HTTPRoute: where it attaches, and its rules as the proxy will follow them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::attach::{self, Attachment, Parent};
use super::backends;
use super::filters::{self, Level};
use super::gateway::GatewayPlan;
use super::ingress::on_http_route::{self, KongRule, OnRoute};
use super::ingress::upstream_tls;
use super::matches;
use super::plugins::{Chained, Plugins, Site};
use super::tries;
use super::verdict::{Code, Condition, ParentVerdict, Problem, Verdict};
use super::{Inputs, Plans};
use crate::api::core::Service;
use crate::api::gateway::{BackendObjectReference, BackendRef, HttpRoute, HttpRouteRule};
use crate::api::{Kind, Object, ObjectKey};
use crate::plugin::Names;
use crate::snapshot::host::HostPattern;
use crate::snapshot::router::{Age, Candidate, PathMatch};
use crate::snapshot::rule::{Action, Backend, Failure, Rule, RuleId, Split, Target};
use crate::snapshot::tries::Tries;
use crate::store::Store;
use crate::upstream::UpstreamKey;

/// A route with all its questions answered: what it contributes to which listeners, and what to say about it.
#[derive(Debug)]
pub(super) struct RoutePlan {
    pub attachments: Vec<Attachment>,
    /// Its own hostnames; `Any` if it names none.
    pub hosts: Vec<HostPattern>,
    pub candidates: Vec<Candidate>,
    pub upstreams: BTreeSet<UpstreamKey>,
    /// Services that it leads to, and that cannot be spoken to in TLS as they want.
    pub unspoken: BTreeSet<ObjectKey>,
    pub verdict: Verdict,
}

pub(super) fn plan(
    store: &Store,
    inputs: &Inputs<'_>,
    gateways: &Plans<GatewayPlan>,
    plugins: &Plugins,
    route: &Object<HttpRoute>,
) -> RoutePlan {
    let on_route = on_http_route::read(inputs, &route.meta);
    let own = route.spec.hostnames.iter().map(|name| HostPattern::parse(Some(name)));
    let mut hosts: Vec<_> = own.chain(on_route.hosts.iter().cloned()).collect();
    if hosts.is_empty() {
        hosts.push(HostPattern::Any);
    }
    let secure_ports = on_http_route::secure_ports(gateways, route, &hosts);
    let rules = translate(store, inputs, plugins, route, on_route, &secure_ports);
    let origin = attach::Route { kind: Kind::HttpRoute, key: &route.meta.key, hosts: &hosts };

    let mut verdict = Verdict { generation: route.meta.generation, ..Verdict::default() };
    let mut attachments = Vec::new();
    for (index, reference) in route.spec.parent_refs.iter().enumerate() {
        let field = format!("spec.parentRefs[{index}]");
        match attach::parent(store, gateways, &origin, reference, &field) {
            Parent::NotOurs(note) => verdict.notes.extend(note),
            Parent::Missing(problem) => {
                verdict.notes.push(problem.clone());
                verdict.missing_parents.push(problem);
            }
            Parent::Ours(controller, Err(condition)) => {
                verdict.parents.push(ParentVerdict {
                    controller,
                    index,
                    parent: reference.clone(),
                    conditions: vec![condition, rules.resolved.clone()],
                });
            }
            Parent::Ours(controller, Ok(mut attachment)) => {
                let mut conditions = Vec::new();
                if rules.dropped.is_empty() {
                    conditions.push(Condition::plain(Code::RouteAccepted));
                } else if rules.any_served {
                    conditions.push(Condition::plain(Code::RouteAccepted));
                    conditions.push(Condition::new(Code::RoutePartiallyInvalid, rules.dropped.clone()));
                } else {
                    conditions.push(Condition::new(Code::RouteUnsupportedValue, rules.dropped.clone()));
                    // Its matches still answer an error, so that a less specific route does not get what this one guards.
                    attachment.accepted = false;
                }
                conditions.insert(1, rules.resolved.clone());
                verdict.parents.push(ParentVerdict { controller, index, parent: reference.clone(), conditions });
                attachments.push(attachment);
            }
        }
    }
    if route.spec.use_default_gateways.as_deref().is_some_and(|scope| scope != "None") {
        verdict.notes.push(Problem::new(
            "spec.useDefaultGateways",
            "routes attach only to the Gateways they name",
            "name the Gateway in parentRefs",
        ));
    }
    if route.spec.parent_refs.is_empty() && verdict.notes.is_empty() {
        verdict.notes.push(Problem::new("spec.parentRefs", "no parent is named", "name the Gateway to attach to"));
    }
    if !attachments.is_empty() {
        verdict.notes.extend(rules.notes);
        verdict.broken_plugins = rules.broken_plugins;
        verdict.unheeded = rules.unheeded;
    }
    let Rules { candidates, upstreams, unspoken, .. } = rules;
    RoutePlan { attachments, hosts, candidates, upstreams, unspoken, verdict }
}

/// The rules of a route, the same for every parent.
struct Rules {
    candidates: Vec<Candidate>,
    upstreams: BTreeSet<UpstreamKey>,
    unspoken: BTreeSet<ObjectKey>,
    resolved: Condition,
    /// Why rules are not served.
    dropped: Vec<Problem>,
    any_served: bool,
    /// What is served, though perhaps not as somebody expects.
    notes: Vec<Problem>,
    /// Those of the notes that are about plugins.
    broken_plugins: Vec<Problem>,
    /// Those that are about annotations that mean nothing.
    unheeded: Vec<Problem>,
}

/// `secure_ports`: where clients are sent for TLS.
fn translate(
    store: &Store,
    inputs: &Inputs<'_>,
    plugins: &Plugins,
    route: &Object<HttpRoute>,
    mut on_route: OnRoute,
    secure_ports: &BTreeSet<u16>,
) -> Rules {
    let mut rules = Rules {
        candidates: Vec::new(),
        upstreams: BTreeSet::new(),
        unspoken: BTreeSet::new(),
        resolved: Condition::plain(Code::RouteResolvedRefs),
        dropped: std::mem::take(&mut on_route.dropped),
        any_served: false,
        notes: std::mem::take(&mut on_route.notes),
        broken_plugins: Vec::new(),
        unheeded: std::mem::take(&mut on_route.unheeded),
    };
    let is_refused = !rules.dropped.is_empty();
    let name: Arc<str> = Arc::from(route.meta.key.to_string());
    let id: Arc<str> = Arc::from(format!("{}/{name}", Kind::HttpRoute));
    for (index, raw) in route.spec.rules.iter().enumerate() {
        let rule_name = raw.name.clone().unwrap_or_else(|| index.to_string());
        let id = RuleId { route: id.clone(), rule: Arc::from(rule_name) };
        let mut translated = translate_rule(store, inputs, &route.meta.key, raw, &format!("spec.rules[{index}]"), id);
        let chained = chain(store, inputs, plugins, route, index, &translated.extensions);
        let mut annotated = annotated(store, &on_route, route, index);
        annotated.redirect_to(secure_ports);
        // Clients and backends of who writes Kong's plugins down expect Kong's headers.
        translated.rule.kong = annotated.manner.or_else(|| chained.is_attached.then(Box::default));
        if let (Some(of_service), Action::Forward(split)) = (annotated.tries, &mut translated.rule.action) {
            let own = split.tries.take().map(|own| *own).unwrap_or_default();
            // What the rule says itself counts.
            let Tries { request, backend_request, retry, .. } = own;
            let retry = retry.or(of_service.retry.clone());
            split.tries = Some(Box::new(Tries { request, backend_request, retry, ..of_service }));
        }
        if is_refused {
            translated.rule.action = Action::Fail(Failure::Unsupported);
        }
        for key in &translated.upstreams {
            let service = format!("Service {}/{}", key.namespace, key.service);
            let at = format!("spec.rules[{index}]");
            let remark = upstream_tls::unverified(key.tls.as_ref(), &service, &at);
            rules.notes.extend(remark.filter(|remark| !rules.notes.contains(remark)));
        }
        for note in annotated.notes {
            if !rules.notes.contains(&note) {
                rules.notes.push(note);
            }
        }
        translated.rule.plugins = chained.tell(&mut rules.notes, &mut rules.broken_plugins);
        rules.any_served |= !is_refused && translated.dropped.is_empty();
        rules.dropped.extend(translated.dropped);
        rules.notes.extend(translated.notes);
        rules.upstreams.extend(translated.upstreams);
        rules.unspoken.extend(translated.unspoken);
        for (code, problem) in translated.unresolved {
            // The first reason stands; the message tells all of them.
            if rules.resolved.problems.is_empty() {
                rules.resolved.code = code;
            }
            rules.resolved.problems.push(problem);
        }
        let rule = Arc::new(translated.rule);
        for (match_index, parsed) in translated.matches.into_iter().enumerate() {
            rules.candidates.push(Candidate {
                path: parsed.path,
                method: parsed.method,
                headers: parsed.headers,
                query: parsed.query,
                server_names: Arc::clone(&on_route.server_names),
                age: Age {
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

/// The Services behind a rule that the route may refer to. What is another's says nothing about it.
fn services<'a>(
    store: &'a Store,
    route: &'a Object<HttpRoute>,
    index: usize,
) -> impl Iterator<Item = (&'a Object<Service>, &'a BackendRef)> {
    let from = (Kind::HttpRoute, &*route.meta.key.namespace);
    route.spec.rules[index].backend_refs.iter().filter_map(move |backend| {
        let service = backends::service(store, from, &backend.target, "").ok()?;
        Some((service, backend))
    })
}

/// What annotations of Kong say about a rule.
fn annotated(store: &Store, on_route: &OnRoute, route: &Object<HttpRoute>, index: usize) -> KongRule {
    let asked = services(store, route, index).filter(|(_, backend)| backend.weight > 0);
    let services: Vec<_> =
        asked.filter_map(|(service, backend)| Some((service, u16::try_from(backend.target.port?).ok()?))).collect();
    on_http_route::rule(store, on_route, &services, &format!("spec.rules[{index}]"))
}

/// The plugins that requests of a rule meet.
fn chain(
    store: &Store,
    inputs: &Inputs<'_>,
    plugins: &Plugins,
    route: &Object<HttpRoute>,
    index: usize,
    extensions: &[(ObjectKey, String)],
) -> Chained {
    let ObjectKey { namespace, name } = &route.meta.key;
    let backends: Vec<_> = services(store, route, index).map(|(service, _)| (Kind::Service, &service.meta)).collect();
    let names = Names {
        route: format!("httproute.{namespace}.{name}.{index}.0").into(),
        service: format!("httproute.{namespace}.{name}.{index}").into(),
    };
    let scope = format!("{}/{namespace}/{name}/{index}", Kind::HttpRoute);
    plugins.chain(
        store,
        inputs,
        &Site {
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
    /// KongPlugins of filters, each with its field.
    extensions: Vec<(ObjectKey, String)>,
    rule: Rule,
    matches: Vec<matches::Parsed>,
    upstreams: BTreeSet<UpstreamKey>,
    unspoken: BTreeSet<ObjectKey>,
    dropped: Vec<Problem>,
    unresolved: Vec<(Code, Problem)>,
    notes: Vec<Problem>,
}

fn translate_rule(
    store: &Store,
    inputs: &Inputs<'_>,
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
        [] => vec![matches::all()],
        all => all
            .iter()
            .enumerate()
            .filter_map(|(index, raw)| matches::parse(raw, &format!("{field}.matches[{index}]"), &mut dropped))
            .collect(),
    };
    // The API wants exactly one match, by prefix, for a filter that replaces the prefix.
    let prefix = match &parsed[..] {
        [matches::Parsed { path: PathMatch::Prefix(prefix), .. }] if raw.matches.len() <= 1 => Some(&**prefix),
        _ => None,
    };

    unsupported_fields(raw, field, &mut dropped);
    let tries = tries::translate(raw, field, &mut dropped);
    let from = (Kind::HttpRoute, &*route.namespace);
    let mut mirrored = Vec::new();
    let mut resolve = |target: &BackendObjectReference, field: &str| {
        let resolved = backends::resolve(store, inputs, from, target, field);
        let upstream = match &resolved {
            Ok((_, Target::Upstream(upstream))) => Some(upstream.clone()),
            Ok((_, Target::Fail(_))) | Err(_) => None,
        };
        mirrored.push((backends::key(&route.namespace, target), resolved));
        upstream
    };
    let is_plugin = |name: &str| store.kong_plugins.contains_key(&ObjectKey::new(&route.namespace, name));
    let own = filters::translate(&raw.filters, Level::Rule, prefix, field, &is_plugin, &mut resolve);
    let unresolved_filter = !own.unresolved.is_empty();
    dropped.extend(own.unsupported);
    unresolved.extend(own.unresolved.into_iter().map(|problem| (Code::RouteInvalidKind, problem)));

    let mut backends = Vec::new();
    for (index, backend) in raw.backend_refs.iter().enumerate() {
        let field = format!("{field}.backendRefs[{index}]");
        let own = filters::translate(&backend.filters, Level::Backend, prefix, &field, &is_plugin, &mut resolve);
        dropped.extend(own.unsupported);
        let mut target = match backends::resolve(store, inputs, from, &backend.target, &field) {
            Ok((key, target)) => {
                upstreams.insert(key);
                target
            }
            Err((code, problem, target)) => {
                if code == Code::RouteInvalidBackendTls {
                    unspoken.insert(backends::key(&route.namespace, &backend.target));
                }
                unresolved.push((code, problem));
                target
            }
        };
        if !own.unresolved.is_empty() {
            target = Target::Fail(Failure::Unsupported);
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
        notes.push(Problem::new(
            format!("{field}.filters"),
            "the rule redirects, so there is no request to mirror",
            "remove the mirror, or give it a rule of its own",
        ));
    }

    let action = if !dropped.is_empty() || unresolved_filter {
        Action::Fail(Failure::Unsupported)
    } else if let Some(redirect) = own.redirect {
        Action::Redirect(redirect)
    } else {
        match Split::new(backends) {
            Some(mut split) => {
                split.tries = tries;
                Action::Forward(split)
            }
            None => Action::Fail(Failure::NoBackends),
        }
    };
    let rule = Rule { id, filters: own.filters, plugins: None, action, kong: None };
    let named = own.extensions.into_iter();
    let extensions = named.map(|(name, field)| (ObjectKey::new(&route.namespace, &name), field)).collect();
    TranslatedRule { extensions, rule, matches: parsed, upstreams, unspoken, dropped, unresolved, notes }
}

/// Valid fields that this version does not honor: the rule is not served without them.
fn unsupported_fields(raw: &HttpRouteRule, field: &str, problems: &mut Vec<Problem>) {
    let mut refuse = |part: &str, message: &str| {
        let remedy = "remove it, if requests may be served without it";
        problems.push(Problem::new(format!("{field}.{part}"), format!("{message} not served by this version"), remedy));
    };
    if raw.session_persistence.is_some() {
        refuse("sessionPersistence", "session persistence is");
    }
}
