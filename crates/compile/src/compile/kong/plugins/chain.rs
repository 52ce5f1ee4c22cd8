//! Builds the plugin chain of one rule from the plugins that apply to it.
//!
//! ```text
//!   plugins_of_rule.rs ─▶ chain/assembler.rs: an instance of each ─▶ ChainBuilder ─▶ Chain
//!                                 └ chain/unguarded.rs: Services whose guards do not run
//! ```

mod assembler;
mod diagnostics;
mod unguarded;

use std::sync::Arc;

use super::chosen_backends::{ChosenBackends, ChosenService};
use super::plugin_site::PluginSite;
use super::plugins_of_rule::{self, GLOBAL_COUNTERS};
use super::{Plugins, consumer_grants, route_description};
use crate::compile::CompileContext;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::RouteNames;
use crate::plugin_api::instance::{ExecutionPlace, PluginInstance};
use crate::plugin_chain::Chain;
use crate::plugin_chain::chain::{AttachmentPoint, BaseScope, ChainBuilder};
use crate::verdict::Code;
use crate::verdict::unique_diagnostics::UniqueDiagnostics;
use assembler::ChainAssembler;
pub(super) use assembler::duplicate_message;

/// What the chain of a rule begins with, and no object configures.
#[derive(Default)]
pub(in crate::compile) struct OwnParts {
    pub instances: Vec<(ExecutionPlace, PluginInstance)>,
    /// What they may choose in place of the backends of the rule, before all that plugins may choose.
    pub chosen: Option<ChosenService>,
}

/// The chain of a rule, with diagnostics for the route.
#[derive(Debug, Default)]
pub(in crate::compile) struct RuleChain {
    pub chain: Option<Arc<Chain>>,
    /// What plugins of the chain may choose in place of the backends of the rule.
    pub chosen: ChosenBackends,
    /// Whether a plugin is attached to the rule or globally.
    pub is_attached: bool,
    /// Diagnostics about plugins because of which requests get status 503, each with the code for the route.
    pub rejections: Vec<(Code, Diagnostic)>,
    /// Diagnostics about other unresolved references and unusable plugins, each with the consequence for requests.
    pub diagnostics: Vec<Diagnostic>,
}

impl RuleChain {
    /// Adds the diagnostics to `diagnostics`, which has those of other rules, without duplicates. Returns the chain.
    pub(in crate::compile) fn report_into(self, diagnostics: &mut UniqueDiagnostics) -> Option<Arc<Chain>> {
        diagnostics.extend(self.rejections.into_iter().map(|(_, problem)| problem));
        diagnostics.extend(self.diagnostics);
        self.chain
    }
}

impl Plugins {
    /// Builds the chain of a rule.
    pub(in crate::compile) fn chain(&self, cx: CompileContext<'_>, site: &PluginSite<'_>) -> RuleChain {
        self.chain_after(cx, site, OwnParts::default())
    }

    /// Builds the chain of a rule, with instances that no object configures.
    pub(in crate::compile) fn chain_after(
        &self,
        cx: CompileContext<'_>,
        site: &PluginSite<'_>,
        own: OwnParts,
    ) -> RuleChain {
        let mut assembler = ChainAssembler::new(self, cx, site);
        assembler.chosen.extend(own.chosen);
        plugins_of_rule::for_each_reference(&self.global_plugins, cx, site, |object, target, token| {
            assembler.attach(object, target, token);
        });
        // Diagnostics about the plugins below have no field.
        assembler.diagnostics.field.clear();
        for id in &self.global_plugins.ambiguous {
            assembler.reject_ambiguous(id);
        }
        unguarded::reject(&mut assembler, site.mirrors);
        let is_attached = !assembler.builder.is_empty();
        for (place, instance) in own.instances {
            assembler.add_instance(place, AttachmentPoint::Base(BaseScope::Route), instance);
        }
        if let Some(builtin) = &cx.inputs.plugin_factory.builtin {
            builtin.add_to(&mut assembler.builder, &GLOBAL_COUNTERS.into());
        }
        assembler.report_contradictory_order();
        if assembler.builder.needs_description() {
            let facts = (site.facts)();
            let PluginSite { kind, meta, backends, names, .. } = site;
            assembler.builder.describe(route_description::describe(*kind, meta, backends, names, &facts));
        }
        if !assembler.builder.is_empty() && !cx.inputs.plugin_factory.shares_consumers {
            let guarded = unguarded::judging_consumers(&assembler, site);
            let guarded = guarded.iter().map(|(kind, key)| (*kind, key));
            let scope = consumer_grants::scope(cx.store, guarded.chain([(site.kind, &site.meta.key)]));
            assembler.builder.limit_consumers(scope);
        }
        let chain = std::mem::take(&mut assembler.builder).build(Arc::clone(&site.names));
        assembler.report_further_replacements(chain.as_deref());
        let ChainAssembler { chosen, diagnostics, .. } = assembler;
        let (rejections, diagnostics) = diagnostics.into_parts();
        RuleChain { is_attached, chain, chosen, rejections, diagnostics }
    }

    /// The chain of responses to requests that no rule matches: the global plugins that run for them.
    pub(in crate::compile) fn unmatched_chain(&self) -> Option<Arc<Chain>> {
        let mut builder = ChainBuilder::default();
        let scope: Arc<str> = GLOBAL_COUNTERS.into();
        for compiled in self.global_plugins.global.iter().filter_map(|id| self.plugins.get(id)) {
            let usable = compiled.usable_instance(&scope).filter(|_| compiled.is_active);
            let Some((place, instance)) = usable else { continue };
            if instance.plugin.serves_unmatched() {
                builder.add(place.kind, place.priority, AttachmentPoint::Base(BaseScope::Global), instance);
            }
        }
        builder.build(Arc::new(RouteNames::default()))
    }
}

#[cfg(test)]
mod tests;
