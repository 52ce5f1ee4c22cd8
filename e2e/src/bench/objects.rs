//! Objects of the benchmarks: a Gateway, Services that point to this process, and any number of routes.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::backend::Backend;
use super::client::{Connection, Target};
use crate::cluster::Cluster;
use crate::wait::until;

/// Long enough for slow operations, such as thousands of status writes.
pub(super) const OBJECT_TIMEOUT: Duration = Duration::from_secs(180);
/// Maximum number of concurrent requests to the API server.
pub(super) const MAX_CONCURRENCY: usize = 16;
/// Routes per Service.
const ROUTES_PER_SERVICE: usize = 50;
/// Label of routes, Services and EndpointSlices; its value is the name of the set.
const LABEL: &str = "bench";
pub(super) const GATEWAY_API_GROUP: &str = "gateway.networking.k8s.io";

/// How routes differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteShape {
    HostPerRoute,
    SharedHost,
}

/// A Gateway with routes to a backend in this process.
pub(super) struct RouteSet {
    name: &'static str,
    shape: RouteShape,
    pub(super) routes: Api<DynamicObject>,
    pub(super) gateways: Api<DynamicObject>,
    services: Api<DynamicObject>,
    slices: Api<DynamicObject>,
    /// The number of routes.
    count: usize,
    address: SocketAddr,
    backend: Backend,
    /// The number of the next edit, so that each edit changes the value.
    revision: Cell<usize>,
}

impl RouteSet {
    /// Creates the Gateway without routes and waits until it is programmed.
    pub(super) async fn start(cluster: &Cluster, name: &'static str, shape: RouteShape) -> Result<RouteSet> {
        let mut route_set = RouteSet {
            name,
            shape,
            routes: resource_api(cluster, "HTTPRoute"),
            gateways: resource_api(cluster, "Gateway"),
            services: resource_api(cluster, "Service"),
            slices: resource_api(cluster, "EndpointSlice"),
            count: 0,
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            backend: Backend::start().await?,
            revision: Cell::new(1),
        };
        create(&route_set.gateways, &gateway(name)).await?;
        route_set.address = wait_until_programmed(&route_set.gateways, name).await?;
        Ok(route_set)
    }

    pub(super) fn name(&self) -> &str {
        self.name
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Creates routes until the set has this many, and waits until they are served and have a status.
    pub(super) async fn grow_and_wait(&mut self, count: usize) -> Result<()> {
        self.create_up_to(count).await?;
        self.wait_until_counted().await?;
        if let Some(last) = self.count.checked_sub(1) {
            let target = self.target(last);
            until("the last route is served", OBJECT_TIMEOUT, async || {
                let status = Connection::open(self.address).await?.request_status(&target).await?;
                ensure!(status == 200, "{status}");
                Ok(())
            })
            .await?;
        }
        self.wait_for_statuses().await
    }

    /// Creates routes until the set has this many, several at a time. Waits only for the API server.
    pub(super) async fn create_up_to(&mut self, count: usize) -> Result<()> {
        let first = self.count;
        for service in first.div_ceil(ROUTES_PER_SERVICE)..count.div_ceil(ROUTES_PER_SERVICE) {
            let [service, slice] = self.service(service);
            create(&self.services, &service).await?;
            create(&self.slices, &slice).await?;
        }
        let routes = (first..count).map(|number| self.route(number, number / ROUTES_PER_SERVICE));
        let api = &self.routes;
        let created = stream::iter(routes).map(|route| async move { create(api, &route).await });
        created.buffer_unordered(MAX_CONCURRENCY).try_collect::<Vec<()>>().await?;
        self.count = self.count.max(count);
        Ok(())
    }

    /// Waits until the Gateway's status counts all routes.
    pub(super) async fn wait_until_counted(&self) -> Result<()> {
        until("all routes are counted", OBJECT_TIMEOUT, async || {
            let gateway = self.gateways.get(self.name).await?;
            let counted = &gateway.data["status"]["listeners"][0]["attachedRoutes"];
            ensure!(*counted == self.count, "{counted} of {} are counted", self.count);
            Ok(())
        })
        .await
    }

    /// Waits until every route has a status.
    async fn wait_for_statuses(&self) -> Result<()> {
        until("every route has a status", OBJECT_TIMEOUT, async || {
            let routes = self.routes.list(&self.list_params()).await?;
            let missing = routes.items.iter().filter(|route| route.data["status"]["parents"][0].is_null()).count();
            ensure!(missing == 0, "{missing} have no status");
            Ok(())
        })
        .await
    }

    /// Edits a header value of a route, which stays valid.
    pub(super) async fn edit(&self, number: usize) -> Result<()> {
        let revision = self.revision.replace(self.revision.get() + 1);
        let patch = json!([{
            "op": "replace",
            "path": "/spec/rules/0/filters/0/requestHeaderModifier/set/0/value",
            "value": format!("revision-{revision}"),
        }]);
        let patch = Patch::<DynamicObject>::Json(serde_json::from_value(patch)?);
        let name = self.object_name(number);
        self.routes.patch(&name, &PatchParams::default(), &patch).await.context("the edit was rejected")?;
        Ok(())
    }

    /// Creates the route with this number, which must not be one of the set. It refers to the first Service.
    pub(super) async fn create(&self, number: usize) -> Result<()> {
        create(&self.routes, &self.route(number, 0)).await
    }

    pub(super) async fn delete(&self, number: usize) -> Result<()> {
        let name = self.object_name(number);
        self.routes.delete(&name, &DeleteParams::default()).await.context("cannot delete the route")?;
        Ok(())
    }

    /// The request target of a route.
    pub(super) fn target(&self, number: usize) -> Target {
        let (host, path) = self.host_and_path(number);
        Target { address: self.address, host, path }
    }

    /// Deletes all objects and waits until nothing listens any more.
    pub(super) async fn remove(self) -> Result<()> {
        for api in [&self.routes, &self.services, &self.slices] {
            let objects = api.list_metadata(&self.list_params()).await?.items;
            let names = objects.into_iter().filter_map(|object| object.metadata.name);
            let deleted = stream::iter(names)
                .map(|name| async move { api.delete(&name, &DeleteParams::default()).await.map(drop) });
            deleted.buffer_unordered(MAX_CONCURRENCY).try_collect::<Vec<()>>().await?;
        }
        self.gateways.delete(self.name, &DeleteParams::default()).await?;
        until("the Gateway's address is closed", OBJECT_TIMEOUT, async || {
            let connection = Connection::open(self.address).await;
            ensure!(connection.is_err(), "{} accepts connections", self.address);
            Ok(())
        })
        .await
    }

    pub(super) fn list_params(&self) -> ListParams {
        ListParams::default().labels(&format!("{LABEL}={}", self.name))
    }

    /// Host and path of a route.
    fn host_and_path(&self, number: usize) -> (String, String) {
        match self.shape {
            RouteShape::HostPerRoute => (format!("{}-{number}.bench.example", self.name), "/".to_owned()),
            RouteShape::SharedHost => ("bench.example".to_owned(), format!("/{}-{number}", self.name)),
        }
    }

    fn route(&self, number: usize, service: usize) -> Value {
        let (host, path) = self.host_and_path(number);
        let filter = json!({
            "type": "RequestHeaderModifier",
            "requestHeaderModifier": { "set": [{ "name": "x-bench", "value": "revision-0" }] },
        });
        let rule = json!({
            "matches": [{ "path": { "type": "PathPrefix", "value": path } }],
            "filters": [filter],
            "backendRefs": [{ "name": self.object_name(service), "port": 80 }],
        });
        let spec = json!({ "parentRefs": [{ "name": self.name }], "hostnames": [host], "rules": [rule] });
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "spec": spec,
            "metadata": { "name": self.object_name(number), "labels": { LABEL: self.name } },
        })
    }

    /// A Service without a selector, and its EndpointSlice.
    fn service(&self, number: usize) -> [Value; 2] {
        let name = self.object_name(number);
        let port = json!({ "name": "http", "port": 80 });
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "spec": { "ports": [port] },
            "metadata": { "name": name, "labels": { LABEL: self.name } },
        });
        let address = self.backend.address;
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": name, "labels": { LABEL: self.name, "kubernetes.io/service-name": name } },
            "endpoints": [{ "addresses": [address.ip()], "conditions": { "ready": true } }],
            "ports": [{ "name": "http", "port": address.port(), "protocol": "TCP" }],
        });
        [service, slice]
    }

    fn object_name(&self, number: usize) -> String {
        format!("{}-{number}", self.name)
    }
}

pub(super) async fn create(api: &Api<DynamicObject>, object: &Value) -> Result<()> {
    let object: DynamicObject = serde_json::from_value(object.clone())?;
    api.create(&PostParams::default(), &object).await.map(drop).context("the object was rejected")
}

/// A Gateway of Portico with an HTTP listener.
pub(super) fn gateway(name: &str) -> Value {
    let listener = json!({ "name": "http", "port": 80, "protocol": "HTTP" });
    let spec = json!({ "gatewayClassName": "portico", "listeners": [listener] });
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": { "name": name }, "spec": spec,
    })
}

/// Waits until a Gateway is programmed, and returns its first address with port 80.
pub(super) async fn wait_until_programmed(gateways: &Api<DynamicObject>, name: &str) -> Result<SocketAddr> {
    until(&format!("Gateway {name} is programmed"), OBJECT_TIMEOUT, async || {
        let status = &gateways.get(name).await?.data["status"];
        let conditions = status["conditions"].as_array().map_or(&[][..], |conditions| conditions);
        let is_true = |condition: &Value| condition["type"] == "Programmed" && condition["status"] == "True";
        ensure!(conditions.iter().any(is_true), "{status}");
        let address = status["addresses"][0]["value"].as_str().context("the Gateway has no address")?;
        Ok(SocketAddr::new(address.parse::<IpAddr>()?, 80))
    })
    .await
}

/// The objects of a kind in the default namespace.
pub(super) fn resource_api(cluster: &Cluster, kind: &str) -> Api<DynamicObject> {
    Api::namespaced_with(cluster.client(), "default", &resource(kind))
}

/// Version 1 of a kind.
pub(super) fn resource(kind: &str) -> ApiResource {
    let (group, plural) = match kind {
        "Ingress" => ("networking.k8s.io", "ingresses".to_owned()),
        "EndpointSlice" => ("discovery.k8s.io", "endpointslices".to_owned()),
        "GatewayClass" => (GATEWAY_API_GROUP, "gatewayclasses".to_owned()),
        "Gateway" | "HTTPRoute" | "ListenerSet" => (GATEWAY_API_GROUP, format!("{}s", kind.to_lowercase())),
        "Deployment" => ("apps", "deployments".to_owned()),
        _ => ("", format!("{}s", kind.to_lowercase())),
    };
    ApiResource {
        group: group.to_owned(),
        version: "v1".to_owned(),
        api_version: if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") },
        kind: kind.to_owned(),
        plural,
    }
}
