//! The objects that are measured with: a Gateway, Services that lead to this process, and any number of routes.

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
use crate::patience::until;

/// For what takes a machine a while, such as thousands of statuses.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);
/// As many requests as `kubectl` and controllers have under way.
const AT_A_TIME: usize = 16;
/// Routes to one Service.
const PER_SERVICE: usize = 50;
/// What is deleted with the Gateway.
const LABEL: &str = "bench";
pub(super) const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// By what routes differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    HostEach,
    OneHost,
}

/// A Gateway with routes to a backend of this process.
pub(super) struct Stock {
    name: &'static str,
    shape: Shape,
    pub(super) routes: Api<DynamicObject>,
    pub(super) gateways: Api<DynamicObject>,
    services: Api<DynamicObject>,
    slices: Api<DynamicObject>,
    number: usize,
    address: SocketAddr,
    backend: Backend,
    /// Of the next edit, so that each of them changes something.
    revision: Cell<usize>,
}

impl Stock {
    /// Without routes, and programmed.
    pub(super) async fn start(cluster: &Cluster, name: &'static str, shape: Shape) -> Result<Stock> {
        let mut stock = Stock {
            name,
            shape,
            routes: kind(cluster, GATEWAY_API, "v1", "HTTPRoute"),
            gateways: kind(cluster, GATEWAY_API, "v1", "Gateway"),
            services: kind(cluster, "", "v1", "Service"),
            slices: kind(cluster, "discovery.k8s.io", "v1", "EndpointSlice"),
            number: 0,
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            backend: Backend::start().await?,
            revision: Cell::new(1),
        };
        create(&stock.gateways, &gateway(name)).await?;
        stock.address = programmed(&stock.gateways, name).await?;
        Ok(stock)
    }

    pub(super) fn name(&self) -> &str {
        self.name
    }

    pub(super) fn len(&self) -> usize {
        self.number
    }

    /// Makes routes until there are so many, and waits until they answer and their statuses are written.
    pub(super) async fn grow(&mut self, number: usize) -> Result<()> {
        self.add(number).await?;
        self.counted().await?;
        if let Some(last) = self.number.checked_sub(1) {
            let target = self.target(last);
            let mut connection = Connection::open(self.address).await?;
            until("the last route answers", PATIENCE, async || {
                let status = connection.ask(&target).await?;
                ensure!(status == 200, "{status}");
                Ok(())
            })
            .await?;
        }
        self.told().await
    }

    /// Makes routes until there are so many, several at a time, and waits for nothing but the API server.
    pub(super) async fn add(&mut self, number: usize) -> Result<()> {
        let first = self.number;
        for service in first.div_ceil(PER_SERVICE)..number.div_ceil(PER_SERVICE) {
            let [service, slice] = self.service(service);
            create(&self.services, &service).await?;
            create(&self.slices, &slice).await?;
        }
        let routes = (first..number).map(|number| self.route(number, number / PER_SERVICE));
        let api = &self.routes;
        let created = stream::iter(routes).map(|route| async move { create(api, &route).await });
        created.buffer_unordered(AT_A_TIME).try_collect::<Vec<()>>().await?;
        self.number = self.number.max(number);
        Ok(())
    }

    /// Waits until the Gateway's status counts all routes.
    pub(super) async fn counted(&self) -> Result<()> {
        until("all routes are counted", PATIENCE, async || {
            let gateway = self.gateways.get(self.name).await?;
            let counted = &gateway.data["status"]["listeners"][0]["attachedRoutes"];
            ensure!(*counted == self.number, "{counted} of {} are", self.number);
            Ok(())
        })
        .await
    }

    /// Waits until every route has a status.
    async fn told(&self) -> Result<()> {
        until("every route has a status", PATIENCE, async || {
            let routes = self.routes.list(&self.ours()).await?;
            let silent = routes.items.iter().filter(|route| route.data["status"]["parents"][0].is_null()).count();
            ensure!(silent == 0, "{silent} have none");
            Ok(())
        })
        .await
    }

    /// Edits a route so that it still answers: what it adds to requests becomes another value.
    pub(super) async fn edit(&self, number: usize) -> Result<()> {
        let revision = self.revision.replace(self.revision.get() + 1);
        let patch = json!([{
            "op": "replace",
            "path": "/spec/rules/0/filters/0/requestHeaderModifier/set/0/value",
            "value": format!("revision-{revision}"),
        }]);
        let patch = Patch::<DynamicObject>::Json(serde_json::from_value(patch)?);
        let name = self.numbered(number);
        self.routes.patch(&name, &PatchParams::default(), &patch).await.context("an edit is refused")?;
        Ok(())
    }

    /// Makes a route beyond the others, to the first Service.
    pub(super) async fn create(&self, number: usize) -> Result<()> {
        create(&self.routes, &self.route(number, 0)).await
    }

    pub(super) async fn delete(&self, number: usize) -> Result<()> {
        let name = self.numbered(number);
        self.routes.delete(&name, &DeleteParams::default()).await.context("a route cannot be deleted")?;
        Ok(())
    }

    /// What a route answers to.
    pub(super) fn target(&self, number: usize) -> Target {
        let (host, path) = self.way(number);
        Target { address: self.address, host, path }
    }

    /// Deletes everything, and waits until it is gone.
    pub(super) async fn remove(self) -> Result<()> {
        for api in [&self.routes, &self.services, &self.slices] {
            let objects = api.list_metadata(&self.ours()).await?.items;
            let names = objects.into_iter().filter_map(|object| object.metadata.name);
            let deleted = stream::iter(names)
                .map(|name| async move { api.delete(&name, &DeleteParams::default()).await.map(drop) });
            deleted.buffer_unordered(AT_A_TIME).try_collect::<Vec<()>>().await?;
        }
        self.gateways.delete(self.name, &DeleteParams::default()).await?;
        until("nothing of it answers", PATIENCE, async || {
            let open = Connection::open(self.address).await;
            ensure!(open.is_err(), "{} takes connections", self.address);
            Ok(())
        })
        .await
    }

    pub(super) fn ours(&self) -> ListParams {
        ListParams::default().labels(&format!("{LABEL}={}", self.name))
    }

    /// By which host and path a route is reached.
    fn way(&self, number: usize) -> (String, String) {
        match self.shape {
            Shape::HostEach => (format!("{}-{number}.bench.example", self.name), "/".to_owned()),
            Shape::OneHost => ("bench.example".to_owned(), format!("/{}-{number}", self.name)),
        }
    }

    fn route(&self, number: usize, service: usize) -> Value {
        let (host, path) = self.way(number);
        let filter = json!({
            "type": "RequestHeaderModifier",
            "requestHeaderModifier": { "set": [{ "name": "x-bench", "value": "revision-0" }] },
        });
        let rule = json!({
            "matches": [{ "path": { "type": "PathPrefix", "value": path } }],
            "filters": [filter],
            "backendRefs": [{ "name": self.numbered(service), "port": 80 }],
        });
        let spec = json!({ "parentRefs": [{ "name": self.name }], "hostnames": [host], "rules": [rule] });
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "spec": spec,
            "metadata": { "name": self.numbered(number), "labels": { LABEL: self.name } },
        })
    }

    /// A Service without a selector, and its endpoints.
    fn service(&self, number: usize) -> [Value; 2] {
        let name = self.numbered(number);
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

    fn numbered(&self, number: usize) -> String {
        format!("{}-{number}", self.name)
    }
}

pub(super) async fn create(api: &Api<DynamicObject>, object: &Value) -> Result<()> {
    let object: DynamicObject = serde_json::from_value(object.clone())?;
    api.create(&PostParams::default(), &object).await.map(drop).context("an object is refused")
}

/// A Gateway of Portico with a listener for HTTP.
pub(super) fn gateway(name: &str) -> Value {
    let listener = json!({ "name": "http", "port": 80, "protocol": "HTTP" });
    let spec = json!({ "gatewayClassName": "portico", "listeners": [listener] });
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": { "name": name }, "spec": spec,
    })
}

/// Waits until a Gateway is programmed, and gives its first address with port 80.
pub(super) async fn programmed(gateways: &Api<DynamicObject>, name: &str) -> Result<SocketAddr> {
    until(&format!("Gateway {name} is programmed"), PATIENCE, async || {
        let status = &gateways.get(name).await?.data["status"];
        let conditions = status["conditions"].as_array().map_or(&[][..], |conditions| conditions);
        let is_true = |condition: &Value| condition["type"] == "Programmed" && condition["status"] == "True";
        ensure!(conditions.iter().any(is_true), "{status}");
        let address = status["addresses"][0]["value"].as_str().context("it has no address")?;
        Ok(SocketAddr::new(address.parse::<IpAddr>()?, 80))
    })
    .await
}

pub(super) fn kind(cluster: &Cluster, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") },
        kind: kind.to_owned(),
        plural: format!("{}s", kind.to_lowercase()),
    };
    Api::namespaced_with(cluster.client(), "default", &resource)
}
