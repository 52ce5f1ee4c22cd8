//! Decides which plugins apply to a rule, and to which of its clients.
//!
//! The objects that attach plugins, in the order of precedence:
//!
//! ```text
//!   the route: first the names in its annotation, then the filters of the rule
//!   its Services and facades: the names in their annotations
//!   all routes: KongClusterPlugins with the label `global`, if no other one with the label has the same plugin
//! ```
//!
//! For each plugin that one of them attaches, the first of these holds:
//!
//! 1. It does not apply if it is switched off or is for streams only.
//! 2. It is misplaced if it does not support this kind of object, unless the fourth holds, too.
//! 3. It applies to some consumers and groups only, if these refer to it, too (`PluginReferrers::subjects`).
//! 4. It does not apply if an object of higher precedence attaches a plugin of the same kind.
//! 5. It applies to all clients. Of several plugins of one kind at one object, the first one runs.
//!
//! Which of the plugins that apply runs for a request is decided when its consumer is known: the precedence of
//! consumers and groups is in `crate::plugin_chain::chain`.

use std::sync::Arc;

use super::compiled_plugin::CompiledPlugin;
use super::plugin_site::PluginSite;
use super::references::{self, PluginReferrers, PluginSubjects, UnresolvedPlugin};
use super::{GlobalPlugins, Plugins};
use crate::api::kong::annotations::PLUGINS;
use crate::api::{Kind, ObjectId};
use crate::compile::CompileContext;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::plugin_api::Scopes;
use crate::plugin_chain::chain::{BaseScope, ChainBuilder, OverlayScope};

/// An object that attaches plugins to a rule: the route, one of its backends, or all routes.
pub(super) struct AttachingObject {
    pub(super) base: BaseScope,
    namespace: Arc<str>,
    /// The scope of counters of its plugins.
    pub(super) counter_scope: Arc<str>,
    /// The field with the reference, for diagnostics about the route.
    pub(super) field: String,
}

/// How a plugin applies to a rule.
pub(super) enum Application<'p> {
    /// It runs for all clients.
    ToAll(&'p CompiledPlugin),
    /// It runs for these consumers and groups only.
    ToSubjects(&'p CompiledPlugin, &'p PluginSubjects, OverlayScope),
    /// It does not support this kind of object.
    Misplaced(&'p CompiledPlugin),
}

/// Decides how a plugin applies that an object attaches. `None` if it does not. `attached`: the plugins of objects with
/// higher precedence, and those before this one of the same object.
pub(super) fn application<'p>(
    plugins: &'p Plugins,
    attached: &ChainBuilder,
    object: &AttachingObject,
    id: &ObjectId,
) -> Option<Application<'p>> {
    let compiled = plugins.plugins.get(id).filter(|compiled| compiled.is_active)?;
    let is_overridden = is_overridden(compiled, object.base, attached);
    if !supports_scope(compiled.scopes(), object.base) {
        return (!is_overridden).then_some(Application::Misplaced(compiled));
    }
    match overlay_scope(object.base).zip(subjects(plugins, object, id, compiled)) {
        Some((scope, subjects)) => Some(Application::ToSubjects(compiled, subjects, scope)),
        None => (!is_overridden).then_some(Application::ToAll(compiled)),
    }
}

/// The consumers and groups to which a plugin is restricted. An unknown plugin runs for all clients, because it may be
/// the one that authenticates them.
fn subjects<'p>(
    plugins: &'p Plugins,
    object: &AttachingObject,
    id: &ObjectId,
    compiled: &CompiledPlugin,
) -> Option<&'p PluginSubjects> {
    let referrers: &PluginReferrers = plugins.referrers.get(id).filter(|_| compiled.kind.is_some())?;
    referrers.subjects(&object.namespace)
}

/// The scope of a plugin for consumers and groups. Global plugins are for all of them.
fn overlay_scope(base: BaseScope) -> Option<OverlayScope> {
    match base {
        BaseScope::Route => Some(OverlayScope::Route),
        BaseScope::Service => Some(OverlayScope::Service),
        BaseScope::Global => None,
    }
}

/// Whether a plugin of the same kind with a more specific scope runs in place of this one.
pub(super) fn is_overridden(compiled: &CompiledPlugin, base: BaseScope, attached: &ChainBuilder) -> bool {
    compiled.kind.is_some_and(|kind| attached.is_overridden(kind.name(), base))
}

/// Whether a plugin supports being attached to an object of this kind.
pub(super) fn supports_scope(scopes: Scopes, base: BaseScope) -> bool {
    match base {
        BaseScope::Route => scopes.route,
        BaseScope::Service => scopes.service,
        BaseScope::Global => scopes.global,
    }
}

/// Passes all references to plugins of a rule to `attach`, in the order of precedence: the object with the reference,
/// the plugin to which it leads, and its text.
pub(super) fn for_each_reference(
    globals: &GlobalPlugins,
    cx: CompileContext<'_>,
    site: &PluginSite<'_>,
    mut attach: impl FnMut(&AttachingObject, Result<ObjectId, UnresolvedPlugin>, &str),
) {
    let mut route = AttachingObject {
        base: BaseScope::Route,
        namespace: Arc::clone(&site.meta.key.namespace),
        counter_scope: Arc::clone(&site.counter_scope),
        field: annotation_field(PLUGINS),
    };
    for reference in references::references_within_budget(cx, site.kind, site.meta) {
        attach(&route, reference.target, &reference.token);
    }
    for (key, field) in site.extensions {
        route.field.clone_from(field);
        attach(&route, Ok(ObjectId::new(Kind::KongPlugin, key.clone())), &key.name);
    }
    for (kind, meta) in site.backends {
        let backend = AttachingObject {
            base: BaseScope::Service,
            namespace: Arc::clone(&meta.key.namespace),
            counter_scope: format!("{kind}/{}", meta.key).into(),
            field: format!("{} of {kind} {}", annotation_field(PLUGINS), meta.key),
        };
        for reference in references::references_within_budget(cx, *kind, meta) {
            let at_backend = |(code, problem): UnresolvedPlugin| {
                let field = format!("{} of {kind} {}", problem.field, meta.key);
                (code, problem.at(field))
            };
            attach(&backend, reference.target.map_err(at_backend), &reference.token);
        }
    }
    let all_routes = AttachingObject {
        base: BaseScope::Global,
        namespace: "".into(),
        counter_scope: GLOBAL_COUNTERS.into(),
        field: String::new(),
    };
    for id in &globals.global {
        attach(&all_routes, Ok(id.clone()), &id.key.name);
    }
}

/// The scope of counters of plugins that all routes share.
pub(super) const GLOBAL_COUNTERS: &str = "global";
