//! What the plugins of a chain assert toward endpoints, and how requests lose what their clients sent in its place.
//!
//! ```text
//!   begin ────────────▶ asserted fields of the client go, except those that contain credentials
//!   plugins ──────────▶ RequestCx::assert_field sets fields
//!   before the turn of the first plugin that reads no credentials ─▶ settle: what no plugin has asserted goes
//! ```

use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use super::Chain;
use super::selected::{SelectedInstance, Selection};
use super::slot::ChainSlot;
use crate::plugin_api::assertions::{Assertions, FieldsOfClient};

/// The union of what all instances of a chain assert, those for consumers and groups included.
pub(super) struct ChainAssertions {
    all: Arc<Assertions>,
    /// The last slot with a plugin that reads credentials, or asserts a field that may contain some.
    last_slot: usize,
}

/// How far a request has lost what its client has sent in place of what plugins assert.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum AssertionStage {
    #[default]
    NotBegun,
    /// Fields with credentials may still be those of the client.
    Begun,
    Settled,
}

impl ChainAssertions {
    /// `None` if no plugin asserts anything.
    pub(super) fn of(slots: &[ChainSlot]) -> Option<ChainAssertions> {
        let of_slot = |slot: &ChainSlot| slot.selectable_instances().filter_map(|of| of.assertions.clone()).collect();
        let instances = slots.iter().flat_map(ChainSlot::selectable_instances);
        let renamed: Vec<_> = instances.flat_map(|instance| instance.plugin.renamed_fields()).collect();
        let slots: Vec<Vec<Arc<Assertions>>> = slots.iter().map(of_slot).collect();
        let all = slots.iter().flatten().cloned().reduce(|union, other| Assertions::union(&union, &other))?;
        let all = all.with_new_names(&renamed);
        let concerns_credentials = |assertions: &Arc<Assertions>| {
            !assertions.read.is_empty()
                || !assertions.hidden_cookies.is_empty()
                || all.kept_fields().any(|name| assertions.fields.contains(name))
        };
        let last_slot = slots.iter().rposition(|of_slot| of_slot.iter().any(concerns_credentials));
        Some(ChainAssertions { last_slot: last_slot.unwrap_or_default(), all })
    }

    /// Removes what the client has sent, except credentials. Returns those of them that are asserted.
    pub(super) fn begin(&self, headers: &mut HeaderMap) -> FieldsOfClient {
        // The locations of credentials are few, and most are not asserted.
        self.all.fields.remove_from(headers, |name| self.all.read.contains(name));
        self.all.kept_fields().filter(|name| headers.contains_key(*name)).cloned().collect()
    }

    /// Removes what the client has sent and no plugin has asserted.
    pub(super) fn settle(&self, headers: &mut HeaderMap, of_client: &mut FieldsOfClient) {
        for name in of_client.drain(..) {
            headers.remove(name);
        }
        self.all.hide_cookies(headers);
    }
}

impl Chain {
    /// Whether a plugin of the chain asserts this field.
    pub fn asserts(&self, name: &HeaderName) -> bool {
        self.asserted.as_ref().is_some_and(|asserted| asserted.all.fields.contains(name))
    }

    /// Whether a plugin of the chain may find a credential in this field.
    pub fn reads_credential(&self, name: &HeaderName) -> bool {
        self.asserted.as_ref().is_some_and(|asserted| asserted.all.read.contains(name))
    }

    /// Whether no plugin reads credentials any more, from this one on. `slots`: how many had their turn, with its own.
    pub(super) fn is_past_credentials(&self, slots: usize, selected: Selection<'_>) -> bool {
        let last_slot = self.asserted.as_ref().map_or(0, |asserted| asserted.last_slot);
        slots > last_slot && self.place(selected) != self.slots[last_slot].place
    }

    /// Removes what the client has sent in fields that a plugin asserts which only the consumer or a group has. What
    /// plugins of the chain assert is theirs, and so is what other such plugins have asserted before.
    pub(super) fn begin_of_consumer(
        &self,
        assertions: &Assertions,
        selected_before: &[SelectedInstance],
        stage: AssertionStage,
        headers: &mut HeaderMap,
        of_client: &mut FieldsOfClient,
    ) {
        let is_of_other = |selected: &SelectedInstance, name: &HeaderName| match selected {
            SelectedInstance::OfConsumer(plugin) => {
                plugin.instance.assertions.as_ref().is_some_and(|other| other.fields.contains(name))
            }
            SelectedInstance::OfRule(..) => false,
        };
        let is_asserted =
            |name: &HeaderName| self.asserts(name) || selected_before.iter().any(|other| is_of_other(other, name));
        // A plugin of the chain may still need it.
        let is_read = |name: &HeaderName| stage == AssertionStage::Begun && self.reads_credential(name);
        let is_kept = |name: &HeaderName| assertions.fields.contains(name) && !is_asserted(name) && is_read(name);
        of_client.extend(headers.keys().filter(|name| is_kept(name)).cloned());
        assertions.fields.remove_from(headers, |name| is_asserted(name) || is_read(name));
    }
}
