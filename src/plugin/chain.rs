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
use super::cx::{AnswerCx, AnswerHeaders, Client, Ended, Framing, Identity, Kept, LogCx, Names, RequestCx, Source};
use super::kind::Phases;
use super::reply::Reply;
use super::times::{Phase, Times};
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
    base: Option<(Base, Number)>,
    /// By the consumer's id.
    consumers: HashMap<Arc<str>, (Overlay, Number)>,
    /// By the group's name, the most specific overlay first.
    groups: Vec<(Overlay, Arc<str>, Number)>,
}

/// Of an instance in its slot. Each consumer may have one of their own, and there are more than a hundred thousand.
type Number = u32;

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
    /// What tells its configuration from others of the same object: the same in every process.
    pub configuration: u64,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
        // What is for many people is one instance.
        let same = slot.instances.last().is_some_and(|last| last.is_same(&instance));
        let at = slot.instances.len() - usize::from(same);
        let at = Number::try_from(at).expect("four thousand million instances have no room in memory");
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
        // One that lost its place to a better one stays; it is never picked.
        if is_wanted && !same {
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
        let reads_body = self.slots.iter().flat_map(Slot::of_the_rule).filter_map(|one| one.plugin.reads_body()).max();
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
    pub headers: AnswerHeaders,
    /// See [`RequestCx::body_limit`].
    pub body_limit: Option<u64>,
    /// What goes upstream in place of the body that was read; its length is among the headers already.
    pub new_body: Option<Bytes>,
    spoken: Spoken,
    /// The instance that each slot had; the slots after a reply are decided when the answer goes.
    picks: SmallVec<[Option<Number>; 12]>,
    /// How long each plugin took.
    pub times: Times,
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
        passage.times.start();
        for (slot, number) in self.slots.iter().zip(0..) {
            let pick = slot.pick(ask.spoken, cx.identity);
            passage.picks.push(pick);
            let Some(instance) = slot.instance(pick).filter(|instance| instance.phases.access) else { continue };
            cx.scope = &instance.scope;
            cx.slot = number;
            passage.times.begin(slot.kind);
            let reply = match instance.plugin.access(&mut cx) {
                Outcome::Next => None,
                Outcome::Reply(reply) => Some(reply),
                Outcome::Wait(wait) => wait.await,
            };
            passage.times.end(Phase::Access);
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
        passage.headers.apply(headers);
        passage.times.start();
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
            passage.times.begin(slot.kind);
            instance.plugin.answer(&mut AnswerCx { status, headers, source, id, identity, scope, kept, slot: number });
            passage.times.end(Phase::Answer);
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

    /// What tells the configurations of its instances from others.
    pub fn configurations(&self) -> impl Iterator<Item = u64> {
        self.slots.iter().flat_map(|slot| &slot.instances).map(|instance| instance.configuration)
    }

    /// What stands in it, for dumps: kind, where the instance for everybody is attached, and its object.
    pub fn listed(&self) -> impl Iterator<Item = (&'static str, Vec<(String, &Arc<str>)>)> {
        self.slots.iter().map(|slot| (slot.kind, slot.listed()))
    }
}

impl Instance {
    fn is_same(&self, other: &Instance) -> bool {
        Arc::ptr_eq(&self.plugin, &other.plugin) && self.scope == other.scope && self.object == other.object
    }
}

impl Slot {
    /// What somebody attached to the rule, its service or everything. What people take along wherever they go has to do
    /// without the body: theirs is not known before plugins run, so everybody's would wait for it.
    fn of_the_rule(&self) -> impl Iterator<Item = &Instance> {
        let consumers = self.consumers.values().filter(|(overlay, _)| *overlay != Overlay::Consumer);
        let groups = self.groups.iter().filter(|(overlay, ..)| *overlay != Overlay::Group);
        let people = consumers.map(|(_, at)| *at).chain(groups.map(|(_, _, at)| *at));
        self.base.map(|(_, at)| at).into_iter().chain(people).map(|at| self.numbered(at))
    }

    fn instance(&self, pick: Option<Number>) -> Option<&Instance> {
        pick.map(|pick| self.numbered(pick))
    }

    fn numbered(&self, number: Number) -> &Instance {
        &self.instances[number as usize]
    }

    /// The instance for whoever is asking, if it is for such requests at all.
    fn pick(&self, spoken: Spoken, identity: &Identity) -> Option<Number> {
        let overlay = identity.consumer.as_ref().and_then(|consumer| self.overlay(consumer));
        let at = overlay.or(self.base.map(|(_, at)| at))?;
        self.numbered(at).protocols.include(spoken).then_some(at)
    }

    fn overlay(&self, consumer: &Consumer) -> Option<Number> {
        if self.consumers.is_empty() && self.groups.is_empty() {
            return None;
        }
        let own = self.consumers.get(&*consumer.id).copied();
        let group = self.groups.iter().find(|(_, group, _)| consumer.groups().contains(group));
        let group = group.map(|(overlay, _, at)| (*overlay, *at));
        own.into_iter().chain(group).min().map(|(_, at)| at)
    }

    fn listed(&self) -> Vec<(String, &Arc<str>)> {
        let object = |at: Number| &self.numbered(at).object;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::consumers::Id;
    use crate::plugin::testing::{Visit, names};

    /// Answers with this status.
    struct Refuses(u16);

    impl Plugin for Refuses {
        fn access<'a>(&'a self, _: &'a mut RequestCx<'_>) -> Outcome<'a> {
            Outcome::Reply(Reply::plain(StatusCode::from_u16(self.0).unwrap(), "no", "no"))
        }
    }

    /// Knows whoever asks.
    struct Knows(Arc<Consumer>);

    impl Plugin for Knows {
        fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> Outcome<'a> {
            cx.identity.consumer = Some(Arc::clone(&self.0));
            Outcome::Next
        }
    }

    fn instance(plugin: impl Plugin) -> Instance {
        let (scope, object) = ("global".into(), "KongPlugin/default/test".into());
        Instance {
            plugin: Arc::new(plugin),
            phases: Phases::ACCESS,
            protocols: Protocols::ALL,
            scope,
            object,
            configuration: 0,
        }
    }

    fn person(number: u16) -> Arc<str> {
        format!("person {number}").into()
    }

    async fn answer(mut builder: Builder, id: &str) -> u16 {
        let consumer = Consumer::new(Id::of(id), None, None, Vec::new(), Vec::new());
        builder.add("knows", 2, Place::Base(Base::Route), instance(Knows(consumer.into())));
        let chain = builder.build(names()).unwrap();
        Visit::get("/").run(&chain).await.replied().map_or(200, |status| status.as_u16())
    }

    #[tokio::test]
    async fn a_guard_stands_however_many_have_one_of_their_own() {
        for (asking, expected) in [("person 65535", 402), ("person 0", 402), ("somebody else", 401)] {
            let mut builder = Builder::default();
            for number in 0..=u16::MAX {
                let place = Place::Consumer(person(number), With::Nothing);
                builder.add("guard", 1, place, instance(Refuses(402)));
            }
            // The instance for everybody has a number that 16 bits cannot hold.
            builder.add("guard", 1, Place::Base(Base::Route), instance(Refuses(401)));
            assert_eq!(builder.slots[0].instances.len(), 65_537);
            assert_eq!(answer(builder, asking).await, expected, "{asking}");
        }
    }

    #[tokio::test]
    async fn what_is_for_many_stands_there_once() {
        let shared = instance(Refuses(402));
        let mut builder = Builder::default();
        for number in 0..1000 {
            builder.add("guard", 1, Place::Consumer(person(number), With::Route), shared.clone());
        }
        let elsewhere = Instance { scope: "Service/a/b:80".into(), ..shared.clone() };
        builder.add("guard", 1, Place::Consumer(person(7), With::Nothing), elsewhere.clone());
        builder.add("guard", 1, Place::Consumer(person(1000), With::Nothing), elsewhere);
        builder.add("guard", 1, Place::Base(Base::Route), instance(Refuses(401)));
        let slot = &builder.slots[0];
        assert_eq!(slot.instances.len(), 3);
        assert_eq!((slot.consumers[&person(7)].1, slot.consumers[&person(1000)].1, slot.base.unwrap().1), (0, 1, 2));
        assert_eq!(answer(builder, "person 999").await, 402);
    }

    /// Everywhere that a plugin can be attached, what goes before something else first.
    fn places() -> Vec<(Place, u16)> {
        let consumer = |with| Place::Consumer("anna".into(), with);
        let group = |with| Place::Group("a/gold".into(), with);
        let places = [
            consumer(With::Route),
            consumer(With::Service),
            group(With::Route),
            group(With::Service),
            consumer(With::Nothing),
            group(With::Nothing),
            Place::Base(Base::Route),
            Place::Base(Base::Service),
            Place::Base(Base::Global),
        ];
        places.into_iter().zip(401..).collect()
    }

    // kong-compat §1.4
    #[tokio::test]
    async fn of_all_instances_of_a_plugin_the_most_specific_runs_and_no_other() {
        let consumer = |id: &str, group: &str| Consumer::new(Id::of(id), None, None, vec![group.into()], Vec::new());
        let everybody: &[usize] = &[6, 7, 8];
        for (id, group, concerned) in [
            ("anna", "a/gold", &[0, 1, 2, 3, 4, 5, 6, 7, 8][..]),
            ("anna", "a/silver", &[0, 1, 4, 6, 7, 8]),
            ("bert", "a/gold", &[2, 3, 5, 6, 7, 8]),
            ("bert", "a/silver", everybody),
        ] {
            // Each time without the one that would go before the rest, attached in either order.
            for left_out in 0..=concerned.len() {
                for is_reversed in [false, true] {
                    let mut attached: Vec<_> = places();
                    attached.retain(|(_, status)| !concerned[..left_out].contains(&usize::from(status - 401)));
                    if is_reversed {
                        attached.reverse();
                    }
                    let mut builder = Builder::default();
                    let who = instance(Knows(consumer(id, group).into()));
                    builder.add("knows", 2, Place::Base(Base::Route), who);
                    for (place, status) in attached {
                        builder.add("guard", 1, place, instance(Refuses(status)));
                    }
                    let outcome = Visit::get("/").run(&builder.build(names()).unwrap()).await;
                    let expected = concerned.get(left_out).map(|at| 401 + u16::try_from(*at).unwrap());
                    let found = outcome.replied().map(|status| status.as_u16());
                    assert_eq!(found, expected, "{id} of {group}, without {:?}", &concerned[..left_out]);
                }
            }
        }
    }

    /// Writes its name behind those of who ran before.
    struct Signs(&'static str);

    impl Plugin for Signs {
        fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> Outcome<'a> {
            cx.head.headers.append("x-ran", HeaderValue::from_static(self.0));
            Outcome::Next
        }
    }

    // kong-compat §1.4
    #[tokio::test]
    async fn plugins_run_by_priority_and_know_the_consumer_behind_who_finds_it_out() {
        let mut builder = Builder::default();
        for (kind, priority) in [("after", 1), ("b-before", 3), ("a-before", 3)] {
            for (place, name) in [
                (Place::Base(Base::Global), "for everybody"),
                (Place::Consumer("anna".into(), With::Nothing), "for anna"),
            ] {
                let name = Box::leak(format!("{kind} {name}").into_boxed_str());
                builder.add(kind, priority, place, instance(Signs(name)));
            }
        }
        let anna = Consumer::new(Id::of("anna"), None, None, Vec::new(), Vec::new());
        builder.add("knows", 2, Place::Base(Base::Route), instance(Knows(anna.into())));
        let outcome = Visit::get("/").run(&builder.build(names()).unwrap()).await;
        let ran: Vec<_> = outcome.request.headers.get_all("x-ran").iter().map(|name| name.to_str().unwrap()).collect();
        assert_eq!(ran, ["b-before for everybody", "a-before for everybody", "after for anna"]);
    }

    // kong-compat §1.3
    #[test]
    fn an_instance_runs_for_requests_of_its_protocols() {
        // In plain text, over TLS, gRPC in plain text, gRPC over TLS.
        for (names, expected) in [
            (&["http"][..], [true, false, true, false]),
            (&["https"], [false, true, false, true]),
            (&["grpc"], [false, false, true, false]),
            (&["grpcs"], [false, false, false, true]),
            (&["http", "https"], [true; 4]),
            (&["tcp", "tls", "udp"], [false; 4]),
        ] {
            let protocols = Protocols::of(names.iter().copied());
            let mut builder = Builder::default();
            let instance = Instance { protocols, ..instance(Refuses(401)) };
            builder.add("guard", 1, Place::Base(Base::Route), instance);
            let spoken = [(false, false), (true, false), (false, true), (true, true)];
            let picked = spoken
                .map(|(secure, grpc)| builder.slots[0].pick(Spoken { secure, grpc }, &Identity::default()).is_some());
            assert_eq!(picked, expected, "{names:?}");
        }
    }

    struct Reader;

    impl Plugin for Reader {
        fn reads_body(&self) -> Option<usize> {
            Some(1)
        }
    }

    #[test]
    fn what_people_take_along_holds_up_no_bodies() {
        let (anna, group): (Arc<str>, Arc<str>) = ("anna".into(), "a/group".into());
        let of = |with| [Place::Consumer(Arc::clone(&anna), with), Place::Group(Arc::clone(&group), with)];
        let cases = [
            (vec![Place::Base(Base::Global)], Some(1)),
            (of(With::Route).into(), Some(1)),
            (of(With::Service).into(), Some(1)),
            (of(With::Nothing).into(), None),
        ];
        for (places, expected) in cases {
            let mut builder = Builder::default();
            let plugin: Arc<dyn Plugin> = Arc::new(Reader);
            for place in places.clone() {
                let instance = Instance {
                    plugin: Arc::clone(&plugin),
                    phases: Phases::ACCESS,
                    protocols: Protocols::ALL,
                    scope: "global".into(),
                    object: "KongPlugin/a/reader".into(),
                    configuration: 0,
                };
                builder.add("reader", 1, place, instance);
            }
            let chain = builder.build(names()).unwrap();
            assert_eq!(chain.reads_body(), expected, "{places:?}");
            assert_eq!(chain.slots[0].instances.len(), 1, "{places:?}: one instance is enough");
        }
    }
}
