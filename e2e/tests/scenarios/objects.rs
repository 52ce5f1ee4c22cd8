//! Objects of scenarios, and reading of their status.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kube::Api;
use kube::api::{ApiResource, DynamicObject};
use portico_e2e::cluster::Cluster;
use portico_e2e::wait;
use serde_json::{Value, json};

/// Long enough for a busy machine; only a failing test takes that long.
pub(crate) const SCENARIO_TIMEOUT: Duration = Duration::from_secs(45);

const VERSION: &str = "gateway.networking.k8s.io/v1";

/// A Gateway of Portico with an HTTP listener.
pub(crate) fn gateway(name: &str) -> Value {
    let listener = json!({ "name": "http", "port": 80, "protocol": "HTTP" });
    let spec = json!({ "gatewayClassName": "portico", "listeners": [listener] });
    json!({ "apiVersion": VERSION, "kind": "Gateway", "metadata": { "name": name }, "spec": spec })
}

/// A route from a host and a path to a Service.
pub(crate) fn route(name: &str, gateway: &str, host: &str, path: Value, service: &str) -> Value {
    let rule = json!({ "matches": [{ "path": path }], "backendRefs": [{ "name": service, "port": 80 }] });
    let spec = json!({ "parentRefs": [{ "name": gateway }], "hostnames": [host], "rules": [rule] });
    json!({ "apiVersion": VERSION, "kind": "HTTPRoute", "metadata": { "name": name }, "spec": spec })
}

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

pub(crate) fn classes(cluster: &Cluster) -> Api<DynamicObject> {
    Api::all_with(cluster.client(), &resource("GatewayClass", "gatewayclasses"))
}

fn resource(kind: &str, plural: &str) -> ApiResource {
    let (group, version) = VERSION.split_once('/').expect("the version has a group");
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: VERSION.to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

/// Waits until the current generation of a Gateway is programmed, and returns its first address with port 80.
pub(crate) async fn wait_until_programmed(cluster: &Cluster, name: &str) -> Result<SocketAddr> {
    let api = gateways(cluster);
    until(&format!("Gateway {name} is programmed"), async || {
        let gateway = api.get(name).await?;
        is_true(&gateway, &gateway.data["status"]["conditions"], "Programmed")?;
        let address = &gateway.data["status"]["addresses"][0]["value"];
        let address: IpAddr =
            address.as_str().context("the Gateway has no address")?.parse().context("not an IP address")?;
        Ok(SocketAddr::new(address, 80))
    })
    .await
}

/// Waits until the current generation of a route is accepted by its only parent.
pub(crate) async fn wait_until_accepted(cluster: &Cluster, name: &str) -> Result<DynamicObject> {
    let api = routes(cluster);
    until(&format!("HTTPRoute {name} is accepted"), async || {
        let route = api.get(name).await?;
        for condition in ["Accepted", "ResolvedRefs"] {
            is_true(&route, &route.data["status"]["parents"][0]["conditions"], condition)?;
        }
        Ok(route)
    })
    .await
}

pub(crate) fn is_true(object: &DynamicObject, conditions: &Value, name: &str) -> Result<()> {
    let found = condition(object, conditions, name)?;
    ensure!(found["status"] == "True", "{found}");
    Ok(())
}

/// The condition of this type, if it is for the current generation of the object.
pub(crate) fn condition<'a>(object: &DynamicObject, conditions: &'a Value, name: &str) -> Result<&'a Value> {
    let found = conditions.as_array().into_iter().flatten().find(|condition| condition["type"] == name);
    let Some(found) = found else { bail!("no condition {name} in {conditions}") };
    let generation = object.metadata.generation.context("no generation")?;
    ensure!(found["observedGeneration"] == generation, "{found} is not for generation {generation}");
    Ok(found)
}

/// Retries until `ask` succeeds.
pub(crate) async fn until<Answer>(what: &str, ask: impl AsyncFnMut() -> Result<Answer>) -> Result<Answer> {
    wait::until(what, SCENARIO_TIMEOUT, ask).await
}
