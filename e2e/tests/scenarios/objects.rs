//! Gateways and routes of scenarios, and helpers that wait for their status.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use portico_e2e::cluster::Cluster;
use portico_e2e::wait;
use serde_json::{Value, json};

/// Long enough for a busy machine; only a failing test takes that long.
pub(crate) const SCENARIO_TIMEOUT: Duration = Duration::from_secs(120);

const API_VERSION: &str = "gateway.networking.k8s.io/v1";

/// A Gateway of Portico with an HTTP listener.
pub(crate) fn gateway(name: &str) -> Value {
    let listener = json!({ "name": "http", "port": 80, "protocol": "HTTP" });
    let spec = json!({ "gatewayClassName": "portico", "listeners": [listener] });
    json!({ "apiVersion": API_VERSION, "kind": "Gateway", "metadata": { "name": name }, "spec": spec })
}

/// A route from a host and a path to a Service.
pub(crate) fn route(name: &str, gateway: &str, host: &str, path: Value, service: &str) -> Value {
    let rule = json!({ "matches": [{ "path": path }], "backendRefs": [{ "name": service, "port": 80 }] });
    let spec = json!({ "parentRefs": [{ "name": gateway }], "hostnames": [host], "rules": [rule] });
    json!({ "apiVersion": API_VERSION, "kind": "HTTPRoute", "metadata": { "name": name }, "spec": spec })
}

/// The path match of a route.
pub(crate) fn prefix(path: &str) -> Value {
    json!({ "type": "PathPrefix", "value": path })
}

pub(crate) async fn apply(cluster: &Cluster, objects: &[Value]) -> Result<String> {
    cluster.apply(&json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string()).await
}

pub(crate) fn gateways(cluster: &Cluster) -> Api<DynamicObject> {
    Api::namespaced_with(cluster.client(), "default", &resource("Gateway", "gateways"))
}

pub(crate) fn routes(cluster: &Cluster) -> Api<DynamicObject> {
    Api::namespaced_with(cluster.client(), "default", &resource("HTTPRoute", "httproutes"))
}

/// Adds a path to a route, without waiting until it is served.
pub(crate) async fn add_path(cluster: &Cluster, route: &str, path: &str) -> Result<()> {
    let added = json!([{ "op": "add", "path": "/spec/rules/0/matches/-", "value": { "path": prefix(path) } }]);
    let patch = Patch::Json::<()>(serde_json::from_value(added)?);
    routes(cluster).patch(route, &PatchParams::default(), &patch).await.map(drop).context("the edit was rejected")
}

pub(crate) fn classes(cluster: &Cluster) -> Api<DynamicObject> {
    Api::all_with(cluster.client(), &resource("GatewayClass", "gatewayclasses"))
}

fn resource(kind: &str, plural: &str) -> ApiResource {
    let (group, version) = API_VERSION.split_once('/').expect("the version has a group");
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: API_VERSION.to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

/// Waits until the current generation of a Gateway is programmed, and returns its first address with port 80.
pub(crate) async fn wait_until_programmed(cluster: &Cluster, name: &str) -> Result<SocketAddr> {
    let api = gateways(cluster);
    until(&format!("Gateway {name} is programmed"), async || {
        let gateway = api.get(name).await?;
        ensure_true(&gateway, &gateway.data["status"]["conditions"], "Programmed")?;
        let address = &gateway.data["status"]["addresses"][0]["value"];
        let address: IpAddr =
            address.as_str().context("the Gateway has no address")?.parse().context("not an IP address")?;
        Ok(SocketAddr::new(address, 80))
    })
    .await
}

/// Waits until the only parent of a route accepts its current generation, with all references resolved.
pub(crate) async fn wait_until_accepted(cluster: &Cluster, name: &str) -> Result<DynamicObject> {
    let api = routes(cluster);
    until(&format!("HTTPRoute {name} is accepted"), async || {
        let route = api.get(name).await?;
        for condition in ["Accepted", "ResolvedRefs"] {
            ensure_true(&route, &route.data["status"]["parents"][0]["conditions"], condition)?;
        }
        Ok(route)
    })
    .await
}

/// Fails unless the condition of this type is true for the current generation of the object.
pub(crate) fn ensure_true(object: &DynamicObject, conditions: &Value, condition_type: &str) -> Result<()> {
    let condition = condition(object, conditions, condition_type)?;
    ensure!(condition["status"] == "True", "{condition}");
    Ok(())
}

/// The condition of this type; an error if it is missing, or not for the current generation of the object.
pub(crate) fn condition<'a>(object: &DynamicObject, conditions: &'a Value, condition_type: &str) -> Result<&'a Value> {
    let found = conditions.as_array().into_iter().flatten().find(|condition| condition["type"] == condition_type);
    let Some(found) = found else { bail!("no condition {condition_type} in {conditions}") };
    let generation = object.metadata.generation.context("no generation")?;
    ensure!(found["observedGeneration"] == generation, "{found} is not for generation {generation}");
    Ok(found)
}

/// Retries until `attempt` succeeds. `condition` is a clause for the error message, such as "the route is served".
pub(crate) async fn until<Output>(condition: &str, attempt: impl AsyncFnMut() -> Result<Output>) -> Result<Output> {
    wait::until(condition, SCENARIO_TIMEOUT, attempt).await
}
