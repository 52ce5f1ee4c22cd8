//! Builds the plugin chain of one rule from all objects that attach plugins to it.

use std::sync::Arc;

use super::super::ingress::annotations::annotation_field;
use super::super::{CompileContext, CompileInputs};
use super::references::{self, PluginSubjects, PluginUses};
use super::{CompiledPlugin, Plugins};
use crate::api::kong::annotations::PLUGINS;
use crate::api::{Kind, Meta, ObjectId, ObjectKey};
use crate::diagnostic::{Diagnostic, Topic};
use crate::plugin_api::chain::{
    AttachmentPoint, BaseScope, BrokenPlugin, ChainBuilder, OverlayScope, PluginInstance, Protocols,
};
use crate::plugin_api::{Chain, Phases, RouteNames, Scopes};

/// A rule to which plugins may be attached.
pub(in crate::compile) struct PluginSite<'a> {
    pub kind: Kind,
    /// The metadata of the route, with its annotations.
    pub meta: &'a Meta,
    /// Existing KongPlugins that filters refer to, each with its field.
    pub extensions: &'a [(ObjectKey, String)],
    /// The Services or facades that requests are sent to, by kind and metadata.
    pub backends: &'a [(Kind, &'a Meta)],
    pub names: Arc<RouteNames>,
    /// The scope of counters, such as `HTTPRoute/default/shop/0`.
    pub scope: Arc<str>,
}

/// The chain of a rule, with diagnostics for the route.
#[derive(Debug, Default)]
pub(in crate::compile) struct RuleChain {
    pub chain: Option<Arc<Chain>>,
    /// Whether a plugin is attached here or globally.
    pub is_attached: bool,
    /// Unresolved references and unusable plugins, each with its consequence.
    pub diagnostics: Vec<Diagnostic>,
}

impl RuleChain {
    /// Adds the diagnostics to those of other rules without duplicates, and returns the chain.
    pub(in crate::compile) fn report_into(self, notes: &mut Vec<Diagnostic>) -> Option<Arc<Chain>> {
        for problem in self.diagnostics {
            if !notes.contains(&problem) {
                notes.push(problem);
            }
        }
        self.chain
    }
}

/// A place where plugins are attached.
struct PluginScope {
    base: BaseScope,
    /// The namespace of the object to which the plugin is attached.
    namespace: Arc<str>,
    scope: Arc<str>,
    /// The field with the reference.
    field: String,
}

impl Plugins {
    pub(in crate::compile) fn chain(&self, cx: CompileContext<'_>, site: &PluginSite<'_>) -> RuleChain {
        let (builder, problems) = (ChainBuilder::default(), Vec::new());
        let mut mix =
            ChainAssembler { plugins: self, inputs: cx.inputs, field: String::new(), builder, diagnostics: problems };
        let mut spot = PluginScope {
            base: BaseScope::Route,
            namespace: Arc::clone(&site.meta.key.namespace),
            scope: Arc::clone(&site.scope),
            field: annotation_field(PLUGINS),
        };
        for named in references::plugin_references(cx.store, site.kind, site.meta) {
            mix.attach(&spot, named.target, &named.token);
        }
        for (key, field) in site.extensions {
            spot.field.clone_from(field);
            mix.attach(&spot, Ok(ObjectId::new(Kind::KongPlugin, key.clone())), &key.name);
        }
        for (kind, backend) in site.backends {
            let spot = PluginScope {
                base: BaseScope::Service,
                namespace: Arc::clone(&backend.key.namespace),
                scope: format!("{kind}/{}", backend.key).into(),
                field: format!("{} of {kind} {}", annotation_field(PLUGINS), backend.key),
            };
            for named in references::plugin_references(cx.store, *kind, backend) {
                mix.attach(&spot, named.target, &named.token);
            }
        }
        let global: Arc<str> = "global".into();
        let spot = PluginScope {
            base: BaseScope::Global,
            namespace: "".into(),
            scope: Arc::clone(&global),
            field: String::new(),
        };
        for id in &self.everywhere.global {
            mix.attach(&spot, Ok(id.clone()), &id.key.name);
        }
        mix.field.clear();
        for id in &self.everywhere.ambiguous {
            mix.reject_ambiguous(id, &global);
        }
        // Only plugins identify consumers: without plugins on the rule, its requests have no consumer.
        if !mix.builder.is_empty() {
            for (id, people) in &self.everywhere.consumer_bound {
                if let Some(made) = self.plugins.get(id) {
                    mix.add_for(made, people, OverlayScope::Nothing, &global);
                }
            }
        }
        let is_attached = !mix.builder.is_empty();
        if let Some(builtin) = &cx.inputs.plugin_factory.builtin {
            builtin.add_to(&mut mix.builder, &global);
        }
        RuleChain { is_attached, chain: mix.builder.build(Arc::clone(&site.names)), diagnostics: mix.diagnostics }
    }
}

struct ChainAssembler<'a> {
    plugins: &'a Plugins,
    inputs: &'a CompileInputs<'a>,
    /// The field with the reference to the plugin.
    field: String,
    builder: ChainBuilder,
    diagnostics: Vec<Diagnostic>,
}

impl ChainAssembler<'_> {
    fn attach(&mut self, spot: &PluginScope, meant: Result<ObjectId, Diagnostic>, token: &str) {
        self.field.clone_from(&spot.field);
        let (base, scope) = (spot.base, &spot.scope);
        let id = match meant {
            Ok(id) => id,
            Err(problem) => return self.add_missing(problem, scope, token),
        };
        let Some(made) = self.plugins.plugins.get(&id) else { return };
        if !supports_scope(made.scopes(), base) {
            return self.add_misplaced(made, base, scope);
        }
        let with = match base {
            BaseScope::Route => Some(OverlayScope::Route),
            BaseScope::Service => Some(OverlayScope::Service),
            BaseScope::Global => None,
        };
        // An unknown plugin runs for all clients, because it may be the one that authenticates them.
        let uses = self.plugins.uses.get(&id).filter(|_| made.kind.is_some());
        match with.zip(uses.and_then(|uses: &PluginUses| uses.subjects(&spot.namespace))) {
            // Runs on this rule for these consumers and groups only.
            Some((with, people)) => self.add_for(made, people, with, scope),
            None => self.add(made, [AttachmentPoint::Base(base)], scope),
        }
    }

    fn add_for(&mut self, made: &CompiledPlugin, people: &PluginSubjects, with: OverlayScope, scope: &Arc<str>) {
        let consumers = people.consumers.iter().map(|consumer| AttachmentPoint::Consumer(Arc::clone(consumer), with));
        let groups = people.groups.iter().map(|group| AttachmentPoint::Group(Arc::clone(group), with));
        self.add(made, consumers.chain(groups), scope);
    }

    /// Attaches one instance at all these points. There may be one point for each consumer.
    fn add(&mut self, made: &CompiledPlugin, places: impl IntoIterator<Item = AttachmentPoint>, scope: &Arc<str>) {
        if made.disabled {
            return;
        }
        let (kind, priority, instance) = match (made.kind, &made.plugin) {
            (Some(kind), Ok(plugin)) => {
                let instance = PluginInstance {
                    plugin: Arc::clone(plugin),
                    phases: kind.phases(),
                    protocols: made.protocols,
                    scope: Arc::clone(scope),
                    object: Arc::clone(&made.object),
                    configuration_hash: made.configuration_hash,
                };
                (kind.name(), kind.priority(), instance)
            }
            _ => {
                let what = format!("plugin {} cannot be used", made.object);
                let remedy = "see its condition Programmed";
                if !self.must_reject(made) {
                    self.report(format!("{what}, so requests are served without it"), remedy);
                    return;
                }
                self.report(format!("{what}, so requests it would protect get status 503"), remedy);
                substitute(made, scope, format!("{} of this route cannot be used", made.object))
            }
        };
        for place in places {
            self.report_duplicate(made, &place);
            self.builder.add(kind, priority, place, instance.clone());
        }
    }

    fn must_reject(&self, made: &CompiledPlugin) -> bool {
        made.is_guard() && !self.inputs.plugin_factory.fail_open
    }

    /// Adds an instance that rejects all requests in place of an unusable guard. Clients get `message`.
    fn add_rejection(&mut self, made: &CompiledPlugin, base: BaseScope, scope: &Arc<str>, message: String) {
        let (kind, priority, instance) = substitute(made, scope, message);
        self.builder.add(kind, priority, AttachmentPoint::Base(base), instance);
    }

    fn report_duplicate(&mut self, made: &CompiledPlugin, place: &AttachmentPoint) {
        let Some(kind) = made.kind.filter(|kind| self.builder.has(kind.name(), place)) else { return };
        let message = format!("another {} is already attached here, so {} has no effect", kind.name(), made.object);
        self.report(message, "keep one of them");
    }

    /// A guard where it is not supported rejects requests, because the configuration expects them to be protected.
    fn add_misplaced(&mut self, made: &CompiledPlugin, base: BaseScope, scope: &Arc<str>) {
        if made.disabled {
            return;
        }
        let what = match base {
            BaseScope::Route => "routes",
            BaseScope::Service => "services",
            BaseScope::Global => "everything",
        };
        let message = format!("{} cannot be attached to {what}", made.name);
        if !self.must_reject(made) {
            return self.report(format!("{message}, so requests are served without it"), "attach it elsewhere");
        }
        self.report(format!("{message}, so requests get status 503"), "attach it elsewhere");
        self.add_rejection(made, base, scope, format!("{} cannot guard this route", made.object));
    }

    /// A missing plugin rejects requests, because it may have been a guard.
    fn add_missing(&mut self, problem: Diagnostic, scope: &Arc<str>, token: &str) {
        let mut problem = problem.with_topic(Topic::Plugin);
        if self.inputs.plugin_factory.fail_open {
            problem.message.push_str(", so requests are served without it");
            self.diagnostics.push(problem);
            return;
        }
        problem.message.push_str(", so requests get status 503");
        self.diagnostics.push(problem);
        let instance = rejecting_instance(format!("plugin {token} of this route does not exist"), scope, token.into());
        self.builder.add(UNKNOWN, i32::MAX, AttachmentPoint::Base(BaseScope::Route), instance);
    }

    /// Of two global plugins of the same kind neither runs; if they are guards, all requests are rejected.
    fn reject_ambiguous(&mut self, id: &ObjectId, scope: &Arc<str>) {
        let Some(made) = self.plugins.plugins.get(id).filter(|made| !made.disabled) else { return };
        if self.must_reject(made) {
            self.add_rejection(
                made,
                BaseScope::Global,
                scope,
                format!("more than one global {} is configured", made.name),
            );
        }
    }

    fn report(&mut self, message: String, remedy: &str) {
        let problem = Diagnostic::error(self.field.as_str(), message, remedy).with_topic(Topic::Plugin);
        if !self.diagnostics.contains(&problem) {
            self.diagnostics.push(problem);
        }
    }
}

/// The kind under which unknown plugins are added to a chain.
const UNKNOWN: &str = "unknown";

fn supports_scope(scopes: Scopes, base: BaseScope) -> bool {
    match base {
        BaseScope::Route => scopes.route,
        BaseScope::Service => scopes.service,
        BaseScope::Global => scopes.global,
    }
}

/// The plugin's kind and priority, and an instance that rejects all requests in its place.
fn substitute(made: &CompiledPlugin, scope: &Arc<str>, message: String) -> (&'static str, i32, PluginInstance) {
    let (kind, priority) = made.kind.map_or((UNKNOWN, i32::MAX), |kind| (kind.name(), kind.priority()));
    (kind, priority, rejecting_instance(message, scope, Arc::clone(&made.object)))
}

fn rejecting_instance(message: String, scope: &Arc<str>, object: Arc<str>) -> PluginInstance {
    let (plugin, scope) = (BrokenPlugin::with_message(message), Arc::clone(scope));
    PluginInstance { plugin, phases: Phases::ACCESS, protocols: Protocols::ALL, scope, object, configuration_hash: 0 }
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;
    use crate::compile::testing::TestInputs;
    use crate::diagnostic::Diagnostic;
    use crate::plugin_api::{self, BuildCx, Plugin, PluginRegistry, RegisteredKind};
    use crate::store::{AnyObject, Batch, Store};

    /// A guard for services, but not for routes.
    struct ServiceGuard;

    #[derive(Debug, Default, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    impl Plugin for ServiceGuard {}

    impl plugin_api::PluginKind for ServiceGuard {
        const NAME: &'static str = "sentry";
        const PRIORITY: i32 = 1;
        const PHASES: Phases = Phases::ACCESS;
        const FAIL_CLOSED: bool = true;
        const SCOPES: Scopes = Scopes { route: false, ..Scopes::ALL };
        type Config = Nothing;
        type Plugin = Self;

        fn build(_config: Nothing, _cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
            Ok(ServiceGuard)
        }
    }

    /// Like [`ServiceGuard`], but not a guard.
    struct ServiceHelper;

    impl Plugin for ServiceHelper {}

    impl plugin_api::PluginKind for ServiceHelper {
        const NAME: &'static str = "butler";
        const FAIL_CLOSED: bool = false;
        const PRIORITY: i32 = ServiceGuard::PRIORITY;
        const PHASES: Phases = ServiceGuard::PHASES;
        const SCOPES: Scopes = ServiceGuard::SCOPES;
        type Config = Nothing;
        type Plugin = Self;

        fn build(_config: Nothing, _cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
            Ok(ServiceHelper)
        }
    }

    /// A guard that can be attached everywhere.
    struct AnywhereGuard;

    impl Plugin for AnywhereGuard {}

    impl plugin_api::PluginKind for AnywhereGuard {
        const NAME: &'static str = "waiter";
        const FAIL_CLOSED: bool = true;
        const PRIORITY: i32 = ServiceGuard::PRIORITY;
        const PHASES: Phases = ServiceGuard::PHASES;
        type Config = Nothing;
        type Plugin = Self;

        fn build(_config: Nothing, _cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
            Ok(AnywhereGuard)
        }
    }

    /// The chain and the diagnostics of a route with plugin `p` in its annotation, given these objects.
    fn routed(objects: Vec<(Kind, Value)>, fail_open: bool) -> (Option<Arc<Chain>>, String) {
        let annotations = json!({"konghq.com/plugins": "p"});
        let route = json!({"metadata": {"namespace": "a", "name": "r", "annotations": annotations}, "spec": {}});
        let all = objects.into_iter().chain([(Kind::HttpRoute, route)]);
        let upserts = all.map(|(kind, object)| AnyObject::parse(kind, object).unwrap()).collect();
        let mut store = Store::default();
        store.apply(Batch { upserts, removes: vec![] });
        let registry = PluginRegistry(&[
            &RegisteredKind::<ServiceHelper>::NEW,
            &RegisteredKind::<ServiceGuard>::NEW,
            &RegisteredKind::<AnywhereGuard>::NEW,
        ]);
        let mut inputs = TestInputs::new(registry);
        inputs.plugin_factory.fail_open = fail_open;
        let cx = CompileContext { store: &store, inputs: &inputs.as_inputs() };
        let mut plugins = Plugins::default();
        plugins.update(cx, &store.everything());
        let route = &store.http_routes[&ObjectKey::new("a", "r")];
        let site = PluginSite {
            kind: Kind::HttpRoute,
            meta: &route.meta,
            extensions: &[],
            backends: &[],
            names: plugin_api::testing::names(),
            scope: "HTTPRoute/a/r/0".into(),
        };
        let chained = plugins.chain(cx, &site);
        (chained.chain, chained.diagnostics.iter().map(ToString::to_string).collect())
    }

    // kong-compat §3.12
    #[tokio::test]
    async fn misplaced_guard_rejects_all_requests() {
        let named =
            |name: &str| vec![(Kind::KongPlugin, json!({"metadata": {"namespace": "a", "name": "p"}, "plugin": name}))];
        let (chain, said) = routed(named("sentry"), false);
        let outcome = plugin_api::testing::TestRequest::get("/").run(&chain.unwrap()).await;
        assert_eq!(outcome.reply_status(), Some(http::StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(outcome.message(), Some("KongPlugin/a/p cannot guard this route"));
        assert!(said.contains("sentry cannot be attached to routes, so requests get status 503"), "{said}");

        for (plugin, fail_open) in [("sentry", true), ("butler", false)] {
            let (chain, said) = routed(named(plugin), fail_open);
            assert!(chain.is_none(), "{plugin}: {chain:?}");
            assert!(said.contains("cannot be attached to routes, so requests are served without it"), "{said}");
        }
    }

    /// A consumer of a namespace that refers to plugin `p`.
    fn consumer(namespace: &str, name: &str) -> (Kind, Value) {
        let annotations = json!({"kubernetes.io/ingress.class": "portico", "konghq.com/plugins": "p"});
        let metadata = json!({"namespace": namespace, "name": name, "annotations": annotations});
        (Kind::KongConsumer, json!({"metadata": metadata, "username": name}))
    }

    #[test]
    fn broken_guard_of_many_consumers_has_one_instance() {
        let broken = json!({"metadata": {"namespace": "a", "name": "p"}, "plugin": "waiter", "config": {"tip": 1}});
        let people = (0..100).map(|number| consumer("a", &format!("c-{number}")));
        let (chain, _) = routed(people.chain([(Kind::KongPlugin, broken)]).collect(), false);
        let chain = chain.unwrap();
        assert_eq!(format!("{chain:?}").matches("ConsumerAndRoute").count(), 100);
        assert_eq!(chain.configuration_hashes().count(), 1, "one instance serves all of them");
    }

    // kong-compat §1.4
    #[test]
    fn cluster_plugin_combines_consumers_and_routes_per_namespace() {
        let cluster = |object: Value| (Kind::KongClusterPlugin, object);
        let plugin = || cluster(json!({"metadata": {"name": "p"}, "plugin": "waiter"}));
        let cases = [
            ("same namespace", "a", false, "ConsumerAndRoute"),
            ("other namespace", "b", false, "(\"route\", \"KongClusterPlugin/p\")"),
            ("other namespace, fail-open", "b", true, "ConsumerAndRoute"),
        ];
        for (name, namespace, fail_open, expected) in cases {
            let (chain, _) = routed(vec![plugin(), consumer(namespace, "c")], fail_open);
            let listed = format!("{:?}", chain.unwrap());
            assert!(listed.contains(expected), "{name}: {listed}");
        }
    }
}
