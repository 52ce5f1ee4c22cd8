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

mod asserted;
mod attachment;
mod before_forward;
mod broken_plugin;
mod builder;
mod consumer_scope;
mod ordering;
mod replace_backend;
mod selected;
mod selection;
mod slot;
mod state;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, StatusCode, request};
use smallvec::SmallVec;

use crate::plugin_api::changed_fields::ChangedFields;
use crate::plugin_api::completed_request::{CompletedRequest, CredentialLocations, NO_CREDENTIALS};
use crate::plugin_api::consumers::ConsumerDirectory;
use crate::plugin_api::consumers::plugins::{ConsumerPlugins, RequestConsumerPlugins};
use crate::plugin_api::context::{
    ClientInfo, Framing, LogCx, RequestCx, RequestSummary, RespondedRequest, ResponseCx, ResponseSource, RouteNames,
    UriCaptures,
};
use crate::plugin_api::identity::Identity;
use crate::plugin_api::kind::Phases;
use crate::plugin_api::reply::Reply;
use crate::plugin_api::route_description::RouteDescription;
use crate::plugin_api::timing::PluginPhase;
use crate::plugin_api::{AccessOutcome, OwnUrl, Plugin, ResponseOutcome};
use asserted::{AssertionStage, ChainAssertions};
pub use attachment::{AttachmentPoint, BaseScope, OverlayScope};
pub use before_forward::{AllowedRequest, ForwardingOutcome};
pub use broken_plugin::BrokenPlugin;
pub use builder::ChainBuilder;
pub use consumer_scope::ConsumerScope;
pub use ordering::AccessOrdering;
pub use replace_backend::{ReplacedRequest, SelectedReplacement};
use selected::{SelectedPlugin, slot_number};
use slot::ChainSlot;
pub use state::ChainState;

/// The plugins that run for requests of one rule.
pub struct Chain {
    pub names: Arc<RouteNames>,
    slots: Box<[ChainSlot]>,
    /// Whose consumers may use the rule.
    consumer_scope: ConsumerScope,
    /// Whether a plugin has another turn in the access phase than its priority says.
    is_reordered: bool,
    /// The phases in which any instance of the chain runs. Those that only a consumer or group has may run in others.
    phases: Phases,
    /// Whether a plugin of the chain may wait in the access phase.
    may_wait: bool,
    /// Whether a plugin of the chain may wait for the check of a hashed password.
    checks_passwords: bool,
    body_buffer_limit: Option<usize>,
    /// Whether a plugin sets the request id, for all consumers.
    sets_request_id: bool,
    /// Whether a plugin reads the certificates of clients.
    requests_client_certificate: bool,
    /// The plugins that may buffer the body.
    body_readers: Box<[Arc<dyn Plugin>]>,
    /// What plugins of the chain assert toward endpoints. `None` if they assert nothing.
    asserted: Option<ChainAssertions>,
    /// The fields that instances for consumers and groups change. `None` if they change none. Those of the other
    /// instances, which are few, are not stored.
    fields_of_overlays: Option<Box<ChangedFields>>,
    /// Whether a plugin of the chain reads the target and the host of a request in the response phase.
    reads_request_line: bool,
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
        (&self.names, &self.slots, &self.consumer_scope) == (&other.names, &other.slots, &other.consumer_scope)
            && own == others
    }
}

/// What log plugins that read heads need to know about a rule.
struct LogFacts {
    description: RouteDescription,
    /// Where plugins of the chain read credentials.
    credentials: CredentialLocations,
}

/// A request as the proxy passes it to a chain.
pub struct ChainRequest<'r> {
    pub head: &'r mut request::Parts,
    pub path: &'r str,
    pub query: Option<&'r str>,
    pub raw_target: &'r str,
    pub uri_captures: &'r dyn UriCaptures,
    pub client: ClientInfo<'r>,
    pub framing: Framing,
    pub id: &'r HeaderValue,
    pub body: RequestBodyState<'r>,
    pub consumers: &'r ConsumerDirectory,
    pub now: SystemTime,
}

/// The body of a request as the proxy passes it to a chain.
#[derive(Clone, Copy)]
pub enum RequestBodyState<'r> {
    Read(&'r Bytes),
    /// It can be read if a plugin of the consumer needs it, which is unknown before.
    Unread,
    /// The connection is upgraded, so that its data is no body.
    Absent,
}

/// How a call of [`Chain::access`] ends.
#[derive(Debug)]
pub enum AccessEnd {
    /// All plugins have run.
    Complete,
    Reply(Box<Reply>),
    /// The next plugin needs a body of at most so many bytes. The phase continues with another call.
    NeedsBody(usize),
}

/// The head of a response as the proxy passes it to a chain.
pub struct ChainResponse<'r> {
    pub status: &'r mut StatusCode,
    pub headers: &'r mut HeaderMap,
    pub source: ResponseSource,
    pub id: &'r HeaderValue,
    pub request: RespondedRequest<'r>,
    /// Replaces the response by a reply, whose status and headers it returns. The argument is the head so far.
    pub replace: &'r mut dyn FnMut(Reply, &HeaderMap) -> (StatusCode, HeaderMap),
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

    /// Whether handshakes request the certificate of the client because a plugin of the chain reads it.
    pub fn requests_client_certificate(&self) -> bool {
        self.requests_client_certificate
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

    /// Whether a plugin of the chain reads the target and the host of a request in the response phase.
    pub fn reads_request_line(&self) -> bool {
        self.reads_request_line
    }

    /// Whether a plugin of the chain responds to this URL. Several plugins may share one, such as a redirect URI.
    pub fn responds_to(&self, url: &OwnUrl) -> bool {
        let mut bases = self.slots.iter().filter_map(|slot| Some(slot.instance_at(slot.base?.1)));
        bases.any(|instance| instance.plugin.own_urls().iter().any(|own| own.url == url.url))
    }

    /// Where plugins read credentials. Empty if no log plugin reads heads.
    pub fn credential_locations(&self) -> &CredentialLocations {
        self.log_facts.as_ref().map_or(&NO_CREDENTIALS, |facts| &facts.credentials)
    }

    /// The fields that plugins of the chain may change, whatever the consumer. To be called only for messages with
    /// trailers, and before informational responses: the names are collected for each call.
    pub fn changed_fields(&self) -> ChangedFields {
        let mut fields = self.fields_of_overlays.as_deref().cloned().unwrap_or_default();
        for (slot, (_, index)) in self.slots.iter().filter_map(|slot| Some((slot, slot.base?))) {
            slot.instance_at(index).declare_fields(&mut fields);
        }
        fields
    }

    /// Whether the access phase may wait, for a plugin or for the body. The consumer is unknown before, so the plugins
    /// of all consumers count.
    pub fn may_wait(&self, consumers: &ConsumerDirectory) -> bool {
        let of_consumers = || consumers.plugins.as_ref().is_some_and(|plugins| plugins.may_wait());
        let for_passwords = || self.checks_passwords && consumers.has_hashed_passwords();
        self.may_wait || self.body_buffer_limit.is_some() || for_passwords() || of_consumers()
    }

    /// Runs the access phase in order, until the first reply, or until a plugin of the consumer needs the body.
    pub async fn access(&self, request: ChainRequest<'_>, state: &mut ChainState) -> AccessEnd {
        let body = match request.body {
            RequestBodyState::Read(body) => Some(body),
            RequestBodyState::Unread | RequestBodyState::Absent => None,
        };
        let is_unread = matches!(request.body, RequestBodyState::Unread);
        // Before any plugin has removed it. The phase may continue with another call.
        state.client_sent_authorization |=
            state.selected.is_empty() && request.head.headers.contains_key(AUTHORIZATION);
        let mut stage = state.assertion_stage;
        if stage == AssertionStage::NotBegun
            && let Some(asserted) = &self.asserted
        {
            state.fields_of_client = asserted.begin(&mut request.head.headers);
            stage = AssertionStage::Begun;
        }
        let mut cx = RequestCx {
            head: request.head,
            path: request.path,
            query: request.query,
            raw_target: request.raw_target,
            uri_captures: request.uri_captures,
            client: request.client,
            framing: request.framing,
            id: request.id,
            new_id: &mut state.new_id,
            body,
            body_changes: &mut state.body_changes,
            identity: &mut state.identity,
            consumers: request.consumers,
            response_headers: &mut state.response_headers,
            endpoint_timeouts: &mut state.endpoint_timeouts,
            message_limits: &mut state.message_limits,
            api_version: &mut state.api_version,
            regex_steps: &mut state.regex_steps,
            trace: &mut state.trace,
            now: request.now,
            scope: "",
            route: &self.names,
            description: self.log_facts.as_ref().map(|facts| &facts.description),
            correlation_id: &mut state.correlation_id,
            plugin_data: &mut state.plugin_data,
            tokens: &mut state.tokens,
            named_fields: &mut state.named_fields,
            assertions: None,
            fields_of_client: &mut state.fields_of_client,
            chosen_backend: &mut state.chosen_backend,
            first_backend: 0,
            slot: 0,
            reads_certificates: self.requests_client_certificate,
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
            let Identity { consumer, found_consumer_groups, .. } = &*cx.identity;
            of_consumer.look_up(directory.map(|plugins| &**plugins), consumer.as_ref(), found_consumer_groups);
            let before = (is_unread && !of_consumer.is_empty()).then(|| state.progress.clone());
            let Some(selected) = self.select_next(&mut state.progress, &of_consumer, cx.identity) else {
                if stage == AssertionStage::Begun
                    && let Some(asserted) = &self.asserted
                {
                    asserted.settle(&mut cx.head.headers, cx.fields_of_client);
                }
                state.assertion_stage = AssertionStage::Settled;
                return AccessEnd::Complete;
            };
            if let (SelectedPlugin::OfConsumer(plugin), Some(before)) = (selected, before)
                && let Some(max_bytes) = plugin.instance.body_buffer_limit_for(cx.head)
            {
                state.progress = before;
                state.assertion_stage = stage;
                return AccessEnd::NeedsBody(max_bytes);
            }
            if stage == AssertionStage::Begun
                && let Some(asserted) = &self.asserted
                && self.is_past_credentials(state.progress.slots, selected)
            {
                asserted.settle(&mut cx.head.headers, cx.fields_of_client);
                stage = AssertionStage::Settled;
            }
            if let SelectedPlugin::OfConsumer(plugin) = selected {
                let headers = &mut cx.head.headers;
                self.begin_of_consumer(&plugin.instance, &state.selected, stage, headers, cx.fields_of_client);
            }
            let number = slot_number(state.selected.len());
            state.selected.push(selected.into());
            let (kind, instance) = self.instance(selected);
            if !instance.phases.access {
                continue;
            }
            cx.scope = &instance.scope;
            cx.assertions = instance.assertions.as_deref();
            cx.slot = number;
            cx.first_backend = instance.first_backend;
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
            if cx.identity.may_have_plugins() {
                keep(&mut state.consumer_plugins);
            }
            let is_refused = self.consumer_scope.restrict(cx.identity);
            if let Some(reply) = reply.or_else(|| is_refused.then(consumer_scope::refusal)) {
                return AccessEnd::Reply(reply);
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
        let ChainResponse { status, headers, mut source, id, mut request, replace } = response;
        state.apply_response_headers(headers);
        // A plugin replaces the response at most once, so the phase ends.
        let mut replaced_by = SmallVec::<[u16; 2]>::new();
        state.timings.start();
        if !state.progress.is_complete {
            let rest = self.select_rest(state);
            state.selected.extend(rest);
            state.progress.is_complete = true;
        }
        let by_priority = self.order_by_priority(&state.selected);
        'phase: loop {
            for position in 0..state.selected.len() {
                let index = by_priority.as_ref().map_or(position, |order| usize::from(order[position]));
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
                    request,
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
                    request.reason = Some(reply.reason);
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
        let mut all: SmallVec<[_; 12]> = state.selected.iter().chain(&rest).enumerate().collect();
        let added = RefCell::default();
        if self.is_reordered {
            all.sort_by_key(|(_, selected)| self.place(selected.as_selection()));
        }
        for (number, selected) in all {
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
                trace: state.trace.as_deref(),
                correlation_id: state.correlation_id.as_ref(),
                timings: &state.timings,
                scope: &instance.scope,
                session: None,
                added: &added,
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
mod tests;
