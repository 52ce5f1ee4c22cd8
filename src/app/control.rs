//! The control loop's state: everything between a file that changed and a snapshot that is served.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::addressing::Addressing;
use super::ingress::Ingresses;
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::args::GatewayOptions;
use crate::compile::verdict::{Problem, Verdict, Verdicts};
use crate::compile::{self, Compiler, Inputs};
use crate::k8s::Installed;
use crate::plugin::{Invalid, Workshop};
use crate::snapshot::Snapshot;
use crate::status::{self, Bind};
use crate::store::{Batch, Changes, Store};
use crate::upstream::{Address, Registry};

/// Store, compiler and what they need. Owned by one task: whoever wants to know something asks that task.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) store: Store,
    /// Changed in the store and not compiled yet.
    uncompiled: Changes,
    compiler: Compiler,
    pub(super) addressing: Addressing,
    controllers: Vec<String>,
    upstreams: Arc<Registry>,
    workshop: Workshop,
    /// Which Ingresses, consumers and the like are ours.
    ingresses: Ingresses,
    snapshots: Arc<ArcSwap<Snapshot>>,
    /// What became of each address the snapshot asks for.
    binds: BTreeMap<SocketAddr, Bind>,
    /// The verdicts of the compiler, joined with `binds` and with what is installed.
    verdicts: Verdicts,
    /// What a cluster has of our kinds; None without one.
    installed: Option<Arc<Installed>>,
    /// What plugins at work say about the objects that configure them.
    troubles: BTreeMap<String, Invalid>,
    /// What was thought of objects before their verdict changed, since the last `take_news`.
    before: BTreeMap<ObjectId, Option<Arc<Verdict>>>,
}

/// Verdicts that changed, as they were and as they are.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) before: Verdicts,
    pub(super) after: Verdicts,
}

/// What one batch led to.
#[derive(Clone, Debug, Default)]
pub(super) struct Applied {
    pub(super) changes: usize,
    /// The first of those that somebody wants to hear of, and how many these are.
    pub(super) named: Vec<ObjectId>,
    pub(super) concerned: usize,
    /// There is another snapshot than before.
    pub(super) swapped: bool,
    pub(super) routers_built: usize,
}

impl Control {
    pub(super) fn new(
        gateways: GatewayOptions,
        upstreams: Arc<Registry>,
        workshop: Workshop,
        ingresses: Ingresses,
        snapshots: Arc<ArcSwap<Snapshot>>,
    ) -> Self {
        Control {
            store: Store::default(),
            uncompiled: Changes::new(),
            compiler: Compiler::default(),
            addressing: Addressing::new(&gateways),
            controllers: gateways.controller_names.into_iter().collect(),
            upstreams,
            workshop,
            ingresses,
            snapshots,
            binds: BTreeMap::new(),
            verdicts: Verdicts::new(),
            installed: None,
            troubles: BTreeMap::new(),
            before: BTreeMap::new(),
        }
    }

    /// Lets no route lead to the admin listener. Before anything is compiled.
    pub(super) fn keep_away_from_admin(&mut self, admin: SocketAddr) {
        self.compiler.keep_away_from_admin(admin);
    }

    /// Takes a batch all the way to the snapshot that is served from now on.
    pub(super) fn apply(&mut self, batch: Batch) -> Applied {
        self.put(batch);
        self.compile()
    }

    /// Takes a batch over without drawing any conclusion from it.
    pub(super) fn put(&mut self, batch: Batch) {
        self.uncompiled.extend(self.store.apply(batch));
    }

    /// Whether `compile` has anything to do.
    pub(super) fn has_changes(&self) -> bool {
        !self.uncompiled.is_empty() || self.addressing.is_stale()
    }

    /// Takes what was put all the way to the snapshot that is served from now on.
    pub(super) fn compile(&mut self) -> Applied {
        let count = self.uncompiled.len();
        self.assign();
        let changes = std::mem::take(&mut self.uncompiled);
        let concerned = || changes.iter().filter(|id| self.concerns(id));
        let (named, concerned) = (concerned().take(MOST_NAMED).cloned().collect(), concerned().count());
        let addresses = self.addressing.addresses();
        // Of what comes from files alone, everything is known.
        static NONE: BTreeSet<Kind> = BTreeSet::new();
        let unknown = self.installed.as_ref().map_or(&NONE, |installed| &installed.unknown);
        let (controllers, upstreams, workshop) = (&self.controllers, &self.upstreams, &self.workshop);
        let Ingresses { classes, settings: ingress } = &self.ingresses;
        let inputs = Inputs { controllers, addresses, upstreams, classes, workshop, ingress, unknown };
        let compiled = self.compiler.compile(&self.store, &changes, &inputs);

        // Endpoints before the swap: nothing new is served without them.
        for (key, endpoints) in compiled.endpoints {
            self.upstreams.upstream(&key).set_endpoints(endpoints);
        }
        let swapped = !Arc::ptr_eq(&compiled.snapshot, &self.snapshots.load());
        if swapped {
            self.snapshots.store(compiled.snapshot);
        }
        // Forgetting after the swap: until then requests still come to the old ones.
        if let Some(used) = &compiled.used {
            self.upstreams.retain(used);
        }
        for id in compiled.verdicts_changed {
            self.join(id);
        }
        Applied { changes: count, named, concerned, swapped, routers_built: compiled.routers_built }
    }

    /// Gives Gateways their addresses, as far as they are known, and says what each needs in front of it.
    pub(super) fn assign(&mut self) {
        self.addressing.assign(&self.store, &self.controllers, &mut self.uncompiled);
    }

    /// Takes over what could be bound, and what could not.
    pub(super) fn bound(&mut self, binds: BTreeMap<SocketAddr, Bind>) {
        if self.binds == binds {
            return;
        }
        self.binds = binds;
        let listens = |id: &&ObjectId| matches!(id.kind, Kind::Gateway | Kind::Ingress);
        let listening: Vec<_> = self.verdicts.keys().filter(listens).cloned().collect();
        for id in listening {
            self.join(id);
        }
    }

    /// Where a port of a Service listens now. None if there is no such Service.
    pub(super) fn addresses(&self, service: &ObjectKey, port: u16) -> Option<Vec<Address>> {
        self.compiler.addresses(&self.store, service, port)
    }

    /// What became of each address that is to be listened on.
    pub(super) fn binds(&self) -> &BTreeMap<SocketAddr, Bind> {
        &self.binds
    }

    /// The objects that something mentions and that are only fetched if so.
    pub(super) fn wanted_bodies(&self) -> BTreeSet<ObjectId> {
        let Ingresses { classes, settings } = &self.ingresses;
        let mut wanted = self.store.wanted_bodies(|meta, field| classes.own(&self.store, meta, field));
        wanted.extend(settings.default_secret.clone().map(|key| ObjectId::new(Kind::Secret, key)));
        wanted
    }

    /// Whether somebody who reads the log wants to hear of an object: a cluster has thousands of Services to which no route
    /// leads, and whether they have endpoints is nothing to us.
    pub(super) fn concerns(&self, id: &ObjectId) -> bool {
        let refs = self.store.refs();
        let routes = |id: &ObjectId| matches!(id.kind, Kind::HttpRoute | Kind::Ingress | Kind::KongServiceFacade);
        let is_routed_to = |service: &ObjectId| refs.dependents(service).any(routes);
        match id.kind {
            // What is in a file was written for us.
            _ if self.installed.is_none() => true,
            Kind::Service => is_routed_to(id),
            Kind::EndpointSlice => {
                self.store.services_of(id).any(|service| is_routed_to(&ObjectId::new(Kind::Service, service)))
            }
            _ => true,
        }
    }

    /// Whether there are GatewayClasses, and all of them are ours.
    pub(super) fn is_alone(&self) -> bool {
        let classes = &self.store.gateway_classes;
        !classes.is_empty() && classes.values().all(|class| self.controllers.contains(&class.spec.controller_name))
    }

    /// Takes over what is installed in the cluster.
    pub(super) fn installed(&mut self, installed: Arc<Installed>) {
        let unknown = |installed: &Installed| installed.unknown.contains(&Kind::BackendTlsPolicy);
        if self.installed.as_deref().is_some_and(unknown) != unknown(&installed) {
            self.uncompiled.extend(self.store.services.keys().map(|key| ObjectId::new(Kind::Service, key.clone())));
        }
        self.installed = Some(installed);
        let classes: Vec<_> = self.verdicts.keys().filter(|id| id.kind == Kind::GatewayClass).cloned().collect();
        for id in classes {
            self.join(id);
        }
    }

    /// Takes over what plugins at work have to say.
    pub(super) fn troubled(&mut self, troubles: BTreeMap<String, Invalid>) {
        let before = std::mem::replace(&mut self.troubles, troubles);
        let concerned = |id: &&ObjectId| {
            let object = object_name(id);
            before.get(&object) != self.troubles.get(&object)
        };
        let mut concerned: BTreeSet<_> = self.verdicts.keys().filter(concerned).cloned().collect();
        let referrers: Vec<_> = concerned.iter().flat_map(|id| self.store.refs().dependents(id)).cloned().collect();
        concerned.extend(referrers);
        for id in concerned {
            self.join(id);
        }
    }

    /// Every verdict as of now.
    pub(super) fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// What changed since this was last asked.
    pub(super) fn take_news(&mut self) -> News {
        let mut news = News::default();
        for (id, before) in std::mem::take(&mut self.before) {
            let after = self.verdicts.get(&id).cloned();
            if before == after {
                continue;
            }
            if let Some(after) = after {
                news.after.insert(id.clone(), after);
            }
            if let Some(before) = before {
                news.before.insert(id, before);
            }
        }
        news
    }

    fn join(&mut self, id: ObjectId) {
        let verdict = self.compiler.verdicts().get(&id).map(|verdict| {
            let bind = |address: SocketAddr| self.binds.get(&address).cloned();
            let joined = match (id.kind, &self.installed) {
                (Kind::GatewayClass, Some(installed)) => status::with_installed(verdict, installed),
                _ => status::join(verdict, &bind),
            };
            let joined = joined.map_or_else(|| verdict.clone(), Arc::new);
            if self.troubles.is_empty() {
                return joined;
            }
            let trouble = |plugin: &ObjectId| {
                let Invalid { field, message, remedy } = self.troubles.get(&object_name(plugin))?;
                Some(Problem::new(field.as_str(), message.as_str(), remedy.as_str()))
            };
            compile::with_troubles(&self.store, &id, &joined, &trouble).map_or(joined, Arc::new)
        });
        let before = match verdict {
            Some(verdict) => self.verdicts.insert(id.clone(), verdict),
            None => self.verdicts.remove(&id),
        };
        self.before.entry(id).or_insert(before);
    }
}

/// Objects that are named when something changed. More than these are counted.
const MOST_NAMED: usize = 10;

/// As plugins know the object that configures them.
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
    fn only_services_that_a_route_leads_to_concern_anybody() {
        let gateways = GatewayOptions {
            controller_names: BTreeSet::new(),
            addresses: AddressSource::Services(crate::api::core::ServiceType::ClusterIp),
        };
        let workshop = Workshop::offline(crate::plugins::REGISTRY);
        let mut control = Control::new(gateways, Arc::default(), workshop, Ingresses::default(), Arc::default());
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
        control.put(Batch { upserts, removes: vec![] });
        assert!(control.concerns(&ObjectId::new(Kind::Service, ObjectKey::new("ns", "other"))), "without a cluster");
        control.installed(Arc::default());
        for (kind, name, expected) in [
            (Kind::Service, "used", true),
            (Kind::EndpointSlice, "used", true),
            (Kind::Service, "other", false),
            (Kind::EndpointSlice, "other", false),
            (Kind::HttpRoute, "r", true),
        ] {
            assert_eq!(control.concerns(&ObjectId::new(kind, ObjectKey::new("ns", name))), expected, "{kind} {name}");
        }
    }
}
