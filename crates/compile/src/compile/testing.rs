//! Inputs of the compiler for tests and benchmarks, which have no control loop that owns them.

use std::collections::BTreeSet;

use crate::api::Kind;
use crate::api::names::GATEWAY_CONTROLLER;
use crate::compile::addresses::GatewayAddresses;
use crate::compile::{Budgets, Classes, CompileContext, CompileInputs, Compiled, Compiler, IngressSettings};
use crate::plugin_api::PluginRegistry;
use crate::plugin_chain::PluginFactory;
use crate::store::{Changes, Store};
use crate::upstream::UpstreamRegistry;

/// Everything that [`CompileInputs`] borrows. Tests change the fields that matter to them.
#[derive(Debug)]
pub struct TestInputs {
    pub controllers: Vec<String>,
    pub addresses: GatewayAddresses,
    pub upstreams: UpstreamRegistry,
    pub classes: Classes,
    pub plugin_factory: PluginFactory,
    pub unreadable_kinds: BTreeSet<Kind>,
    pub absent_kinds: BTreeSet<Kind>,
    pub ingress: IngressSettings,
    pub budgets: Budgets,
}

impl TestInputs {
    /// Portico's own controller and classes, no addresses, no Ingress listeners, and plugins without network access.
    pub fn new(registry: PluginRegistry) -> Self {
        TestInputs {
            controllers: vec![GATEWAY_CONTROLLER.to_owned()],
            addresses: GatewayAddresses::default(),
            upstreams: UpstreamRegistry::default(),
            classes: Classes::default(),
            plugin_factory: PluginFactory::offline(registry),
            unreadable_kinds: BTreeSet::new(),
            absent_kinds: BTreeSet::new(),
            ingress: IngressSettings::default(),
            budgets: Budgets::default(),
        }
    }

    pub(crate) fn as_inputs(&self) -> CompileInputs<'_> {
        CompileInputs {
            controllers: &self.controllers,
            addresses: &self.addresses,
            upstreams: &self.upstreams,
            classes: &self.classes,
            plugin_factory: &self.plugin_factory,
            unreadable_kinds: &self.unreadable_kinds,
            absent_kinds: &self.absent_kinds,
            ingress: &self.ingress,
            budgets: &self.budgets,
        }
    }

    /// Compiles with these inputs.
    pub fn compile(&self, compiler: &mut Compiler, store: &Store, changes: &Changes) -> Compiled {
        compiler.compile(CompileContext::new(store, &self.as_inputs()), changes)
    }
}
