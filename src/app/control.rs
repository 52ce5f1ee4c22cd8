//! State of the control loop: everything between a changed object and the served snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::addressing::GatewayAddressing;
use super::ingress::IngressConfig;
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::args::GatewayOptions;
use crate::compile::verdict::{Verdict, Verdicts};
use crate::compile::{self, CompileContext, CompileInputs, Compiler};
use crate::diagnostic::Diagnostic;
use crate::k8s::InstalledApis;
use crate::plugin_api::PluginFactory;
use crate::snapshot::{BindAddress, Snapshot};
use crate::status::{self, BindOutcome};
use crate::store::{Batch, Changes, Store};
use crate::upstream::{EndpointAddress, UpstreamRegistry};

/// Store, compiler and their inputs. Owned by one task; other tasks query that task.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) store: Store,
    /// Changes in the store that are not compiled yet.
    uncompiled: Changes,
    compiler: Compiler,
    pub(super) addressing: GatewayAddressing,
    controllers: Vec<String>,
    upstreams: Arc<UpstreamRegistry>,
    plugin_factory: PluginFactory,
    /// Class and settings of Ingresses, consumers and other Kong resources.
    ingresses: IngressConfig,
    snapshots: Arc<ArcSwap<Snapshot>>,
    /// Bind result of each address in the snapshot.
    binds: BTreeMap<BindAddress, BindOutcome>,
    /// Verdicts of the compiler, merged with `binds` and `installed`.
    verdicts: Verdicts,
    /// CRD versions in the cluster; `None` without a cluster.
    installed: Option<Arc<InstalledApis>>,
    /// Errors that running plugins report about the objects that configure them.
    plugin_diagnostics: BTreeMap<String, Diagnostic>,
    /// Previous verdicts of changed objects, since the last `take_verdict_changes`.
    previous_verdicts: BTreeMap<ObjectId, Option<Arc<Verdict>>>,
}

/// Changed verdicts, before and after.
#[derive(Debug, Default)]
pub(super) struct VerdictChanges {
    pub(super) before: Verdicts,
    pub(super) after: Verdicts,
}

/// Result of applying one batch.
#[derive(Clone, Debug, Default)]
pub(super) struct ApplySummary {
    pub(super) changes: usize,
    /// The first relevant objects, and the number of all relevant ones.
    pub(super) named_objects: Vec<ObjectId>,
    pub(super) relevant_objects: usize,
    /// A new snapshot was published.
    pub(super) swapped: bool,
    pub(super) routers_built: usize,
}

impl Control {
    pub(super) fn new(
        gateways: GatewayOptions,
        upstreams: Arc<UpstreamRegistry>,
        plugin_factory: PluginFactory,
        ingresses: IngressConfig,
        snapshots: Arc<ArcSwap<Snapshot>>,
    ) -> Self {
        Control {
            store: Store::default(),
            uncompiled: Changes::new(),
            compiler: Compiler::default(),
            addressing: GatewayAddressing::new(&gateways),
            controllers: gateways.controller_names.into_iter().collect(),
            upstreams,
            plugin_factory,
            ingresses,
            snapshots,
            binds: BTreeMap::new(),
            verdicts: Verdicts::new(),
            installed: None,
            plugin_diagnostics: BTreeMap::new(),
            previous_verdicts: BTreeMap::new(),
        }
    }

    /// Forbids backends at the admin listener's address. Must be called before anything is compiled.
    pub(super) fn forbid_admin_backend(&mut self, admin: SocketAddr) {
        self.compiler.set_admin_address(admin);
    }

    /// Applies a batch, compiles and publishes the snapshot.
    pub(super) fn apply(&mut self, batch: Batch) -> ApplySummary {
        self.stage(batch);
        self.compile()
    }

    /// Applies a batch to the store without compiling.
    pub(super) fn stage(&mut self, batch: Batch) {
        self.uncompiled.extend(self.store.apply(batch));
    }

    /// Whether `compile` has anything to do.
    pub(super) fn has_changes(&self) -> bool {
        !self.uncompiled.is_empty() || self.addressing.is_stale()
    }

    /// Compiles all pending changes and publishes the snapshot.
    pub(super) fn compile(&mut self) -> ApplySummary {
        let count = self.uncompiled.len();
        self.assign();
        let changes = std::mem::take(&mut self.uncompiled);
        let concerned = || changes.iter().filter(|id| self.is_relevant(id));
        let (named, concerned) = (concerned().take(MAX_NAMED_OBJECTS).cloned().collect(), concerned().count());
        let addresses = self.addressing.addresses();
        // With files as the only source, every kind is known.
        static NONE: BTreeSet<Kind> = BTreeSet::new();
        let unknown = self.installed.as_ref().map_or(&NONE, |installed| &installed.never_listed);
        let (controllers, upstreams, plugin_factory) = (&self.controllers, &self.upstreams, &self.plugin_factory);
        let IngressConfig { classes, settings: ingress } = &self.ingresses;
        let inputs = CompileInputs {
            controllers,
            addresses,
            upstreams,
            classes,
            plugin_factory,
            ingress,
            unreadable_kinds: unknown,
        };
        let compiled = self.compiler.compile(CompileContext { store: &self.store, inputs: &inputs }, &changes);

        // Endpoints before the swap, so that new routes never lack them.
        for (key, endpoints) in compiled.endpoints {
            self.upstreams.upstream(&key).set_endpoints(endpoints);
        }
        let swapped = !Arc::ptr_eq(&compiled.snapshot, &self.snapshots.load());
        if swapped {
            self.snapshots.store(compiled.snapshot);
        }
        // Upstreams are dropped after the swap, because requests use them until then.
        if let Some(used) = &compiled.used_upstreams {
            self.upstreams.retain(used);
        }
        for id in compiled.verdicts_changed {
            self.update_verdict(id);
        }
        ApplySummary {
            changes: count,
            named_objects: named,
            relevant_objects: concerned,
            swapped,
            routers_built: compiled.routers_built,
        }
    }

    /// Assigns addresses to Gateways as far as they are known, and publishes the Services they need.
    pub(super) fn assign(&mut self) {
        self.addressing.assign(&self.store, &self.controllers, &mut self.uncompiled);
    }

    /// Stores the results of binding addresses.
    pub(super) fn set_binds(&mut self, binds: BTreeMap<BindAddress, BindOutcome>) {
        if self.binds == binds {
            return;
        }
        self.binds = binds;
        let listens = |id: &&ObjectId| matches!(id.kind, Kind::Gateway | Kind::Ingress);
        let listening: Vec<_> = self.verdicts.keys().filter(listens).cloned().collect();
        for id in listening {
            self.update_verdict(id);
        }
    }

    /// Current endpoints of a port of a Service; `None` if the Service does not exist.
    pub(super) fn addresses(&self, service: &ObjectKey, port: u16) -> Option<Vec<EndpointAddress>> {
        self.compiler.addresses(&self.store, service, port)
    }

    /// Bind result of each listening address.
    pub(super) fn binds(&self) -> &BTreeMap<BindAddress, BindOutcome> {
        &self.binds
    }

    /// References to objects whose content is fetched only on demand.
    pub(super) fn wanted_objects(&self) -> BTreeSet<ObjectId> {
        let IngressConfig { classes, settings } = &self.ingresses;
        let mut references =
            self.store.referenced_bodies(|meta, field| classes.serves_object(&self.store, meta, field));
        references.extend(settings.default_secret.clone().map(|key| ObjectId::new(Kind::Secret, key)));
        references
    }

    /// Whether changes of an object are worth a log entry. A cluster has thousands of Services without a route, whose
    /// endpoints are irrelevant here.
    pub(super) fn is_relevant(&self, id: &ObjectId) -> bool {
        let refs = self.store.dependency_index();
        let routes = |id: &ObjectId| matches!(id.kind, Kind::HttpRoute | Kind::Ingress | Kind::KongServiceFacade);
        let is_routed_to = |service: &ObjectId| refs.dependents(service).any(routes);
        match id.kind {
            // Objects from files are always relevant.
            _ if self.installed.is_none() => true,
            Kind::Service => is_routed_to(id),
            Kind::EndpointSlice => self
                .store
                .services_referenced_by(id)
                .any(|service| is_routed_to(&ObjectId::new(Kind::Service, service))),
            _ => true,
        }
    }

    /// Whether GatewayClasses exist and all of them belong to this controller.
    pub(super) fn owns_all_gateway_classes(&self) -> bool {
        let classes = &self.store.gateway_classes;
        !classes.is_empty() && classes.values().all(|class| self.controllers.contains(&class.spec.controller_name))
    }

    /// Stores the CRD versions in the cluster.
    pub(super) fn set_installed(&mut self, installed: Arc<InstalledApis>) {
        let unknown = |installed: &InstalledApis| installed.never_listed.contains(&Kind::BackendTlsPolicy);
        if self.installed.as_deref().is_some_and(unknown) != unknown(&installed) {
            self.uncompiled.extend(self.store.services.keys().map(|key| ObjectId::new(Kind::Service, key.clone())));
        }
        self.installed = Some(installed);
        let classes: Vec<_> = self.verdicts.keys().filter(|id| id.kind == Kind::GatewayClass).cloned().collect();
        for id in classes {
            self.update_verdict(id);
        }
    }

    /// Stores the errors reported by running plugins.
    pub(super) fn set_plugin_diagnostics(&mut self, reported: BTreeMap<String, Diagnostic>) {
        let before = std::mem::replace(&mut self.plugin_diagnostics, reported);
        let concerned = |id: &&ObjectId| {
            let object = object_name(id);
            before.get(&object) != self.plugin_diagnostics.get(&object)
        };
        let mut concerned: BTreeSet<_> = self.verdicts.keys().filter(concerned).cloned().collect();
        let referrers: Vec<_> =
            concerned.iter().flat_map(|id| self.store.dependency_index().dependents(id)).cloned().collect();
        concerned.extend(referrers);
        for id in concerned {
            self.update_verdict(id);
        }
    }

    /// All current verdicts.
    pub(super) fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// Returns the changes since the last call.
    pub(super) fn take_verdict_changes(&mut self) -> VerdictChanges {
        let mut changes = VerdictChanges::default();
        for (id, before) in std::mem::take(&mut self.previous_verdicts) {
            let after = self.verdicts.get(&id).cloned();
            if before == after {
                continue;
            }
            if let Some(after) = after {
                changes.after.insert(id.clone(), after);
            }
            if let Some(before) = before {
                changes.before.insert(id, before);
            }
        }
        changes
    }

    fn update_verdict(&mut self, id: ObjectId) {
        let verdict = self.compiler.verdicts().get(&id).map(|verdict| {
            let bind = |address: BindAddress| self.binds.get(&address).cloned();
            let joined = match (id.kind, &self.installed) {
                (Kind::GatewayClass, Some(installed)) => status::apply_installed(verdict, installed),
                _ => status::apply_bind_outcomes(verdict, &bind),
            };
            let joined = joined.map_or_else(|| verdict.clone(), Arc::new);
            if self.plugin_diagnostics.is_empty() {
                return joined;
            }
            let diagnostic = |plugin: &ObjectId| self.plugin_diagnostics.get(&object_name(plugin)).cloned();
            compile::with_degraded_plugins(&self.store, &id, &joined, &diagnostic).map_or(joined, Arc::new)
        });
        let before = match verdict {
            Some(verdict) => self.verdicts.insert(id.clone(), verdict),
            None => self.verdicts.remove(&id),
        };
        self.previous_verdicts.entry(id).or_insert(before);
    }
}

/// Maximum number of objects that are named in a log entry; further ones are counted.
const MAX_NAMED_OBJECTS: usize = 10;

/// Name under which plugins report errors about an object.
fn object_name(id: &ObjectId) -> String {
    format!("{}/{}", id.kind, id.key)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::ObjectKey;
    use crate::args::AddressSource;
    use crate::store::AnyObject;

    #[test]
    fn only_routed_services_are_relevant() {
        let gateways = GatewayOptions {
            controller_names: BTreeSet::new(),
            addresses: AddressSource::Services(crate::api::core::ServiceType::ClusterIp),
        };
        let factory = PluginFactory::offline(crate::plugins::REGISTRY);
        let mut control = Control::new(gateways, Arc::default(), factory, IngressConfig::default(), Arc::default());
        let object = |kind, name: &str, spec| {
            let metadata = json!({"namespace": "ns", "name": name, "labels": {"kubernetes.io/service-name": name}});
            AnyObject::parse(kind, json!({"metadata": metadata, "spec": spec, "addressType": "IPv4", "endpoints": []}))
                .unwrap()
        };
        let mut upserts =
            vec![object(Kind::HttpRoute, "r", json!({"rules": [{"backendRefs": [{"name": "used", "port": 80}]}]}))];
        for name in ["used", "other"] {
            upserts.push(object(Kind::Service, name, json!({"ports": [{"port": 80}]})));
            upserts.push(object(Kind::EndpointSlice, name, json!(null)));
        }
        control.stage(Batch { upserts, removes: vec![] });
        assert!(control.is_relevant(&ObjectId::new(Kind::Service, ObjectKey::new("ns", "other"))), "without a cluster");
        control.set_installed(Arc::default());
        for (kind, name, expected) in [
            (Kind::Service, "used", true),
            (Kind::EndpointSlice, "used", true),
            (Kind::Service, "other", false),
            (Kind::EndpointSlice, "other", false),
            (Kind::HttpRoute, "r", true),
        ] {
            assert_eq!(
                control.is_relevant(&ObjectId::new(kind, ObjectKey::new("ns", name))),
                expected,
                "{kind} {name}"
            );
        }
    }
}
