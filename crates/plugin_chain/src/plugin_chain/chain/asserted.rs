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
use super::selected::{SelectedInstance, SelectedPlugin};
use super::slot::ChainSlot;
use crate::plugin_api::assertions::{AssertedFields, Assertions, FieldsOfClient};
use crate::plugin_api::instance::PluginInstance;

/// The union of what all instances of a chain assert, those for consumers and groups included.
pub(super) struct ChainAssertions {
    all: Arc<Assertions>,
    /// The fields that instances of the chain rename, with their new names.
    renamed: Box<[(HeaderName, HeaderName)]>,
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
        let renamed: Vec<_> = instances.flat_map(|instance| instance.plugin.renamed_fields()).cloned().collect();
        let slots: Vec<Vec<Arc<Assertions>>> = slots.iter().map(of_slot).collect();
        let all = slots.iter().flatten().cloned().reduce(|union, other| Assertions::union(&union, &other))?;
        let all = all.with_new_names(&renamed);
        let concerns_credentials = |assertions: &Arc<Assertions>| {
            !assertions.read.is_empty()
                || !assertions.hidden_cookies.is_empty()
                || all.kept_fields().any(|name| assertions.fields.contains(name))
        };
        let last_slot = slots.iter().rposition(|of_slot| of_slot.iter().any(concerns_credentials));
        Some(ChainAssertions { last_slot: last_slot.unwrap_or_default(), all, renamed: renamed.into() })
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
    pub(super) fn is_past_credentials(&self, slots: usize, selected: SelectedPlugin<'_>) -> bool {
        let last_slot = self.asserted.as_ref().map_or(0, |asserted| asserted.last_slot);
        slots > last_slot && self.place(selected) != self.slots[last_slot].place
    }

    /// Removes what the client has sent in fields that begin to be asserted with a plugin which only the consumer or a
    /// group has: those that it asserts, and the new names of asserted fields. What plugins of the chain assert is
    /// theirs, and so is what other such plugins have asserted before.
    pub(super) fn begin_of_consumer(
        &self,
        instance: &PluginInstance,
        selected_before: &[SelectedInstance],
        stage: AssertionStage,
        headers: &mut HeaderMap,
        of_client: &mut FieldsOfClient,
    ) {
        if instance.assertions.is_none() && instance.plugin.renamed_fields().is_empty() {
            return;
        }
        let others = selected_before.iter().filter_map(instance_of_consumer);
        let fields = self.asserted_in_addition(others.clone().chain([instance]));
        let before = self.asserted_in_addition(others);
        // A plugin of the chain may still need it.
        let is_read = |name: &HeaderName| stage == AssertionStage::Begun && self.reads_credential(name);
        let is_kept = |name: &HeaderName| fields.contains(name) && !before.contains(name) && is_read(name);
        of_client.extend(headers.keys().filter(|name| is_kept(name)).cloned());
        fields.remove_from(headers, |name| before.contains(name) || is_read(name));
    }

    /// What these instances of consumers and groups assert in addition to the chain, with the new names of asserted
    /// fields that they or the chain rename.
    fn asserted_in_addition<'i>(&self, instances: impl Iterator<Item = &'i PluginInstance> + Clone) -> AssertedFields {
        let is_asserted = |fields: &AssertedFields, name: &HeaderName| self.asserts(name) || fields.contains(name);
        let mut fields = AssertedFields::default();
        for assertions in instances.clone().filter_map(|instance| instance.assertions.as_ref()) {
            fields.add_all(assertions.fields.names().iter().filter(|name| !self.asserts(name)));
        }
        let of_chain = self.asserted.iter().flat_map(|asserted| asserted.renamed.iter());
        let renamed = instances.flat_map(|instance| instance.plugin.renamed_fields()).chain(of_chain);
        // A new name may be renamed again.
        while let Some((_, new)) =
            renamed.clone().find(|(old, new)| is_asserted(&fields, old) && !is_asserted(&fields, new))
        {
            fields.add(new);
        }
        fields
    }
}

fn instance_of_consumer(selected: &SelectedInstance) -> Option<&PluginInstance> {
    match selected {
        SelectedInstance::OfConsumer(plugin) => Some(&plugin.instance),
        SelectedInstance::OfRule(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::plugin_api::changed_fields::ChangedFields;
    use crate::plugin_api::consumers::plugins::{ConsumerPlugin, PluginSubject};
    use crate::plugin_api::consumers::{Consumer, ConsumerDirectory};
    use crate::plugin_api::instance::ExecutionPlace;
    use crate::plugin_api::{AccessOutcome, Plugin, RequestCx};
    use crate::plugin_chain::chain::{AttachmentPoint, BaseScope, ChainBuilder};
    use crate::plugin_chain::testing::{TestRequest, consumer, global_instance, names};

    const USER: HeaderName = HeaderName::from_static("x-user");

    /// Authenticates all clients as this consumer, and asserts the name of those that send the field `known`.
    struct AssertUser(Arc<Consumer>);

    impl Plugin for AssertUser {
        fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
            cx.identity.consumer = Some(Arc::clone(&self.0));
            if cx.head.headers.contains_key("known") {
                cx.assert_field(&USER, HeaderValue::from_static("anna"));
            }
            AccessOutcome::Continue
        }

        fn declare_assertions(&self, assertions: &mut Assertions) {
            assertions.fields.add(&USER);
        }
    }

    struct Rename(Vec<(HeaderName, HeaderName)>);

    impl Rename {
        fn new(names: &[(&'static str, &'static str)]) -> Arc<Self> {
            let name = HeaderName::from_static;
            Arc::new(Rename(names.iter().map(|(old, new)| (name(old), name(new))).collect()))
        }
    }

    impl Plugin for Rename {
        fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
            for (old, new) in &self.0 {
                if let Some(value) = cx.head.headers.remove(old) {
                    cx.head.headers.insert(new.clone(), value);
                }
            }
            AccessOutcome::Continue
        }

        fn renamed_fields(&self) -> &[(HeaderName, HeaderName)] {
            &self.0
        }

        fn declare_fields(&self, fields: &mut ChangedFields) {
            fields.request.add_all(self.0.iter().flat_map(|(old, new)| [old, new]));
        }
    }

    fn of_consumer(kind: &'static str, priority: i32, plugin: Arc<dyn Plugin>) -> Arc<ConsumerPlugin> {
        let place = ExecutionPlace { kind, priority };
        Arc::new(ConsumerPlugin { place, instance: global_instance(plugin) })
    }

    #[tokio::test]
    async fn fields_that_a_plugin_of_the_consumer_renames_cannot_come_from_the_client() {
        let anna = consumer("anna", &[]);
        let mut directory = ConsumerDirectory::default();
        let plugins = [
            of_consumer("first", 8, Rename::new(&[("x-user", "x-name"), ("x-other", "x-free")])),
            of_consumer("second", 7, Rename::new(&[("x_name", "x-copy")])),
        ];
        directory.set_plugins(&PluginSubject::Consumer((&*anna.id).into()), plugins.into_iter().collect());
        let mut builder = ChainBuilder::default();
        let at_route = || AttachmentPoint::Base(BaseScope::Route);
        builder.add("auth", 9, at_route(), global_instance(Arc::new(AssertUser(anna))));
        builder.add("last", 1, at_route(), global_instance(Rename::new(&[("x-copy", "x-last")])));
        let chain = builder.build(names()).unwrap();
        let forged = ["x-user", "x-name", "x_name", "x-copy", "x-last", "x-free"];
        let request = forged.into_iter().fold(TestRequest::get("/"), |request, name| request.header(name, "forged"));
        let outcome = request.with_consumers(&directory).run(&chain).await;
        let received: Vec<&str> = forged.into_iter().filter(|name| outcome.upstream_header(name).is_some()).collect();
        assert_eq!(received, ["x-free"], "no plugin asserts it");
        let request = TestRequest::get("/").header("known", "1").header("x-name", "forged");
        let outcome = request.with_consumers(&directory).run(&chain).await;
        assert_eq!(outcome.upstream_header("x-name"), Some("anna"), "what the plugin renames stays");
    }
}
