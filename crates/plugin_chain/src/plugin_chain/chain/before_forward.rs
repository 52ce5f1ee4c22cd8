//! The phase in which plugins may respond in place of the backend, such as caches.

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, request};

use super::Chain;
use super::selected::slot_number;
use super::state::ChainState;
use crate::hop_count::HopCount;
use crate::plugin_api::context::{AfterForwardCx, BackgroundPlaces, BackgroundSlot, BeforeForwardCx, ClientInfo};
use crate::plugin_api::reply::Reply;
use crate::plugin_api::timing::PluginPhase;
use crate::plugin_api::{AccessOutcome, StreamingFilter};

/// A request that may be forwarded, as the proxy passes it to a chain.
pub struct AllowedRequest<'r> {
    pub head: &'r mut request::Parts,
    pub has_body: bool,
    /// The whole body, if it was buffered.
    pub body: Option<&'r Bytes>,
    pub is_upgrade: bool,
    pub hops: HopCount,
    pub path: &'r str,
    pub query: Option<&'r str>,
    pub client: ClientInfo<'r>,
    pub id: &'r HeaderValue,
    pub now: SystemTime,
    pub background_places: BackgroundPlaces<'r>,
    /// Where plugins that reply leave a request that is forwarded nevertheless.
    pub background: &'r mut BackgroundSlot,
}

impl Chain {
    /// Whether a plugin may respond to this request in place of the backend, after the access phase.
    pub fn may_stand_in_for_backend(&self, state: &ChainState) -> bool {
        self.runs_before_forward(state) || self.replacement(state).is_some()
    }

    /// Whether a plugin has the phase `before_forward` for this request.
    pub fn runs_before_forward(&self, state: &ChainState) -> bool {
        let is_possible = self.phases.before_forward || state.may_have_consumer_plugins();
        let runs = |index: usize| self.instance(state.selected[index].as_selection()).1.phases.before_forward;
        is_possible && (0..state.selected.len()).any(runs)
    }

    /// Runs the phase `before_forward` of the plugins whose access phase has run, until the first reply. A plugin after
    /// the one that takes the place of the backend does not run: its turn would come after the response.
    pub async fn before_forward(&self, request: AllowedRequest<'_>, state: &mut ChainState) -> Option<Box<Reply>> {
        state.timings.start();
        let chosen_backend = state.chosen_backend.and_then(|chosen| {
            state.selected.iter().find_map(|selected| {
                let (_, instance) = self.instance(selected.as_selection());
                let index = chosen.index.checked_sub(instance.first_backend)?;
                instance.plugin.chosen_backends().get(usize::from(index))
            })
        });
        let replacement = self.replacement(state).map(|replacement| replacement.index);
        let is_replaced = replacement.is_some();
        for index in 0..replacement.unwrap_or(state.selected.len()) {
            let (kind, instance) = self.instance(state.selected[index].as_selection());
            if !instance.phases.before_forward {
                continue;
            }
            let mut cx = BeforeForwardCx {
                head: &mut *request.head,
                has_body: request.has_body,
                body: request.body,
                is_upgrade: request.is_upgrade,
                hops: request.hops,
                path: request.path,
                query: request.query,
                client: request.client,
                id: request.id,
                identity: &state.identity,
                tokens: &state.tokens,
                client_sent_authorization: state.client_sent_authorization,
                decided_fields: state.named_fields.as_deref(),
                allowed_by: &state.allowed_by,
                api_version: state.api_version.as_deref(),
                chosen_backend,
                response_headers: &mut state.response_headers,
                now: request.now,
                scope: &instance.scope,
                route: &self.names,
                is_backend_replaced: is_replaced,
                background_places: (!is_replaced).then_some(request.background_places),
                background: &mut *request.background,
                plugin_data: &mut state.plugin_data,
                slot: slot_number(index),
            };
            state.timings.begin(kind, PluginPhase::BeforeForward);
            let reply = match instance.plugin.before_forward(&mut cx) {
                AccessOutcome::Continue => None,
                AccessOutcome::Reply(reply) => Some(reply),
                AccessOutcome::Wait(decision) => decision.await,
            };
            state.timings.end();
            if reply.is_some() {
                return reply;
            }
        }
        None
    }

    /// Runs `after_forward` of the plugins that ran before the request was forwarded, until the first reply.
    pub fn after_forward(&self, outcome: ForwardingOutcome<'_>, state: &mut ChainState) -> Option<Box<Reply>> {
        let ForwardingOutcome { status, headers, now, observers } = outcome;
        for index in 0..state.selected.len() {
            let (_, instance) = self.instance(state.selected[index].as_selection());
            if !instance.phases.before_forward {
                continue;
            }
            let mut cx = AfterForwardCx {
                status,
                headers,
                response_headers: &mut state.response_headers,
                now,
                route_namespace: &self.names.namespace,
                plugin_data: &mut state.plugin_data,
                observers: &mut *observers,
                slot: slot_number(index),
            };
            let reply = instance.plugin.after_forward(&mut cx);
            if reply.is_some() {
                return reply;
            }
        }
        None
    }
}

/// The response of the endpoint, as the proxy passes it to a chain.
pub struct ForwardingOutcome<'r> {
    /// `None` if there is no response.
    pub status: Option<StatusCode>,
    pub headers: &'r HeaderMap,
    pub now: SystemTime,
    /// Filters of the body, which do not change it.
    pub observers: &'r mut Vec<Box<dyn StreamingFilter>>,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderName, HeaderValue, StatusCode};

    use super::*;
    use crate::plugin_api::instance::PluginInstance;
    use crate::plugin_api::{BackendReplacement, ChangedFields, Phases, Plugin, ReplaceBackendCx, RequestCx};
    use crate::plugin_chain::chain::{AttachmentPoint, BaseScope, ChainBuilder};
    use crate::plugin_chain::testing::{TestRequest, global_instance, names};

    /// Stands in for the backend, with what it would send.
    struct Cache;

    impl Plugin for Cache {
        fn before_forward<'a>(&'a self, cx: &'a mut BeforeForwardCx<'_>) -> AccessOutcome<'a> {
            cx.response_headers.insert(HeaderName::from_static("x-cache"), HeaderValue::from_static("hit"));
            AccessOutcome::Reply(Reply::plain(StatusCode::OK, "cached", "test"))
        }

        fn declare_fields(&self, fields: &mut ChangedFields) {
            fields.response.add(&HeaderName::from_static("x-cache"));
        }
    }

    /// Rejects requests without a key.
    struct Guard;

    impl Plugin for Guard {
        fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
            if cx.head.headers.contains_key("x-key") {
                return AccessOutcome::Continue;
            }
            AccessOutcome::Reply(Reply::plain(StatusCode::UNAUTHORIZED, "no key", "test"))
        }
    }

    fn chain(phases_of_cache: Phases) -> Arc<Chain> {
        let mut builder = ChainBuilder::default();
        let cache = PluginInstance { phases: phases_of_cache, ..global_instance(Arc::new(Cache)) };
        let guard = PluginInstance { phases: Phases::ACCESS, ..global_instance(Arc::new(Guard)) };
        builder.add("cache", 2, AttachmentPoint::Base(BaseScope::Route), cache);
        builder.add("guard", 1, AttachmentPoint::Base(BaseScope::Route), guard);
        builder.build(names()).unwrap()
    }

    #[tokio::test]
    async fn what_stands_in_for_the_backend_responds_after_all_that_may_reject() {
        let chain = chain(Phases { before_forward: true, ..Phases::default() });
        let rejected = TestRequest::get("/").run(&chain).await;
        let outcome = (rejected.reply_status(), rejected.response_header("x-cache"));
        assert_eq!(outcome, (Some(StatusCode::UNAUTHORIZED), None), "whatever the priorities");
        let allowed = TestRequest::get("/").header("x-key", "1").run(&chain).await;
        assert_eq!((allowed.message(), allowed.response_header("x-cache")), (Some("cached"), Some("hit")));
    }

    /// Stands in for the backend with a request in the background, if there is a place for it.
    struct Background;

    impl Plugin for Background {
        fn before_forward<'a>(&'a self, cx: &'a mut BeforeForwardCx<'_>) -> AccessOutcome<'a> {
            if cx.take_background_place() {
                AccessOutcome::Reply(Reply::plain(StatusCode::OK, "place", "test"))
            } else {
                AccessOutcome::Continue
            }
        }
    }

    /// Takes the place of the backend.
    struct Function;

    impl Plugin for Function {
        fn replace_backend<'a>(&'a self, _: &'a mut ReplaceBackendCx<'_>) -> BackendReplacement<'a> {
            BackendReplacement::Reply(Reply::plain(StatusCode::OK, "function", "test"))
        }
    }

    fn function() -> PluginInstance {
        PluginInstance { phases: Phases::REPLACE_BACKEND, ..global_instance(Arc::new(Function)) }
    }

    /// A request in the background would go around the plugin.
    #[tokio::test]
    async fn nothing_is_forwarded_in_the_background_if_a_plugin_takes_the_place_of_the_backend() {
        for (is_replaced, expected) in [(false, "place"), (true, "function")] {
            let mut builder = ChainBuilder::default();
            let cache = global_instance(Arc::new(Background));
            builder.add("cache", 2, AttachmentPoint::Base(BaseScope::Route), cache);
            if is_replaced {
                builder.add("function", 1, AttachmentPoint::Base(BaseScope::Route), function());
            }
            let request = TestRequest { background_places: 8, ..TestRequest::get("/") };
            let outcome = request.run(&builder.build(names()).unwrap()).await;
            assert_eq!(outcome.message(), Some(expected));
        }
    }

    #[tokio::test]
    async fn a_cache_responds_before_a_function_of_lower_priority_and_not_after_one_of_higher() {
        for (priority, expected) in [(1, "cached"), (3, "function")] {
            let mut builder = ChainBuilder::default();
            let cache = PluginInstance { phases: Phases::BEFORE_FORWARD, ..global_instance(Arc::new(Cache)) };
            builder.add("cache", 2, AttachmentPoint::Base(BaseScope::Route), cache);
            builder.add("function", priority, AttachmentPoint::Base(BaseScope::Route), function());
            let outcome = TestRequest::get("/").run(&builder.build(names()).unwrap()).await;
            assert_eq!(outcome.message(), Some(expected));
            let is_cached = outcome.response_header("x-cache").is_some();
            assert_eq!(is_cached, expected == "cached", "the other plugin has not run");
        }
    }

    #[tokio::test]
    async fn phase_does_not_run_if_it_is_not_declared() {
        let outcome = TestRequest::get("/").header("x-key", "1").run(&chain(Phases::RESPONSE)).await;
        assert_eq!(outcome.reply_status(), None);
    }
}
