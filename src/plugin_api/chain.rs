//! The plugin chain of one rule: plugins in execution order, and the selection of the instance of each for a request.
//!
//! At most one instance of a kind runs for a request; configurations are not merged. The base instance is selected when
//! the chain is built. Instances for consumers and groups, the overlays, are selected for each request, because the
//! consumer is known only after the authentication plugins have run. The order of precedence:
//!
//! ```text
//!   consumer and route > consumer and service > group and route > group and service > consumer > group > base
//!   base: route > service > global
//! ```
//!
//! A chain contains only instances that are attached to its rule, to the rule's Services or globally. Instances that
//! are attached to a consumer or group alone are in [`ConsumerPlugins`]; they are merged into the order of the chain
//! when the consumer is known. Their kinds need no slot in the chain.

mod attachment;
mod before_forward;
mod broken_plugin;
mod selection;
mod slot;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, request};
use smallvec::SmallVec;

use super::body_filter::PluginBodyFilter;
use super::changed_fields::ChangedFields;
use super::completed_request::{CompletedRequest, CredentialLocations};
use super::consumers::ConsumerDirectory;
use super::consumers::plugins::{ConsumerPlugins, RequestConsumerPlugins};
use super::context::{
    ClientInfo, Framing, Identity, LogCx, PluginData, RequestCx, RequestSummary, ResponseCx, ResponseHeaders,
    ResponseSource, RouteNames, UriCaptures,
};
use super::instance::{ExecutionPlace, PluginInstance};
use super::kind::Phases;
use super::plugin_regex::RemainingRegexSteps;
use super::reply::Reply;
use super::route_description::RouteDescription;
use super::timing::{PhaseTimings, PluginPhase};
use super::{AccessOutcome, Plugin, ResponseOutcome};
use attachment::Overlay;
pub use attachment::{AttachmentPoint, BaseScope, OverlayScope};
pub use before_forward::AllowedRequest;
pub use broken_plugin::BrokenPlugin;
use selection::{SelectedInstance, SelectionProgress, slot_number};
use slot::{ChainSlot, InstanceIndex};

/// The plugins that run for requests of one rule.
pub struct Chain {
    pub names: Arc<RouteNames>,
    slots: Box<[ChainSlot]>,
    /// The phases in which any instance of the chain runs. Those that only a consumer or group has may run in others.
    phases: Phases,
    /// Whether a plugin of the chain may wait in the access phase.
    may_wait: bool,
    body_buffer_limit: Option<usize>,
    /// Whether a plugin sets the request id, for all consumers.
    sets_request_id: bool,
    /// The plugins that may buffer the body.
    body_readers: Box<[Arc<dyn Plugin>]>,
    /// The fields that instances for consumers and groups change. `None` if they change none. Those of the other
    /// instances, which are few, are not stored.
    fields_of_overlays: Option<Box<ChangedFields>>,
    /// Whether a plugin of the chain reads the heads of requests and responses in the log phase.
    logs_heads: bool,
    /// Set if the chain, or the plugins of a consumer that it authenticates, may read heads in the log phase.
    log_facts: Option<Box<LogFacts>>,
}

/// Equal if the same built plugins run under the same conditions, and log plugins read the same route and service. All
/// other fields follow from that.
impl PartialEq for Chain {
    fn eq(&self, other: &Chain) -> bool {
        let description =
            |facts: &LogFacts| [facts.description.route.to_string(), facts.description.service.to_string()];
        let [own, others] = [self, other].map(|chain| chain.log_facts.as_deref().map(description));
        self.names == other.names && self.slots == other.slots && own == others
    }
}

/// What log plugins that read heads need to know about a rule.
struct LogFacts {
    description: RouteDescription,
    /// Where plugins of the chain read credentials.
    credentials: CredentialLocations,
}

/// Collects the instances of a chain.
#[derive(Default)]
pub struct ChainBuilder {
    slots: Vec<ChainSlot>,
    description: Option<RouteDescription>,
}

impl ChainBuilder {
    /// Whether a plugin of this kind with this scope would not run, because one with a more specific scope does.
    pub fn is_overridden(&self, kind: &str, base: BaseScope) -> bool {
        let slot = self.slots.iter().find(|slot| slot.place.kind == kind);
        slot.and_then(|slot| slot.base).is_some_and(|(existing, _)| existing < base)
    }

    /// The object whose plugin of this kind is attached at exactly this point.
    pub fn attached_at(&self, kind: &str, point: &AttachmentPoint) -> Option<&Arc<str>> {
        let slot = self.slots.iter().find(|slot| slot.place.kind == kind)?;
        let index = match point {
            AttachmentPoint::Base(base) => slot.base.filter(|(existing, _)| existing == base)?.1,
            AttachmentPoint::Consumer(id, scope) => {
                let attached = slot.consumers.get(id);
                attached.filter(|(existing, _)| *existing == Overlay::for_consumer(*scope))?.1
            }
            AttachmentPoint::Group(name, scope) => {
                let overlay = Overlay::for_group(*scope);
                slot.groups.iter().find(|(existing, group, _)| *existing == overlay && group == name)?.2
            }
        };
        slot.instances.get(usize::try_from(index).ok()?).map(|instance| &instance.object)
    }

    /// Adds an instance. If two instances have the same attachment point, the first one wins.
    pub fn add(&mut self, kind: &'static str, priority: i32, point: AttachmentPoint, instance: PluginInstance) {
        let slot = match self.slots.iter().position(|slot| slot.place.kind == kind) {
            Some(index) => &mut self.slots[index],
            None => {
                let (instances, groups) = (Vec::new(), Vec::new());
                let place = ExecutionPlace { kind, priority };
                self.slots.push(ChainSlot { place, instances, base: None, consumers: HashMap::new(), groups });
                let last = self.slots.len() - 1;
                &mut self.slots[last]
            }
        };
        // An instance that is added for many consumers in a row is stored once.
        let is_stored = slot.instances.last().is_some_and(|last| *last == instance);
        let index = slot.instances.len() - usize::from(is_stored);
        let index = InstanceIndex::try_from(index).expect("2^32 instances do not fit into memory");
        let is_used = match point {
            AttachmentPoint::Base(base) => {
                let is_more_specific = slot.base.is_none_or(|(existing, _)| base < existing);
                if is_more_specific {
                    slot.base = Some((base, index));
                }
                is_more_specific
            }
            AttachmentPoint::Consumer(id, scope) => {
                let overlay = Overlay::for_consumer(scope);
                let is_more_specific = slot.consumers.get(&id).is_none_or(|(existing, _)| overlay < *existing);
                if is_more_specific {
                    slot.consumers.insert(id, (overlay, index));
                }
                is_more_specific
            }
            AttachmentPoint::Group(name, scope) => {
                let overlay = Overlay::for_group(scope);
                let is_new = !slot.groups.iter().any(|(existing, group, _)| *existing == overlay && *group == name);
                if is_new {
                    slot.groups.push((overlay, name, index));
                    slot.groups.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
                }
                is_new
            }
        };
        // An instance that a more specific one replaces later remains stored and is never selected.
        if is_used && !is_stored {
            slot.instances.push(instance);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether a log plugin may read the route and the service: a plugin of the chain, or one of a consumer that a
    /// plugin of the chain authenticates.
    pub fn needs_description(&self) -> bool {
        self.plugins().any(|plugin| plugin.logs_heads() || plugin.credential_locations().is_some())
    }

    /// Sets the route and the service as log plugins write them. Only needed if [`ChainBuilder::needs_description`].
    pub fn describe(&mut self, description: RouteDescription) {
        self.description = Some(description);
    }

    fn plugins(&self) -> impl Iterator<Item = &Arc<dyn Plugin>> {
        self.slots.iter().flat_map(|slot| &slot.instances).map(|instance| &instance.plugin)
    }

    fn log_facts(&mut self, names: &RouteNames) -> Option<Box<LogFacts>> {
        if !self.needs_description() {
            return None;
        }
        let mut credentials = CredentialLocations::default();
        for locations in self.plugins().filter_map(|plugin| plugin.credential_locations()) {
            credentials.add(locations);
        }
        let description =
            self.description.take().unwrap_or_else(|| RouteDescription::from_names(&names.route, &names.service));
        Some(Box::new(LogFacts { description, credentials }))
    }

    /// The chain, with its slots in execution order. `None` if no instance was added.
    pub fn build(mut self, names: Arc<RouteNames>) -> Option<Arc<Chain>> {
        if self.slots.is_empty() {
            return None;
        }
        self.slots.sort_by_key(|slot| slot.place);
        // Instances for only a consumer or group are not in the chain and do not buffer the body: the consumer is
        // unknown before `access`, so all bodies would be buffered.
        let mut body_readers: Vec<Arc<dyn Plugin>> = Vec::new();
        for instance in self.slots.iter().flat_map(ChainSlot::selectable_instances) {
            let is_last = body_readers.last().is_some_and(|last| Arc::ptr_eq(last, &instance.plugin));
            if instance.plugin.body_buffer_limit().is_some() && !is_last {
                body_readers.push(Arc::clone(&instance.plugin));
            }
        }
        let body_buffer_limit = body_readers.iter().filter_map(|plugin| plugin.body_buffer_limit()).max();
        let base_instances = self.slots.iter().filter_map(|slot| Some(slot.instance_at(slot.base?.1)));
        let sets_request_id = base_instances.into_iter().any(|instance| instance.plugin.sets_request_id());
        let logs_heads = self.plugins().any(|plugin| plugin.logs_heads());
        let log_facts = self.log_facts(&names);
        let phases = self.slots.iter().flat_map(|slot| &slot.instances).map(|instance| instance.phases);
        let phases = phases.fold(Phases::default(), Phases::or);
        let may_wait = self.slots.iter().flat_map(|slot| &slot.instances).any(PluginInstance::may_wait);
        let mut fields_of_overlays = ChangedFields::default();
        for instance in self.slots.iter().flat_map(ChainSlot::overlay_instances) {
            instance.plugin.declare_fields(&mut fields_of_overlays);
        }
        let fields_of_overlays = (!fields_of_overlays.is_empty()).then(|| Box::new(fields_of_overlays));
        let (slots, body_readers) = (self.slots.into(), body_readers.into());
        Some(Arc::new(Chain {
            names,
            slots,
            phases,
            may_wait,
            body_buffer_limit,
            sets_request_id,
            body_readers,
            fields_of_overlays,
            logs_heads,
            log_facts,
        }))
    }
}

/// A request as the proxy passes it to a chain.
pub struct ChainRequest<'r> {
    pub head: &'r mut request::Parts,
    pub path: &'r str,
    pub query: Option<&'r str>,
    pub uri_captures: &'r dyn UriCaptures,
    pub client: ClientInfo<'r>,
    pub framing: Framing,
    pub id: &'r HeaderValue,
    pub body: Option<&'r Bytes>,
    pub consumers: &'r ConsumerDirectory,
    pub now: SystemTime,
}

/// The head of a response as the proxy passes it to a chain.
pub struct ChainResponse<'r> {
    pub status: &'r mut StatusCode,
    pub headers: &'r mut HeaderMap,
    pub source: ResponseSource,
    pub id: &'r HeaderValue,
    /// Replaces the response by a reply, whose status and headers it returns. The argument is the head so far.
    pub replace: &'r mut dyn FnMut(Reply, &HeaderMap) -> (StatusCode, HeaderMap),
}

/// The state of a chain for one request, from `access` to `log`.
#[derive(Default)]
pub struct ChainState {
    pub identity: Identity,
    /// Headers to set on the response.
    pub response_headers: ResponseHeaders,
    /// See [`RequestCx::body_limit`].
    pub body_limit: Option<u64>,
    /// See [`RequestCx::new_id`].
    pub new_id: Option<HeaderValue>,
    /// The body to send upstream instead of the buffered one; `Content-Length` is already set.
    pub replacement_body: Option<Bytes>,
    /// The instances that are selected so far, in the order of execution. Those after the one that replied are selected
    /// in the response phase.
    selected: SmallVec<[SelectedInstance; 12]>,
    progress: SelectionProgress,
    /// The plugins of consumers in the snapshot of this request. Stored as soon as a plugin may have identified the
    /// consumer, because the later phases select instances as well.
    consumer_plugins: Option<Arc<ConsumerPlugins>>,
    /// See [`RequestCx::regex_steps`].
    regex_steps: RemainingRegexSteps,
    /// Duration of each plugin in each phase.
    pub timings: PhaseTimings,
    /// The filters of the response body, in the order in which plugins added them.
    pub(crate) body_filters: Vec<PluginBodyFilter>,
    plugin_data: PluginData,
}

impl ChainState {
    /// The state of a request for which regular expressions may still take this many steps.
    pub fn with_regex_steps(steps: u64) -> Self {
        ChainState { regex_steps: RemainingRegexSteps::new(steps), ..ChainState::default() }
    }

    /// Sets the headers that plugins have set in `access` on the response.
    pub fn apply_response_headers(&mut self, headers: &mut HeaderMap) {
        self.response_headers.apply(headers);
    }

    /// The fields that plugins change which only the consumer or its groups have. `None` if no such plugin is selected.
    pub fn fields_of_consumer(&self) -> Option<ChangedFields> {
        if !self.may_have_consumer_plugins() {
            return None;
        }
        let mut fields = ChangedFields::default();
        for selected in &self.selected {
            if let SelectedInstance::OfConsumer(plugin) = selected {
                plugin.instance.plugin.declare_fields(&mut fields);
            }
        }
        (!fields.is_empty()).then_some(fields)
    }

    /// Whether plugins that only the consumer or its groups have may be selected for the request. Without a known
    /// consumer, and in snapshots without such plugins, there are none.
    fn may_have_consumer_plugins(&self) -> bool {
        self.consumer_plugins.is_some()
    }
}

impl Chain {
    /// How many bytes of any body plugins may buffer.
    pub fn body_buffer_limit(&self) -> Option<usize> {
        self.body_buffer_limit
    }

    /// Whether a plugin of the chain sets [`ChainState::new_id`].
    pub fn sets_request_id(&self) -> bool {
        self.sets_request_id
    }

    /// How many bytes of the body of this request to buffer before plugins run.
    pub fn body_buffer_limit_for(&self, head: &request::Parts) -> Option<usize> {
        let readers = self.body_readers.iter().filter(|plugin| plugin.buffers_body(head));
        readers.filter_map(|plugin| plugin.body_buffer_limit()).max()
    }

    /// Whether a plugin may read the heads of a request and its response in the log phase. The consumer is unknown when
    /// the heads are copied, so the plugins of all consumers count if the chain authenticates any.
    pub fn logs_heads(&self, consumers: &ConsumerDirectory) -> bool {
        let of_consumers = || consumers.plugins.as_ref().is_some_and(|plugins| plugins.logs_heads());
        self.logs_heads || self.log_facts.is_some() && of_consumers()
    }

    /// Where plugins read credentials. Empty if no log plugin reads heads.
    pub fn credential_locations(&self) -> &CredentialLocations {
        const NONE: &CredentialLocations =
            &CredentialLocations { headers: Vec::new(), parameters: Vec::new(), cookies: Vec::new() };
        self.log_facts.as_ref().map_or(NONE, |facts| &facts.credentials)
    }

    /// The fields that plugins of the chain may change, whatever the consumer. To be called only for messages with
    /// trailers, and before informational responses: the names are collected for each call.
    pub fn changed_fields(&self) -> ChangedFields {
        let mut fields = self.fields_of_overlays.as_deref().cloned().unwrap_or_default();
        for (slot, (_, index)) in self.slots.iter().filter_map(|slot| Some((slot, slot.base?))) {
            slot.instance_at(index).plugin.declare_fields(&mut fields);
        }
        fields
    }

    /// Whether the access phase may wait, for a plugin or for the body. The consumer is unknown before, so the plugins
    /// of all consumers count.
    pub fn may_wait(&self, consumers: &ConsumerDirectory) -> bool {
        let of_consumers = || consumers.plugins.as_ref().is_some_and(|plugins| plugins.may_wait());
        self.may_wait || self.body_buffer_limit.is_some() || of_consumers()
    }

    /// Runs the access phase in order, until the first reply.
    pub async fn access(&self, request: ChainRequest<'_>, state: &mut ChainState) -> Option<Box<Reply>> {
        let mut cx = RequestCx {
            head: request.head,
            path: request.path,
            query: request.query,
            uri_captures: request.uri_captures,
            client: request.client,
            framing: request.framing,
            id: request.id,
            new_id: &mut state.new_id,
            body: request.body,
            replacement_body: &mut state.replacement_body,
            identity: &mut state.identity,
            consumers: request.consumers,
            response_headers: &mut state.response_headers,
            body_limit: &mut state.body_limit,
            regex_steps: &mut state.regex_steps,
            now: request.now,
            scope: "",
            route: &self.names,
            plugin_data: &mut state.plugin_data,
            slot: 0,
        };
        state.timings.start();
        let directory = request.consumers.plugins.as_ref();
        let keep = |kept: &mut Option<Arc<ConsumerPlugins>>| {
            if kept.is_none() {
                *kept = directory.cloned();
            }
        };
        let mut of_consumer = RequestConsumerPlugins::default();
        loop {
            of_consumer.look_up(directory.map(|plugins| &**plugins), cx.identity.consumer.as_ref());
            let selected = self.select_next(&mut state.progress, &of_consumer, cx.identity)?;
            let number = slot_number(state.selected.len());
            state.selected.push(selected.into());
            let (kind, instance) = self.instance(selected);
            if !instance.phases.access {
                continue;
            }
            cx.scope = &instance.scope;
            cx.slot = number;
            state.timings.begin(kind, PluginPhase::Access);
            let reply = match instance.plugin.access(&mut cx) {
                AccessOutcome::Continue => None,
                AccessOutcome::Reply(reply) => Some(reply),
                AccessOutcome::Wait(decision) => {
                    // The request may be aborted while the plugin waits, after the plugin identified the consumer.
                    keep(&mut state.consumer_plugins);
                    decision.await
                }
            };
            state.timings.end();
            if cx.identity.consumer.is_some() {
                keep(&mut state.consumer_plugins);
            }
            if reply.is_some() {
                return reply;
            }
        }
    }

    /// Whether a plugin may run in the response phase of this request. If not, the phase only does what
    /// [`ChainState::apply_response_headers`] does.
    pub fn may_change_response(&self, state: &ChainState) -> bool {
        self.phases.response || state.may_have_consumer_plugins()
    }

    /// Whether a plugin may run in the log phase of this request.
    pub fn may_log(&self, state: &ChainState) -> bool {
        self.phases.log || state.may_have_consumer_plugins()
    }

    /// Runs the response phase of all plugins, including those whose access phase was skipped because another replied.
    /// Returns where the response comes from, which a plugin may have replaced.
    pub async fn response(&self, state: &mut ChainState, response: ChainResponse<'_>) -> ResponseSource {
        let ChainResponse { status, headers, mut source, id, replace } = response;
        state.apply_response_headers(headers);
        // A plugin replaces the response at most once, so the phase ends.
        let mut replaced_by = SmallVec::<[u16; 2]>::new();
        state.timings.start();
        if !state.progress.is_complete {
            let rest = self.select_rest(state);
            state.selected.extend(rest);
            state.progress.is_complete = true;
        }
        'phase: loop {
            for index in 0..state.selected.len() {
                let number = slot_number(index);
                if replaced_by.contains(&number) {
                    continue;
                }
                let (kind, instance) = self.instance(state.selected[index].as_selection());
                if !instance.phases.response {
                    continue;
                }
                state.timings.begin(kind, PluginPhase::Response);
                let mut cx = ResponseCx {
                    status: *status,
                    headers: &mut *headers,
                    source,
                    id,
                    identity: &state.identity,
                    regex_steps: &mut state.regex_steps,
                    scope: &instance.scope,
                    plugin_data: &mut state.plugin_data,
                    body_filters: &mut state.body_filters,
                    plugin: kind,
                    slot: number,
                };
                let reply = match instance.plugin.response(&mut cx) {
                    ResponseOutcome::Continue => None,
                    ResponseOutcome::Replace(reply) => Some(reply),
                    ResponseOutcome::Wait(decision) => decision.await,
                };
                *status = cx.status;
                state.timings.end();
                if let Some(reply) = reply {
                    replaced_by.push(number);
                    source = ResponseSource::Plugin;
                    state.body_filters.clear();
                    let (new_status, mut new_headers) = replace(*reply, headers);
                    state.response_headers.carry_over(headers, &mut new_headers);
                    (*status, *headers) = (new_status, new_headers);
                    continue 'phase;
                }
            }
            return source;
        }
    }

    /// Runs the log phase.
    pub fn log(&self, state: &ChainState, summary: &RequestSummary, request: &CompletedRequest<'_>) {
        if !self.may_log(state) {
            return;
        }
        let description = self.log_facts.as_ref().map(|facts| &facts.description);
        let rest = if state.progress.is_complete { SmallVec::new() } else { self.select_rest(state) };
        for (number, selected) in state.selected.iter().chain(&rest).enumerate() {
            let (_, instance) = self.instance(selected.as_selection());
            if !instance.phases.log {
                continue;
            }
            instance.plugin.log(&LogCx {
                names: &self.names,
                description,
                summary,
                request,
                identity: &state.identity,
                scope: &instance.scope,
                plugin_data: &state.plugin_data,
                slot: slot_number(number),
            });
        }
    }

    /// Hashes of the configurations of all instances.
    pub fn configuration_hashes(&self) -> impl Iterator<Item = u64> {
        self.slots.iter().flat_map(|slot| &slot.instances).map(|instance| instance.configuration_hash)
    }

    /// For dumps: each kind with the attachment points and objects of its instances.
    pub fn attachments(&self) -> impl Iterator<Item = (&'static str, Vec<(String, &Arc<str>)>)> {
        self.slots.iter().map(|slot| (slot.place.kind, slot.attachments()))
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_map().entries(self.attachments()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::Duration;

    use super::*;
    use crate::plugin_api::Scheme;
    use crate::plugin_api::consumers::plugins::{ConsumerPlugin, OrderedPlugins, PluginSubject};
    use crate::plugin_api::consumers::{Consumer, EntityId};
    use crate::plugin_api::kind::Phases;
    use crate::plugin_api::testing::{TestCaptures, TestRequest, names};

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
        PluginInstance { plugin: Arc::new(plugin), phases: Phases::ACCESS, scope, object, configuration_hash: 0 }
    }

    fn consumer_id(number: u16) -> Arc<str> {
        format!("consumer {number}").into()
    }

    /// The status of a request that is authenticated as the consumer with this id.
    async fn status_for(mut builder: ChainBuilder, id: &str) -> u16 {
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
                let point = AttachmentPoint::Consumer(consumer_id(number), OverlayScope::Route);
                builder.add("guard", 1, point, instance(RejectAll(402)));
            }
            // The index of the base instance exceeds 16 bits.
            builder.add("guard", 1, AttachmentPoint::Base(BaseScope::Route), instance(RejectAll(401)));
            assert_eq!(builder.slots[0].instances.len(), 65_537);
            assert_eq!(status_for(builder, consumer).await, expected, "{consumer}");
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
        let other_scope = PluginInstance { scope: "Service/a/b:80".into(), ..shared.clone() };
        builder.add("guard", 1, AttachmentPoint::Consumer(consumer_id(7), OverlayScope::Service), other_scope.clone());
        builder.add("guard", 1, AttachmentPoint::Consumer(consumer_id(1000), OverlayScope::Service), other_scope);
        builder.add("guard", 1, AttachmentPoint::Base(BaseScope::Route), instance(RejectAll(401)));
        let slot = &builder.slots[0];
        assert_eq!(slot.instances.len(), 3);
        assert_eq!(
            (slot.consumers[&consumer_id(7)].1, slot.consumers[&consumer_id(1000)].1, slot.base.unwrap().1),
            (0, 1, 2)
        );
        assert_eq!(status_for(builder, "consumer 999").await, 402);
    }

    /// Where the plugin of a test is attached.
    enum Attached {
        ToRule(AttachmentPoint),
        ToSubject(PluginSubject),
    }

    /// All attachment points in the order of precedence, each with the status of its plugin: 401 for the first point,
    /// 402 for the second, and so on.
    fn attachment_points() -> Vec<(Attached, u16)> {
        let consumer = |scope| Attached::ToRule(AttachmentPoint::Consumer("anna".into(), scope));
        let group = |scope| Attached::ToRule(AttachmentPoint::Group("a/gold".into(), scope));
        let points = [
            consumer(OverlayScope::Route),
            consumer(OverlayScope::Service),
            group(OverlayScope::Route),
            group(OverlayScope::Service),
            Attached::ToSubject(PluginSubject::Consumer("anna".into())),
            Attached::ToSubject(PluginSubject::Group("a/gold".into())),
            Attached::ToRule(AttachmentPoint::Base(BaseScope::Route)),
            Attached::ToRule(AttachmentPoint::Base(BaseScope::Service)),
            Attached::ToRule(AttachmentPoint::Base(BaseScope::Global)),
        ];
        points.into_iter().zip(401..).collect()
    }

    /// The plugin of a consumer or group.
    fn consumer_plugin(kind: &'static str, priority: i32, instance: PluginInstance) -> OrderedPlugins {
        let place = ExecutionPlace { kind, priority };
        [Arc::new(ConsumerPlugin { place, instance })].into_iter().collect()
    }

    // docs/kong-compatibility.md, 1.4
    #[tokio::test]
    async fn only_the_most_specific_instance_runs() {
        let consumer =
            |id: &str, group: &str| Consumer::new(EntityId::from_text(id), None, None, vec![group.into()], Vec::new());
        let base_only: &[usize] = &[6, 7, 8];
        // (id of the consumer, its group, indexes of the attachment points that apply to the consumer)
        for (id, group, applicable) in [
            ("anna", "a/gold", &[0, 1, 2, 3, 4, 5, 6, 7, 8][..]),
            ("anna", "a/silver", &[0, 1, 4, 6, 7, 8]),
            ("bert", "a/gold", &[2, 3, 5, 6, 7, 8]),
            ("bert", "a/silver", base_only),
        ] {
            // Each round leaves out one more of the most specific instances. The order of adding must not matter.
            for left_out in 0..=applicable.len() {
                for is_reversed in [false, true] {
                    let mut attached: Vec<_> = attachment_points();
                    attached.retain(|(_, status)| !applicable[..left_out].contains(&usize::from(status - 401)));
                    if is_reversed {
                        attached.reverse();
                    }
                    let mut builder = ChainBuilder::default();
                    let auth = instance(AuthenticateAs(consumer(id, group).into()));
                    builder.add("auth", 2, AttachmentPoint::Base(BaseScope::Route), auth);
                    let mut directory = ConsumerDirectory::default();
                    for (point, status) in attached {
                        let instance = instance(RejectAll(status));
                        match point {
                            Attached::ToRule(point) => builder.add("guard", 1, point, instance),
                            Attached::ToSubject(subject) => {
                                directory.set_plugins(&subject, consumer_plugin("guard", 1, instance));
                            }
                        }
                    }
                    let request = TestRequest::get("/").with_consumers(&directory);
                    let outcome = request.run(&builder.build(names()).unwrap()).await;
                    let expected = applicable.get(left_out).map(|index| 401 + u16::try_from(*index).unwrap());
                    let status = outcome.reply_status().map(|status| status.as_u16());
                    assert_eq!(status, expected, "{id} of {group}, without {:?}", &applicable[..left_out]);
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

        fn declare_fields(&self, fields: &mut ChangedFields) {
            fields.request.add(&http::HeaderName::from_static("x-ran"));
        }
    }

    // docs/kong-compatibility.md, 1.4
    #[tokio::test]
    async fn plugins_run_by_priority_and_see_the_consumer_after_auth() {
        let mut builder = ChainBuilder::default();
        let name = |kind, attached_to| &*Box::leak(format!("{kind} {attached_to}").into_boxed_str());
        let mut of_anna = Vec::new();
        for (kind, priority) in [("after", 1), ("b-before", 3), ("a-before", 3)] {
            let base = instance(RecordRun(name(kind, "base")));
            builder.add(kind, priority, AttachmentPoint::Base(BaseScope::Global), base);
            let (place, instance) = (ExecutionPlace { kind, priority }, instance(RecordRun(name(kind, "for anna"))));
            of_anna.push(Arc::new(ConsumerPlugin { place, instance }));
        }
        let mut directory = ConsumerDirectory::default();
        directory.set_plugins(&PluginSubject::Consumer("anna".into()), of_anna.into_iter().collect());
        let anna = Consumer::new(EntityId::from_text("anna"), None, None, Vec::new(), Vec::new());
        builder.add("auth", 2, AttachmentPoint::Base(BaseScope::Route), instance(AuthenticateAs(anna.into())));
        let outcome = TestRequest::get("/").with_consumers(&directory).run(&builder.build(names()).unwrap()).await;
        let ran: Vec<_> = outcome.request.headers.get_all("x-ran").iter().map(|name| name.to_str().unwrap()).collect();
        assert_eq!(ran, ["b-before base", "a-before base", "after for anna"]);
    }

    /// Identifies the consumer and then waits forever.
    struct WaitAs(Arc<Consumer>);

    impl Plugin for WaitAs {
        fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
            AccessOutcome::Wait(Box::pin(async move {
                cx.identity.consumer = Some(Arc::clone(&self.0));
                std::future::pending().await
            }))
        }
    }

    /// Counts the runs of its log phase.
    struct CountLogs(Arc<AtomicUsize>);

    impl Plugin for CountLogs {
        fn log(&self, _: &LogCx<'_>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn plugin_of_the_consumer_logs_a_request_that_is_aborted_during_authentication() {
        let anna = Arc::new(Consumer::new(EntityId::from_text("anna"), None, None, Vec::new(), Vec::new()));
        let mut builder = ChainBuilder::default();
        builder.add("auth", 2, AttachmentPoint::Base(BaseScope::Route), instance(WaitAs(anna)));
        let chain = builder.build(names()).unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let logging = PluginInstance { phases: Phases::LOG, ..instance(CountLogs(Arc::clone(&count))) };
        let mut directory = ConsumerDirectory::default();
        directory.set_plugins(&PluginSubject::Consumer("anna".into()), consumer_plugin("log", 1, logging));
        let (mut head, ()) = http::Request::new(()).into_parts();
        let mut state = ChainState::default();
        let address = std::net::IpAddr::from([192, 0, 2, 1]);
        let (scheme, peer) = (Scheme::Http, address);
        let client = ClientInfo { address, port: 40_000, peer, scheme, host: "test.example", listen_port: 80 };
        let request = ChainRequest {
            head: &mut head,
            path: "/",
            query: None,
            client,
            framing: Framing::default(),
            id: &HeaderValue::from_static("0123456789abcdef0123456789abcdef"),
            body: None,
            consumers: &directory,
            now: SystemTime::UNIX_EPOCH,
            uri_captures: &TestCaptures::default(),
        };
        tokio::time::timeout(Duration::from_secs(1), chain.access(request, &mut state)).await.unwrap_err();
        let summary = RequestSummary {
            status: StatusCode::REQUEST_TIMEOUT,
            source: ResponseSource::Proxy,
            total: Duration::ZERO,
            upstream: None,
            bytes_in: 0,
            bytes_out: 0,
        };
        let completed = CompletedRequest {
            id: &HeaderValue::from_static("0123456789abcdef0123456789abcdef"),
            started_at: SystemTime::UNIX_EPOCH,
            started_instant: tokio::time::Instant::now(),
            heads: None,
            tls: None,
            attempts: &[],
            before_upstream: None,
            until_response: None,
            error: None,
            credentials: chain.credential_locations(),
        };
        chain.log(&state, &summary, &completed);
        assert_eq!(count.load(Relaxed), 1);
    }

    #[test]
    fn phases_of_every_instance_and_of_consumers_run() {
        let state_with = |consumer_plugins| ChainState { consumer_plugins, ..ChainState::default() };
        let with_phases = |phases| PluginInstance { phases, ..instance(RejectAll(401)) };
        let mut builder = ChainBuilder::default();
        builder.add("guard", 1, AttachmentPoint::Base(BaseScope::Route), with_phases(Phases::ACCESS));
        let chain = builder.build(names()).unwrap();
        let runs = |chain: &Chain, state: &ChainState| (chain.may_change_response(state), chain.may_log(state));
        assert_eq!(runs(&chain, &state_with(None)), (false, false));
        assert_eq!(runs(&chain, &state_with(Some(Arc::default()))), (true, true));
        for (phases, expected) in [(Phases::RESPONSE, (true, false)), (Phases::LOG, (false, true))] {
            let mut builder = ChainBuilder::default();
            builder.add("guard", 1, AttachmentPoint::Base(BaseScope::Route), with_phases(Phases::ACCESS));
            let of_anna = AttachmentPoint::Consumer("anna".into(), OverlayScope::Route);
            builder.add("guard", 1, of_anna, with_phases(phases));
            assert_eq!(runs(&builder.build(names()).unwrap(), &state_with(None)), expected, "{phases:?}");
        }
    }

    /// Continues without waiting.
    struct AtOnce;

    impl Plugin for AtOnce {
        fn may_wait(&self) -> bool {
            false
        }
    }

    #[test]
    fn access_phase_may_wait_for_any_plugin() {
        let chain = |instance| {
            let mut builder = ChainBuilder::default();
            builder.add("first", 2, AttachmentPoint::Base(BaseScope::Route), self::instance(AtOnce));
            builder.add("second", 1, AttachmentPoint::Consumer("anna".into(), OverlayScope::Route), instance);
            builder.build(names()).unwrap()
        };
        let mut directory = ConsumerDirectory::default();
        assert!(!chain(instance(AtOnce)).may_wait(&directory));
        assert!(chain(instance(RejectAll(401))).may_wait(&directory), "a plugin of the chain does not exclude it");
        let only_logs = PluginInstance { phases: Phases::LOG, ..instance(RejectAll(401)) };
        assert!(!chain(only_logs).may_wait(&directory), "a plugin without an access phase");
        let anna = PluginSubject::Consumer("anna".into());
        for (instance, expected) in [(instance(RejectAll(401)), true), (instance(AtOnce), false)] {
            directory.set_plugins(&anna, consumer_plugin("guard", 1, instance));
            assert_eq!(chain(self::instance(AtOnce)).may_wait(&directory), expected);
        }
    }

    struct BufferBody;

    impl Plugin for BufferBody {
        fn body_buffer_limit(&self) -> Option<usize> {
            Some(1)
        }
    }

    #[test]
    fn all_instances_of_the_rule_may_buffer_the_body() {
        let (anna, group): (Arc<str>, Arc<str>) = ("anna".into(), "a/group".into());
        let overlays = |scope| {
            [AttachmentPoint::Consumer(Arc::clone(&anna), scope), AttachmentPoint::Group(Arc::clone(&group), scope)]
        };
        let cases = [
            (vec![AttachmentPoint::Base(BaseScope::Global)], Some(1)),
            (overlays(OverlayScope::Route).into(), Some(1)),
            (overlays(OverlayScope::Service).into(), Some(1)),
        ];
        for (points, expected) in cases {
            let mut builder = ChainBuilder::default();
            let plugin: Arc<dyn Plugin> = Arc::new(BufferBody);
            for point in points.clone() {
                let instance = PluginInstance {
                    plugin: Arc::clone(&plugin),
                    phases: Phases::ACCESS,
                    scope: "global".into(),
                    object: "KongPlugin/a/reader".into(),
                    configuration_hash: 0,
                };
                builder.add("reader", 1, point, instance);
            }
            let chain = builder.build(names()).unwrap();
            assert_eq!(chain.body_buffer_limit(), expected, "{points:?}");
            assert_eq!(chain.slots[0].instances.len(), 1, "{points:?}: the instance is stored once");
        }
    }
}
