//! The Services that respond in place of errors and of Services without endpoints, and to requests that no path has:
//! annotations, keys of the ConfigMap, and the flag with the default backend.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::config_map::NginxConfig;
use super::config_value::statuses;
use super::host_facts::NginxHosts;
use super::value_reader::ValueReader;
use crate::api::ingress_nginx::PREFIX;
use crate::api::networking::{IngressBackend, IngressService, IngressServicePort};
use crate::api::{Kind, Meta, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::backend::AnnotatedProtocol;
use crate::compile::ingress::dialects::plain_service::{self, PlainService};
use crate::compile::ingress::service_backend::Connection;
use crate::compile::ingress::service_backend::IngressTarget;
use crate::compile::ingress_class::dialect::Dialect;
use crate::compile::kong::plugins::{ChoiceSettings, OwnParts, PluginSite, Plugins, RouteFacts};
use crate::compile::kong::service_annotations;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::compile::objects::missing_object::missing_object;
use crate::diagnostic::{Diagnostic, Reason, Topic};
use crate::snapshot::error_backend::ErrorBackend;
use crate::snapshot::location_steps::LocationNames;
use crate::snapshot::rule::{Action, Backend, BackendTarget, Filters, RouteRule, RuleId, WeightedBackends};
use crate::snapshot::rule_options::{ErrorStyle, ForwardingHeaderStyle, GrpcErrorStyle, RuleOptions};
use crate::snapshot::rule_telemetry::{RuleTelemetry, RuleTracing};
use crate::upstream::UpstreamKey;

/// What an Ingress says about errors, with the defaults of the ConfigMap.
#[derive(Debug)]
pub(super) struct ErrorSettings {
    /// Its own list of statuses, sorted.
    own: Option<Box<[u16]>>,
    /// That of the ConfigMap.
    global: Box<[u16]>,
    replaces_endpoint_errors: bool,
    /// The Service of the annotation, which also gets the requests of Services without endpoints.
    annotated: Option<UpstreamKey>,
    /// The default backend of all Ingresses.
    default: Option<UpstreamKey>,
}

impl ErrorSettings {
    pub(super) fn read(
        cx: CompileContext<'_>,
        reader: &mut ValueReader<'_>,
        config: &NginxConfig,
        refuses_guards: bool,
    ) -> Self {
        let own = reader.text(ERRORS).and_then(|text| statuses(text, 400));
        let passes = reader.flag(PASSES_ERRORS, config.passes_endpoint_errors);
        // Why the Service that would respond does not.
        let mut reason = Reason::default();
        let annotated = reader.text(BACKEND).and_then(|name| {
            let key = ObjectKey::new(&reader.meta.key.namespace, name.trim());
            let resolved = resolve(cx, &key, refuses_guards);
            let report = |problem: Diagnostic| {
                reason = problem.reason.clone();
                reader.note_problem(BACKEND, problem);
            };
            resolved.map_err(report).ok()
        });
        let default = cx.inputs.ingress.nginx_default_backend.as_ref().and_then(|key| {
            let report = |problem: Diagnostic| {
                let message = format!("{}, so the Service of --nginx-default-backend is not used", problem.message);
                let note = Diagnostic::of_object(message, problem.remedy).into_warning();
                reader.notes.push(note.with_reason(problem.reason.clone()));
                if reason == Reason::default() {
                    reason = problem.reason;
                }
            };
            resolve(cx, key, refuses_guards).map_err(report).ok()
        });
        if own.is_some() && annotated.is_none() && default.is_none() {
            let message = "no Service responds to the errors, so clients get status 404 in place of them";
            let remedy = "set default-backend, or run Portico with --nginx-default-backend";
            let field = annotation_field(&format!("{PREFIX}{ERRORS}"));
            let note = Diagnostic::warning(field, message, remedy).with_topic(Topic::Annotation);
            reader.notes.push(note.with_reason(reason));
        }
        if own.is_none() && config.custom_errors.is_empty() {
            reader.note_without(&[PASSES_ERRORS], ERRORS);
        }
        ErrorSettings {
            own,
            global: config.custom_errors.clone(),
            replaces_endpoint_errors: !passes,
            annotated,
            default,
        }
    }

    /// The Services that may get requests.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = &UpstreamKey> {
        self.annotated.iter().chain(&self.default)
    }

    /// What gets the requests for a Service without endpoints.
    pub(super) fn substitute(&self, cx: CompileContext<'_>) -> Option<WeightedBackends> {
        self.annotated.as_ref().and_then(|key| alone(cx, key))
    }

    /// What gets the requests that no path has.
    pub(super) fn default_backend(&self, cx: CompileContext<'_>) -> Option<WeightedBackends> {
        self.default.as_ref().and_then(|key| alone(cx, key))
    }

    /// What replaces the errors of a location. `service`: where its requests go, unless that is the default backend.
    /// `signs_in`: clients without a login are redirected, which replaces the list of the ConfigMap as in nginx.
    pub(super) fn of_location(
        &self,
        cx: CompileContext<'_>,
        ingress: &Meta,
        service: Option<(&str, Option<String>)>,
        signs_in: bool,
    ) -> Option<Arc<ErrorBackend>> {
        let global = if signs_in { &[][..] } else { &self.global };
        let statuses = self.own.as_deref().unwrap_or(global);
        if statuses.is_empty() && self.annotated.is_none() {
            return None;
        }
        let upstream = self.annotated.as_ref().or(self.default.as_ref());
        let (service_name, port) = service.clone().unwrap_or_default();
        let names = [
            ("x-namespace", &*ingress.key.namespace),
            ("x-ingress-name", &*ingress.key.name),
            ("x-service-name", service_name),
            ("x-service-port", port.as_deref().unwrap_or_default()),
        ];
        // As in nginx, a header without a value is not sent.
        let names = names
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::from_str(value).ok()?)));
        Some(Arc::new(ErrorBackend {
            statuses: statuses.into(),
            // The errors of the default backend are final.
            replaces_endpoint_errors: self.replaces_endpoint_errors && service.is_some(),
            upstream: upstream.map(|key| cx.inputs.upstreams.upstream(key)),
            names: names.collect(),
        }))
    }
}

/// The first port of a Service, over HTTP.
fn resolve(cx: CompileContext<'_>, key: &ObjectKey, refuses_guards: bool) -> Result<UpstreamKey, Diagnostic> {
    let service = cx.store.services.get(key).ok_or_else(|| missing_object(cx.store, "", Kind::Service, key))?;
    let Some(port) = service.spec.ports.first() else {
        return Err(Diagnostic::of_object(format!("{} {key} has no port", Kind::Service), "add one"));
    };
    let port = IngressServicePort { name: None, number: Some(port.port) };
    let service = IngressService { name: key.name.to_string(), port: Some(port) };
    let backend = IngressBackend { service: Some(service), ..IngressBackend::default() };
    let service = PlainService {
        dialect: Dialect::Nginx,
        namespace: &key.namespace,
        refuses_guards,
        through: Connection { protocol: Some(AnnotatedProtocol::Http), ..Connection::default() },
    };
    match service.resolve(cx, &backend, "") {
        Ok(resolved) => Ok(resolved.key),
        Err((_, mut problem)) => {
            problem.message = problem.message.replace(", so requests get status 503", "");
            Err(problem)
        }
    }
}

fn alone(cx: CompileContext<'_>, key: &UpstreamKey) -> Option<WeightedBackends> {
    let target = BackendTarget::Upstream(cx.inputs.upstreams.upstream(key));
    WeightedBackends::new(vec![Backend { weight: 1, filters: Filters::default(), target }])
}

/// How the locations of the dialect forward requests.
pub(super) fn forwarding_options() -> RuleOptions {
    RuleOptions {
        forwarding_headers: ForwardingHeaderStyle::SingleClient,
        forwards_raw_target: true,
        errors: ErrorStyle::RingBalancer,
        grpc_errors: GrpcErrorStyle::HttpStatus,
        ..RuleOptions::default()
    }
}

/// How requests for hosts and paths that no Ingress has are named and traced.
pub(super) fn default_telemetry(tracing: RuleTracing) -> Arc<RuleTelemetry> {
    let names = LocationNames { path: "/".into(), host: UNNAMED_HOST.into(), ..LocationNames::default() };
    let (names, upstream) = (Arc::new(names), DEFAULT_BACKEND.into());
    Arc::new(RuleTelemetry { names, upstream, alternative: None, tracing })
}

/// The rule of all requests for hosts that no Ingress names: the default backend of the flag, with the global plugins.
/// `None` without it.
pub(in crate::compile::ingress) fn of_unnamed_hosts(
    cx: CompileContext<'_>,
    plugins: &Plugins,
    hosts: &NginxHosts,
) -> Option<Arc<RouteRule>> {
    let key = cx.inputs.ingress.nginx_default_backend.as_ref()?;
    let upstream = resolve(cx, key, !cx.inputs.ingress.ignore_foreign_guards).ok()?;
    let mut action = Action::Forward(alone(cx, &upstream)?);
    let NginxConfig { logs, traces, .. } = &hosts.config;
    let mut options = RuleOptions {
        access_log: logs.has_unnamed_hosts(),
        telemetry: Some(default_telemetry(traces.of_all())),
        ..forwarding_options()
    };
    // No Ingress attaches plugins to it.
    let meta = Meta::new(key.clone());
    let id = RuleId { route: "Ingress".into(), rule: "default-backend".into() };
    let site = PluginSite {
        kind: Kind::Ingress,
        meta: &meta,
        extensions: &[],
        backends: &[],
        mirrors: &[],
        names: Arc::new(plain_service::route_names(&meta, &id.rule, &IngressTarget::Unsupported)),
        facts: &|| RouteFacts {
            hosts: Vec::new(),
            paths: vec!["/".to_owned()],
            methods: Vec::new(),
            server_names: Vec::new(),
            regex_priority: 0,
            rule_name: None,
            options: Some(&options),
            action: &action,
        },
        counter_scope: "Ingress/default-backend".into(),
        choice: ChoiceSettings { settings: service_annotations::for_ingress, replaces_host: false },
    };
    let mut chain = plugins.chain_after(cx, &site, OwnParts::default());
    options.forwards_raw_target &= !chain.is_attached;
    std::mem::take(&mut chain.chosen).move_into(&mut action, &mut Default::default());
    // Global plugins have verdicts of their own.
    let plugins = chain.report_into(&mut Default::default());
    let options = Some(Box::new(options));
    Some(Arc::new(RouteRule { id, filters: Filters::default(), plugins, action, options }))
}

/// What logs and metrics call a host that no Ingress names, and what gets its requests.
pub(super) const UNNAMED_HOST: &str = "_";
pub(super) const DEFAULT_BACKEND: &str = "upstream-default-backend";

const ERRORS: &str = "custom-http-errors";
const BACKEND: &str = "default-backend";
const PASSES_ERRORS: &str = "disable-proxy-intercept-errors";
