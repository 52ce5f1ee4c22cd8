//! Where plugins are built: what compile is handed, so that it knows neither a plugin nor the world outside.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::Plugin;
use super::chain::{Base, Builder, Instance, Place, Protocols};
use super::kind::{AnyKind, BuildCx, Invalid, Notes, Registry};
use super::services::{NoServices, Services};
use super::state::State;

/// The kinds there are, and what they may use.
#[derive(Clone)]
pub struct Workshop {
    pub registry: Registry,
    pub state: State,
    pub services: Arc<dyn Services>,
    /// The name of this process among its replicas.
    pub node: Arc<str>,
    /// Whether a guard that cannot be built is left out, as Kong does, instead of refusing everybody.
    pub fail_open: bool,
    /// What runs on every rule, whoever wrote it, unless an object of the same kind is attached there.
    pub builtin: Option<Builtin>,
}

/// A plugin that no object configures.
#[derive(Clone)]
pub struct Builtin {
    pub kind: &'static dyn AnyKind,
    pub plugin: Arc<dyn Plugin>,
    /// Who asks for it, for dumps: `--kong-metrics`.
    pub asked_for_by: Arc<str>,
}

impl Builtin {
    pub fn add_to(&self, builder: &mut Builder, scope: &Arc<str>) {
        let instance = Instance {
            plugin: Arc::clone(&self.plugin),
            phases: self.kind.phases(),
            protocols: Protocols::ALL,
            scope: Arc::clone(scope),
            object: Arc::clone(&self.asked_for_by),
            configuration: 0,
        };
        builder.add(self.kind.name(), self.kind.priority(), Place::Base(Base::Global), instance);
    }
}

/// A plugin, and what there is to say about its configuration all the same.
pub type Built = (Arc<dyn Plugin>, Vec<Invalid>);

impl Workshop {
    /// One whose plugins reach nobody: to check configurations.
    pub fn offline(registry: Registry) -> Self {
        let services = Arc::new(NoServices);
        Workshop { registry, state: State::default(), services, node: "".into(), fail_open: false, builtin: None }
    }

    /// `object` is who configures it, for example `KongPlugin/default/limit`.
    pub fn build(&self, kind: &dyn AnyKind, object: &str, config: &Value) -> Result<Built, Vec<Invalid>> {
        let notes = Notes::default();
        let cx = BuildCx { object, state: &self.state, services: &self.services, node: &self.node, notes: &notes };
        let plugin = kind.build(config, &cx)?;
        Ok((plugin, notes.into_vec()))
    }
}

impl fmt::Debug for Workshop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Workshop").field("kinds", &self.registry).finish_non_exhaustive()
    }
}
