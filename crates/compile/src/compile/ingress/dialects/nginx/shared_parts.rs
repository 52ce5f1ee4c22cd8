//! What the locations of an Ingress share: steps and guards, each once for each configuration. Those of the plan before
//! are kept, so that equal rules are known to be equal.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::compile::CompileContext;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::assertions::Assertions;
use crate::plugin_api::consumers::{Sha256Digest, sha256};
use crate::plugin_api::instance::{ExecutionPlace, PluginInstance};
use crate::plugin_api::{AnyPluginKind, Plugin};
use crate::snapshot::location_steps::LocationSteps;

/// The configuration of a guard.
#[derive(Clone)]
pub(super) struct GuardConfig {
    value: Arc<Value>,
    /// Reveals nothing of the secrets in the configuration.
    digest: Sha256Digest,
}

impl GuardConfig {
    pub(super) fn new(value: Value) -> Self {
        GuardConfig { digest: sha256(value.to_string().as_bytes()), value: Arc::new(value) }
    }
}

/// Omits the value, which may contain secrets.
impl std::fmt::Debug for GuardConfig {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("GuardConfig")
    }
}

/// A guard, without its configuration.
struct BuiltGuard {
    kind: &'static dyn AnyPluginKind,
    digest: Sha256Digest,
    plugin: Arc<dyn Plugin>,
    assertions: Option<Arc<Assertions>>,
    notes: Vec<Diagnostic>,
}

impl std::fmt::Debug for BuiltGuard {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("BuiltGuard").field("kind", &self.kind.name()).finish_non_exhaustive()
    }
}

/// The parts of the locations of one Ingress.
#[derive(Debug, Default)]
pub(in crate::compile::ingress) struct SharedParts {
    /// By what distinguishes those of most locations, if anything does.
    steps: BTreeMap<Arc<str>, Vec<Arc<LocationSteps>>>,
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
        let path = steps.snippets.as_ref().map(|snippets| Arc::clone(&snippets.names.path)).unwrap_or_default();
        let before = self.before.and_then(|parts| parts.steps.get(&path));
        let own = self.parts.steps.entry(path).or_default();
        if let Some(known) = own.iter().find(|known| ***known == steps) {
            return Arc::clone(known);
        }
        let known = before.into_iter().flatten().find(|known| ***known == steps).map(Arc::clone);
        let steps = known.unwrap_or_else(|| Arc::new(steps));
        own.push(Arc::clone(&steps));
        steps
    }

    /// A guard for the chains of rules. `scope`: the rule.
    pub(super) fn guard_instance(
        &mut self,
        kind: &str,
        config: &GuardConfig,
        scope: &Arc<str>,
    ) -> Result<(ExecutionPlace, PluginInstance), Vec<Diagnostic>> {
        let guard = self.guard(kind, config)?;
        let instance = PluginInstance {
            plugin: Arc::clone(&guard.plugin),
            phases: guard.kind.phases(),
            scope: Arc::clone(scope),
            object: Arc::clone(&self.object),
            configuration_hash: guard.digest.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte)),
            first_backend: 0,
            assertions: guard.assertions.clone(),
        };
        Ok((ExecutionPlace { kind: guard.kind.name(), priority: guard.kind.priority() }, instance))
    }

    fn guard(&mut self, kind: &str, config: &GuardConfig) -> Result<Arc<BuiltGuard>, Vec<Diagnostic>> {
        let is_same = |guard: &&Arc<BuiltGuard>| guard.kind.name() == kind && guard.digest == config.digest;
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

    fn build(&self, kind: &str, config: &GuardConfig) -> Result<BuiltGuard, Vec<Diagnostic>> {
        let factory = &self.cx.inputs.plugin_factory;
        let Some(kind) = factory.registry.find_internal(kind) else {
            let message = format!("{kind} is not a part of this program, so requests get status 503");
            return Err(vec![Diagnostic::of_object(message, "use a complete release of Portico")]);
        };
        let (plugin, notes) = factory.build(kind, &self.object, &config.value)?;
        Ok(BuiltGuard { kind, digest: config.digest, assertions: plugin.assertions(), plugin, notes })
    }

    /// What is to say about valid configurations.
    pub(super) fn notes(&self) -> impl Iterator<Item = &Diagnostic> {
        self.parts.guards.iter().flat_map(|guard| &guard.notes)
    }
}
