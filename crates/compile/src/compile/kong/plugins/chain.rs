//! Builds the plugin chain of one rule from all objects that attach plugins to it.

use std::sync::Arc;

use super::RouteFacts;
use super::chosen_backends::{ChoiceSettings, ChosenBackends};
use super::compiled_plugin::CompiledPlugin;
use super::consumer_grants;
use super::hidden_values::hide_value_at_field;
use super::references;
use super::references::{PluginReferrers, PluginSubjects, UnresolvedPlugin};
use super::{Plugins, route_description};
use crate::api::kong::annotations::PLUGINS;
use crate::api::{Kind, Meta, ObjectId, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::backend::endpoints::may_be_a_name;
use crate::compile::kong::consumers::identity;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::{Diagnostic, Topic};
use crate::plugin_api::instance::PluginInstance;
use crate::plugin_api::{AnyPluginKind, Phases, Plugin, RouteNames, Scopes};
use crate::plugin_chain::Chain;
use crate::plugin_chain::chain::{AttachmentPoint, BaseScope, BrokenPlugin, ChainBuilder, OverlayScope};
use crate::verdict::Code;
use crate::verdict::unique_diagnostics::UniqueDiagnostics;

/// A rule to which plugins may be attached.
pub(in crate::compile) struct PluginSite<'a> {
    pub kind: Kind,
    /// The metadata of the route, with its annotations.
    pub meta: &'a Meta,
    /// Existing KongPlugins that filters refer to, each with its field.
    pub extensions: &'a [(ObjectKey, String)],
    /// The Services or facades that requests are sent to, by kind and metadata.
    pub backends: &'a [(Kind, &'a Meta)],
    /// The Services that get copies of the requests, each with the field of the reference.
    pub mirrors: &'a [(String, &'a Meta)],
    pub names: Arc<RouteNames>,
    /// Collects the facts that log plugins write.
    pub facts: &'a dyn Fn() -> RouteFacts<'a>,
    /// The scope of counters, such as `HTTPRoute/default/shop/0`.
    pub counter_scope: Arc<str>,
    /// How requests are sent to Services that plugins choose.
    pub choice: ChoiceSettings,
}

/// The chain of a rule, with diagnostics for the route.
#[derive(Debug, Default)]
pub(in crate::compile) struct RuleChain {
    pub chain: Option<Arc<Chain>>,
    /// What plugins of the chain may choose in place of the backends of the rule.
    pub chosen: ChosenBackends,
    /// Whether a plugin is attached to the rule or globally.
    pub is_attached: bool,
    /// Diagnostics about plugins because of which requests get status 503, each with the code for the route.
    pub rejections: Vec<(Code, Diagnostic)>,
    /// Diagnostics about other unresolved references and unusable plugins, each with the consequence for requests.
    pub diagnostics: Vec<Diagnostic>,
}

impl RuleChain {
    /// Adds the diagnostics to `diagnostics`, which has those of other rules, without duplicates. Returns the chain.
    pub(in crate::compile) fn report_into(self, diagnostics: &mut UniqueDiagnostics) -> Option<Arc<Chain>> {
        diagnostics.extend(self.rejections.into_iter().map(|(_, problem)| problem));
        diagnostics.extend(self.diagnostics);
        self.chain
    }
}

/// An object to which plugins are attached: the route, one of its backends, or all routes.
struct PluginScope {
    base: BaseScope,
    /// The namespace of the object to which the plugin is attached.
    namespace: Arc<str>,
    /// The scope of counters of these plugins.
    counter_scope: Arc<str>,
    /// The field with the reference, for diagnostics about the route.
    field: String,
}

impl Plugins {
    /// Builds the chain of a rule.
    pub(in crate::compile) fn chain(&self, cx: CompileContext<'_>, site: &PluginSite<'_>) -> RuleChain {
        let mut assembler = ChainAssembler {
            plugins: self,
            cx,
            backends: site.backends,
            choice: site.choice,
            chosen: ChosenBackends::default(),
            field: String::new(),
            builder: ChainBuilder::default(),
            rejections: Vec::new(),
            diagnostics: UniqueDiagnostics::default(),
        };
        let mut plugin_scope = PluginScope {
            base: BaseScope::Route,
            namespace: Arc::clone(&site.meta.key.namespace),
            counter_scope: Arc::clone(&site.counter_scope),
            field: annotation_field(PLUGINS),
        };
        for reference in references::references_within_budget(cx, site.kind, site.meta) {
            assembler.attach(&plugin_scope, reference.target, &reference.token);
        }
        for (key, field) in site.extensions {
            plugin_scope.field.clone_from(field);
            assembler.attach(&plugin_scope, Ok(ObjectId::new(Kind::KongPlugin, key.clone())), &key.name);
        }
        for (kind, backend) in site.backends {
            let plugin_scope = PluginScope {
                base: BaseScope::Service,
                namespace: Arc::clone(&backend.key.namespace),
                counter_scope: format!("{kind}/{}", backend.key).into(),
                field: format!("{} of {kind} {}", annotation_field(PLUGINS), backend.key),
            };
            for reference in references::references_within_budget(cx, *kind, backend) {
                let at_backend = |(code, problem): UnresolvedPlugin| {
                    let field = format!("{} of {kind} {}", problem.field, backend.key);
                    (code, problem.at(field))
                };
                assembler.attach(&plugin_scope, reference.target.map_err(at_backend), &reference.token);
            }
        }
        let global: Arc<str> = "global".into();
        let plugin_scope = PluginScope {
            base: BaseScope::Global,
            namespace: "".into(),
            counter_scope: Arc::clone(&global),
            field: String::new(),
        };
        for id in &self.global_plugins.global {
            assembler.attach(&plugin_scope, Ok(id.clone()), &id.key.name);
        }
        // Diagnostics about the plugins below have no field.
        assembler.field.clear();
        for id in &self.global_plugins.ambiguous {
            assembler.reject_ambiguous(id, &global);
        }
        assembler.reject_unguarded(site.mirrors);
        let is_attached = !assembler.builder.is_empty();
        if let Some(builtin) = &cx.inputs.plugin_factory.builtin {
            builtin.add_to(&mut assembler.builder, &global);
        }
        assembler.report_contradictory_order();
        if assembler.builder.needs_description() {
            let facts = (site.facts)();
            let PluginSite { kind, meta, backends, names, .. } = site;
            assembler.builder.describe(route_description::describe(*kind, meta, backends, names, &facts));
        }
        if !assembler.builder.is_empty() && !cx.inputs.plugin_factory.shares_consumers {
            let guarded = assembler.guarded_services(site);
            let guarded = guarded.iter().map(|(kind, key)| (*kind, key));
            let scope = consumer_grants::scope(cx.store, guarded.chain([(site.kind, &site.meta.key)]));
            assembler.builder.limit_consumers(scope);
        }
        let chain = std::mem::take(&mut assembler.builder).build(Arc::clone(&site.names));
        assembler.report_further_replacements(chain.as_deref());
        RuleChain {
            is_attached,
            chain,
            chosen: assembler.chosen,
            rejections: assembler.rejections,
            diagnostics: assembler.diagnostics.into_vec(),
        }
    }
}

impl Plugins {
    /// The chain of responses to requests that no rule matches: the global plugins that run for them.
    pub(in crate::compile) fn unmatched_chain(&self) -> Option<Arc<Chain>> {
        let mut builder = ChainBuilder::default();
        let scope: Arc<str> = "global".into();
        for compiled in self.global_plugins.global.iter().filter_map(|id| self.plugins.get(id)) {
            let usable = compiled.usable_instance(&scope).filter(|_| compiled.is_active);
            let Some((kind, priority, instance)) = usable else { continue };
            if instance.plugin.serves_unmatched() {
                builder.add(kind, priority, AttachmentPoint::Base(BaseScope::Global), instance);
            }
        }
        builder.build(Arc::new(RouteNames::default()))
    }
}

/// Collects the plugins of one rule in its chain.
struct ChainAssembler<'a> {
    plugins: &'a Plugins,
    cx: CompileContext<'a>,
    backends: &'a [(Kind, &'a Meta)],
    choice: ChoiceSettings,
    chosen: ChosenBackends,
    /// The field with the reference to the plugin.
    field: String,
    builder: ChainBuilder,
    rejections: Vec<(Code, Diagnostic)>,
    diagnostics: UniqueDiagnostics,
}

impl ChainAssembler<'_> {
    /// Attaches the plugin to which a reference leads. `token`: the reference as written.
    fn attach(&mut self, plugin_scope: &PluginScope, target: Result<ObjectId, UnresolvedPlugin>, token: &str) {
        self.field.clone_from(&plugin_scope.field);
        let (base, counter_scope) = (plugin_scope.base, &plugin_scope.counter_scope);
        let id = match target {
            Ok(id) => id,
            Err(unresolved) => return self.add_missing(unresolved, counter_scope, token),
        };
        let Some(compiled) = self.plugins.plugins.get(&id) else { return };
        if !supports_scope(compiled.scopes(), base) {
            return self.add_misplaced(compiled, base, counter_scope);
        }
        let overlay_scope = match base {
            BaseScope::Route => Some(OverlayScope::Route),
            BaseScope::Service => Some(OverlayScope::Service),
            BaseScope::Global => None,
        };
        // An unknown plugin runs for all clients, because it may be the one that authenticates them.
        let referrers = self.plugins.referrers.get(&id).filter(|_| compiled.kind.is_some());
        let subjects = referrers.and_then(|referrers: &PluginReferrers| referrers.subjects(&plugin_scope.namespace));
        match overlay_scope.zip(subjects) {
            // It runs on this rule for these consumers and groups only.
            Some((overlay_scope, subjects)) => self.add_for(&id, compiled, subjects, overlay_scope, counter_scope),
            None if self.is_overridden(compiled, base) => {}
            None => self.add(&id, compiled, [AttachmentPoint::Base(base)], counter_scope),
        }
    }

    /// Attaches a plugin for these consumers and groups only.
    fn add_for(
        &mut self,
        id: &ObjectId,
        compiled: &CompiledPlugin,
        subjects: &PluginSubjects,
        overlay_scope: OverlayScope,
        counter_scope: &Arc<str>,
    ) {
        let consumers = subjects.consumer_ids().iter();
        let consumers = consumers.map(|id| AttachmentPoint::Consumer(Arc::clone(id), overlay_scope));
        let groups = subjects.groups.iter();
        let groups = groups.map(|key| AttachmentPoint::Group(identity::group_name(key), overlay_scope));
        self.add(id, compiled, consumers.chain(groups), counter_scope);
    }

    /// Attaches one instance of a plugin at all these points. There may be one point for each consumer.
    fn add(
        &mut self,
        id: &ObjectId,
        compiled: &CompiledPlugin,
        points: impl IntoIterator<Item = AttachmentPoint>,
        counter_scope: &Arc<str>,
    ) {
        if !compiled.is_active {
            return;
        }
        let (kind, priority, mut instance) = match compiled.usable_instance(counter_scope) {
            Some(usable) => usable,
            None => {
                let (reason, remedy) = compiled.unusable();
                let message = format!("plugin {} {reason}", compiled.object);
                if !self.must_reject(compiled) {
                    self.report(format!("{message}, so requests are served without it"), remedy);
                    return;
                }
                self.report_rejection(format!("{message}, so requests it would protect get status 503"), remedy);
                let message = format!("{} of this route cannot be used", compiled.object);
                rejecting_substitute(compiled, counter_scope, message)
            }
        };
        if instance.plugin.needs_named_backend() {
            self.report_backends_without_name(compiled);
        }
        instance.first_backend = self.add_chosen_backends(id, compiled, &*instance.plugin);
        for point in points {
            self.report_duplicate(compiled, &point);
            match &point {
                AttachmentPoint::Base(base) => self.builder.order(kind, *base, compiled.ordering.as_ref()),
                AttachmentPoint::Consumer(..) | AttachmentPoint::Group(..) => self.report_unordered(compiled),
            }
            self.builder.add(kind, priority, point, instance.clone());
        }
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
            self.report_rejection(message, &problem.remedy);
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
                self.report(message, "use a Service of the type ExternalName, or detach the plugin");
            }
        }
    }

    /// Rejects requests of which a Service would get copies without its own guards, and fails Services that plugins
    /// choose for the same reason. A guard that also runs for the rule is one that holds.
    fn reject_unguarded(&mut self, mirrors: &[(String, &Meta)]) {
        for (field, service) in mirrors {
            let Some(guard) = self.missing_guard(service) else { continue };
            self.field.clone_from(field);
            let message = format!("{guard} guards Service {}, and does not run for copies of requests", service.key);
            let remedy = "attach it to the route, too, or mirror to another Service";
            self.report_rejection(format!("{message}, so requests get status 503"), remedy);
            let instance = rejecting_instance(message, &"global".into(), guard.into());
            self.builder.add(UNKNOWN, i32::MAX, AttachmentPoint::Base(BaseScope::Route), instance);
        }
        let mut chosen = std::mem::take(&mut self.chosen);
        for (index, service) in chosen.services().into_iter().enumerate() {
            let service = service.and_then(|key| self.cx.store.services.get(&key));
            let Some(service) = service else { continue };
            let Some(guard) = self.missing_guard(&service.meta) else { continue };
            chosen.fail(index);
            self.field.clear();
            let message = format!(
                "{guard} guards Service {}, which a plugin chooses, and does not run for requests of the rule, so \
                 they get status 503",
                service.meta.key
            );
            self.report_rejection(message, "attach it to the route, too");
        }
        self.chosen = chosen;
    }

    /// The backends of other namespaces that may get requests of the rule, or copies of them, and whose plugins decide
    /// by consumers.
    fn guarded_services(&self, site: &PluginSite<'_>) -> Vec<(Kind, ObjectKey)> {
        let mirrors = site.mirrors.iter().map(|(_, service)| (Kind::Service, *service));
        let chosen = self.chosen.services();
        let chosen = chosen.iter().flatten().filter_map(|key| self.cx.store.services.get(key));
        let chosen = chosen.map(|service| (Kind::Service, &service.meta));
        let services = site.backends.iter().copied().chain(mirrors).chain(chosen);
        let of_others = services.filter(|(_, meta)| meta.key.namespace != site.meta.key.namespace);
        let guarded = of_others.filter(|(kind, meta)| self.judges_consumers(*kind, meta));
        guarded.map(|(kind, meta)| (kind, meta.key.clone())).collect()
    }

    /// Whether plugins of a backend decide by consumers which requests pass.
    fn judges_consumers(&self, kind: Kind, backend: &Meta) -> bool {
        references::references_within_budget(self.cx, kind, backend).into_iter().any(|reference| {
            let plugin = reference.target.ok().and_then(|id| self.plugins.plugins.get(&id));
            let active = plugin.filter(|plugin| plugin.is_active);
            active.and_then(|plugin| plugin.kind).is_some_and(|kind| kind.judges_consumers())
        })
    }

    /// A guard in the annotation of a Service that does not run for all requests of the rule.
    fn missing_guard(&self, service: &Meta) -> Option<String> {
        let references = references::references_within_budget(self.cx, Kind::Service, service);
        references.into_iter().find_map(|reference| {
            let id = match reference.target {
                Ok(id) => id,
                // It may have been a guard.
                Err(_) => {
                    let may_be_missing = self.cx.inputs.plugin_factory.fail_open;
                    return (!may_be_missing).then_some(format!("plugin {}", reference.token));
                }
            };
            let compiled = self.plugins.plugins.get(&id).filter(|compiled| compiled.is_active)?;
            let points = [BaseScope::Route, BaseScope::Service, BaseScope::Global].map(AttachmentPoint::Base);
            let kind = compiled.kind.map_or(UNKNOWN, AnyPluginKind::name);
            let runs = points.iter().any(|point| self.builder.attached_at(kind, point) == Some(&compiled.object));
            (self.must_reject(compiled) && !runs).then(|| compiled.object.to_string())
        })
    }

    /// Reports plugins that would take the place of the backend, but another one comes first.
    fn report_further_replacements(&mut self, chain: Option<&Chain>) {
        let Some(chain) = chain else { return };
        let mut replacements = chain.replacements();
        let Some(first) = replacements.next() else { return };
        for other in replacements {
            let message = format!("{first} takes the place of the backend first, so {other} has no effect");
            self.report(message, "detach one of them");
        }
    }

    /// Reports an ordering without effect: the consumer is not known before the authentication plugins have run.
    fn report_unordered(&mut self, compiled: &CompiledPlugin) {
        if compiled.ordering.is_some() {
            let message = format!("the field ordering of {} has no effect for consumers and groups", compiled.object);
            self.report(message, "remove it, or attach the plugin to the route only");
        }
    }

    /// Reports plugins whose orderings contradict each other. All plugins then run by their priorities.
    fn report_contradictory_order(&mut self) {
        if let Some(cycle) = self.builder.contradictory_order() {
            let names = cycle.join(", ");
            let message = format!(
                "the fields ordering of {names} contradict each other, so all plugins run in the order of their \
                 priorities"
            );
            self.report(message, "remove one of them");
        }
    }

    /// Whether a plugin of the same kind with a more specific scope runs in place of this one.
    fn is_overridden(&self, compiled: &CompiledPlugin, base: BaseScope) -> bool {
        compiled.kind.is_some_and(|kind| self.builder.is_overridden(kind.name(), base))
    }

    /// Whether requests must be rejected if the plugin cannot run.
    fn must_reject(&self, compiled: &CompiledPlugin) -> bool {
        compiled.is_guard() && !self.cx.inputs.plugin_factory.fail_open
    }

    /// Adds an instance that rejects all requests in place of an unusable guard. `message` is in its responses.
    fn add_rejection(&mut self, compiled: &CompiledPlugin, base: BaseScope, counter_scope: &Arc<str>, message: String) {
        let (kind, priority, instance) = rejecting_substitute(compiled, counter_scope, message);
        self.builder.add(kind, priority, AttachmentPoint::Base(base), instance);
    }

    /// Reports a plugin whose place has one of another object. A plugin that is named twice is in effect.
    fn report_duplicate(&mut self, compiled: &CompiledPlugin, point: &AttachmentPoint) {
        let Some(kind) = compiled.kind else { return };
        let attached = self.builder.attached_at(kind.name(), point);
        if attached.is_none_or(|object| *object == compiled.object) {
            return;
        }
        self.report(duplicate_message(kind.name(), &compiled.object), "keep one of them");
    }

    /// Reports a plugin that does not support this kind of object. If it is a guard, requests are rejected, because the
    /// configuration expects them to be protected.
    fn add_misplaced(&mut self, compiled: &CompiledPlugin, base: BaseScope, counter_scope: &Arc<str>) {
        if !compiled.is_active || self.is_overridden(compiled, base) {
            return;
        }
        let objects = match base {
            BaseScope::Route => "routes",
            BaseScope::Service => "Services",
            BaseScope::Global => "all routes",
        };
        let message = format!("{} cannot be attached to {objects}", compiled.name);
        let remedy = misplaced_remedy(compiled.scopes());
        if !self.must_reject(compiled) {
            return self.report(format!("{message}, so requests are served without it"), &remedy);
        }
        self.report_rejection(format!("{message}, so requests get status 503"), &remedy);
        self.add_rejection(compiled, base, counter_scope, format!("{} cannot guard this route", compiled.object));
    }

    /// Reports a missing plugin. It rejects requests, because it may have been a guard.
    fn add_missing(&mut self, unresolved: UnresolvedPlugin, counter_scope: &Arc<str>, token: &str) {
        let (code, problem) = unresolved;
        let mut problem = problem.with_topic(Topic::Plugin);
        if self.cx.inputs.plugin_factory.fail_open {
            problem.message.push_str(", so requests are served without it");
            self.diagnostics.push(problem);
            return;
        }
        problem.message.push_str(", so requests get status 503");
        self.add_unique_rejection(code, problem);
        let message = format!("plugin {token} of this route does not exist");
        let instance = rejecting_instance(message, counter_scope, token.into());
        self.builder.add(UNKNOWN, i32::MAX, AttachmentPoint::Base(BaseScope::Route), instance);
    }

    /// Rejects all requests if the plugin is a guard. `id`: one of several global plugins of the same kind, none of
    /// which runs.
    fn reject_ambiguous(&mut self, id: &ObjectId, counter_scope: &Arc<str>) {
        let Some(compiled) = self.plugins.plugins.get(id).filter(|compiled| compiled.is_active) else { return };
        if self.must_reject(compiled) && !self.is_overridden(compiled, BaseScope::Global) {
            let message = format!("more than one global {} is configured", compiled.name);
            let remedy = "keep the label global on only one of the KongClusterPlugins";
            self.report_rejection(format!("{message}, so requests get status 503"), remedy);
            self.add_rejection(compiled, BaseScope::Global, counter_scope, message);
        }
    }

    /// Reports a plugin because of which requests get status 503.
    fn report_rejection(&mut self, message: String, remedy: &str) {
        let problem = Diagnostic::error(self.field.as_str(), message, remedy).with_topic(Topic::Plugin);
        self.add_unique_rejection(Code::RouteInvalidPlugin, problem);
    }

    fn add_unique_rejection(&mut self, code: Code, problem: Diagnostic) {
        let rejection = (code, problem);
        if !self.rejections.contains(&rejection) {
            self.rejections.push(rejection);
        }
    }

    fn report(&mut self, message: String, remedy: &str) {
        let problem = Diagnostic::error(self.field.as_str(), message, remedy).with_topic(Topic::Plugin);
        self.diagnostics.push(problem);
    }
}

impl CompiledPlugin {
    /// The kind, the priority and an instance with this scope. `None` if the plugin cannot be used.
    pub(super) fn usable_instance(&self, counter_scope: &Arc<str>) -> Option<(&'static str, i32, PluginInstance)> {
        let (kind, plugin) = self.kind.zip(self.plugin.as_ref().ok())?;
        let instance = PluginInstance {
            plugin: Arc::clone(plugin),
            phases: kind.phases(),
            scope: Arc::clone(counter_scope),
            object: Arc::clone(&self.object),
            configuration_hash: self.configuration_hash,
            first_backend: 0,
            assertions: self.assertions.clone(),
        };
        Some((kind.name(), kind.priority(), instance))
    }
}

pub(super) fn duplicate_message(kind: &str, object: &str) -> String {
    format!("another {kind} is already attached to the same object, so {object} has no effect")
}

/// The kind under which unknown plugins are added to a chain.
pub(super) const UNKNOWN: &str = "unknown";

pub(super) fn supports_scope(scopes: Scopes, base: BaseScope) -> bool {
    match base {
        BaseScope::Route => scopes.route,
        BaseScope::Service => scopes.service,
        BaseScope::Global => scopes.global,
    }
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

/// The plugin's kind and priority, and an instance that rejects all requests in its place.
pub(super) fn rejecting_substitute(
    compiled: &CompiledPlugin,
    counter_scope: &Arc<str>,
    message: String,
) -> (&'static str, i32, PluginInstance) {
    let (kind, priority) = compiled.kind.map_or((UNKNOWN, i32::MAX), |kind| (kind.name(), kind.priority()));
    (kind, priority, rejecting_instance(message, counter_scope, Arc::clone(&compiled.object)))
}

pub(super) fn rejecting_instance(message: String, counter_scope: &Arc<str>, object: Arc<str>) -> PluginInstance {
    PluginInstance {
        plugin: BrokenPlugin::with_message(message),
        phases: Phases::ACCESS,
        scope: Arc::clone(counter_scope),
        object,
        configuration_hash: 0,
        first_backend: 0,
        assertions: None,
    }
}

#[cfg(test)]
mod tests;
