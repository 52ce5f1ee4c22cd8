//! Resolves the Services that plugins of a rule may choose, like the backends of the rule.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::api::gateway::BackendObjectReference;
use crate::api::kind::CORE_GROUP;
use crate::api::kong::annotations::HOST_HEADER;
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::backend::reference;
use crate::compile::backend::reference::SettingsReader;
use crate::compile::kong::service_annotations;
use crate::compile::objects::reference_grants::Referrer;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::{BackendName, MAX_CHOSEN_BACKENDS, Plugin};
use crate::snapshot::rule::{Action, Backend, BackendTarget, Filters, Rewrite, RouteFailure};
use crate::upstream::UpstreamKey;

/// How the requests of a rule are sent to Services that plugins choose.
#[derive(Clone, Copy, Debug)]
pub(in crate::compile) struct ChoiceSettings {
    pub settings: SettingsReader,
    /// Whether endpoints get the name of the Service as `Host`, and not that of the client.
    pub replaces_host: bool,
}

/// A Service that requests may be sent to in place of the backends of their rule.
#[derive(Debug)]
pub(in crate::compile) struct ChosenService {
    pub backend: Backend,
    pub service: ObjectKey,
    pub upstream: UpstreamKey,
}

/// The backends that plugins of a rule may choose, by their indices.
#[derive(Debug, Default)]
pub(in crate::compile) struct ChosenBackends {
    backends: Vec<Backend>,
    /// By the same indices, the Services and their upstreams, as far as they are resolved.
    services: Vec<Option<(ObjectKey, UpstreamKey)>>,
    /// The objects of the plugins, each with the index of its first backend.
    first_by_object: Vec<(Arc<str>, u16)>,
}

impl Extend<ChosenService> for ChosenBackends {
    fn extend<I: IntoIterator<Item = ChosenService>>(&mut self, chosen: I) {
        for ChosenService { backend, service, upstream } in chosen {
            self.backends.push(backend);
            self.services.push(Some((service, upstream)));
        }
    }
}

impl ChosenBackends {
    /// Adds the backends of a plugin, unless it has been added before. Returns the index of its first one, and reports
    /// those that cannot be resolved. `id`: the object that configures the plugin.
    pub(super) fn add(
        &mut self,
        cx: CompileContext<'_>,
        choice: ChoiceSettings,
        id: &ObjectId,
        object: &Arc<str>,
        plugin: &dyn Plugin,
        report: &mut dyn FnMut(Diagnostic),
    ) -> u16 {
        let names = plugin.chosen_backends();
        if names.is_empty() {
            return 0;
        }
        if let Some((_, first)) = self.first_by_object.iter().find(|(added, _)| added == object) {
            return *first;
        }
        let first = u16::try_from(self.backends.len()).unwrap_or(u16::MAX);
        self.first_by_object.push((Arc::clone(object), first));
        for name in names {
            let (backend, service) = if self.backends.len() < MAX_CHOSEN_BACKENDS {
                resolve(cx, choice, id, name, report)
            } else {
                let message = format!("the plugins of the rule name more than {MAX_CHOSEN_BACKENDS} Services");
                report(Diagnostic::error("", message, "attach fewer plugins that choose Services"));
                (failing(RouteFailure::Unsupported), None)
            };
            self.backends.push(backend);
            self.services.push(service);
        }
        first
    }

    /// The Services, by the indices of the backends. `None` if one is not resolved.
    pub(super) fn services(&self) -> Vec<Option<ObjectKey>> {
        self.services.iter().map(|service| service.as_ref().map(|(key, _)| key.clone())).collect()
    }

    /// Lets requests for a backend fail.
    pub(super) fn fail(&mut self, index: usize) {
        self.backends[index] = failing(RouteFailure::UnsupportedProtection);
        self.services[index] = None;
    }

    /// Moves the backends into the action of their rule, whose upstreams they join.
    pub(in crate::compile) fn move_into(self, action: &mut Action, upstreams: &mut BTreeSet<UpstreamKey>) {
        let Action::Forward(split) = action else { return };
        if self.backends.is_empty() {
            return;
        }
        let mut backends = self.backends;
        if split.backends().iter().any(|backend| backend.filters.external_auth.is_some()) {
            // The plugin would lead around the authorization of the rule's backends.
            let reject = |backend: &mut Backend| *backend = failing(RouteFailure::UnsupportedProtection);
            backends.iter_mut().for_each(reject);
        } else {
            upstreams.extend(self.services.into_iter().flatten().map(|(_, upstream)| upstream));
        }
        split.set_chosen_by_plugins(backends);
    }
}

/// The backend for a name, with its Service and upstream if it is resolved.
fn resolve(
    cx: CompileContext<'_>,
    choice: ChoiceSettings,
    id: &ObjectId,
    name: &BackendName,
    report: &mut dyn FnMut(Diagnostic),
) -> (Backend, Option<(ObjectKey, UpstreamKey)>) {
    let service = match service_key(id, name) {
        Ok(service) => service,
        Err(problem) => {
            report(problem);
            return (failing(RouteFailure::InvalidBackend), None);
        }
    };
    // Only administrators of the cluster write a KongClusterPlugin, so it needs no grants.
    let namespace = if id.kind == Kind::KongPlugin { &id.key.namespace } else { &service.namespace };
    let from = Referrer { kind: Kind::KongPlugin, namespace };
    let reference = BackendObjectReference {
        group: CORE_GROUP.to_owned(),
        kind: Kind::Service.name().to_owned(),
        namespace: Some(service.namespace.to_string()),
        name: service.name.to_string(),
        port: Some(name.port.into()),
    };
    let resolved = reference::resolve_service(cx, from, &reference, choice.settings, &name.field);
    let mut filters = Filters::default();
    let mut upstream = None;
    match resolved.upstream {
        Ok(key) => {
            if choice.replaces_host {
                let host = cx.store.services.get(&service).map(|service| {
                    let annotated = service.meta.annotations.get(HOST_HEADER);
                    let annotated = annotated.and_then(|host| service_annotations::parse_host(host));
                    let default = || service_annotations::default_host(service, key.port, key.tls.is_some());
                    annotated.unwrap_or_else(default)
                });
                filters.rewrite = Some(Rewrite { host, path: None });
            }
            upstream = Some(key);
        }
        Err((_, problem)) => report(problem),
    }
    let backend = Backend { weight: 1, filters, target: resolved.target };
    (backend, upstream.map(|upstream| (service, upstream)))
}

/// A backend whose requests fail.
fn failing(failure: RouteFailure) -> Backend {
    Backend { weight: 1, filters: Filters::default(), target: BackendTarget::Fail(failure) }
}

/// The Service that a plugin names. `id`: the object that configures the plugin.
pub(super) fn service_key(id: &ObjectId, name: &BackendName) -> Result<ObjectKey, Diagnostic> {
    let own_namespace = Some(&*id.key.namespace).filter(|_| id.kind == Kind::KongPlugin);
    match name.namespace.as_deref().or(own_namespace) {
        Some(namespace) => Ok(ObjectKey::new(namespace, &name.service)),
        None => {
            let message = format!("Service {} has no namespace, and neither has a {}", name.service, id.kind);
            let remedy = format!("write {}.NAMESPACE.{}.svc", name.service, name.port);
            Err(Diagnostic::error(name.field.as_str(), message, remedy))
        }
    }
}
