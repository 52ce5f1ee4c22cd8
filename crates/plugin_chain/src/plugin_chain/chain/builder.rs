//! Collects the instances of a chain, and puts them into slots in execution order.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::asserted::ChainAssertions;
use super::attachment::{AttachmentPoint, BaseScope, Overlay};
use super::consumer_scope::ConsumerScope;
use super::ordering::{AccessOrdering, Orderings};
use super::slot::{ChainSlot, InstanceIndex};
use super::{Chain, LogFacts};
use crate::plugin_api::Plugin;
use crate::plugin_api::changed_fields::ChangedFields;
use crate::plugin_api::completed_request::CredentialLocations;
use crate::plugin_api::context::RouteNames;
use crate::plugin_api::instance::{ExecutionPlace, PluginInstance};
use crate::plugin_api::kind::Phases;
use crate::plugin_api::route_description::RouteDescription;

/// Collects the instances of a chain.
#[derive(Default)]
pub struct ChainBuilder {
    pub(super) slots: Vec<ChainSlot>,
    description: Option<RouteDescription>,
    orderings: Orderings,
    consumer_scope: ConsumerScope,
}

impl ChainBuilder {
    /// Whether a plugin of this kind with this scope would not run, because one with a more specific scope does.
    pub fn is_overridden(&self, kind: &str, base: BaseScope) -> bool {
        let slot = self.slots.iter().find(|slot| slot.place.kind == kind);
        slot.and_then(|slot| slot.base).is_some_and(|(existing, _)| existing < base)
    }

    /// The object whose plugin of this kind is attached at exactly this point.
    pub fn attached_at(&self, kind: &str, point: &AttachmentPoint) -> Option<&Arc<str>> {
        let slot = self.slots.iter().find(|slot| slot.place.kind == kind)?;
        let index = match point {
            AttachmentPoint::Base(base) => slot.base.filter(|(existing, _)| existing == base)?.1,
            AttachmentPoint::Consumer(id, scope) => {
                let attached = slot.consumers.get(id);
                attached.filter(|(existing, _)| *existing == Overlay::for_consumer(*scope))?.1
            }
            AttachmentPoint::Group(name, scope) => {
                let overlay = Overlay::for_group(*scope);
                slot.groups.iter().find(|(existing, group, _)| *existing == overlay && group == name)?.2
            }
        };
        slot.instances.get(usize::try_from(index).ok()?).map(|instance| &instance.object)
    }

    /// Adds an instance. If two instances have the same attachment point, the first one wins.
    pub fn add(&mut self, kind: &'static str, priority: i32, point: AttachmentPoint, instance: PluginInstance) {
        let slot = match self.slots.iter().position(|slot| slot.place.kind == kind) {
            Some(index) => &mut self.slots[index],
            None => {
                let (instances, groups) = (Vec::new(), Vec::new());
                let place = ExecutionPlace { kind, priority };
                let consumers = HashMap::new();
                self.slots.push(ChainSlot { place, turn: place, instances, base: None, consumers, groups });
                let last = self.slots.len() - 1;
                &mut self.slots[last]
            }
        };
        // An instance that is added for many consumers in a row is stored once.
        let is_stored = slot.instances.last().is_some_and(|last| *last == instance);
        let index = slot.instances.len() - usize::from(is_stored);
        let index = InstanceIndex::try_from(index).expect("2^32 instances do not fit into memory");
        let is_used = match point {
            AttachmentPoint::Base(base) => {
                let is_more_specific = slot.base.is_none_or(|(existing, _)| base < existing);
                if is_more_specific {
                    slot.base = Some((base, index));
                }
                is_more_specific
            }
            AttachmentPoint::Consumer(id, scope) => {
                let overlay = Overlay::for_consumer(scope);
                let is_more_specific = slot.consumers.get(&id).is_none_or(|(existing, _)| overlay < *existing);
                if is_more_specific {
                    slot.consumers.insert(id, (overlay, index));
                }
                is_more_specific
            }
            AttachmentPoint::Group(name, scope) => {
                let overlay = Overlay::for_group(scope);
                let is_new = !slot.groups.iter().any(|(existing, group, _)| *existing == overlay && *group == name);
                if is_new {
                    slot.groups.push((overlay, name, index));
                    slot.groups.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
                }
                is_new
            }
        };
        // An instance that a more specific one replaces later remains stored and is never selected.
        if is_used && !is_stored {
            slot.instances.push(instance);
        }
    }

    /// Sets before and after which plugins an instance with this scope runs in the access phase.
    pub fn order(&mut self, kind: &'static str, base: BaseScope, ordering: Option<&Arc<AccessOrdering>>) {
        self.orderings.add(kind, base, ordering);
    }

    /// The plugins whose orderings contradict each other. The chain then ignores all orderings.
    pub fn contradictory_order(&self) -> Option<Vec<&'static str>> {
        let mut places: Vec<_> = self.slots.iter().map(|slot| slot.place).collect();
        places.sort();
        self.orderings.access_order(&places).err()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether a plugin may read the description of the route and the service: a plugin of the chain, or one of a
    /// consumer that a plugin of the chain authenticates.
    pub fn needs_description(&self) -> bool {
        let reads = |plugin: &Arc<dyn Plugin>| plugin.logs_heads() || plugin.reads_description();
        self.plugins().any(|plugin| reads(plugin) || plugin.credential_locations().is_some())
    }

    /// Sets whose consumers may use the rule. Unless it is called, those of all namespaces may.
    pub fn limit_consumers(&mut self, scope: ConsumerScope) {
        self.consumer_scope = scope;
    }

    /// Sets the route and the service as log plugins write them. Only needed if [`ChainBuilder::needs_description`].
    pub fn describe(&mut self, description: RouteDescription) {
        self.description = Some(description);
    }

    fn plugins(&self) -> impl Iterator<Item = &Arc<dyn Plugin>> {
        self.slots.iter().flat_map(|slot| &slot.instances).map(|instance| &instance.plugin)
    }

    fn log_facts(&mut self, names: &RouteNames) -> Option<Box<LogFacts>> {
        if !self.needs_description() {
            return None;
        }
        let mut credentials = CredentialLocations::default();
        for locations in self.plugins().filter_map(|plugin| plugin.credential_locations()) {
            credentials.add(locations);
        }
        let description =
            self.description.take().unwrap_or_else(|| RouteDescription::from_names(&names.route, &names.service));
        Some(Box::new(LogFacts { description, credentials }))
    }

    /// The chain, with its slots in execution order. `None` if no instance was added.
    pub fn build(mut self, names: Arc<RouteNames>) -> Option<Arc<Chain>> {
        if self.slots.is_empty() {
            return None;
        }
        self.slots.sort_by_key(|slot| slot.place);
        let is_reordered = self.orderings.arrange(&mut self.slots);
        // Instances for only a consumer or group are not in the chain. The body for them is read when the consumer is
        // known, so that the bodies of others are not buffered.
        let mut body_readers: Vec<Arc<dyn Plugin>> = Vec::new();
        for instance in self.slots.iter().flat_map(ChainSlot::selectable_instances) {
            let is_last = body_readers.last().is_some_and(|last| Arc::ptr_eq(last, &instance.plugin));
            if instance.plugin.body_buffer_limit().is_some() && !is_last {
                body_readers.push(Arc::clone(&instance.plugin));
            }
        }
        let body_buffer_limit = body_readers.iter().filter_map(|plugin| plugin.body_buffer_limit()).max();
        let base_instances = self.slots.iter().filter_map(|slot| Some(slot.instance_at(slot.base?.1)));
        let sets_request_id = base_instances.into_iter().any(|instance| instance.plugin.sets_request_id());
        let requests_client_certificate = self.plugins().any(|plugin| plugin.requests_client_certificate());
        let logs_heads = self.plugins().any(|plugin| plugin.logs_heads());
        let reads_request_line = self.plugins().any(|plugin| plugin.reads_request_line());
        let names = Arc::new(RouteNames { content: content(&names, &self.slots), ..RouteNames::clone(&names) });
        let log_facts = self.log_facts(&names);
        let phases = self.slots.iter().flat_map(|slot| &slot.instances).map(|instance| instance.phases);
        let phases = phases.fold(Phases::default(), Phases::or);
        let may_wait = self.slots.iter().flat_map(|slot| &slot.instances).any(PluginInstance::may_wait);
        let checks_passwords = self.plugins().any(|plugin| plugin.checks_passwords());
        let mut fields_of_overlays = ChangedFields::default();
        for instance in self.slots.iter().flat_map(ChainSlot::overlay_instances) {
            instance.declare_fields(&mut fields_of_overlays);
        }
        let fields_of_overlays = (!fields_of_overlays.is_empty()).then(|| Box::new(fields_of_overlays));
        let asserted = ChainAssertions::of(&self.slots);
        let (slots, body_readers) = (self.slots.into(), body_readers.into());
        Some(Arc::new(Chain {
            names,
            slots,
            consumer_scope: self.consumer_scope,
            is_reordered,
            phases,
            may_wait,
            checks_passwords,
            body_buffer_limit,
            sets_request_id,
            requests_client_certificate,
            body_readers,
            asserted,
            fields_of_overlays,
            reads_request_line,
            logs_heads,
            log_facts,
        }))
    }
}

/// The content of a rule with those plugins of its chain that decide about requests or change them. The others see or
/// change each response, also a stored one.
fn content(names: &RouteNames, slots: &[ChainSlot]) -> u64 {
    // `DefaultHasher` has no random seed.
    let mut hasher = DefaultHasher::new();
    names.content.hash(&mut hasher);
    let is_before_response = |phases: Phases| phases.access || phases.before_forward || phases.replace_backend;
    let instances = slots.iter().flat_map(|slot| slot.instances.iter().map(|instance| (slot.place.kind, instance)));
    for (kind, instance) in instances.filter(|(_, instance)| is_before_response(instance.phases)) {
        (kind, &instance.object, instance.configuration_hash).hash(&mut hasher);
    }
    hasher.finish()
}
