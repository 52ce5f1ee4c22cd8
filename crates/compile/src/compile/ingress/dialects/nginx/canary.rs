//! Canaries: Ingresses that get a share of the requests for the paths of another one, which keeps everything else.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::HeaderName;

use super::balancing;
use super::balancing::OwnBalancing;
use super::config_map::NginxConfig;
use super::host_facts::NginxHosts;
use super::path::written_path;
use super::permitted;
use super::value_reader::ValueReader;
use crate::api::ingress_nginx::{self, PREFIX};
use crate::api::networking::{Ingress, IngressBackend};
use crate::api::{Kind, Object, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::ingress::dialects::plain_service;
use crate::compile::ingress::dialects::plain_service::PlainService;
use crate::compile::ingress::plan::IngressPlan;
use crate::compile::ingress::service_backend::Connection;
use crate::compile::ingress_class::dialect::Dialect;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::{Diagnostic, Topic};
use crate::snapshot::host::HostPattern;
use crate::snapshot::location_steps::{CanaryRequests, HeaderCondition};
use crate::snapshot::regex::{Regex, RegexLimit};
use crate::upstream::UpstreamKey;
use crate::verdict::unique_diagnostics::UniqueDiagnostics;

/// One path of a canary, as the Ingress with the same path sees it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CanaryPath {
    pub ingress: ObjectKey,
    pub is_exact: bool,
    pub path: Box<str>,
    pub backend: IngressBackend,
    pub requests: CanaryRequests,
    /// Whether it takes no part in the sessions of the other Ingress.
    pub lacks_sessions: bool,
    pub via_cluster_ip: bool,
    pub balancing: OwnBalancing,
}

/// The paths of a canary, each with its host. None if the ConfigMap does not permit its annotations.
pub(super) fn paths(
    ingress: &Object<Ingress>,
    config: &NginxConfig,
    limit: RegexLimit,
) -> Vec<(HostPattern, Arc<CanaryPath>)> {
    if !permitted::are_permitted(&ingress.meta, config) {
        return Vec::new();
    }
    let mut reader = ValueReader::new(&ingress.meta);
    let requests = requests(&mut reader, limit);
    let lacks_sessions = lacks_sessions(&mut reader);
    let via_cluster_ip = reader.flag("service-upstream", config.service_upstream);
    let balancing = balancing::read(&mut reader, config);
    let mut found = Vec::new();
    for rule in &ingress.spec.rules {
        let host = HostPattern::parse(rule.host.as_deref());
        for path in rule.http.iter().flat_map(|http| &http.paths) {
            let canary = CanaryPath {
                ingress: ingress.meta.key.clone(),
                is_exact: path.path_type.as_deref() == Some("Exact"),
                path: written_path(path.path.as_deref()).into(),
                backend: path.backend.clone(),
                requests: requests.clone(),
                lacks_sessions,
                via_cluster_ip,
                balancing: balancing.clone(),
            };
            found.push((host.clone(), Arc::new(canary)));
        }
    }
    found
}

fn lacks_sessions(reader: &mut ValueReader<'_>) -> bool {
    reader.text("affinity-canary-behavior") == Some("legacy")
}

/// Which requests a canary gets.
fn requests(reader: &mut ValueReader<'_>, limit: RegexLimit) -> CanaryRequests {
    let weight = |number: i64| u32::try_from(number.clamp(0, u32::MAX.into())).unwrap_or_default();
    let value = reader.text("canary-by-header-value").map(str::trim).filter(|value| !value.is_empty());
    let pattern = reader.text("canary-by-header-pattern");
    let header = reader.text("canary-by-header").and_then(|name| {
        let name = match name.trim().parse::<HeaderName>() {
            Ok(name) => name,
            Err(_) => {
                reader.note("canary-by-header", "it is not the name of a header", "write a name such as X-Canary");
                return None;
            }
        };
        let condition = match (value, pattern) {
            (Some(value), _) => HeaderCondition::Value(value.into()),
            // The dots before and after it let the expression match anywhere.
            (None, Some(pattern)) => match Regex::compile(&format!("(?s:.*)(?:{pattern})(?s:.*)"), limit) {
                Ok(regex) => HeaderCondition::Pattern(regex),
                Err(error) => {
                    let message = format!("it cannot be used as an expression: {error}");
                    let message = format!("{message}, so requests with the header are not for the canary");
                    reader.warn("canary-by-header-pattern", message, "correct it");
                    HeaderCondition::Nothing
                }
            },
            (None, None) => HeaderCondition::AlwaysOrNever,
        };
        Some((name, condition))
    });
    CanaryRequests {
        header,
        cookie: reader.text("canary-by-cookie").map(str::trim).filter(|name| !name.is_empty()).map(Into::into),
        weight: reader.number("canary-weight").map(weight).unwrap_or_default(),
        total: reader.number("canary-weight-total").map(weight).unwrap_or_default().max(LEAST_TOTAL),
    }
}

/// The plan of a canary, which has no locations: what is to say about it.
pub(super) fn plan(
    cx: CompileContext<'_>,
    hosts: &NginxHosts,
    ingress: &Object<Ingress>,
    refuses_guards: bool,
) -> IngressPlan {
    let mut reader = ValueReader::new(&ingress.meta);
    let limit = cx.inputs.budgets.regex_limit();
    requests(&mut reader, limit);
    lacks_sessions(&mut reader);
    let balancing = balancing::read(&mut reader, &hosts.config);
    let mut errors = UniqueDiagnostics::default();
    let mut notes = UniqueDiagnostics::default();
    let mut upstreams: BTreeSet<UpstreamKey> = BTreeSet::new();
    errors.extend(permitted::problems(&ingress.meta, &hosts.config).into_iter().map(without_requests));
    if ingress.spec.default_backend.is_some() {
        let message = "a canary has no default backend, so it gets none of its requests";
        errors.push(Diagnostic::error("spec.defaultBackend", message, "write the paths of the other Ingress"));
    }
    for (rule_index, rule) in ingress.spec.rules.iter().enumerate() {
        let host = HostPattern::parse(rule.host.as_deref());
        for (index, path) in rule.http.iter().flat_map(|http| &http.paths).enumerate() {
            let field = format!("spec.rules[{rule_index}].http.paths[{index}]");
            let text = written_path(path.path.as_deref());
            let is_exact = path.path_type.as_deref() == Some("Exact");
            let namespace = &ingress.meta.key.namespace;
            if !hosts.has_path(&host, is_exact, text, namespace) {
                let message = format!(
                    "no Ingress of namespace {namespace} has this path of {host}, so the canary gets no requests"
                );
                let remedy = "create the Ingress with the same host, path and path type, or correct them here";
                errors.push(Diagnostic::error(field.as_str(), message, remedy));
            } else if let Some(first) = hosts.canary(&host, is_exact, text, namespace)
                && first.ingress != ingress.meta.key
            {
                let message =
                    format!("Ingress {} is older and also a canary of it, so this one has no effect", first.ingress);
                let note = Diagnostic::warning(field.as_str(), message, "remove one of them");
                notes.push(note.with_topic(Topic::Conflict));
            }
            let service = PlainService {
                dialect: Dialect::Nginx,
                namespace,
                refuses_guards,
                through: Connection {
                    via_cluster_ip: reader.flag("service-upstream", hosts.config.service_upstream),
                    ..Connection::default()
                },
            };
            let field = format!("{field}.backend");
            match service.resolve(cx, &path.backend, &field) {
                Ok(resolved) => {
                    notes.extend(plain_service::notes(&resolved, Dialect::Nginx, &field));
                    upstreams.insert(UpstreamKey { balancing: balancing.algorithm, ..resolved.key });
                }
                Err((_, problem)) => errors.push(without_requests(problem)),
            }
        }
    }
    notes.extend(reader.notes);
    notes.extend(of_the_other(ingress));
    errors.extend(reader.errors);
    IngressPlan {
        dialect: Dialect::Nginx,
        generation: ingress.meta.generation,
        created: ingress.meta.created,
        by_location: Some(Vec::new()),
        upstreams: upstreams.into_iter().collect(),
        errors: errors.into_vec(),
        notes: notes.into_vec(),
        ..IngressPlan::default()
    }
}

/// The same problem, which takes no path out of service, since a canary has none.
fn without_requests(mut problem: Diagnostic) -> Diagnostic {
    problem.message = problem.message.replace("so requests get status 503", "so the canary gets no requests");
    problem
}

/// The annotations that are those of the other Ingress for all of its requests.
fn of_the_other(ingress: &Object<Ingress>) -> impl Iterator<Item = Diagnostic> {
    let names = ingress.meta.annotations.iter().filter(|(_, value)| !value.is_empty());
    let names = names.filter_map(|(key, _)| key.strip_prefix(PREFIX));
    let without_effect = names.filter(|name| ingress_nginx::has(name) && !is_of_canary(name));
    without_effect.map(|name| {
        let field = annotation_field(&format!("{PREFIX}{name}"));
        let message = format!("it has no effect on a canary: that of the other {} applies", Kind::Ingress);
        Diagnostic::warning(field, message, "remove it").with_topic(Topic::Annotation)
    })
}

/// Whether a canary has an annotation for itself.
fn is_of_canary(name: &str) -> bool {
    let others = ["affinity-canary-behavior", "service-upstream"];
    name.starts_with("canary") || others.contains(&name) || balancing::NAMES.contains(&name)
}

/// The annotations about a canary.
pub(super) const DEPENDENT: [&str; 7] = [
    "affinity-canary-behavior",
    "canary-by-cookie",
    "canary-by-header",
    "canary-by-header-pattern",
    "canary-by-header-value",
    "canary-weight",
    "canary-weight-total",
];

/// A smaller sum of the weights counts as this one.
const LEAST_TOTAL: u32 = 100;
