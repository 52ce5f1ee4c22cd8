//! The plugins that run for the connections or UDP sessions of a route, in the order of their priorities.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderValue;

use super::chain::BaseScope;
use crate::plugin_api::context::{LogCx, PluginData, RequestSummary, ResponseSource, RouteNames};
use crate::plugin_api::ended_session::EndedSession;
use crate::plugin_api::identity::Identity;
use crate::plugin_api::instance::{ExecutionPlace, PluginInstance};
use crate::plugin_api::route_description::RouteDescription;
use crate::plugin_api::stream_cx::{StreamCx, StreamDecision};
use crate::plugin_api::timing::PhaseTimings;

/// All plugins that run for the connections or sessions of one route. Equal if the same built plugins run.
#[derive(PartialEq)]
pub struct StreamChain {
    plugins: Box<[AttachedPlugin]>,
    names: Arc<RouteNames>,
    /// Set if a plugin logs sessions.
    description: Option<RouteDescription>,
}

#[derive(PartialEq)]
struct AttachedPlugin {
    place: ExecutionPlace,
    base: BaseScope,
    instance: PluginInstance,
}

impl StreamChain {
    /// Runs the plugins until one of them rejects the connection or session.
    pub fn open(&self, client: IpAddr) -> StreamDecision {
        let cx = StreamCx { client: client.to_canonical() };
        let is_rejected = |plugin: &AttachedPlugin| {
            let PluginInstance { plugin, phases, .. } = &plugin.instance;
            phases.stream_open && plugin.stream_open(&cx) == StreamDecision::Reject
        };
        if self.plugins.iter().any(is_rejected) { StreamDecision::Reject } else { StreamDecision::Continue }
    }

    /// Whether a plugin runs when a connection or session has ended.
    pub fn logs(&self) -> bool {
        self.plugins.iter().any(|plugin| plugin.instance.phases.log)
    }

    /// Runs the log phase.
    pub fn log(&self, session: &EndedSession<'_>) {
        let id = HeaderValue::from_static("");
        let request = session.as_request(&id);
        let summary = RequestSummary {
            status: session.status,
            source: if session.connect.is_some() { ResponseSource::Service } else { ResponseSource::Proxy },
            total: session.total,
            upstream: None,
            bytes_in: session.received,
            bytes_out: session.sent,
        };
        let added = std::cell::RefCell::default();
        let (identity, timings, plugin_data) = (Identity::default(), PhaseTimings::default(), PluginData::default());
        for AttachedPlugin { instance, .. } in self.plugins.iter().filter(|plugin| plugin.instance.phases.log) {
            instance.plugin.log(&LogCx {
                names: &self.names,
                description: self.description.as_ref(),
                summary: &summary,
                request: &request,
                identity: &identity,
                trace: None,
                correlation_id: None,
                timings: &timings,
                scope: &instance.scope,
                session: Some(session),
                added: &added,
                plugin_data: &plugin_data,
                slot: 0,
            });
        }
    }

    /// For dumps, like [`super::Chain::attachments`].
    pub fn attachments(&self) -> impl Iterator<Item = (&'static str, Vec<(String, &Arc<str>)>)> {
        self.plugins.iter().map(|AttachedPlugin { place, base, instance }| {
            (place.kind, vec![(format!("{base:?}").to_lowercase(), &instance.object)])
        })
    }
}

impl std::fmt::Debug for StreamChain {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_map().entries(self.attachments()).finish()
    }
}

/// Collects the plugins of a route.
#[derive(Default)]
pub struct StreamChainBuilder {
    plugins: Vec<AttachedPlugin>,
    names: Arc<RouteNames>,
    description: Option<RouteDescription>,
}

impl StreamChainBuilder {
    /// Adds a plugin. Of several plugins of a kind, the one with the most specific scope runs, and of those the first.
    /// Returns false if one of another object has the same scope, so that this one does not run. A plugin that is added
    /// twice runs once.
    pub fn add(&mut self, kind: &'static str, priority: i32, base: BaseScope, instance: PluginInstance) -> bool {
        let place = ExecutionPlace { kind, priority };
        let added = AttachedPlugin { place, base, instance };
        match self.plugins.iter_mut().find(|attached| attached.place == place) {
            Some(attached) if base < attached.base => *attached = added,
            Some(attached) => return base != attached.base || added.instance.object == attached.instance.object,
            None => self.plugins.push(added),
        }
        true
    }

    /// Whether a plugin logs sessions, so that the chain needs a description.
    pub fn logs(&self) -> bool {
        self.plugins.iter().any(|plugin| plugin.instance.phases.log)
    }

    /// Sets what log plugins write about the route and its service.
    pub fn describe(&mut self, names: RouteNames, description: RouteDescription) {
        (self.names, self.description) = (Arc::new(names), Some(description));
    }

    /// The chain in execution order. `None` without plugins.
    pub fn build(mut self) -> Option<Arc<StreamChain>> {
        self.plugins.sort_by_key(|attached| attached.place);
        let StreamChainBuilder { plugins, names, description } = self;
        (!plugins.is_empty()).then(|| Arc::new(StreamChain { plugins: plugins.into(), names, description }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin_api::{Phases, Plugin};

    /// Rejects all connections, or none.
    struct Fixed(StreamDecision);

    impl Plugin for Fixed {
        fn stream_open(&self, _: &StreamCx) -> StreamDecision {
            self.0
        }
    }

    fn instance(decision: StreamDecision, phases: Phases) -> PluginInstance {
        let (scope, object) = ("global".into(), "KongPlugin/default/test".into());
        PluginInstance {
            plugin: Arc::new(Fixed(decision)),
            phases,
            scope,
            object,
            configuration_hash: 0,
            first_backend: 0,
            assertions: None,
        }
    }

    #[test]
    fn most_specific_plugin_of_a_kind_runs() {
        use BaseScope::{Global, Route, Service};
        use StreamDecision::{Continue, Reject};
        for (plugins, expected) in [
            (&[("a", Global, Reject), ("a", Route, Continue)][..], Continue),
            (&[("a", Route, Reject), ("a", Global, Continue)], Reject),
            (&[("a", Service, Reject), ("a", Service, Continue)], Reject),
            (&[("a", Global, Continue), ("b", Global, Reject)], Reject),
        ] {
            let mut builder = StreamChainBuilder::default();
            for (kind, base, decision) in plugins {
                builder.add(kind, 1, *base, instance(*decision, Phases::ACCESS_AND_STREAM_OPEN));
            }
            let client = IpAddr::from([192, 0, 2, 1]);
            assert_eq!(builder.build().unwrap().open(client), expected, "{plugins:?}");
        }
    }

    #[test]
    fn only_a_plugin_of_another_object_takes_a_place() {
        let of_object = |object: &str| PluginInstance {
            object: object.into(),
            ..instance(StreamDecision::Continue, Phases::ACCESS_AND_STREAM_OPEN)
        };
        let mut builder = StreamChainBuilder::default();
        for (base, object, is_in_effect) in [
            (BaseScope::Service, "KongPlugin/a/first", true),
            (BaseScope::Service, "KongPlugin/a/first", true),
            (BaseScope::Service, "KongPlugin/a/second", false),
            (BaseScope::Global, "KongPlugin/a/second", true),
        ] {
            assert_eq!(builder.add("a", 1, base, of_object(object)), is_in_effect, "{base:?} {object}");
        }
        assert_eq!(builder.build().unwrap().attachments().count(), 1);
    }

    #[test]
    fn plugins_without_the_phase_do_not_run() {
        let mut builder = StreamChainBuilder::default();
        builder.add("a", 1, BaseScope::Route, instance(StreamDecision::Reject, Phases::ACCESS));
        assert_eq!(builder.build().unwrap().open(IpAddr::from([192, 0, 2, 1])), StreamDecision::Continue);
    }
}
