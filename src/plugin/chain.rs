//! The plugins of one rule in the order in which they run, and which instance of each runs for whom.
//!
//! At most one instance of a kind runs for a request; there is no merging. Which one is decided when the configuration is
//! compiled, but for the consumer, who is known only once the authentication plugins have run:
//!
//! ```text
//!   consumer and route > consumer and service > group and route > group and service > consumer > group > base
//!   base: route > service > global
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, request};
use smallvec::SmallVec;

use super::consumers::{Consumer, Directory};
use super::cx::{AnswerCx, Client, Ended, Framing, Identity, Kept, LogCx, Names, RequestCx, Source};
use super::kind::Phases;
use super::reply::Reply;
use super::{Outcome, Plugin};

/// The plugins that requests of one rule meet.
pub struct Chain {
    pub names: Arc<Names>,
    slots: Box<[Slot]>,
    reads_body: Option<usize>,
}

/// One kind of plugin in a chain.
struct Slot {
    kind: &'static str,
    priority: i32,
    instances: Vec<Instance>,
    /// For everybody whom no overlay concerns.
    base: Option<(Base, usize)>,
    /// By the consumer's id.
    consumers: HashMap<Arc<str>, (Overlay, usize)>,
    /// By the group's name, the most specific overlay first.
    groups: Vec<(Overlay, Arc<str>, usize)>,
}

/// A built plugin where it is attached.
#[derive(Clone)]
pub struct Instance {
    pub plugin: Arc<dyn Plugin>,
    pub phases: Phases,
    pub protocols: Protocols,
    /// See [`RequestCx::scope`].
    pub scope: Arc<str>,
    /// The object that configures it, `KongPlugin/default/limit`.
    pub object: Arc<str>,
}

/// Where an instance is attached, seen from one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Base(Base),
    /// For one consumer, by id.
    Consumer(Arc<str>, With),
    /// For the members of one group, by name.
    Group(Arc<str>, With),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Base {
    Route,
    Service,
    Global,
}

/// What an overlay is restricted to besides consumer or group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum With {
    Route,
    Service,
    Nothing,
}

/// The more specific is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Overlay {
    ConsumerAndRoute,
    ConsumerAndService,
    GroupAndRoute,
    GroupAndService,
    Consumer,
    Group,
}

impl Overlay {
    fn of_consumer(with: With) -> Self {
        match with {
            With::Route => Overlay::ConsumerAndRoute,
            With::Service => Overlay::ConsumerAndService,
            With::Nothing => Overlay::Consumer,
        }
    }

    fn of_group(with: With) -> Self {
        match with {
            With::Route => Overlay::GroupAndRoute,
            With::Service => Overlay::GroupAndService,
            With::Nothing => Overlay::Group,
        }
    }
}

/// What kinds of requests an instance is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols {
    pub http: bool,
    pub https: bool,
    pub grpc: bool,
    pub grpcs: bool,
}

/// How a request came, as `protocols` distinguishes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spoken {
    pub secure: bool,
    pub grpc: bool,
}

impl Protocols {
    pub const ALL: Protocols = Protocols { http: true, https: true, grpc: true, grpcs: true };

    /// Of names as `protocols:` has them. Those of streams mean nothing to requests.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut protocols = Protocols { http: false, https: false, grpc: false, grpcs: false };
        for name in names {
            match name {
                "http" => protocols.http = true,
                "https" => protocols.https = true,
                "grpc" => protocols.grpc = true,
                "grpcs" => protocols.grpcs = true,
                _ => {}
            }
        }
        protocols
    }

    /// A gRPC request is one over HTTP too: who guards that guards both.
    fn include(self, spoken: Spoken) -> bool {
        match (spoken.secure, spoken.grpc) {
            (false, false) => self.http,
            (true, false) => self.https,
            (false, true) => self.grpc || self.http,
            (true, true) => self.grpcs || self.https,
        }
    }
}

/// Collects the instances of a chain.
#[derive(Default)]
pub struct Builder {
    slots: Vec<Slot>,
}

impl Builder {
    /// Whether there is an instance for this very place.
    pub fn has(&self, kind: &str, place: &Place) -> bool {
        let Some(slot) = self.slots.iter().find(|slot| slot.kind == kind) else { return false };
        match place {
            Place::Base(base) => slot.base.is_some_and(|(known, _)| known == *base),
            Place::Consumer(id, with) => {
                slot.consumers.get(id).is_some_and(|(known, _)| *known == Overlay::of_consumer(*with))
            }
            Place::Group(name, with) => {
                slot.groups.iter().any(|(known, group, _)| *known == Overlay::of_group(*with) && group == name)
            }
        }
    }

    /// Of two instances for the same place the first stays.
    pub fn add(&mut self, kind: &'static str, priority: i32, place: Place, instance: Instance) {
        let slot = match self.slots.iter().position(|slot| slot.kind == kind) {
            Some(at) => &mut self.slots[at],
            None => {
                let (instances, groups) = (Vec::new(), Vec::new());
                self.slots.push(Slot { kind, priority, instances, base: None, consumers: HashMap::new(), groups });
                let last = self.slots.len() - 1;
                &mut self.slots[last]
            }
        };
        let at = slot.instances.len();
        let is_wanted = match place {
            Place::Base(base) => {
                let better = slot.base.is_none_or(|(known, _)| base < known);
                if better {
                    slot.base = Some((base, at));
                }
                better
            }
            Place::Consumer(id, with) => {
                let overlay = Overlay::of_consumer(with);
                let better = slot.consumers.get(&id).is_none_or(|(known, _)| overlay < *known);
                if better {
                    slot.consumers.insert(id, (overlay, at));
                }
                better
            }
            Place::Group(name, with) => {
                let overlay = Overlay::of_group(with);
                let known = slot.groups.iter().any(|(known, group, _)| *known == overlay && *group == name);
                if !known {
                    slot.groups.push((overlay, name, at));
                    slot.groups.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
                }
                !known
            }
        };
        // One that lost its place may still be there; it is never picked.
        if is_wanted {
            slot.instances.push(instance);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// None if there is nothing in it.
    pub fn build(mut self, names: Arc<Names>) -> Option<Arc<Chain>> {
        if self.slots.is_empty() {
            return None;
        }
        // Higher priorities first; among equals the later name, as Kong has it.
        self.slots.sort_by(|a, b| (b.priority, b.kind).cmp(&(a.priority, a.kind)));
        let plugins = self.slots.iter().flat_map(|slot| &slot.instances);
        let reads_body = plugins.filter_map(|instance| instance.plugin.reads_body()).max();
        Some(Arc::new(Chain { names, slots: self.slots.into(), reads_body }))
    }
}

/// A request as the proxy hands it to a chain.
pub struct Ask<'r> {
    pub head: &'r mut request::Parts,
    pub path: &'r str,
    pub query: Option<&'r str>,
    pub client: Client<'r>,
    pub framing: Framing,
    pub id: &'r HeaderValue,
    pub body: Option<&'r Bytes>,
    pub consumers: &'r Directory,
    pub now: SystemTime,
    pub spoken: Spoken,
}

/// What a chain remembers of one request, from its head to its end.
#[derive(Default)]
pub struct Passage {
    pub identity: Identity,
    /// Set on the answer.
    pub headers: HeaderMap,
    /// See [`RequestCx::body_limit`].
    pub body_limit: Option<u64>,
    /// What goes upstream in place of the body that was read; its length is among the headers already.
    pub new_body: Option<Bytes>,
    spoken: Spoken,
    /// The instance that each slot had; the slots after a reply are decided when the answer goes.
    picks: SmallVec<[Option<u16>; 12]>,
    kept: Kept,
}

impl Chain {
    /// How much of a body has to be there before plugins run, in bytes.
    pub fn reads_body(&self) -> Option<usize> {
        self.reads_body
    }

    /// Asks the plugins in order; the first reply is the answer.
    pub async fn access(&self, ask: Ask<'_>, passage: &mut Passage) -> Option<Box<Reply>> {
        passage.spoken = ask.spoken;
        let mut cx = RequestCx {
            head: ask.head,
            path: ask.path,
            query: ask.query,
            client: ask.client,
            framing: ask.framing,
            id: ask.id,
            body: ask.body,
            new_body: &mut passage.new_body,
            identity: &mut passage.identity,
            consumers: ask.consumers,
            answer_headers: &mut passage.headers,
            body_limit: &mut passage.body_limit,
            now: ask.now,
            scope: "",
            route: &self.names,
            kept: &mut passage.kept,
            slot: 0,
        };
        for (slot, number) in self.slots.iter().zip(0..) {
            let pick = slot.pick(ask.spoken, cx.identity);
            passage.picks.push(pick);
            let Some(instance) = slot.instance(pick).filter(|instance| instance.phases.access) else { continue };
            cx.scope = &instance.scope;
            cx.slot = number;
            let reply = match instance.plugin.access(&mut cx) {
                Outcome::Next => None,
                Outcome::Reply(reply) => Some(reply),
                Outcome::Wait(wait) => wait.await,
            };
            if reply.is_some() {
                return reply;
            }
        }
        None
    }

    /// Lets every plugin see the head of the answer, also those that had no turn because another replied.
    pub fn answer(
        &self,
        passage: &mut Passage,
        status: StatusCode,
        headers: &mut HeaderMap,
        source: Source,
        id: &HeaderValue,
    ) {
        for (name, value) in &passage.headers {
            headers.insert(name, value.clone());
        }
        for (slot, number) in self.slots.iter().zip(0..) {
            let at = usize::from(number);
            if at >= passage.picks.len() {
                passage.picks.push(slot.pick(passage.spoken, &passage.identity));
            }
            let Some(instance) = slot.instance(passage.picks[at]).filter(|instance| instance.phases.answer) else {
                continue;
            };
            let (identity, kept) = (&passage.identity, &mut passage.kept);
            let scope = &*instance.scope;
            instance.plugin.answer(&mut AnswerCx { status, headers, source, id, identity, scope, kept, slot: number });
        }
    }

    /// Tells every plugin how it ended.
    pub fn log(&self, passage: &Passage, ended: &Ended) {
        for (at, slot) in self.slots.iter().enumerate() {
            let pick = passage.picks.get(at).copied();
            let pick = pick.unwrap_or_else(|| slot.pick(passage.spoken, &passage.identity));
            let Some(instance) = slot.instance(pick).filter(|instance| instance.phases.log) else { continue };
            instance.plugin.log(&LogCx {
                names: &self.names,
                ended,
                identity: &passage.identity,
                scope: &instance.scope,
            });
        }
    }

    /// What stands in it, for dumps: kind, where the instance for everybody is attached, and its object.
    pub fn listed(&self) -> impl Iterator<Item = (&'static str, Vec<(String, &Arc<str>)>)> {
        self.slots.iter().map(|slot| (slot.kind, slot.listed()))
    }
}

impl Slot {
    fn instance(&self, pick: Option<u16>) -> Option<&Instance> {
        pick.map(|pick| &self.instances[usize::from(pick)])
    }

    /// The instance for whoever is asking, if it is for such requests at all.
    fn pick(&self, spoken: Spoken, identity: &Identity) -> Option<u16> {
        let overlay = identity.consumer.as_ref().and_then(|consumer| self.overlay(consumer));
        let at = overlay.or(self.base.map(|(_, at)| at))?;
        self.instances[at].protocols.include(spoken).then_some(u16::try_from(at).ok()?)
    }

    fn overlay(&self, consumer: &Consumer) -> Option<usize> {
        if self.consumers.is_empty() && self.groups.is_empty() {
            return None;
        }
        let own = self.consumers.get(&consumer.id).copied();
        let group = self.groups.iter().find(|(_, group, _)| consumer.groups.contains(group));
        let group = group.map(|(overlay, _, at)| (*overlay, *at));
        own.into_iter().chain(group).min().map(|(_, at)| at)
    }

    fn listed(&self) -> Vec<(String, &Arc<str>)> {
        let object = |at: usize| &self.instances[at].object;
        let base = self.base.map(|(base, at)| (format!("{base:?}").to_lowercase(), object(at)));
        let mut consumers: Vec<_> = self
            .consumers
            .iter()
            .map(|(consumer, (overlay, at))| (format!("{overlay:?} {consumer}"), object(*at)))
            .collect();
        consumers.sort();
        let groups = self.groups.iter().map(|(overlay, group, at)| (format!("{overlay:?} {group}"), object(*at)));
        consumers.into_iter().chain(groups).chain(base).collect()
    }
}

/// Stands where a plugin should that guards and cannot be built: whoever comes there is told so (503).
pub struct Refusal {
    message: Arc<str>,
}

impl Refusal {
    /// `message` is for the client: it names what is broken, and no secret.
    pub fn with(message: impl Into<Arc<str>>) -> Arc<dyn Plugin> {
        Arc::new(Refusal { message: message.into() })
    }
}

impl Plugin for Refusal {
    fn access<'a>(&'a self, _cx: &'a mut RequestCx<'_>) -> Outcome<'a> {
        Outcome::Reply(Reply::negotiated(StatusCode::SERVICE_UNAVAILABLE, self.message.to_string(), "broken_plugin"))
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_map().entries(self.listed()).finish()
    }
}
