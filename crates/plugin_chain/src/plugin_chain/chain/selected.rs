//! What was selected for one request: how far the selection is, and the instances.

use std::sync::Arc;

use super::slot::InstanceIndex;
use crate::plugin_api::consumers::plugins::ConsumerPlugin;
use crate::plugin_api::instance::ExecutionPlace;

/// How far the plugins of a request are selected.
#[derive(Clone, Default)]
pub(super) struct SelectionProgress {
    /// Number of slots of the rule whose instance is selected.
    pub(super) slots: usize,
    /// The last place at which an instance was selected, or none was found.
    pub(super) place: Option<ExecutionPlace>,
    pub(super) is_complete: bool,
}

/// An instance that runs for a request.
#[derive(Clone, Copy)]
pub(super) enum SelectedPlugin<'p> {
    /// Of the rule: indexes of its slot and in its slot.
    OfRule(u16, InstanceIndex),
    OfConsumer(&'p Arc<ConsumerPlugin>),
}

/// A [`SelectedPlugin`] that is kept until the last phase of the request.
pub(super) enum SelectedInstance {
    OfRule(u16, InstanceIndex),
    OfConsumer(Arc<ConsumerPlugin>),
}

impl SelectedInstance {
    pub(super) fn as_selection(&self) -> SelectedPlugin<'_> {
        match self {
            SelectedInstance::OfRule(slot, index) => SelectedPlugin::OfRule(*slot, *index),
            SelectedInstance::OfConsumer(plugin) => SelectedPlugin::OfConsumer(plugin),
        }
    }
}

impl From<SelectedPlugin<'_>> for SelectedInstance {
    fn from(selection: SelectedPlugin<'_>) -> Self {
        match selection {
            SelectedPlugin::OfRule(slot, index) => SelectedInstance::OfRule(slot, index),
            SelectedPlugin::OfConsumer(plugin) => SelectedInstance::OfConsumer(Arc::clone(plugin)),
        }
    }
}

/// The index of a slot of the rule, or of a selected instance, in 16 bits. The latter is also the number under which a
/// plugin stores its data for a request.
pub(super) fn slot_number(index: usize) -> u16 {
    u16::try_from(index).expect("there is one slot and one selected instance of each kind, and fewer than 2^16 kinds")
}
