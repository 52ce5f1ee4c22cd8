//! The phase in which a plugin takes the place of the backend.

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderValue, request};

use super::Chain;
use super::state::ChainState;
use crate::hop_count::HopCount;
use crate::plugin_api::context::{ClientInfo, UriCaptures};
use crate::plugin_api::named_backend::NamedBackend;
use crate::plugin_api::reply::Reply;
use crate::plugin_api::timing::PluginPhase;
use crate::plugin_api::{BackendReplacement, BodyBudget, KeptBytes, ReplaceBackendCx, ShownTarget};

/// The plugin that takes the place of the backend of a request.
#[derive(Clone, Copy)]
pub struct SelectedReplacement {
    /// The index of the selected instance.
    pub(super) index: usize,
}

/// A request that the backend would get, as the proxy passes it to a chain.
pub struct ReplacedRequest<'r> {
    pub head: &'r request::Parts,
    pub target: ShownTarget<'r>,
    pub uri_captures: &'r dyn UriCaptures,
    pub client: ClientInfo<'r>,
    pub id: &'r HeaderValue,
    pub now: SystemTime,
    pub has_body: bool,
    /// The whole body, if it was buffered.
    pub body: Option<&'r Bytes>,
    pub is_upgrade: bool,
    pub hops: HopCount,
    pub backend: &'r dyn NamedBackend,
    pub body_budget: &'r dyn BodyBudget,
    /// What the plugin has taken of it for its reply.
    pub kept: &'r mut Vec<Box<dyn KeptBytes>>,
}

impl Chain {
    /// The plugin that takes the place of the backend for this request, after the access phase. Of several, the one
    /// that comes first.
    pub fn replacement(&self, state: &ChainState) -> Option<SelectedReplacement> {
        if !self.phases.replace_backend && !state.may_have_consumer_plugins() {
            return None;
        }
        let replaces = |index: &usize| self.instance(state.selected[*index].as_selection()).1.phases.replace_backend;
        (0..state.selected.len()).find(replaces).map(|index| SelectedReplacement { index })
    }

    /// The objects of the plugins that take the place of the backend of every request of the rule.
    pub fn replacements(&self) -> impl Iterator<Item = &str> {
        let bases = self.slots.iter().filter_map(|slot| Some(slot.instance_at(slot.base?.1)));
        bases.filter(|instance| instance.phases.replace_backend).map(|instance| &*instance.object)
    }

    /// Runs the plugin.
    pub async fn replace_backend(
        &self,
        replacement: SelectedReplacement,
        request: ReplacedRequest<'_>,
        state: &mut ChainState,
    ) -> Box<Reply> {
        let (kind, instance) = self.instance(state.selected[replacement.index].as_selection());
        let mut cx = ReplaceBackendCx {
            head: request.head,
            target: request.target,
            uri_captures: request.uri_captures,
            client: request.client,
            id: request.id,
            now: request.now,
            has_body: request.has_body,
            body: request.body,
            is_upgrade: request.is_upgrade,
            hops: request.hops,
            shared_values: state.plugin_data.shared_values(),
            route: &self.names,
            backend: request.backend,
            body_budget: request.body_budget,
            kept: request.kept,
        };
        state.timings.start();
        state.timings.begin(kind, PluginPhase::BeforeForward);
        let reply = match instance.plugin.replace_backend(&mut cx) {
            BackendReplacement::Reply(reply) => reply,
            BackendReplacement::Wait(reply) => reply.await,
        };
        state.timings.end();
        reply
    }
}
