//! One object that configures a plugin, and the plugin that is built from it.

use std::sync::Arc;

use serde_json::Value;

use super::configuration;
use super::custom_entities::{self, BuiltWithEntities, EntityProblems};
use super::hidden_values::{self, Origin, Placeholder};
use super::ordering;
use super::protocols;
use super::unsupported_plugins;
use super::vault_values::VaultResolver;
use crate::api::kong::PluginSettings;
use crate::api::{Meta, ObjectId, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::verdicts::rejected_objects::rejected;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::assertions::Assertions;
use crate::plugin_api::consumers::plugins::ConsumerPlugin;
use crate::plugin_api::instance::{ExecutionPlace, PluginInstance};
use crate::plugin_api::vault::VaultQuery;
use crate::plugin_api::{AnyPluginKind, Plugin, Scopes};
use crate::plugin_chain::chain::{AccessOrdering, BrokenPlugin};

/// The plugin built from an object.
pub(super) struct CompiledPlugin {
    /// `None` if Portico does not have the plugin.
    pub(super) kind: Option<&'static dyn AnyPluginKind>,
    pub(super) name: String,
    pub(super) config: Value,
    /// A hash of the configuration. It is equal in all processes, and does not reveal the secrets in the configuration.
    pub(super) configuration_hash: u64,
    /// `Err` if the plugin cannot be used; `problems` then has the reasons.
    pub(super) plugin: Result<Arc<dyn Plugin>, ()>,
    /// What the plugin asserts toward endpoints.
    pub(super) assertions: Option<Arc<Assertions>>,
    /// Errors, including those about settings that are in effect in Kong, but not here.
    pub(super) problems: Vec<Diagnostic>,
    /// Warnings about settings that have no effect in Kong either, and about the size of the object.
    pub(super) ineffective_in_kong: Vec<Diagnostic>,
    /// What Secrets and vaults have contributed to the configuration.
    pub(super) origins: Vec<Origin>,
    /// Warnings about a valid configuration, from building the plugin.
    pub(super) notes: Vec<Diagnostic>,
    /// Whether it runs for requests: it is neither disabled nor only for streams. An inactive plugin replaces no other
    /// instance.
    pub(super) is_active: bool,
    pub(super) stream_use: StreamUse,
    /// Before and after which plugins it runs.
    pub(super) ordering: Option<Arc<AccessOrdering>>,
    /// What must be read from servers of vaults. `None` if the configuration refers to no vault.
    pub(super) vault_queries: Option<Vec<Arc<VaultQuery>>>,
    /// Whether the object is larger than an object may be, so that its configuration is unknown.
    pub(super) is_oversized: bool,
    /// Whether the object was rejected, so that its configuration is unknown. If its plugin is unknown too, `name` is
    /// empty.
    pub(super) is_rejected: bool,
    /// The object that configures it, such as `KongPlugin/default/limit`.
    pub(super) object: Arc<str>,
    /// The KongCustomEntities that belong to it.
    pub(super) entities: EntityProblems,
    /// What runs on all routes for the consumers and groups that refer to it. `None` if nothing does.
    pub(super) for_subjects: Option<Arc<ConsumerPlugin>>,
}

/// Whether a plugin is for the connections of TCPRoutes and TLSRoutes and the sessions of UDPRoutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamUse {
    /// It is disabled.
    Disabled,
    /// `protocols` has protocols of requests only.
    RequestsOnly,
    /// `protocols` is not set.
    Unspecified,
    /// `protocols` has a stream protocol, or an unknown name, which may be meant as one. As in Kong, the plugin then
    /// runs for those of all stream protocols.
    Streams,
}

impl StreamUse {
    fn of(settings: &PluginSettings) -> Self {
        match () {
            () if settings.disabled => StreamUse::Disabled,
            () if settings.protocols.is_empty() => StreamUse::Unspecified,
            () if settings.protocols.iter().all(|name| protocols::is_of_http(name)) => StreamUse::RequestsOnly,
            () => StreamUse::Streams,
        }
    }
}

impl CompiledPlugin {
    /// Whether requests must not be served without the plugin. An unknown plugin is treated as a guard unless it is
    /// known to be harmless, and so is one whose configuration is unknown.
    pub(super) fn is_guard(&self) -> bool {
        self.is_oversized
            || self.kind.map_or_else(|| unsupported_plugins::may_guard(&self.name), AnyPluginKind::fails_closed)
    }

    /// Why the plugin cannot be used: what follows its name in messages, and the remedy.
    pub(super) fn unusable(&self) -> (&'static str, &'static str) {
        (if self.is_rejected { "was rejected" } else { "cannot be used" }, "fix the error reported for it")
    }

    /// Whether it is unknown which plugin this is.
    pub(super) fn has_unknown_kind(&self) -> bool {
        self.is_rejected && self.name.is_empty()
    }

    pub(super) fn scopes(&self) -> Scopes {
        self.kind.map_or(Scopes::ALL, AnyPluginKind::scopes)
    }

    /// An instance with this scope, and when it runs. `None` if the plugin cannot be used.
    pub(super) fn usable_instance(&self, counter_scope: &Arc<str>) -> Option<(ExecutionPlace, PluginInstance)> {
        let (kind, plugin) = self.kind.zip(self.plugin.as_ref().ok())?;
        let instance = PluginInstance {
            plugin: Arc::clone(plugin),
            phases: kind.phases(),
            scope: Arc::clone(counter_scope),
            object: Arc::clone(&self.object),
            configuration_hash: self.configuration_hash,
            first_backend: 0,
            assertions: self.assertions.clone(),
        };
        Some((ExecutionPlace { kind: kind.name(), priority: kind.priority() }, instance))
    }
}

impl std::fmt::Debug for CompiledPlugin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Omit the configuration, which may contain values from Secrets.
        formatter
            .debug_struct("CompiledPlugin")
            .field("object", &self.object)
            .field("problems", &self.problems)
            .finish()
    }
}

/// Builds the plugin of an object, or keeps the one before if its configuration did not change.
pub(super) fn compile_plugin(
    cx: CompileContext<'_>,
    id: &ObjectId,
    meta: &Meta,
    settings: &PluginSettings,
    before: Option<CompiledPlugin>,
) -> CompiledPlugin {
    let object: Arc<str> = format!("{}/{}", id.kind, meta.key).into();
    let kind = cx.inputs.plugin_factory.registry.find(&settings.plugin);
    let mut compiled = CompiledPlugin {
        kind,
        name: settings.plugin.clone(),
        config: Value::Null,
        configuration_hash: 0,
        plugin: Err(()),
        assertions: None,
        problems: Vec::new(),
        ineffective_in_kong: ineffective_in_kong(settings),
        origins: Vec::new(),
        notes: Vec::new(),
        is_active: !settings.disabled,
        stream_use: StreamUse::of(settings),
        ordering: None,
        vault_queries: None,
        is_oversized: false,
        is_rejected: false,
        object,
        entities: EntityProblems::new(),
        for_subjects: None,
    };
    let limits = cx.inputs.budgets;
    if let Some(problem) = limits.size_problem(cx.store, id.kind, &meta.key) {
        compiled.is_oversized = problem.is_error();
        if compiled.is_oversized { &mut compiled.problems } else { &mut compiled.ineffective_in_kong }.push(problem);
    }
    if compiled.is_oversized {
        return compiled;
    }
    if cx.store.is_rejected(id) {
        compiled.is_rejected = true;
        compiled.is_active &= !protocols::are_only_of_streams(settings);
        compiled.problems.push(rejected());
        return compiled;
    }
    let Some(kind) = kind else {
        compiled
            .problems
            .push(unsupported_plugins::unknown_plugin(&settings.plugin, &cx.inputs.plugin_factory.registry));
        return compiled;
    };
    let unsupported = protocols::unsupported(kind, settings);
    if !unsupported.is_empty() {
        compiled.problems.extend(unsupported);
        report_unused_configuration(cx, meta, settings, kind, &mut compiled);
        return compiled;
    }
    if protocols::are_only_of_streams(settings) {
        compiled.problems.extend((!kind.runs_for_streams()).then(|| protocols::problem_of_streams(kind)));
        compiled.is_active = false;
    }
    match ordering::parse(settings, kind, &cx.inputs.plugin_factory.registry) {
        Ok(ordering) => compiled.ordering = ordering,
        Err(problems) => {
            compiled.problems.extend(problems);
            return compiled;
        }
    }
    let max_secret_values = cx.inputs.budgets.max_secret_values();
    match configuration::build(cx.store, &meta.key, settings, max_secret_values) {
        Err(problem) => compiled.problems.push(problem),
        Ok((config, origins)) => {
            compiled.origins = origins;
            build_plugin(cx, id, settings, kind, config, before, &mut compiled);
        }
    }
    compiled.assertions = compiled.plugin.as_ref().ok().and_then(|plugin| plugin.assertions());
    compiled
}

/// Reports the errors in the configuration of a plugin that is not used.
fn report_unused_configuration(
    cx: CompileContext<'_>,
    meta: &Meta,
    settings: &PluginSettings,
    kind: &'static dyn AnyPluginKind,
    compiled: &mut CompiledPlugin,
) {
    let max_secret_values = cx.inputs.budgets.max_secret_values();
    let config = configuration::build(cx.store, &meta.key, settings, max_secret_values);
    let config = config.and_then(|(mut config, mut origins)| {
        let resolved = VaultResolver::new(cx, max_secret_values).resolve(&mut config, "config");
        origins.extend(resolved.origins);
        resolved.problem.map_or(Ok((config, origins, resolved.is_unknown)), Err)
    });
    let built = match config {
        // Values of vaults are not known, so the configuration is not checked further.
        Ok((_, _, true)) => return,
        Ok((config, origins, false)) => {
            let without_values = |placeholder: Placeholder<'_>| {
                let mut config = own_configuration(cx, &meta.key, settings, placeholder)?;
                placeholder.fill_vaults(&mut config);
                Some(config)
            };
            let factory = &cx.inputs.plugin_factory;
            hidden_values::build(factory, kind, &compiled.object, &config, &origins, &without_values)
        }
        Err(problem) => Err(vec![problem]),
    };
    compiled.problems.extend(built.err().unwrap_or_default());
}

/// The configuration with placeholders in place of what Secrets contribute. References to vaults stay as they are.
fn own_configuration(
    cx: CompileContext<'_>,
    owner: &ObjectKey,
    settings: &PluginSettings,
    placeholder: Placeholder<'_>,
) -> Option<Value> {
    let max_secret_values = cx.inputs.budgets.max_secret_values();
    let mut fill = |origin: Origin, value: Value| placeholder.fill(&value, &origin);
    configuration::build_with(cx.store, owner, settings, max_secret_values, &mut fill).ok()
}

/// Builds a plugin from its configuration and the entities that belong to it, or keeps the one before.
fn build_plugin(
    cx: CompileContext<'_>,
    id: &ObjectId,
    settings: &PluginSettings,
    kind: &'static dyn AnyPluginKind,
    mut config: Value,
    before: Option<CompiledPlugin>,
    compiled: &mut CompiledPlugin,
) {
    let mut resolver = VaultResolver::new(cx, cx.inputs.budgets.max_secret_values());
    let resolved = resolver.resolve(&mut config, "config");
    let entities = custom_entities::of_plugin(cx, id, kind);
    let mut with_fields = custom_entities::resolve(&entities, &mut resolver);
    with_fields.queries.extend(resolved.queries);
    compiled.origins.extend(resolved.origins);
    let has_references = resolved.has_references || with_fields.has_references;
    compiled.vault_queries = has_references.then(|| std::mem::take(&mut with_fields.queries));
    if let Some(problem) = resolved.problem {
        return compiled.problems.push(problem);
    }
    if let Some(entity) = with_fields.unresolved.filter(|_| kind.fails_closed()) {
        compiled.problems.push(custom_entities::unresolved_of_guard(entity));
        compiled.entities = with_fields.problems;
        return;
    }
    if resolved.is_unknown || with_fields.is_unknown {
        let message = "values of vaults are known only while Portico runs, so the plugin is not checked further";
        compiled.notes.push(Diagnostic::warning("config", message, ""));
        compiled.plugin = Ok(BrokenPlugin::with_message("the values of vaults are not known".to_owned()));
        // They are not checked further either.
        compiled.entities = with_fields.problems;
        compiled.entities.extend(with_fields.usable.into_iter().map(|entity| (entity.key.clone(), Vec::new())));
        return;
    }
    let hash = configuration::configuration_hash(cx.store, &id.key, settings);
    compiled.configuration_hash = custom_entities::configuration_hash(hash, &entities);
    // Keep the plugin if its configuration did not change, so that it keeps its state.
    let is_unchanged =
        |before: &CompiledPlugin| before.name == compiled.name && before.config == config && before.entities.is_empty();
    let unchanged = before.filter(|before| entities.is_empty() && is_unchanged(before));
    if let Some(CompiledPlugin { plugin: Ok(plugin), notes, .. }) = unchanged {
        compiled.plugin = Ok(plugin);
        compiled.notes = notes;
        compiled.config = config;
        return;
    }
    let BuiltWithEntities { built, config, problems } =
        custom_entities::build(cx, kind, &compiled.object, config, with_fields, &compiled.origins, &|placeholder| {
            own_configuration(cx, &id.key, settings, placeholder)
        });
    compiled.entities = problems;
    match built {
        Ok((plugin, notes)) => {
            compiled.plugin = Ok(plugin);
            compiled.notes = notes;
            compiled.config = config;
        }
        Err(invalid) => compiled.problems.extend(invalid),
    }
}

/// Warnings about settings that have no effect in Kong either.
fn ineffective_in_kong(settings: &PluginSettings) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
    if settings.consumer_ref.is_some() {
        let remedy = "refer to the plugin in the annotation konghq.com/plugins of the KongConsumer";
        warnings.push(Diagnostic::warning("consumerRef", "it has no effect, as in Kong", remedy));
    }
    if settings.run_on.as_deref().is_some_and(|side| side != "first") {
        warnings.push(Diagnostic::warning("run_on", "it has no effect, as in Kong", "remove it"));
    }
    warnings
}
