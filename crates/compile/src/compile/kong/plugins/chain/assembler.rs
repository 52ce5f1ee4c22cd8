//! Collects the instances of the plugins of one rule: of each that applies, or of what rejects requests in its place.

use std::sync::Arc;

use super::super::chosen_backends::{ChoiceSettings, ChosenBackends};
use super::super::compiled_plugin::CompiledPlugin;
use super::super::hidden_values::hide_value_at_field;
use super::super::plugin_site::PluginSite;
use super::super::plugins_of_rule::{Application, AttachingObject, GLOBAL_COUNTERS, application, is_overridden};
use super::super::references::{PluginSubjects, UnresolvedPlugin};
use super::super::{Plugins, rejecting_guard};
use super::diagnostics::ChainDiagnostics;
use crate::api::{Kind, Meta, ObjectId};
use crate::compile::CompileContext;
use crate::compile::backend::endpoints::may_be_a_name;
use crate::compile::kong::consumers::identity;
use crate::diagnostic::Topic;
use crate::plugin_api::instance::{ExecutionPlace, PluginInstance};
use crate::plugin_api::{Plugin, Scopes};
use crate::plugin_chain::Chain;
use crate::plugin_chain::chain::{AttachmentPoint, BaseScope, ChainBuilder, OverlayScope};

/// Collects the plugins of one rule in its chain.
pub(super) struct ChainAssembler<'a> {
    pub(super) plugins: &'a Plugins,
    pub(super) cx: CompileContext<'a>,
    backends: &'a [(Kind, &'a Meta)],
    choice: ChoiceSettings,
    pub(super) chosen: ChosenBackends,
    pub(super) builder: ChainBuilder,
    pub(super) diagnostics: ChainDiagnostics,
}

impl<'a> ChainAssembler<'a> {
    pub(super) fn new<'s: 'a>(plugins: &'a Plugins, cx: CompileContext<'a>, site: &PluginSite<'s>) -> Self {
        ChainAssembler {
            plugins,
            cx,
            backends: site.backends,
            choice: site.choice,
            chosen: ChosenBackends::default(),
            builder: ChainBuilder::default(),
            diagnostics: ChainDiagnostics::default(),
        }
    }

    /// Attaches the plugin to which a reference leads. `token`: the reference as written.
    pub(super) fn attach(&mut self, object: &AttachingObject, target: Result<ObjectId, UnresolvedPlugin>, token: &str) {
        self.diagnostics.field.clone_from(&object.field);
        let id = match target {
            Ok(id) => id,
            Err(unresolved) => return self.add_missing(unresolved, &object.counter_scope, token),
        };
        match application(self.plugins, &self.builder, object, &id) {
            None => {}
            Some(Application::ToAll(compiled)) => {
                self.add(&id, compiled, [AttachmentPoint::Base(object.base)], &object.counter_scope);
            }
            Some(Application::ToSubjects(compiled, subjects, scope)) => {
                self.add(&id, compiled, points_of(subjects, scope), &object.counter_scope);
            }
            Some(Application::Misplaced(compiled)) => {
                self.add_misplaced(compiled, object.base, &object.counter_scope);
            }
        }
    }

    /// Attaches one instance of a plugin at all these points. There may be one point for each consumer.
    fn add(
        &mut self,
        id: &ObjectId,
        compiled: &CompiledPlugin,
        points: impl IntoIterator<Item = AttachmentPoint>,
        counter_scope: &Arc<str>,
    ) {
        let usable = compiled.usable_instance(counter_scope);
        let Some((place, mut instance)) = usable.or_else(|| self.rejection_of_unusable(compiled, counter_scope)) else {
            return;
        };
        if instance.plugin.needs_named_backend() {
            self.report_backends_without_name(compiled);
        }
        instance.first_backend = self.add_chosen_backends(id, compiled, &*instance.plugin);
        for point in points {
            self.report_duplicate(compiled, &point);
            match &point {
                AttachmentPoint::Base(base) => self.builder.order(place.kind, *base, compiled.ordering.as_ref()),
                AttachmentPoint::Consumer(..) | AttachmentPoint::Group(..) => self.report_unordered(compiled),
            }
            self.add_instance(place, point, instance.clone());
        }
    }

    /// Reports an unusable plugin. Returns what rejects requests in its place if it is a guard.
    fn rejection_of_unusable(
        &mut self,
        compiled: &CompiledPlugin,
        counter_scope: &Arc<str>,
    ) -> Option<(ExecutionPlace, PluginInstance)> {
        let (reason, remedy) = compiled.unusable();
        let message = format!("plugin {} {reason}", compiled.object);
        if !self.must_reject(compiled) {
            self.diagnostics.report(format!("{message}, so requests are served without it"), remedy);
            return None;
        }
        self.diagnostics.report_rejection(format!("{message}, so requests it would protect get status 503"), remedy);
        let message = format!("{} of this route cannot be used", compiled.object);
        Some(rejecting_guard::in_place_of(compiled, counter_scope, message))
    }

    pub(super) fn add_instance(&mut self, place: ExecutionPlace, point: AttachmentPoint, instance: PluginInstance) {
        self.builder.add(place.kind, place.priority, point, instance);
    }

    /// Reports a plugin that does not support this kind of object. If it is a guard, requests are rejected, because the
    /// configuration expects them to be protected.
    fn add_misplaced(&mut self, compiled: &CompiledPlugin, base: BaseScope, counter_scope: &Arc<str>) {
        let objects = match base {
            BaseScope::Route => "routes",
            BaseScope::Service => "Services",
            BaseScope::Global => "all routes",
        };
        let message = format!("{} cannot be attached to {objects}", compiled.name);
        let remedy = misplaced_remedy(compiled.scopes());
        if !self.must_reject(compiled) {
            return self.diagnostics.report(format!("{message}, so requests are served without it"), &remedy);
        }
        self.diagnostics.report_rejection(format!("{message}, so requests get status 503"), &remedy);
        let message = format!("{} cannot guard this route", compiled.object);
        let (place, instance) = rejecting_guard::in_place_of(compiled, counter_scope, message);
        self.add_instance(place, AttachmentPoint::Base(base), instance);
    }

    /// Reports a missing plugin. It rejects requests, because it may have been a guard.
    fn add_missing(&mut self, unresolved: UnresolvedPlugin, counter_scope: &Arc<str>, token: &str) {
        let (code, problem) = unresolved;
        let mut problem = problem.with_topic(Topic::Plugin);
        if self.cx.inputs.plugin_factory.fail_open {
            problem.message.push_str(", so requests are served without it");
            return self.diagnostics.add(problem);
        }
        problem.message.push_str(", so requests get status 503");
        self.diagnostics.add_rejection(code, problem);
        let message = format!("plugin {token} of this route does not exist");
        let (place, instance) = rejecting_guard::in_place_of_unknown(token.into(), counter_scope, message);
        self.add_instance(place, AttachmentPoint::Base(BaseScope::Route), instance);
    }

    /// Rejects all requests if the plugin is a guard. `id`: one of several global plugins of the same kind, none of
    /// which runs.
    pub(super) fn reject_ambiguous(&mut self, id: &ObjectId) {
        let Some(compiled) = self.plugins.plugins.get(id).filter(|compiled| compiled.is_active) else { return };
        if !self.must_reject(compiled) || is_overridden(compiled, BaseScope::Global, &self.builder) {
            return;
        }
        let message = format!("more than one global {} is configured", compiled.name);
        let remedy = "keep the label global on only one of the KongClusterPlugins";
        self.diagnostics.report_rejection(format!("{message}, so requests get status 503"), remedy);
        let (place, instance) = rejecting_guard::in_place_of(compiled, &GLOBAL_COUNTERS.into(), message);
        self.add_instance(place, AttachmentPoint::Base(BaseScope::Global), instance);
    }

    /// Whether requests must be rejected if the plugin cannot run.
    pub(super) fn must_reject(&self, compiled: &CompiledPlugin) -> bool {
        compiled.is_guard() && !self.cx.inputs.plugin_factory.fail_open
    }

    /// Resolves the Services that a plugin may choose. Returns the index of the first one.
    fn add_chosen_backends(&mut self, id: &ObjectId, compiled: &CompiledPlugin, plugin: &dyn Plugin) -> u16 {
        let mut problems = Vec::new();
        let mut report = |problem| problems.push(problem);
        let first = self.chosen.add(self.cx, self.choice, id, &compiled.object, plugin, &mut report);
        for problem in problems {
            let field = format!("config.{}", problem.field);
            let problem = hide_value_at_field(&compiled.origins, problem.at(field));
            let message =
                format!("{} chooses a Service: {}, so requests for it get an error", compiled.object, problem.message);
            self.diagnostics.report_rejection(message, &problem.remedy);
        }
        first
    }

    /// Reports backends to which the plugin cannot send requests, because they are not one host with a name.
    fn report_backends_without_name(&mut self, compiled: &CompiledPlugin) {
        let services = self.backends.iter().filter(|(kind, _)| *kind == Kind::Service);
        let sources = self.cx.inputs.upstreams.trust_model().address_sources();
        for (_, meta) in services {
            let service = self.cx.store.services.get(&meta.key);
            if service.is_some_and(|service| !may_be_a_name(service, sources)) {
                let message = format!(
                    "{} sends requests to ExternalName Services only, so requests for Service {} get status 502",
                    compiled.object, meta.key
                );
                self.diagnostics.report(message, "use a Service of the type ExternalName, or detach the plugin");
            }
        }
    }

    /// Reports a plugin whose place has one of another object. A plugin that is named twice is in effect.
    fn report_duplicate(&mut self, compiled: &CompiledPlugin, point: &AttachmentPoint) {
        let Some(kind) = compiled.kind else { return };
        let attached = self.builder.attached_at(kind.name(), point);
        if attached.is_none_or(|object| *object == compiled.object) {
            return;
        }
        self.diagnostics.report(duplicate_message(kind.name(), &compiled.object), "keep one of them");
    }

    /// Reports plugins that would take the place of the backend, but another one comes first.
    pub(super) fn report_further_replacements(&mut self, chain: Option<&Chain>) {
        let Some(chain) = chain else { return };
        let mut replacements = chain.replacements();
        let Some(first) = replacements.next() else { return };
        for other in replacements {
            let message = format!("{first} takes the place of the backend first, so {other} has no effect");
            self.diagnostics.report(message, "detach one of them");
        }
    }

    /// Reports an ordering without effect: the consumer is not known before the authentication plugins have run.
    fn report_unordered(&mut self, compiled: &CompiledPlugin) {
        if compiled.ordering.is_some() {
            let message = format!("the field ordering of {} has no effect for consumers and groups", compiled.object);
            self.diagnostics.report(message, "remove it, or attach the plugin to the route only");
        }
    }

    /// Reports plugins whose orderings contradict each other. All plugins then run by their priorities.
    pub(super) fn report_contradictory_order(&mut self) {
        if let Some(cycle) = self.builder.contradictory_order() {
            let names = cycle.join(", ");
            let message = format!(
                "the fields ordering of {names} contradict each other, so all plugins run in the order of their \
                 priorities"
            );
            self.diagnostics.report(message, "remove one of them");
        }
    }
}

/// Where a plugin is attached that runs for these consumers and groups only.
fn points_of(subjects: &PluginSubjects, scope: OverlayScope) -> impl Iterator<Item = AttachmentPoint> {
    let consumers = subjects.consumer_ids().iter();
    let consumers = consumers.map(move |id| AttachmentPoint::Consumer(Arc::clone(id), scope));
    let groups = subjects.groups.iter();
    consumers.chain(groups.map(move |key| AttachmentPoint::Group(identity::group_name(key), scope)))
}

pub(in super::super) fn duplicate_message(kind: &str, object: &str) -> String {
    format!("another {kind} is already attached to the same object, so {object} has no effect")
}

/// Names the objects to which a plugin with these scopes can be attached.
fn misplaced_remedy(scopes: Scopes) -> String {
    let objects = [
        (scopes.route, "routes"),
        (scopes.service, "Services"),
        (scopes.global, "all routes, with label global"),
        (scopes.consumer, "consumers"),
        (scopes.consumer_group, "consumer groups"),
    ];
    let supported: Vec<_> = objects.iter().filter_map(|(is_supported, name)| is_supported.then_some(*name)).collect();
    format!("attach it to {}", supported.join(" or "))
}
