//! The plugin chain of one rule: plugins in execution order, and the selection of the instance of each for a request.
//!
//! At most one instance of a kind runs for a request; configurations are not merged. Compilation decides which one,
//! except for the consumer, which is known only after the authentication plugins have run:
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

use super::consumers::{Consumer, ConsumerDirectory};
use super::context::{
    ClientInfo, Framing, Identity, LogCx, PluginData, RequestCx, RequestSummary, ResponseCx, ResponseHeaders,
    ResponseSource, RouteNames,
};
use super::kind::Phases;
use super::reply::Reply;
use super::timing::{PhaseTimings, PluginPhase};
use super::{AccessOutcome, Plugin};

/// The plugins that run for requests of one rule.
pub struct Chain {
    pub names: Arc<RouteNames>,
    slots: Box<[ChainSlot]>,
    body_buffer_limit: Option<usize>,
}

/// One kind of plugin in a chain.
struct ChainSlot {
    kind: &'static str,
    priority: i32,
    instances: Vec<PluginInstance>,
    /// The instance for requests that no overlay matches.
    base: Option<(BaseScope, InstanceIndex)>,
    /// By the consumer's id.
    consumers: HashMap<Arc<str>, (Overlay, InstanceIndex)>,
    /// By the group's name, the most specific overlay first.
    groups: Vec<(Overlay, Arc<str>, InstanceIndex)>,
}

/// Index of an instance in its slot. 32 bits, because each of more than a hundred thousand consumers may have its own
/// instance.
type InstanceIndex = u32;

/// A built plugin where it is attached.
#[derive(Clone)]
pub struct PluginInstance {
    pub plugin: Arc<dyn Plugin>,
    pub phases: Phases,
    pub protocols: Protocols,
    /// See [`RequestCx::scope`].
    pub scope: Arc<str>,
    /// The object that configures it, `KongPlugin/default/limit`.
    pub object: Arc<str>,
    /// Hash of the configuration, equal in every process. Distinguishes several configurations of one object.
    pub configuration_hash: u64,
}

/// Where an instance is attached, from the point of view of one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachmentPoint {
    Base(BaseScope),
    /// For one consumer, by id.
    Consumer(Arc<str>, OverlayScope),
    /// For the members of one group, by name.
    Group(Arc<str>, OverlayScope),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BaseScope {
    Route,
    Service,
    Global,
}

/// What an overlay is restricted to in addition to a consumer or group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OverlayScope {
    Route,
    Service,
    Nothing,
}

/// Ordered by precedence: the more specific overlay is the lesser one.
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
    fn for_consumer(with: OverlayScope) -> Self {
        match with {
            OverlayScope::Route => Overlay::ConsumerAndRoute,
            OverlayScope::Service => Overlay::ConsumerAndService,
            OverlayScope::Nothing => Overlay::Consumer,
        }
    }

    fn for_group(with: OverlayScope) -> Self {
        match with {
            OverlayScope::Route => Overlay::GroupAndRoute,
            OverlayScope::Service => Overlay::GroupAndService,
            OverlayScope::Nothing => Overlay::Group,
        }
    }
}

/// The protocols of the requests that an instance runs for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Protocols {
    pub http: bool,
    pub https: bool,
    pub grpc: bool,
    pub grpcs: bool,
}

/// The protocol of a request, as far as `protocols` distinguishes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestProtocol {
    pub secure: bool,
    pub grpc: bool,
}

impl Protocols {
    pub const ALL: Protocols = Protocols { http: true, https: true, grpc: true, grpcs: true };

    /// Parses the names of `protocols`. Names of stream protocols do not apply to requests and are ignored.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
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

    /// A gRPC request is also an HTTP request, so a plugin that protects HTTP protects gRPC, too.
    fn include(self, protocol: RequestProtocol) -> bool {
        match (protocol.secure, protocol.grpc) {
            (false, false) => self.http,
            (true, false) => self.https,
            (false, true) => self.grpc || self.http,
            (true, true) => self.grpcs || self.https,
        }
    }
}

/// Collects the instances of a chain.
#[derive(Default)]
pub struct ChainBuilder {
    slots: Vec<ChainSlot>,
}

impl ChainBuilder {
    /// Whether an instance is attached at exactly this point.
    pub fn has(&self, kind: &str, place: &AttachmentPoint) -> bool {
        let Some(slot) = self.slots.iter().find(|slot| slot.kind == kind) else { return false };
        match place {
            AttachmentPoint::Base(base) => slot.base.is_some_and(|(known, _)| known == *base),
            AttachmentPoint::Consumer(id, with) => {
                slot.consumers.get(id).is_some_and(|(known, _)| *known == Overlay::for_consumer(*with))
            }
            AttachmentPoint::Group(name, with) => {
                slot.groups.iter().any(|(known, group, _)| *known == Overlay::for_group(*with) && group == name)
            }
        }
    }

    /// Adds an instance. If two instances have the same attachment point, the first one wins.
    pub fn add(&mut self, kind: &'static str, priority: i32, place: AttachmentPoint, instance: PluginInstance) {
        let slot = match self.slots.iter().position(|slot| slot.kind == kind) {
            Some(at) => &mut self.slots[at],
            None => {
                let (instances, groups) = (Vec::new(), Vec::new());
                self.slots.push(ChainSlot { kind, priority, instances, base: None, consumers: HashMap::new(), groups });
                let last = self.slots.len() - 1;
                &mut self.slots[last]
            }
        };
        // Attached to many consumers in a row, the same instance is stored once.
        let same = slot.instances.last().is_some_and(|last| last.is_same(&instance));
        let at = slot.instances.len() - usize::from(same);
        let at = InstanceIndex::try_from(at).expect("2^32 instances do not fit into memory");
        let is_wanted = match place {
            AttachmentPoint::Base(base) => {
                let better = slot.base.is_none_or(|(known, _)| base < known);
                if better {
                    slot.base = Some((base, at));
                }
                better
            }
            AttachmentPoint::Consumer(id, with) => {
                let overlay = Overlay::for_consumer(with);
                let better = slot.consumers.get(&id).is_none_or(|(known, _)| overlay < *known);
                if better {
                    slot.consumers.insert(id, (overlay, at));
                }
                better
            }
            AttachmentPoint::Group(name, with) => {
                let overlay = Overlay::for_group(with);
                let known = slot.groups.iter().any(|(known, group, _)| *known == overlay && *group == name);
                if !known {
                    slot.groups.push((overlay, name, at));
                    slot.groups.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
                }
                !known
            }
        };
        // An instance that is displaced by a more specific one remains stored and is never selected.
        if is_wanted && !same {
            slot.instances.push(instance);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// `None` if no instance was added.
    pub fn build(mut self, names: Arc<RouteNames>) -> Option<Arc<Chain>> {
        if self.slots.is_empty() {
            return None;
        }
        // Higher priorities first; of equal priorities the alphabetically later name, as in Kong.
        self.slots.sort_by(|a, b| (b.priority, b.kind).cmp(&(a.priority, a.kind)));
        let reads_body = self
            .slots
            .iter()
            .flat_map(ChainSlot::rule_instances)
            .filter_map(|one| one.plugin.body_buffer_limit())
            .max();
        Some(Arc::new(Chain { names, slots: self.slots.into(), body_buffer_limit: reads_body }))
    }
}

/// A request as the proxy passes it to a chain.
pub struct ChainRequest<'r> {
    pub head: &'r mut request::Parts,
    pub path: &'r str,
    pub query: Option<&'r str>,
    pub client: ClientInfo<'r>,
    pub framing: Framing,
    pub id: &'r HeaderValue,
    pub body: Option<&'r Bytes>,
    pub consumers: &'r ConsumerDirectory,
    pub now: SystemTime,
    pub protocol: RequestProtocol,
}

/// The state of a chain for one request, from `access` to `log`.
#[derive(Default)]
pub struct ChainState {
    pub identity: Identity,
    /// Headers to set on the response.
    pub response_headers: ResponseHeaders,
    /// See [`RequestCx::body_limit`].
    pub body_limit: Option<u64>,
    /// The body to send upstream instead of the buffered one; `Content-Length` is already set.
    pub replacement_body: Option<Bytes>,
    protocol: RequestProtocol,
    /// The selected instance of each slot. Slots after a reply are selected in the response phase.
    selected: SmallVec<[Option<InstanceIndex>; 12]>,
    /// Duration of each plugin.
    pub timings: PhaseTimings,
    plugin_data: PluginData,
}

impl Chain {
    /// How many bytes of the body to buffer before plugins run.
    pub fn body_buffer_limit(&self) -> Option<usize> {
        self.body_buffer_limit
    }

    /// Runs the access phase in order, until the first reply.
    pub async fn access(&self, request: ChainRequest<'_>, state: &mut ChainState) -> Option<Box<Reply>> {
        state.protocol = request.protocol;
        let mut cx = RequestCx {
            head: request.head,
            path: request.path,
            query: request.query,
            client: request.client,
            framing: request.framing,
            id: request.id,
            body: request.body,
            replacement_body: &mut state.replacement_body,
            identity: &mut state.identity,
            consumers: request.consumers,
            response_headers: &mut state.response_headers,
            body_limit: &mut state.body_limit,
            now: request.now,
            scope: "",
            route: &self.names,
            plugin_data: &mut state.plugin_data,
            slot: 0,
        };
        state.timings.start();
        for (slot, number) in self.slots.iter().zip(0..) {
            let pick = slot.select(request.protocol, cx.identity);
            state.selected.push(pick);
            let Some(instance) = slot.instance(pick).filter(|instance| instance.phases.access) else { continue };
            cx.scope = &instance.scope;
            cx.slot = number;
            state.timings.begin(slot.kind);
            let reply = match instance.plugin.access(&mut cx) {
                AccessOutcome::Continue => None,
                AccessOutcome::Reply(reply) => Some(reply),
                AccessOutcome::Wait(wait) => wait.await,
            };
            state.timings.end(PluginPhase::Access);
            if reply.is_some() {
                return reply;
            }
        }
        None
    }

    /// Runs the response phase, also of plugins whose access phase was skipped because another one replied.
    pub fn response(
        &self,
        state: &mut ChainState,
        status: StatusCode,
        headers: &mut HeaderMap,
        source: ResponseSource,
        id: &HeaderValue,
    ) {
        state.response_headers.apply(headers);
        state.timings.start();
        for (slot, number) in self.slots.iter().zip(0..) {
            let at = usize::from(number);
            if at >= state.selected.len() {
                state.selected.push(slot.select(state.protocol, &state.identity));
            }
            let Some(instance) = slot.instance(state.selected[at]).filter(|instance| instance.phases.response) else {
                continue;
            };
            let (identity, plugin_data) = (&state.identity, &mut state.plugin_data);
            let scope = &*instance.scope;
            state.timings.begin(slot.kind);
            instance.plugin.response(&mut ResponseCx {
                status,
                headers,
                source,
                id,
                identity,
                scope,
                data: plugin_data,
                slot: number,
            });
            state.timings.end(PluginPhase::Response);
        }
    }

    /// Runs the log phase.
    pub fn log(&self, state: &ChainState, summary: &RequestSummary) {
        for (at, slot) in self.slots.iter().enumerate() {
            let pick = state.selected.get(at).copied();
            let pick = pick.unwrap_or_else(|| slot.select(state.protocol, &state.identity));
            let Some(instance) = slot.instance(pick).filter(|instance| instance.phases.log) else { continue };
            instance.plugin.log(&LogCx {
                names: &self.names,
                summary,
                identity: &state.identity,
                scope: &instance.scope,
            });
        }
    }

    /// Hashes of the configurations of all instances.
    pub fn configuration_hashes(&self) -> impl Iterator<Item = u64> {
        self.slots.iter().flat_map(|slot| &slot.instances).map(|instance| instance.configuration_hash)
    }

    /// For dumps: each kind with the attachment points and objects of its instances.
    pub fn attachments(&self) -> impl Iterator<Item = (&'static str, Vec<(String, &Arc<str>)>)> {
        self.slots.iter().map(|slot| (slot.kind, slot.attachments()))
    }
}

impl PluginInstance {
    fn is_same(&self, other: &PluginInstance) -> bool {
        Arc::ptr_eq(&self.plugin, &other.plugin) && self.scope == other.scope && self.object == other.object
    }
}

impl ChainSlot {
    /// Instances attached to the rule, its service or globally. Instances bound to a consumer or group only cannot
    /// buffer the body: the consumer is unknown until `access` has run, so the bodies of all requests would be
    /// buffered.
    fn rule_instances(&self) -> impl Iterator<Item = &PluginInstance> {
        let consumers = self.consumers.values().filter(|(overlay, _)| *overlay != Overlay::Consumer);
        let groups = self.groups.iter().filter(|(overlay, ..)| *overlay != Overlay::Group);
        let consumers_and_groups = consumers.map(|(_, at)| *at).chain(groups.map(|(_, _, at)| *at));
        self.base.map(|(_, at)| at).into_iter().chain(consumers_and_groups).map(|at| self.instance_at(at))
    }

    fn instance(&self, pick: Option<InstanceIndex>) -> Option<&PluginInstance> {
        pick.map(|pick| self.instance_at(pick))
    }

    fn instance_at(&self, number: InstanceIndex) -> &PluginInstance {
        &self.instances[number as usize]
    }

    /// Selects the instance for an identity. `None` if it does not apply to the protocol.
    fn select(&self, protocol: RequestProtocol, identity: &Identity) -> Option<InstanceIndex> {
        let overlay = identity.consumer.as_ref().and_then(|consumer| self.overlay(consumer));
        let at = overlay.or(self.base.map(|(_, at)| at))?;
        self.instance_at(at).protocols.include(protocol).then_some(at)
    }

    fn overlay(&self, consumer: &Consumer) -> Option<InstanceIndex> {
        if self.consumers.is_empty() && self.groups.is_empty() {
            return None;
        }
        let own = self.consumers.get(&*consumer.id).copied();
        let group = self.groups.iter().find(|(_, group, _)| consumer.groups().contains(group));
        let group = group.map(|(overlay, _, at)| (*overlay, *at));
        own.into_iter().chain(group).min().map(|(_, at)| at)
    }

    fn attachments(&self) -> Vec<(String, &Arc<str>)> {
        let object = |at: InstanceIndex| &self.instance_at(at).object;
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

/// Replaces a plugin that fails closed and cannot be built: replies with 503.
pub struct BrokenPlugin {
    message: Arc<str>,
}

impl BrokenPlugin {
    /// `message` is sent to clients: it names the broken plugin and must not contain secrets.
    pub fn with_message(message: impl Into<Arc<str>>) -> Arc<dyn Plugin> {
        Arc::new(BrokenPlugin { message: message.into() })
    }
}

impl Plugin for BrokenPlugin {
    fn access<'a>(&'a self, _cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        AccessOutcome::Reply(Reply::negotiated(
            StatusCode::SERVICE_UNAVAILABLE,
            self.message.to_string(),
            "broken_plugin",
        ))
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_map().entries(self.attachments()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin_api::consumers::EntityId;
    use crate::plugin_api::testing::{TestRequest, names};

    /// Replies with this status.
    struct RejectAll(u16);

    impl Plugin for RejectAll {
        fn access<'a>(&'a self, _: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
            AccessOutcome::Reply(Reply::plain(StatusCode::from_u16(self.0).unwrap(), "no", "no"))
        }
    }

    /// Authenticates every request as this consumer.
    struct AuthenticateAs(Arc<Consumer>);

    impl Plugin for AuthenticateAs {
        fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
            cx.identity.consumer = Some(Arc::clone(&self.0));
            AccessOutcome::Continue
        }
    }

    fn instance(plugin: impl Plugin) -> PluginInstance {
        let (scope, object) = ("global".into(), "KongPlugin/default/test".into());
        PluginInstance {
            plugin: Arc::new(plugin),
            phases: Phases::ACCESS,
            protocols: Protocols::ALL,
            scope,
            object,
            configuration_hash: 0,
        }
    }

    fn consumer_id(number: u16) -> Arc<str> {
        format!("consumer {number}").into()
    }

    async fn answer(mut builder: ChainBuilder, id: &str) -> u16 {
        let consumer = Consumer::new(EntityId::from_text(id), None, None, Vec::new(), Vec::new());
        builder.add("auth", 2, AttachmentPoint::Base(BaseScope::Route), instance(AuthenticateAs(consumer.into())));
        let chain = builder.build(names()).unwrap();
        TestRequest::get("/").run(&chain).await.reply_status().map_or(200, |status| status.as_u16())
    }

    #[tokio::test]
    async fn base_instance_applies_beyond_65536_overlays() {
        for (consumer, expected) in [("consumer 65535", 402), ("consumer 0", 402), ("another consumer", 401)] {
            let mut builder = ChainBuilder::default();
            for number in 0..=u16::MAX {
                let place = AttachmentPoint::Consumer(consumer_id(number), OverlayScope::Nothing);
                builder.add("guard", 1, place, instance(RejectAll(402)));
            }
            // The index of the base instance exceeds 16 bits.
            builder.add("guard", 1, AttachmentPoint::Base(BaseScope::Route), instance(RejectAll(401)));
            assert_eq!(builder.slots[0].instances.len(), 65_537);
            assert_eq!(answer(builder, consumer).await, expected, "{consumer}");
        }
    }

    #[tokio::test]
    async fn shared_instances_are_stored_once() {
        let shared = instance(RejectAll(402));
        let mut builder = ChainBuilder::default();
        for number in 0..1000 {
            builder.add(
                "guard",
                1,
                AttachmentPoint::Consumer(consumer_id(number), OverlayScope::Route),
                shared.clone(),
            );
        }
        let elsewhere = PluginInstance { scope: "Service/a/b:80".into(), ..shared.clone() };
        builder.add("guard", 1, AttachmentPoint::Consumer(consumer_id(7), OverlayScope::Nothing), elsewhere.clone());
        builder.add("guard", 1, AttachmentPoint::Consumer(consumer_id(1000), OverlayScope::Nothing), elsewhere);
        builder.add("guard", 1, AttachmentPoint::Base(BaseScope::Route), instance(RejectAll(401)));
        let slot = &builder.slots[0];
        assert_eq!(slot.instances.len(), 3);
        assert_eq!(
            (slot.consumers[&consumer_id(7)].1, slot.consumers[&consumer_id(1000)].1, slot.base.unwrap().1),
            (0, 1, 2)
        );
        assert_eq!(answer(builder, "consumer 999").await, 402);
    }

    /// All attachment points in the order of precedence.
    fn attachment_points() -> Vec<(AttachmentPoint, u16)> {
        let consumer = |with| AttachmentPoint::Consumer("anna".into(), with);
        let group = |with| AttachmentPoint::Group("a/gold".into(), with);
        let places = [
            consumer(OverlayScope::Route),
            consumer(OverlayScope::Service),
            group(OverlayScope::Route),
            group(OverlayScope::Service),
            consumer(OverlayScope::Nothing),
            group(OverlayScope::Nothing),
            AttachmentPoint::Base(BaseScope::Route),
            AttachmentPoint::Base(BaseScope::Service),
            AttachmentPoint::Base(BaseScope::Global),
        ];
        places.into_iter().zip(401..).collect()
    }

    // kong-compat §1.4
    #[tokio::test]
    async fn only_the_most_specific_instance_runs() {
        let consumer =
            |id: &str, group: &str| Consumer::new(EntityId::from_text(id), None, None, vec![group.into()], Vec::new());
        let base_only: &[usize] = &[6, 7, 8];
        for (id, group, concerned) in [
            ("anna", "a/gold", &[0, 1, 2, 3, 4, 5, 6, 7, 8][..]),
            ("anna", "a/silver", &[0, 1, 4, 6, 7, 8]),
            ("bert", "a/gold", &[2, 3, 5, 6, 7, 8]),
            ("bert", "a/silver", base_only),
        ] {
            // Removes the most specific instance in each round; the order of attaching must not matter.
            for left_out in 0..=concerned.len() {
                for is_reversed in [false, true] {
                    let mut attached: Vec<_> = attachment_points();
                    attached.retain(|(_, status)| !concerned[..left_out].contains(&usize::from(status - 401)));
                    if is_reversed {
                        attached.reverse();
                    }
                    let mut builder = ChainBuilder::default();
                    let auth = instance(AuthenticateAs(consumer(id, group).into()));
                    builder.add("auth", 2, AttachmentPoint::Base(BaseScope::Route), auth);
                    for (place, status) in attached {
                        builder.add("guard", 1, place, instance(RejectAll(status)));
                    }
                    let outcome = TestRequest::get("/").run(&builder.build(names()).unwrap()).await;
                    let expected = concerned.get(left_out).map(|at| 401 + u16::try_from(*at).unwrap());
                    let found = outcome.reply_status().map(|status| status.as_u16());
                    assert_eq!(found, expected, "{id} of {group}, without {:?}", &concerned[..left_out]);
                }
            }
        }
    }

    /// Appends its name to the `x-ran` headers.
    struct RecordRun(&'static str);

    impl Plugin for RecordRun {
        fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
            cx.head.headers.append("x-ran", HeaderValue::from_static(self.0));
            AccessOutcome::Continue
        }
    }

    // kong-compat §1.4
    #[tokio::test]
    async fn plugins_run_by_priority_and_see_the_consumer_after_auth() {
        let mut builder = ChainBuilder::default();
        for (kind, priority) in [("after", 1), ("b-before", 3), ("a-before", 3)] {
            for (place, name) in [
                (AttachmentPoint::Base(BaseScope::Global), "base"),
                (AttachmentPoint::Consumer("anna".into(), OverlayScope::Nothing), "for anna"),
            ] {
                let name = Box::leak(format!("{kind} {name}").into_boxed_str());
                builder.add(kind, priority, place, instance(RecordRun(name)));
            }
        }
        let anna = Consumer::new(EntityId::from_text("anna"), None, None, Vec::new(), Vec::new());
        builder.add("auth", 2, AttachmentPoint::Base(BaseScope::Route), instance(AuthenticateAs(anna.into())));
        let outcome = TestRequest::get("/").run(&builder.build(names()).unwrap()).await;
        let ran: Vec<_> = outcome.request.headers.get_all("x-ran").iter().map(|name| name.to_str().unwrap()).collect();
        assert_eq!(ran, ["b-before base", "a-before base", "after for anna"]);
    }

    // kong-compat §1.3
    #[test]
    fn instances_run_only_for_their_protocols() {
        // Plain HTTP, HTTPS, gRPC without TLS, gRPC over TLS.
        for (names, expected) in [
            (&["http"][..], [true, false, true, false]),
            (&["https"], [false, true, false, true]),
            (&["grpc"], [false, false, true, false]),
            (&["grpcs"], [false, false, false, true]),
            (&["http", "https"], [true; 4]),
            (&["tcp", "tls", "udp"], [false; 4]),
        ] {
            let protocols = Protocols::from_names(names.iter().copied());
            let mut builder = ChainBuilder::default();
            let instance = PluginInstance { protocols, ..instance(RejectAll(401)) };
            builder.add("guard", 1, AttachmentPoint::Base(BaseScope::Route), instance);
            let cases = [(false, false), (true, false), (false, true), (true, true)];
            let picked = cases.map(|(secure, grpc)| {
                builder.slots[0].select(RequestProtocol { secure, grpc }, &Identity::default()).is_some()
            });
            assert_eq!(picked, expected, "{names:?}");
        }
    }

    struct BufferBody;

    impl Plugin for BufferBody {
        fn body_buffer_limit(&self) -> Option<usize> {
            Some(1)
        }
    }

    #[test]
    fn consumer_only_instances_do_not_buffer_bodies() {
        let (anna, group): (Arc<str>, Arc<str>) = ("anna".into(), "a/group".into());
        let of = |with| {
            [AttachmentPoint::Consumer(Arc::clone(&anna), with), AttachmentPoint::Group(Arc::clone(&group), with)]
        };
        let cases = [
            (vec![AttachmentPoint::Base(BaseScope::Global)], Some(1)),
            (of(OverlayScope::Route).into(), Some(1)),
            (of(OverlayScope::Service).into(), Some(1)),
            (of(OverlayScope::Nothing).into(), None),
        ];
        for (places, expected) in cases {
            let mut builder = ChainBuilder::default();
            let plugin: Arc<dyn Plugin> = Arc::new(BufferBody);
            for place in places.clone() {
                let instance = PluginInstance {
                    plugin: Arc::clone(&plugin),
                    phases: Phases::ACCESS,
                    protocols: Protocols::ALL,
                    scope: "global".into(),
                    object: "KongPlugin/a/reader".into(),
                    configuration_hash: 0,
                };
                builder.add("reader", 1, place, instance);
            }
            let chain = builder.build(names()).unwrap();
            assert_eq!(chain.body_buffer_limit(), expected, "{places:?}");
            assert_eq!(chain.slots[0].instances.len(), 1, "{places:?}: the instance is stored once");
        }
    }
}
