//! What the locations of an Ingress share: steps and guards, each once for each configuration. Those of the plan before
//! are kept, so that equal rules are known to be equal.

use std::sync::Arc;

use serde_json::Value;

use crate::compile::CompileContext;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::assertions::Assertions;
use crate::plugin_api::consumers::sha256;
use crate::plugin_api::instance::{ExecutionPlace, PluginInstance};
use crate::plugin_api::{AnyPluginKind, Plugin};
use crate::snapshot::location_steps::LocationSteps;

/// A guard with its configuration.
struct BuiltGuard {
    kind: &'static dyn AnyPluginKind,
    config: Value,
    /// Reveals nothing of the secrets in the configuration.
    configuration_hash: u64,
    plugin: Arc<dyn Plugin>,
    assertions: Option<Arc<Assertions>>,
    notes: Vec<Diagnostic>,
}

/// Omits the configuration, which may contain secrets.
impl std::fmt::Debug for BuiltGuard {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("BuiltGuard").field("kind", &self.kind.name()).finish_non_exhaustive()
    }
}

/// The parts of the locations of one Ingress.
#[derive(Debug, Default)]
pub(in crate::compile::ingress) struct SharedParts {
    steps: Vec<Arc<LocationSteps>>,
    guards: Vec<Arc<BuiltGuard>>,
}

/// Collects the parts of one Ingress.
pub(super) struct PartBuilder<'a> {
    cx: CompileContext<'a>,
    /// `Ingress/default/shop`
    object: Arc<str>,
    before: Option<&'a SharedParts>,
    parts: SharedParts,
}

impl<'a> PartBuilder<'a> {
    /// `before`: the parts of the plan before.
    pub(super) fn new(cx: CompileContext<'a>, object: Arc<str>, before: Option<&'a SharedParts>) -> Self {
        PartBuilder { cx, object, before, parts: SharedParts::default() }
    }

    pub(super) fn into_parts(self) -> SharedParts {
        self.parts
    }

    /// The steps of a location.
    pub(super) fn steps(&mut self, steps: LocationSteps) -> Arc<LocationSteps> {
        let before = self.before.map(|parts| &*parts.steps).unwrap_or_default();
        let known = self.parts.steps.iter().chain(before).find(|known| ***known == steps).map(Arc::clone);
        let steps = known.unwrap_or_else(|| Arc::new(steps));
        if !self.parts.steps.iter().any(|known| Arc::ptr_eq(known, &steps)) {
            self.parts.steps.push(Arc::clone(&steps));
        }
        steps
    }

    /// A guard for the chains of rules. `scope`: the rule.
    pub(super) fn guard_instance(
        &mut self,
        kind: &str,
        config: &Value,
        scope: &Arc<str>,
    ) -> Result<(ExecutionPlace, PluginInstance), Vec<Diagnostic>> {
        let guard = self.guard(kind, config)?;
        let instance = PluginInstance {
            plugin: Arc::clone(&guard.plugin),
            phases: guard.kind.phases(),
            scope: Arc::clone(scope),
            object: Arc::clone(&self.object),
            configuration_hash: guard.configuration_hash,
            first_backend: 0,
            assertions: guard.assertions.clone(),
        };
        Ok((ExecutionPlace { kind: guard.kind.name(), priority: guard.kind.priority() }, instance))
    }

    fn guard(&mut self, kind: &str, config: &Value) -> Result<Arc<BuiltGuard>, Vec<Diagnostic>> {
        let is_same = |guard: &&Arc<BuiltGuard>| guard.kind.name() == kind && guard.config == *config;
        if let Some(known) = self.parts.guards.iter().find(is_same) {
            return Ok(Arc::clone(known));
        }
        let guard = match self.before.and_then(|before| before.guards.iter().find(is_same)) {
            Some(known) => Arc::clone(known),
            None => Arc::new(self.build(kind, config)?),
        };
        self.parts.guards.push(Arc::clone(&guard));
        Ok(guard)
    }

    fn build(&self, kind: &str, config: &Value) -> Result<BuiltGuard, Vec<Diagnostic>> {
        let factory = &self.cx.inputs.plugin_factory;
        let Some(kind) = factory.registry.find_internal(kind) else {
            let message = format!("{kind} is not a part of this program, so requests get status 503");
            return Err(vec![Diagnostic::of_object(message, "use a complete release of Portico")]);
        };
        let (plugin, notes) = factory.build(kind, &self.object, config)?;
        let mut hash = [0; 8];
        hash.copy_from_slice(&sha256(config.to_string().as_bytes())[..8]);
        Ok(BuiltGuard {
            kind,
            config: config.clone(),
            configuration_hash: u64::from_le_bytes(hash),
            assertions: plugin.assertions(),
            plugin,
            notes,
        })
    }

    /// What is to say about valid configurations.
    pub(super) fn notes(&self) -> impl Iterator<Item = &Diagnostic> {
        self.parts.guards.iter().flat_map(|guard| &guard.notes)
    }
}
