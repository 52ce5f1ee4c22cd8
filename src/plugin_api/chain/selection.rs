//! Selects the instances that run for one request, in the order of execution: those of the rule, and those of its
//! consumer as soon as the consumer is known.

use std::cmp::Ordering;

use smallvec::SmallVec;

use super::Chain;
use super::selected::{SelectedInstance, Selection, SelectionProgress, slot_number};
use super::state::ChainState;
use crate::plugin_api::Identity;
use crate::plugin_api::consumers::plugins::RequestConsumerPlugins;
use crate::plugin_api::instance::PluginInstance;

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
    ) -> Option<Selection<'p>> {
        while !progress.is_complete {
            let slot = self.slots.get(progress.slots);
            // Most requests are not of a consumer with plugins of its own.
            let plugin = if of_consumer.is_empty() { None } else { of_consumer.next_after(progress.place) };
            let (slot, plugin) = match (slot, plugin) {
                (None, None) => break,
                (Some(slot), Some(plugin)) => match slot.place.cmp(&plugin.place) {
                    Ordering::Less => (Some(slot), None),
                    Ordering::Equal => (Some(slot), Some(plugin)),
                    Ordering::Greater => (None, Some(plugin)),
                },
                only_one => only_one,
            };
            let index = slot_number(progress.slots);
            progress.place = slot.map(|slot| slot.place).or(plugin.map(|plugin| plugin.place));
            progress.slots += usize::from(slot.is_some());
            let overlay = slot.zip(identity.consumer.as_ref()).and_then(|(slot, consumer)| slot.overlay(consumer));
            let selected = match (overlay, plugin) {
                (Some(overlay), _) => Some(Selection::OfRule(index, overlay)),
                (None, Some(plugin)) => Some(Selection::OfConsumer(plugin)),
                (None, None) => {
                    let base = slot.and_then(|slot| slot.base);
                    base.map(|(_, base)| Selection::OfRule(index, base))
                }
            };
            if selected.is_some() {
                return selected;
            }
        }
        progress.is_complete = true;
        None
    }

    /// Selects the instances that `access` did not reach, because a plugin replied or the request was aborted. Not
    /// needed once the selection is complete.
    pub(super) fn select_rest(&self, state: &ChainState) -> SmallVec<[SelectedInstance; 12]> {
        let mut progress = state.progress.clone();
        let mut of_consumer = RequestConsumerPlugins::default();
        of_consumer.look_up(state.consumer_plugins.as_deref(), state.identity.consumer.as_ref());
        let next = || self.select_next(&mut progress, &of_consumer, &state.identity);
        std::iter::from_fn(next).map(SelectedInstance::from).collect()
    }

    /// A selected instance with its kind.
    pub(super) fn instance<'p>(&'p self, selected: Selection<'p>) -> (&'static str, &'p PluginInstance) {
        match selected {
            Selection::OfRule(slot, index) => {
                let slot = &self.slots[usize::from(slot)];
                (slot.place.kind, slot.instance_at(index))
            }
            Selection::OfConsumer(plugin) => (plugin.place.kind, &plugin.instance),
        }
    }
}
