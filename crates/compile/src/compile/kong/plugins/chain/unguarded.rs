//! Services whose own plugins do not run for requests that they get: those that get copies of requests, or that plugins
//! choose.

use super::super::plugin_site::PluginSite;
use super::super::plugins_of_rule::GLOBAL_COUNTERS;
use super::super::references;
use super::super::rejecting_guard::{self, UNKNOWN};
use super::assembler::ChainAssembler;
use crate::api::{Kind, Meta, ObjectKey};
use crate::plugin_api::AnyPluginKind;
use crate::plugin_chain::chain::{AttachmentPoint, BaseScope};

/// Rejects requests of which a Service would get copies without its own guards, and fails Services that plugins choose
/// for the same reason. A guard that also runs for the rule is one that holds.
pub(super) fn reject(assembler: &mut ChainAssembler<'_>, mirrors: &[(String, &Meta)]) {
    for (field, service) in mirrors {
        let Some(guard) = missing_guard(assembler, service) else { continue };
        assembler.diagnostics.field.clone_from(field);
        let message = format!("{guard} guards Service {}, and does not run for copies of requests", service.key);
        let remedy = "attach it to the route, too, or mirror to another Service";
        assembler.diagnostics.report_rejection(format!("{message}, so requests get status 503"), remedy);
        let scope = GLOBAL_COUNTERS.into();
        let (place, instance) = rejecting_guard::in_place_of_unknown(guard.into(), &scope, message);
        assembler.add_instance(place, AttachmentPoint::Base(BaseScope::Route), instance);
    }
    for (index, service) in assembler.chosen.services().into_iter().enumerate() {
        let service = service.and_then(|key| assembler.cx.store.services.get(&key));
        let Some(service) = service else { continue };
        let Some(guard) = missing_guard(assembler, &service.meta) else { continue };
        assembler.chosen.fail(index);
        assembler.diagnostics.field.clear();
        let message = format!(
            "{guard} guards Service {}, which a plugin chooses, and does not run for requests of the rule, so they get \
             status 503",
            service.meta.key
        );
        assembler.diagnostics.report_rejection(message, "attach it to the route, too");
    }
}

/// A guard in the annotation of a Service that does not run for all requests of the rule.
fn missing_guard(assembler: &ChainAssembler<'_>, service: &Meta) -> Option<String> {
    let references = references::references_within_budget(assembler.cx, Kind::Service, service);
    references.into_iter().find_map(|reference| {
        let id = match reference.target {
            Ok(id) => id,
            // It may have been a guard.
            Err(_) => {
                let may_be_missing = assembler.cx.inputs.plugin_factory.fail_open;
                return (!may_be_missing).then_some(format!("plugin {}", reference.token));
            }
        };
        let compiled = assembler.plugins.plugins.get(&id).filter(|compiled| compiled.is_active)?;
        let points = [BaseScope::Route, BaseScope::Service, BaseScope::Global].map(AttachmentPoint::Base);
        let kind = compiled.kind.map_or(UNKNOWN, AnyPluginKind::name);
        let runs = points.iter().any(|point| assembler.builder.attached_at(kind, point) == Some(&compiled.object));
        (assembler.must_reject(compiled) && !runs).then(|| compiled.object.to_string())
    })
}

/// The backends of other namespaces that may get requests of the rule, or copies of them, and whose plugins decide by
/// consumers.
pub(super) fn judging_consumers(assembler: &ChainAssembler<'_>, site: &PluginSite<'_>) -> Vec<(Kind, ObjectKey)> {
    let mirrors = site.mirrors.iter().map(|(_, service)| (Kind::Service, *service));
    let chosen = assembler.chosen.services();
    let chosen = chosen.iter().flatten().filter_map(|key| assembler.cx.store.services.get(key));
    let chosen = chosen.map(|service| (Kind::Service, &service.meta));
    let services = site.backends.iter().copied().chain(mirrors).chain(chosen);
    let of_others = services.filter(|(_, meta)| meta.key.namespace != site.meta.key.namespace);
    let judging = of_others.filter(|(kind, meta)| judges_consumers(assembler, *kind, meta));
    judging.map(|(kind, meta)| (kind, meta.key.clone())).collect()
}

/// Whether plugins of a backend decide by consumers which requests pass.
fn judges_consumers(assembler: &ChainAssembler<'_>, kind: Kind, backend: &Meta) -> bool {
    references::references_within_budget(assembler.cx, kind, backend).into_iter().any(|reference| {
        let plugin = reference.target.ok().and_then(|id| assembler.plugins.plugins.get(&id));
        let active = plugin.filter(|plugin| plugin.is_active);
        active.and_then(|plugin| plugin.kind).is_some_and(|kind| kind.judges_consumers())
    })
}
