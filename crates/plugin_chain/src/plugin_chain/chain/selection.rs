//! Selects the instances that run for one request, in the order of execution: those of the rule, and those of its
//! consumer as soon as the consumer is known.

use std::cmp::Ordering;
use std::sync::Arc;

use smallvec::SmallVec;

use super::Chain;
use super::selected::{SelectedInstance, SelectedPlugin, SelectionProgress, slot_number};
use super::slot::ChainSlot;
use super::state::ChainState;
use crate::plugin_api::consumers::plugins::{ConsumerPlugin, RequestConsumerPlugins};
use crate::plugin_api::identity::Identity;
use crate::plugin_api::instance::{ExecutionPlace, PluginInstance};

impl Chain {
    /// Selects the next instance that runs for a request. `None` if there are no more.
    ///
    /// The consumer's plugins are considered from the place that the selection has reached: a plugin whose turn was
    /// before the consumer became known does not run.
    pub(super) fn select_next<'p>(
        &self,
        progress: &mut SelectionProgress,
        of_consumer: &RequestConsumerPlugins<'p>,
        identity: &Identity,
    ) -> Option<SelectedPlugin<'p>> {
        while !progress.is_complete {
            let slot = self.slots.get(progress.slots);
            // Most requests are not of a consumer with plugins of its own.
            let plugin = if of_consumer.is_empty() { None } else { self.next_of_consumer(progress, of_consumer) };
            let (slot, plugin) = match (slot, plugin) {
                (None, None) => break,
                (Some(slot), Some(plugin)) if slot.is_moved() => match slot.turn.cmp(&plugin.place) {
                    Ordering::Less | Ordering::Equal => (Some(slot), of_consumer.at(slot.place)),
                    Ordering::Greater => (None, Some(plugin)),
                },
                (Some(slot), Some(plugin)) => match slot.place.cmp(&plugin.place) {
                    Ordering::Less => (Some(slot), None),
                    Ordering::Equal => (Some(slot), Some(plugin)),
                    Ordering::Greater => (None, Some(plugin)),
                },
                only_one => only_one,
            };
            let index = slot_number(progress.slots);
            // A plugin that was moved says nothing about the plugins between its turn and its place.
            if !slot.is_some_and(ChainSlot::is_moved) {
                progress.place = slot.map(|slot| slot.place).or(plugin.map(|plugin| plugin.place));
            }
            progress.slots += usize::from(slot.is_some());
            let overlay = slot.filter(|_| identity.may_have_plugins()).and_then(|slot| slot.overlay(identity));
            let selected = match (overlay, plugin) {
                (Some(overlay), _) => Some(SelectedPlugin::OfRule(index, overlay)),
                (None, Some(plugin)) => Some(SelectedPlugin::OfConsumer(plugin)),
                (None, None) => {
                    let base = slot.and_then(|slot| slot.base);
                    base.map(|(_, base)| SelectedPlugin::OfRule(index, base))
                }
            };
            if selected.is_some() {
                return selected;
            }
        }
        progress.is_complete = true;
        None
    }

    /// The next plugin of the consumer whose turn is not over.
    fn next_of_consumer<'p>(
        &self,
        progress: &mut SelectionProgress,
        of_consumer: &RequestConsumerPlugins<'p>,
    ) -> Option<&'p Arc<ConsumerPlugin>> {
        loop {
            let plugin = of_consumer.next_after(progress.place)?;
            let is_over = |slot: &ChainSlot| slot.is_moved() && slot.place == plugin.place;
            if !self.is_reordered || !self.slots[..progress.slots].iter().any(is_over) {
                return Some(plugin);
            }
            progress.place = Some(plugin.place);
        }
    }

    /// The positions of these instances in the order of their priorities. `None` if they already have that order.
    pub(super) fn order_by_priority(&self, selected: &[SelectedInstance]) -> Option<SmallVec<[u16; 12]>> {
        if !self.is_reordered {
            return None;
        }
        let mut order: SmallVec<[u16; 12]> = (0..selected.len()).map(slot_number).collect();
        order.sort_by_key(|index| self.place(selected[usize::from(*index)].as_selection()));
        Some(order)
    }

    /// The place of a selected instance by its priority.
    pub(super) fn place(&self, selected: SelectedPlugin<'_>) -> ExecutionPlace {
        match selected {
            SelectedPlugin::OfRule(slot, _) => self.slots[usize::from(slot)].place,
            SelectedPlugin::OfConsumer(plugin) => plugin.place,
        }
    }

    /// Selects the instances that `access` did not reach, because a plugin replied or the request was aborted. Not
    /// needed once the selection is complete.
    pub(super) fn select_rest(&self, state: &ChainState) -> SmallVec<[SelectedInstance; 12]> {
        let mut progress = state.progress.clone();
        let mut of_consumer = RequestConsumerPlugins::default();
        // The request may have been aborted while the plugin waited that identified the consumer.
        let identity = self.consumer_scope.restricted(&state.identity);
        let Identity { consumer, found_consumer_groups, .. } = &*identity;
        of_consumer.look_up(state.consumer_plugins.as_deref(), consumer.as_ref(), found_consumer_groups);
        let next = || self.select_next(&mut progress, &of_consumer, &identity);
        std::iter::from_fn(next).map(SelectedInstance::from).collect()
    }

    /// A selected instance with its kind.
    pub(super) fn instance<'p>(&'p self, selected: SelectedPlugin<'p>) -> (&'static str, &'p PluginInstance) {
        match selected {
            SelectedPlugin::OfRule(slot, index) => {
                let slot = &self.slots[usize::from(slot)];
                (slot.place.kind, slot.instance_at(index))
            }
            SelectedPlugin::OfConsumer(plugin) => (plugin.place.kind, &plugin.instance),
        }
    }
}
