//! The state of a chain for one request.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::asserted::AssertionStage;
use super::selected::{SelectedInstance, SelectionProgress};
use crate::plugin_api::assertions::FieldsOfClient;
use crate::plugin_api::body_filter::PluginBodyFilter;
use crate::plugin_api::changed_fields::{ChangedFields, FieldNames};
use crate::plugin_api::chosen_backend::ChosenBackend;
use crate::plugin_api::consumers::plugins::ConsumerPlugins;
use crate::plugin_api::context::{CorrelationHeader, PluginData, ResponseHeaders};
use crate::plugin_api::endpoint_timeouts::EndpointTimeouts;
use crate::plugin_api::endpoint_token::EndpointTokens;
use crate::plugin_api::identity::Identity;
use crate::plugin_api::message_limits::MessageLimits;
use crate::plugin_api::plugin_regex::RemainingRegexSteps;
use crate::plugin_api::request_body_changes::RequestBodyChanges;
use crate::plugin_api::timing::PhaseTimings;
use crate::plugin_api::trace::RequestTrace;

/// The state of a chain for one request, from `access` to `log`.
#[derive(Default)]
pub struct ChainState {
    pub identity: Identity,
    /// Headers to set on the response.
    pub response_headers: ResponseHeaders,
    /// What happens to the body of the request.
    pub body_changes: RequestBodyChanges,
    /// Whether the client waits for an interim response before it sends the body.
    pub expects_continue: bool,
    /// See [`RequestCx::endpoint_timeouts`](crate::plugin_api::RequestCx::endpoint_timeouts).
    pub endpoint_timeouts: EndpointTimeouts,
    /// See [`RequestCx::message_limits`](crate::plugin_api::RequestCx::message_limits).
    pub message_limits: Option<MessageLimits>,
    /// See [`RequestCx::api_version`](crate::plugin_api::RequestCx::api_version).
    pub(super) api_version: Option<Arc<str>>,
    /// See [`RequestCx::choose_backend`](crate::plugin_api::RequestCx::choose_backend).
    pub chosen_backend: Option<ChosenBackend>,
    /// See [`RequestCx::new_id`](crate::plugin_api::RequestCx::new_id).
    pub new_id: Option<HeaderValue>,
    /// See [`RequestCx::correlation_id`](crate::plugin_api::RequestCx::correlation_id).
    pub(super) correlation_id: Option<CorrelationHeader>,
    /// The instances that are selected so far, in the order of execution. Those after the one that replied are selected
    /// in the response phase.
    pub(super) selected: SmallVec<[SelectedInstance; 12]>,
    pub(super) progress: SelectionProgress,
    /// The plugins of consumers in the snapshot of this request. Stored as soon as a plugin may have identified the
    /// consumer, because the later phases select instances as well.
    pub(super) consumer_plugins: Option<Arc<ConsumerPlugins>>,
    /// See [`RequestCx::regex_steps`](crate::plugin_api::RequestCx::regex_steps).
    pub(super) regex_steps: RemainingRegexSteps,
    /// The trace of the request, if a tracer is active.
    pub trace: Option<Box<RequestTrace>>,
    /// Duration of each plugin in each phase.
    pub timings: PhaseTimings,
    /// The filters of the response body, in the order in which plugins added them.
    pub body_filters: Vec<PluginBodyFilter>,
    pub(super) plugin_data: PluginData,
    /// See [`RequestCx::insert_token`](crate::plugin_api::RequestCx::insert_token).
    pub(super) tokens: EndpointTokens,
    /// Whether the client sent `Authorization`, which a plugin may have removed.
    pub(super) client_sent_authorization: bool,
    /// See [`RequestCx::declare_request_field`](crate::plugin_api::RequestCx::declare_request_field).
    pub(super) named_fields: Option<Box<FieldNames>>,
    /// See [`BeforeForwardCx::allowed_by`](crate::plugin_api::BeforeForwardCx::allowed_by).
    pub(super) allowed_by: Vec<Arc<str>>,
    pub(super) assertion_stage: AssertionStage,
    /// See [`RequestCx::assert_field`](crate::plugin_api::RequestCx::assert_field).
    pub(super) fields_of_client: FieldsOfClient,
}

impl ChainState {
    /// The state of a request for which regular expressions may still take this many steps.
    pub fn new(regex_steps: u64, trace: Option<Box<RequestTrace>>) -> Self {
        ChainState { regex_steps: RemainingRegexSteps::new(regex_steps), trace, ..ChainState::default() }
    }

    /// Records that an authorization server has allowed the request, and the fields of the request that it has changed,
    /// for the phase `before_forward`.
    pub fn allow_by<'n>(&mut self, server: &Arc<str>, names: impl IntoIterator<Item = &'n HeaderName>) {
        self.allowed_by.push(Arc::clone(server));
        let mut names = names.into_iter().peekable();
        if names.peek().is_some() {
            self.named_fields.get_or_insert_default().add_all(names);
        }
    }

    /// Sets the headers that plugins have set in `access` on the response.
    pub fn apply_response_headers(&mut self, headers: &mut HeaderMap) {
        self.response_headers.apply(headers);
    }

    /// The fields that plugins change only for this request: those of plugins that only the consumer or its groups
    /// have, and those that a server has named. `None` if there are none.
    pub fn fields_of_request(&self) -> Option<ChangedFields> {
        if !self.may_have_consumer_plugins() && self.named_fields.is_none() {
            return None;
        }
        let mut fields = ChangedFields::default();
        if let Some(named) = &self.named_fields {
            fields.request.merge((**named).clone());
        }
        for selected in &self.selected {
            if let SelectedInstance::OfConsumer(plugin) = selected {
                plugin.instance.declare_fields(&mut fields);
            }
        }
        (!fields.is_empty()).then_some(fields)
    }

    /// Whether plugins that only the consumer or its groups have may be selected for the request. Without a known
    /// consumer, and in snapshots without such plugins, there are none.
    pub(super) fn may_have_consumer_plugins(&self) -> bool {
        self.consumer_plugins.is_some()
    }
}
