//! The chain of one rule, put together from everybody who has a say in it.

use std::sync::Arc;

use super::super::Inputs;
use super::super::verdict::Problem;
use super::references::{self, People};
use super::{Made, Plugins};
use crate::api::kong::annotations::PLUGINS;
use crate::api::{Kind, Meta, ObjectId, ObjectKey};
use crate::plugin::chain::{Base, Builder, Instance, Place, Protocols, Refusal, With};
use crate::plugin::{AnyKind, Chain, Names, Phases};
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
    /// References that lead nowhere, and plugins that cannot be used, with what comes of it.
    pub problems: Vec<Problem>,
}

impl Plugins {
    pub(in crate::compile) fn chain(&self, store: &Store, inputs: &Inputs<'_>, site: &Site<'_>) -> Chained {
        let annotation = format!("metadata.annotations[{PLUGINS}]");
        let (builder, problems) = (Builder::default(), Vec::new());
        let mut mix = Mix { plugins: self, store, inputs, field: annotation.clone(), builder, problems };
        for named in references::named(store, site.kind, site.meta) {
            mix.attach(Base::Route, &site.scope, named.meant, &named.token);
        }
        for (key, field) in site.extensions {
            mix.field.clone_from(field);
            mix.attach(Base::Route, &site.scope, Ok(ObjectId::new(Kind::KongPlugin, key.clone())), &key.name);
        }
        for (kind, backend) in site.backends {
            let scope: Arc<str> = format!("{kind}/{}", backend.key).into();
            mix.field = format!("{annotation} of {kind} {}", backend.key);
            for named in references::named(store, *kind, backend) {
                mix.attach(Base::Service, &scope, named.meant, &named.token);
            }
        }
        let global: Arc<str> = "global".into();
        mix.field.clear();
        for id in &self.everywhere.global {
            mix.attach(Base::Global, &global, Ok(id.clone()), &id.key.name);
        }
        for id in &self.everywhere.ambiguous {
            mix.refuse_ambiguous(id, &global);
        }
        // Who is asking is found out by plugins, so without any nobody is known.
        if !mix.builder.is_empty() {
            for id in &self.everywhere.personal {
                let people = references::uses(store, inputs, id).people;
                mix.add_for(id, &people, With::Nothing, &global);
            }
        }
        Chained { chain: mix.builder.build(Arc::clone(&site.names)), problems: mix.problems }
    }
}

struct Mix<'a> {
    plugins: &'a Plugins,
    store: &'a Store,
    inputs: &'a Inputs<'a>,
    /// Where the plugin is named.
    field: String,
    builder: Builder,
    problems: Vec<Problem>,
}

impl Mix<'_> {
    fn attach(&mut self, base: Base, scope: &Arc<str>, meant: Result<ObjectId, Problem>, token: &str) {
        let id = match meant {
            Ok(id) => id,
            Err(problem) => return self.miss(problem, scope, token),
        };
        let Some(made) = self.plugins.made.get(&id) else { return };
        if let Some(kind) = made.kind
            && !allows(kind, base)
        {
            let message = format!("{} cannot be attached to a {base:?}", kind.name());
            self.problems.push(Problem::new(self.field.as_str(), message, "attach it elsewhere"));
            return;
        }
        let people = references::uses(self.store, self.inputs, &id).people;
        let with = match base {
            Base::Route => Some(With::Route),
            Base::Service => Some(With::Service),
            Base::Global => None,
        };
        match with {
            // For these people on this rule, and for nobody else on it.
            Some(with) if self.is_for(made, &people) => self.add_for(&id, &people, with, scope),
            _ => self.add(made, Place::Base(base), scope),
        }
    }

    /// Whether a plugin is for some people only. Those that find out who is asking never are.
    fn is_for(&self, made: &Made, people: &People) -> bool {
        let scopes = made.kind.map(AnyKind::scopes);
        let consumers = scopes.is_none_or(|scopes| scopes.consumer) && !people.consumers.is_empty();
        let groups = scopes.is_none_or(|scopes| scopes.consumer_group) && !people.groups.is_empty();
        consumers || groups
    }

    /// Consumers come before groups, which then do not count.
    fn add_for(&mut self, id: &ObjectId, people: &People, with: With, scope: &Arc<str>) {
        let Some(made) = self.plugins.made.get(id) else { return };
        if !self.is_for(made, people) {
            return;
        }
        for consumer in &people.consumers {
            self.add(made, Place::Consumer(Arc::clone(consumer), with), scope);
        }
        if people.consumers.is_empty() {
            for group in &people.groups {
                self.add(made, Place::Group(Arc::clone(group), with), scope);
            }
        }
    }

    fn add(&mut self, made: &Made, place: Place, scope: &Arc<str>) {
        if made.disabled {
            return;
        }
        let (name, priority, phases) = match made.kind {
            Some(kind) => (kind.name(), kind.priority(), kind.phases()),
            None => (UNKNOWN, i32::MAX, Phases::ACCESS),
        };
        let (plugin, phases, protocols) = match &made.plugin {
            Ok(plugin) => (Arc::clone(plugin), phases, made.protocols),
            Err(()) => {
                let what = format!("plugin {} cannot be used", made.object);
                if !made.is_guard() || self.inputs.workshop.fail_open {
                    let problem = format!("{what}, so requests are served without it");
                    self.say(problem, "see its condition Programmed");
                    return;
                }
                self.say(
                    format!("{what}, so requests it would guard are answered 503"),
                    "see its condition Programmed",
                );
                (Refusal::with(format!("{} of this route cannot be used", made.object)), Phases::ACCESS, Protocols::ALL)
            }
        };
        if self.builder.has(name, &place) && made.kind.is_some() {
            self.say(
                format!("another {name} is attached here already, so {} has no effect", made.object),
                "keep one of them",
            );
        }
        let instance =
            Instance { plugin, phases, protocols, scope: Arc::clone(scope), object: Arc::clone(&made.object) };
        self.builder.add(name, priority, place, instance);
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
        let instance = Instance {
            plugin: Refusal::with(format!("plugin {token} of this route does not exist")),
            phases: Phases::ACCESS,
            protocols: Protocols::ALL,
            scope: Arc::clone(scope),
            object: token.into(),
        };
        self.builder.add(UNKNOWN, i32::MAX, Place::Base(Base::Route), instance);
    }

    /// Of two of one kind for everything neither runs; if they guard, nobody passes instead.
    fn refuse_ambiguous(&mut self, id: &ObjectId, scope: &Arc<str>) {
        let Some(made) = self.plugins.made.get(id).filter(|made| !made.disabled && made.is_guard()) else { return };
        if self.inputs.workshop.fail_open {
            return;
        }
        let (name, priority) = made.kind.map_or((UNKNOWN, i32::MAX), |kind| (kind.name(), kind.priority()));
        let instance = Instance {
            plugin: Refusal::with(format!("more than one {} is for all routes", made.name)),
            phases: Phases::ACCESS,
            protocols: Protocols::ALL,
            scope: Arc::clone(scope),
            object: Arc::clone(&made.object),
        };
        self.builder.add(name, priority, Place::Base(Base::Global), instance);
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

fn allows(kind: &dyn AnyKind, base: Base) -> bool {
    let scopes = kind.scopes();
    match base {
        Base::Route => scopes.route,
        Base::Service => scopes.service,
        Base::Global => scopes.global,
    }
}
