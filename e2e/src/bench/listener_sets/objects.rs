//! The objects of `listener-sets`: one Gateway, and ListenerSets with a Service and several HTTPRoutes each.

use anyhow::{Result, bail, ensure};
use kube::api::{DeleteParams, DynamicObject, ListParams};
use serde_json::{Value, json};

use super::EditedKind;
use crate::bench::backend::Backend;
use crate::bench::client::Target;
use crate::bench::edits::Edit;
use crate::bench::many_objects::{ManyObjects, NewObject, namespace, object_name, service_with_endpoint};
use crate::bench::objects::{GATEWAY_API_GROUP, OBJECT_TIMEOUT, wait_until_programmed};
use crate::cluster::Cluster;
use crate::wait::until;

/// Name of the Gateway, and prefix of the namespaces.
const NAME: &str = "sets";
/// Edits are spread over all ListenerSets, as edits by users are.
const STRIDE: usize = 7919;

pub(super) struct ListenerSetObjects {
    objects: ManyObjects,
    namespaces: Vec<String>,
    routes_per_set: usize,
    /// For each ListenerSet, where its first HTTPRoute is served. Only this HTTPRoute is edited.
    targets: Vec<Target>,
    /// The number of the next edit, so that each edit changes the object.
    revision: usize,
    _backend: Backend,
}

impl ListenerSetObjects {
    /// Creates all objects. Waits only for the API server, and until the Gateway is programmed.
    pub(super) async fn create(
        cluster: &Cluster,
        listener_sets: usize,
        routes_per_set: usize,
    ) -> Result<ListenerSetObjects> {
        let (objects, backend) = (ManyObjects::of(cluster), Backend::start().await?);
        let routes = listener_sets * routes_per_set;
        objects.create(NewObject("Gateway", "default".to_owned(), gateway())).await?;
        let address = wait_until_programmed(&objects.api("Gateway", "default"), NAME).await?;
        let namespaces = objects.create_namespaces(NAME, routes).await?;
        let namespace_of_set = |set| namespace(NAME, set * routes_per_set);
        let service = |set| service_with_endpoint(&namespace_of_set(set), &object_name(set), backend.address);
        objects.create_many("Services, each with an EndpointSlice", listener_sets, service).await?;
        let listener_set = |set| [NewObject("ListenerSet", namespace_of_set(set), listener_set(set))];
        objects.create_many("ListenerSets", listener_sets, listener_set).await?;
        let http_route = |route| {
            let set = route / routes_per_set;
            [NewObject("HTTPRoute", namespace_of_set(set), http_route(set, route))]
        };
        objects.create_many("HTTPRoutes of ListenerSets", routes, http_route).await?;
        let target = |set| Target { address, host: host(set, 0), path: path(set * routes_per_set, 0) };
        let targets = (0..listener_sets).map(target).collect();
        Ok(ListenerSetObjects { objects, namespaces, routes_per_set, targets, revision: 1, _backend: backend })
    }

    /// Waits until the Gateway counts all ListenerSets, these count all HTTPRoutes, and every HTTPRoute has a status.
    pub(super) async fn wait_for_statuses(&self) -> Result<()> {
        let gateways = self.objects.api("Gateway", "default");
        until("all ListenerSets are counted", OBJECT_TIMEOUT, async || {
            let counted = &gateways.get(NAME).await?.data["status"]["attachedListenerSets"];
            ensure!(*counted == self.targets.len(), "{counted} of {} are counted", self.targets.len());
            Ok(())
        })
        .await?;
        for namespace in &self.namespaces {
            let has_routes =
                |set: &DynamicObject| set.data["status"]["listeners"][0]["attachedRoutes"] == self.routes_per_set;
            self.wait_for_each("ListenerSet", namespace, has_routes).await?;
            let is_attached = |route: &DynamicObject| {
                let conditions = &route.data["status"]["parents"][0]["conditions"];
                let is_accepted = |condition: &Value| condition["type"] == "Accepted" && condition["status"] == "True";
                conditions.as_array().is_some_and(|conditions| conditions.iter().any(is_accepted))
            };
            self.wait_for_each("HTTPRoute", namespace, is_attached).await?;
        }
        Ok(())
    }

    /// An edit of a ListenerSet or of its first HTTPRoute: another hostname, or another path.
    pub(super) fn next_edit(&mut self, kind: EditedKind) -> Edit {
        let revision = self.revision;
        self.revision += 1;
        let set = revision * STRIDE % self.targets.len();
        let first_route = set * self.routes_per_set;
        let target = &mut self.targets[set];
        let (number, field, value) = match kind {
            EditedKind::HttpRoute => {
                target.path = path(first_route, revision);
                (first_route, "/spec/rules/0/matches/0/path/value", target.path.clone())
            }
            EditedKind::ListenerSet => {
                target.host = host(set, revision);
                (set, "/spec/listeners/0/hostname", target.host.clone())
            }
        };
        let api = self.objects.api(kind.name(), &namespace(NAME, first_route));
        Edit { api, name: object_name(number), field, value, target: target.clone() }
    }

    /// Requests the deletion of everything. Waits only for the API server.
    pub(super) async fn delete(&self) -> Result<()> {
        self.objects.delete_namespaces().await?;
        self.objects.api("Gateway", "default").delete(NAME, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Waits until all objects of a kind in a namespace have this status.
    async fn wait_for_each(
        &self,
        kind: &str,
        namespace: &str,
        has_status: impl Fn(&DynamicObject) -> bool,
    ) -> Result<()> {
        let objects = self.objects.api(kind, namespace);
        until(&format!("every {kind} of namespace {namespace} has its status"), OBJECT_TIMEOUT, async || {
            let listed = objects.list(&ListParams::default()).await?.items;
            let without = listed.iter().find(|object| !has_status(object));
            match without {
                Some(object) => bail!("{:?}: {}", object.metadata.name, object.data["status"]),
                None => Ok(()),
            }
        })
        .await
    }
}

/// A Gateway that allows ListenerSets of all namespaces, with a listener to which no route attaches.
fn gateway() -> Value {
    let listener = json!({ "name": "http", "port": 80, "protocol": "HTTP", "hostname": "gateway.bench.example" });
    let spec = json!({
        "gatewayClassName": "portico",
        "allowedListeners": { "namespaces": { "from": "All" } },
        "listeners": [listener],
    });
    json!({ "metadata": { "name": NAME }, "spec": spec })
}

fn listener_set(number: usize) -> Value {
    let listener = json!({ "name": "http", "port": 80, "protocol": "HTTP", "hostname": host(number, 0) });
    let spec = json!({ "parentRef": { "name": NAME, "namespace": "default" }, "listeners": [listener] });
    json!({ "metadata": { "name": object_name(number) }, "spec": spec })
}

/// A route of the hosts of a ListenerSet, to the Service with the same number as the ListenerSet.
fn http_route(set: usize, number: usize) -> Value {
    let parent = json!({ "group": GATEWAY_API_GROUP, "kind": "ListenerSet", "name": object_name(set) });
    let rule = json!({
        "matches": [{ "path": { "type": "PathPrefix", "value": path(number, 0) } }],
        "backendRefs": [{ "name": object_name(set), "port": 80 }],
    });
    json!({ "metadata": { "name": object_name(number) }, "spec": { "parentRefs": [parent], "rules": [rule] } })
}

/// The hostname of a ListenerSet after this edit; 0 is the hostname before all edits.
fn host(set: usize, revision: usize) -> String {
    match revision {
        0 => format!("set-{set}.bench.example"),
        _ => format!("set-{set}-revision-{revision}.bench.example"),
    }
}

/// The path of an HTTPRoute after this edit.
fn path(route: usize, revision: usize) -> String {
    format!("/route-{route}/revision-{revision}")
}
