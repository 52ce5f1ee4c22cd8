//! One kind of plugin in a chain: its instances, and which of them requests select.

use std::collections::HashMap;
use std::sync::Arc;

use super::attachment::{BaseScope, Overlay};
use crate::plugin_api::identity::Identity;
use crate::plugin_api::instance::{ExecutionPlace, PluginInstance};

/// One kind of plugin in a chain.
#[derive(PartialEq)]
pub(super) struct ChainSlot {
    pub(super) place: ExecutionPlace,
    /// Where it runs in the access phase: its own place, or that of the plugin before which it was moved.
    pub(super) turn: ExecutionPlace,
    pub(super) instances: Vec<PluginInstance>,
    /// The instance for requests that no overlay matches.
    pub(super) base: Option<(BaseScope, InstanceIndex)>,
    /// The most specific overlay of each consumer, by the id of the consumer.
    pub(super) consumers: HashMap<Arc<str>, (Overlay, InstanceIndex)>,
    /// The overlays of groups with the name of the group, the most specific one first.
    pub(super) groups: Vec<(Overlay, Arc<str>, InstanceIndex)>,
}

/// Index of an instance in its slot. It has 32 bits because each of more than a hundred thousand consumers may have its
/// own instance.
pub(super) type InstanceIndex = u32;

impl ChainSlot {
    /// Whether its turn in the access phase is another one than its priority says.
    pub(super) fn is_moved(&self) -> bool {
        self.turn != self.place
    }

    /// The instances that some request selects.
    pub(super) fn selectable_instances(&self) -> impl Iterator<Item = &PluginInstance> {
        let base = self.base.iter().map(|(_, index)| self.instance_at(*index));
        base.chain(self.overlay_instances())
    }

    /// The instances that requests of some consumers or groups select.
    pub(super) fn overlay_instances(&self) -> impl Iterator<Item = &PluginInstance> {
        let overlays =
            self.consumers.values().map(|(_, index)| index).chain(self.groups.iter().map(|(.., index)| index));
        overlays.map(|index| self.instance_at(*index))
    }

    pub(super) fn instance_at(&self, index: InstanceIndex) -> &PluginInstance {
        &self.instances[index as usize]
    }

    /// The most specific instance of the rule for the consumer or one of the groups of the request.
    pub(super) fn overlay(&self, identity: &Identity) -> Option<InstanceIndex> {
        if self.consumers.is_empty() && self.groups.is_empty() {
            return None;
        }
        let for_consumer = identity.consumer.as_ref().and_then(|consumer| self.consumers.get(&*consumer.id)).copied();
        let of_request = identity.consumer_groups();
        let for_group = self.groups.iter().find(|(_, group, _)| of_request.binary_search(group).is_ok());
        let for_group = for_group.map(|(overlay, _, index)| (*overlay, *index));
        for_consumer.into_iter().chain(for_group).min().map(|(_, index)| index)
    }

    pub(super) fn attachments(&self) -> Vec<(String, &Arc<str>)> {
        let object = |index: InstanceIndex| &self.instance_at(index).object;
        let base = self.base.map(|(base, index)| (format!("{base:?}").to_lowercase(), object(index)));
        let mut consumers: Vec<_> = self
            .consumers
            .iter()
            .map(|(consumer, (overlay, index))| (format!("{overlay:?} {consumer}"), object(*index)))
            .collect();
        consumers.sort();
        let groups = self.groups.iter().map(|(overlay, group, index)| (format!("{overlay:?} {group}"), object(*index)));
        consumers.into_iter().chain(groups).chain(base).collect()
    }
}
