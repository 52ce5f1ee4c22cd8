//! The chain of one rule, put together from everybody who has a say in it.

use std::sync::Arc;

use super::super::Inputs;
use super::super::ingress::annotations::field;
use super::super::verdict::Problem;
use super::references::{self, People, Uses};
use super::{Made, Plugins};
use crate::api::kong::annotations::PLUGINS;
use crate::api::{Kind, Meta, ObjectId, ObjectKey};
use crate::plugin::chain::{Base, Builder, Instance, Place, Protocols, Refusal, With};
use crate::plugin::{Chain, Names, Phases, Scopes};
use crate::store::Store;

/// A rule that plugins may run on.
pub(in crate::compile) struct Site<'a> {
    pub kind: Kind,
    /// Of the route, with its annotations.
    pub meta: &'a Meta,
    /// KongPlugins that are there and that filters name, each with the field that does.
    pub extensions: &'a [(ObjectKey, String)],
    /// What requests are sent to: kind and metadata of Services, or of what stands in for them.
    pub backends: &'a [(Kind, &'a Meta)],
    pub names: Arc<Names>,
    /// What is counted together, `HTTPRoute/default/shop/0`.
    pub scope: Arc<str>,
}

/// The chain of a rule, and what there is to say about it to whoever wrote the rule.
#[derive(Debug, Default)]
pub(in crate::compile) struct Chained {
    pub chain: Option<Arc<Chain>>,
    /// Somebody has attached a plugin here or everywhere.
    pub is_attached: bool,
    /// References that lead nowhere, and plugins that cannot be used, with what comes of it.
    pub problems: Vec<Problem>,
}

impl Chained {
    /// Adds what there is to say to what was said of other rules, each once, and gives the chain.
    pub(in crate::compile) fn tell(self, notes: &mut Vec<Problem>, broken: &mut Vec<Problem>) -> Option<Arc<Chain>> {
        for problem in self.problems {
            if !notes.contains(&problem) {
                broken.push(problem.clone());
                notes.push(problem);
            }
        }
        self.chain
    }
}

/// Where a plugin is attached, for all those attached there.
struct Spot {
    base: Base,
    /// Of what it is attached to.
    namespace: Arc<str>,
    scope: Arc<str>,
    /// Where it is named.
    field: String,
}

impl Plugins {
    pub(in crate::compile) fn chain(&self, store: &Store, inputs: &Inputs<'_>, site: &Site<'_>) -> Chained {
        let (builder, problems) = (Builder::default(), Vec::new());
        let mut mix = Mix { plugins: self, inputs, field: String::new(), builder, problems };
        let mut spot = Spot {
            base: Base::Route,
            namespace: Arc::clone(&site.meta.key.namespace),
            scope: Arc::clone(&site.scope),
            field: field(PLUGINS),
        };
        for named in references::named(store, site.kind, site.meta) {
            mix.attach(&spot, named.meant, &named.token);
        }
        for (key, field) in site.extensions {
            spot.field.clone_from(field);
            mix.attach(&spot, Ok(ObjectId::new(Kind::KongPlugin, key.clone())), &key.name);
        }
        for (kind, backend) in site.backends {
            let spot = Spot {
                base: Base::Service,
                namespace: Arc::clone(&backend.key.namespace),
                scope: format!("{kind}/{}", backend.key).into(),
                field: format!("{} of {kind} {}", field(PLUGINS), backend.key),
            };
            for named in references::named(store, *kind, backend) {
                mix.attach(&spot, named.meant, &named.token);
            }
        }
        let global: Arc<str> = "global".into();
        let spot = Spot { base: Base::Global, namespace: "".into(), scope: Arc::clone(&global), field: String::new() };
        for id in &self.everywhere.global {
            mix.attach(&spot, Ok(id.clone()), &id.key.name);
        }
        mix.field.clear();
        for id in &self.everywhere.ambiguous {
            mix.refuse_ambiguous(id, &global);
        }
        // Who is asking is found out by plugins, so without any nobody is known.
        if !mix.builder.is_empty() {
            for (id, people) in &self.everywhere.personal {
                if let Some(made) = self.made.get(id) {
                    mix.add_for(made, people, With::Nothing, &global);
                }
            }
        }
        let is_attached = !mix.builder.is_empty();
        if let Some(builtin) = &inputs.workshop.builtin {
            builtin.add_to(&mut mix.builder, &global);
        }
        Chained { is_attached, chain: mix.builder.build(Arc::clone(&site.names)), problems: mix.problems }
    }
}

struct Mix<'a> {
    plugins: &'a Plugins,
    inputs: &'a Inputs<'a>,
    /// Where the plugin is named.
    field: String,
    builder: Builder,
    problems: Vec<Problem>,
}

impl Mix<'_> {
    fn attach(&mut self, spot: &Spot, meant: Result<ObjectId, Problem>, token: &str) {
        self.field.clone_from(&spot.field);
        let (base, scope) = (spot.base, &spot.scope);
        let id = match meant {
            Ok(id) => id,
            Err(problem) => return self.miss(problem, scope, token),
        };
        let Some(made) = self.plugins.made.get(&id) else { return };
        if !allows(made.scopes(), base) {
            return self.misplace(made, base, scope);
        }
        let with = match base {
            Base::Route => Some(With::Route),
            Base::Service => Some(With::Service),
            Base::Global => None,
        };
        // What we do not know is for everybody: it may be what finds out who is asking.
        let uses = self.plugins.uses.get(&id).filter(|_| made.kind.is_some());
        match with.zip(uses.and_then(|uses: &Uses| uses.people(&spot.namespace))) {
            // For these people on this rule, and for nobody else on it.
            Some((with, people)) => self.add_for(made, people, with, scope),
            None => self.add(made, [Place::Base(base)], scope),
        }
    }

    fn add_for(&mut self, made: &Made, people: &People, with: With, scope: &Arc<str>) {
        let consumers = people.consumers.iter().map(|consumer| Place::Consumer(Arc::clone(consumer), with));
        let groups = people.groups.iter().map(|group| Place::Group(Arc::clone(group), with));
        self.add(made, consumers.chain(groups), scope);
    }

    /// In all these places, of which there may be very many, stands the same instance.
    fn add(&mut self, made: &Made, places: impl IntoIterator<Item = Place>, scope: &Arc<str>) {
        if made.disabled {
            return;
        }
        let (kind, priority, instance) = match (made.kind, &made.plugin) {
            (Some(kind), Ok(plugin)) => {
                let instance = Instance {
                    plugin: Arc::clone(plugin),
                    phases: kind.phases(),
                    protocols: made.protocols,
                    scope: Arc::clone(scope),
                    object: Arc::clone(&made.object),
                    configuration: made.configuration,
                };
                (kind.name(), kind.priority(), instance)
            }
            _ => {
                let what = format!("plugin {} cannot be used", made.object);
                let remedy = "see its condition Programmed";
                if !self.must_refuse(made) {
                    self.say(format!("{what}, so requests are served without it"), remedy);
                    return;
                }
                self.say(format!("{what}, so requests it would guard are answered 503"), remedy);
                instead_of(made, scope, format!("{} of this route cannot be used", made.object))
            }
        };
        for place in places {
            self.say_if_taken(made, &place);
            self.builder.add(kind, priority, place, instance.clone());
        }
    }

    fn must_refuse(&self, made: &Made) -> bool {
        made.is_guard() && !self.inputs.workshop.fail_open
    }

    /// Lets nobody pass where a guard should be that is not there. `message` is for clients.
    fn refuse(&mut self, made: &Made, base: Base, scope: &Arc<str>, message: String) {
        let (kind, priority, instance) = instead_of(made, scope, message);
        self.builder.add(kind, priority, Place::Base(base), instance);
    }

    fn say_if_taken(&mut self, made: &Made, place: &Place) {
        let Some(kind) = made.kind.filter(|kind| self.builder.has(kind.name(), place)) else { return };
        let message = format!("another {} is attached here already, so {} has no effect", kind.name(), made.object);
        self.say(message, "keep one of them");
    }

    /// Whoever attached a guard where it cannot be expects the place to be guarded.
    fn misplace(&mut self, made: &Made, base: Base, scope: &Arc<str>) {
        if made.disabled {
            return;
        }
        let what = match base {
            Base::Route => "routes",
            Base::Service => "services",
            Base::Global => "everything",
        };
        let message = format!("{} cannot be attached to {what}", made.name);
        if !self.must_refuse(made) {
            return self.say(format!("{message}, so requests are served without it"), "attach it elsewhere");
        }
        self.say(format!("{message}, so requests are answered 503"), "attach it elsewhere");
        self.refuse(made, base, scope, format!("{} cannot guard this route", made.object));
    }

    /// What is named and not there may have been a guard.
    fn miss(&mut self, mut problem: Problem, scope: &Arc<str>, token: &str) {
        if self.inputs.workshop.fail_open {
            problem.message.push_str(", so requests are served without it");
            self.problems.push(problem);
            return;
        }
        problem.message.push_str(", so requests are answered 503");
        self.problems.push(problem);
        let instance = refusal(format!("plugin {token} of this route does not exist"), scope, token.into());
        self.builder.add(UNKNOWN, i32::MAX, Place::Base(Base::Route), instance);
    }

    /// Of two of one kind for everything neither runs; if they guard, nobody passes instead.
    fn refuse_ambiguous(&mut self, id: &ObjectId, scope: &Arc<str>) {
        let Some(made) = self.plugins.made.get(id).filter(|made| !made.disabled) else { return };
        if self.must_refuse(made) {
            self.refuse(made, Base::Global, scope, format!("more than one {} is for all routes", made.name));
        }
    }

    fn say(&mut self, message: String, remedy: &str) {
        let problem = Problem::new(self.field.as_str(), message, remedy);
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}

/// The slot of what has no kind of its own.
const UNKNOWN: &str = "unknown";

fn allows(scopes: Scopes, base: Base) -> bool {
    match base {
        Base::Route => scopes.route,
        Base::Service => scopes.service,
        Base::Global => scopes.global,
    }
}

/// Its kind and priority, and what lets nobody pass in its place.
fn instead_of(made: &Made, scope: &Arc<str>, message: String) -> (&'static str, i32, Instance) {
    let (kind, priority) = made.kind.map_or((UNKNOWN, i32::MAX), |kind| (kind.name(), kind.priority()));
    (kind, priority, refusal(message, scope, Arc::clone(&made.object)))
}

fn refusal(message: String, scope: &Arc<str>, object: Arc<str>) -> Instance {
    let (plugin, scope) = (Refusal::with(message), Arc::clone(scope));
    Instance { plugin, phases: Phases::ACCESS, protocols: Protocols::ALL, scope, object, configuration: 0 }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use schemars::JsonSchema;
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;
    use crate::compile::addresses::Addresses;
    use crate::compile::{Classes, IngressSettings};
    use crate::plugin::{self, BuildCx, Entry, Invalid, Plugin, Registry, Workshop};
    use crate::store::{AnyObject, Batch};
    use crate::upstream;

    /// Guards services, but no route.
    struct Sentry;

    #[derive(Debug, Default, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    impl Plugin for Sentry {}

    impl plugin::Kind for Sentry {
        const NAME: &'static str = "sentry";
        const PRIORITY: i32 = 1;
        const PHASES: Phases = Phases::ACCESS;
        const GUARD: bool = true;
        const SCOPES: Scopes = Scopes { route: false, ..Scopes::ALL };
        type Config = Nothing;
        type Plugin = Self;

        fn build(_config: Nothing, _cx: &BuildCx<'_>) -> Result<Self, Vec<Invalid>> {
            Ok(Sentry)
        }
    }

    /// The same, but guards nothing.
    struct Butler;

    impl Plugin for Butler {}

    impl plugin::Kind for Butler {
        const NAME: &'static str = "butler";
        const GUARD: bool = false;
        const PRIORITY: i32 = Sentry::PRIORITY;
        const PHASES: Phases = Sentry::PHASES;
        const SCOPES: Scopes = Sentry::SCOPES;
        type Config = Nothing;
        type Plugin = Self;

        fn build(_config: Nothing, _cx: &BuildCx<'_>) -> Result<Self, Vec<Invalid>> {
            Ok(Butler)
        }
    }

    /// Can be attached everywhere.
    struct Waiter;

    impl Plugin for Waiter {}

    impl plugin::Kind for Waiter {
        const NAME: &'static str = "waiter";
        const GUARD: bool = true;
        const PRIORITY: i32 = Sentry::PRIORITY;
        const PHASES: Phases = Sentry::PHASES;
        type Config = Nothing;
        type Plugin = Self;

        fn build(_config: Nothing, _cx: &BuildCx<'_>) -> Result<Self, Vec<Invalid>> {
            Ok(Waiter)
        }
    }

    /// What a route with plugin `p` in its annotation comes to, among these objects: its chain, and what is said.
    fn routed(objects: Vec<(Kind, Value)>, fail_open: bool) -> (Option<Arc<Chain>>, String) {
        let annotations = json!({"konghq.com/plugins": "p"});
        let route = json!({"metadata": {"namespace": "a", "name": "r", "annotations": annotations}, "spec": {}});
        let all = objects.into_iter().chain([(Kind::HttpRoute, route)]);
        let upserts = all.map(|(kind, object)| AnyObject::parse(kind, object).unwrap()).collect();
        let mut store = Store::default();
        store.apply(Batch { upserts, removes: vec![] });
        let registry = Registry(&[&Entry::<Butler>::NEW, &Entry::<Sentry>::NEW, &Entry::<Waiter>::NEW]);
        let inputs = Inputs {
            controllers: &[],
            addresses: &Addresses::default(),
            upstreams: &upstream::Registry::default(),
            classes: &Classes::default(),
            workshop: &Workshop { fail_open, ..Workshop::offline(registry) },
            unknown: &BTreeSet::new(),
            ingress: &IngressSettings::default(),
        };
        let mut plugins = Plugins::default();
        plugins.update(&store, &inputs, &store.everything());
        let route = &store.http_routes[&ObjectKey::new("a", "r")];
        let site = Site {
            kind: Kind::HttpRoute,
            meta: &route.meta,
            extensions: &[],
            backends: &[],
            names: plugin::testing::names(),
            scope: "HTTPRoute/a/r/0".into(),
        };
        let chained = plugins.chain(&store, &inputs, &site);
        (chained.chain, chained.problems.iter().map(ToString::to_string).collect())
    }

    // kong-compat §3.12
    #[tokio::test]
    async fn a_guard_that_is_attached_where_it_cannot_be_lets_nobody_pass() {
        let named =
            |name: &str| vec![(Kind::KongPlugin, json!({"metadata": {"namespace": "a", "name": "p"}, "plugin": name}))];
        let (chain, said) = routed(named("sentry"), false);
        let outcome = plugin::testing::Visit::get("/").run(&chain.unwrap()).await;
        assert_eq!(outcome.replied(), Some(http::StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(outcome.message(), Some("KongPlugin/a/p cannot guard this route"));
        assert!(said.contains("sentry cannot be attached to routes, so requests are answered 503"), "{said}");

        for (plugin, fail_open) in [("sentry", true), ("butler", false)] {
            let (chain, said) = routed(named(plugin), fail_open);
            assert!(chain.is_none(), "{plugin}: {chain:?}");
            assert!(said.contains("cannot be attached to routes, so requests are served without it"), "{said}");
        }
    }

    /// Somebody of a namespace, who takes plugin `p` along.
    fn consumer(namespace: &str, name: &str) -> (Kind, Value) {
        let annotations = json!({"kubernetes.io/ingress.class": "portico", "konghq.com/plugins": "p"});
        let metadata = json!({"namespace": namespace, "name": name, "annotations": annotations});
        (Kind::KongConsumer, json!({"metadata": metadata, "username": name}))
    }

    #[test]
    fn a_guard_of_many_that_cannot_be_built_is_refused_by_one() {
        let broken = json!({"metadata": {"namespace": "a", "name": "p"}, "plugin": "waiter", "config": {"tip": 1}});
        let people = (0..100).map(|number| consumer("a", &format!("c-{number}")));
        let (chain, _) = routed(people.chain([(Kind::KongPlugin, broken)]).collect(), false);
        let chain = chain.unwrap();
        assert_eq!(format!("{chain:?}").matches("ConsumerAndRoute").count(), 100);
        assert_eq!(chain.configurations().count(), 1, "one instance is for all of them");
    }

    // kong-compat §1.4
    #[test]
    fn a_plugin_of_the_cluster_is_for_consumers_of_the_namespace_of_the_route() {
        let cluster = |object: Value| (Kind::KongClusterPlugin, object);
        let plugin = || cluster(json!({"metadata": {"name": "p"}, "plugin": "waiter"}));
        let cases = [
            ("of the namespace", "a", false, "ConsumerAndRoute"),
            ("of another", "b", false, "(\"route\", \"KongClusterPlugin/p\")"),
            ("of another, as with Kong", "b", true, "ConsumerAndRoute"),
        ];
        for (name, namespace, fail_open, expected) in cases {
            let (chain, _) = routed(vec![plugin(), consumer(namespace, "c")], fail_open);
            let listed = format!("{:?}", chain.unwrap());
            assert!(listed.contains(expected), "{name}: {listed}");
        }
    }
}
