//! A built plugin as chains and the directory of consumers store it, and its place in the order of execution.

use std::cmp::Ordering;
use std::sync::Arc;

use http::request;

use super::Plugin;
use super::assertions::Assertions;
use super::changed_fields::ChangedFields;
use super::kind::Phases;

/// A built plugin, with its properties at one attachment point.
#[derive(Clone)]
pub struct PluginInstance {
    pub plugin: Arc<dyn Plugin>,
    pub phases: Phases,
    /// See [`super::RequestCx::scope`].
    pub scope: Arc<str>,
    /// The object that configures the plugin, for example `KongPlugin/default/limit`.
    pub object: Arc<str>,
    /// Hash of the configuration, equal in every process. Distinguishes several configurations of one object.
    pub configuration_hash: u64,
    /// The index of the plugin's first backend among those that plugins of the rule may choose.
    pub first_backend: u16,
    /// What the plugin asserts toward endpoints, from [`Plugin::assertions`].
    pub assertions: Option<Arc<Assertions>>,
}

impl PluginInstance {
    /// Names the fields that the plugin edits or asserts.
    pub fn declare_fields(&self, fields: &mut ChangedFields) {
        self.plugin.declare_fields(fields);
        if let Some(assertions) = &self.assertions {
            fields.request.add_all(assertions.fields.names());
        }
    }

    /// Whether the plugin may wait in the access phase.
    pub fn may_wait(&self) -> bool {
        self.phases.access && self.plugin.may_wait()
    }

    /// How many bytes of the body of this request to buffer before the plugin runs.
    pub fn body_buffer_limit_for(&self, head: &request::Parts) -> Option<usize> {
        let Phases { access, before_forward, replace_backend, .. } = self.phases;
        let limit = self.plugin.body_buffer_limit().filter(|_| access || before_forward || replace_backend)?;
        self.plugin.buffers_body(head).then_some(limit)
    }
}

/// Equal if both are the same built plugin, attached to the same object in the same way.
impl PartialEq for PluginInstance {
    fn eq(&self, other: &PluginInstance) -> bool {
        let PluginInstance { plugin, phases, scope, object, configuration_hash, first_backend, assertions: _ } = self;
        Arc::ptr_eq(plugin, &other.plugin)
            && (phases, configuration_hash) == (&other.phases, &other.configuration_hash)
            && *first_backend == other.first_backend
            && (scope, object) == (&other.scope, &other.object)
    }
}

/// The place of a kind of plugin in the order of execution: higher priorities first; of equal priorities the
/// alphabetically later name, as in Kong. The earlier place is the lesser one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecutionPlace {
    pub kind: &'static str,
    pub priority: i32,
}

impl Ord for ExecutionPlace {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.priority, other.kind).cmp(&(self.priority, self.kind))
    }
}

impl PartialOrd for ExecutionPlace {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
