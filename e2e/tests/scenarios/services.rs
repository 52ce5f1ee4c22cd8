//! Tests of the Services that Portico creates for Gateways. All need a Portico that runs as a Deployment, and leave it
//! unchanged.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Api;
use kube::api::{Patch, PatchParams};
use portico_e2e::cluster::Cluster;
use portico_e2e::portico::NAMESPACE;
use serde_json::{Value, json};

use crate::scenarios::backend::Backend;
use crate::scenarios::client::Target;
use crate::scenarios::deployed::{pods, slices, wait_for_endpoints, wait_for_rollout, wait_until_deleted};
use crate::scenarios::load::Load;
use crate::scenarios::objects::{apply, condition, gateway, gateways, prefix, route, until, wait_until_programmed};

const HOST: &str = "fronts.example";
/// Requests that must be served before the next step.
const REQUESTS: usize = 100;
/// The maximum length of the name of a Gateway.
const MAX_NAME_LENGTH: usize = 253;

pub(crate) async fn gateway_has_a_service_for_all_pods(cluster: &Cluster) -> Result<()> {
    let _backend = Backend::start(cluster, "fronts").await?;
    let mut gateway_object = gateway("fronts");
    gateway_object["spec"]["listeners"] = json!([listener("http", 80), listener("other", 8080)]);
    gateway_object["spec"]["infrastructure"] = json!({
        "labels": { "example.com/team": "web", "example.com/gone": "soon" },
        "annotations": { "example.com/balancer": "internal" },
    });
    apply(cluster, &[gateway_object.clone(), route("fronts", "fronts", HOST, prefix("/"), "fronts")]).await?;
    let address = wait_until_programmed(cluster, "fronts").await?;
    for port in [80, 8080] {
        wait_until_served(SocketAddr::new(address.ip(), port)).await?;
    }
    let service = service(cluster, "fronts-portico").await?;
    check_fields(cluster, &service).await?;
    let slices = wait_for_endpoints(cluster, "fronts-portico", &pods(cluster).await?).await?;
    for slice in &slices {
        for port in ports(&service) {
            let slice_port = slice.ports.iter().flatten().find(|slice_port| slice_port.name == port.name);
            ensure!(
                slice_port.and_then(|slice_port| slice_port.port) == Some(target_port(port)?),
                "{slice:?} does not serve {port:?}"
            );
        }
    }

    // Changes are applied, foreign labels are kept, and requests to an unchanged port do not fail.
    let load = Load::start(&Target::new(address, HOST, "/"));
    load.wait_for_more(REQUESTS).await?;
    cluster.kubectl(&["label", "service", "fronts-portico", "example.com/foreign=theirs"]).await?;
    gateway_object["spec"]["listeners"] = json!([listener("http", 80), listener("other", 8081)]);
    gateway_object["spec"]["infrastructure"] =
        json!({ "labels": { "example.com/team": "shop" }, "annotations": { "example.com/balancer": "external" } });
    apply(cluster, &[gateway_object]).await?;
    let changed = until("the Service has the new labels", async || {
        let service = self::service(cluster, "fronts-portico").await?;
        let labels = service.metadata.labels.clone().unwrap_or_default();
        let annotations = service.metadata.annotations.clone().unwrap_or_default();
        for (name, value) in [("team", Some("shop")), ("gone", None), ("foreign", Some("theirs"))] {
            let found = labels.get(&format!("example.com/{name}")).map(String::as_str);
            ensure!(found == value, "{name} is {found:?}");
        }
        ensure!(annotations["example.com/balancer"] == "external", "{annotations:?}");
        ensure!(ports(&service).iter().map(|port| port.port).eq([80, 8081]), "{:?}", ports(&service));
        Ok(service)
    })
    .await?;
    ensure!(target_port(&ports(&changed)[0])? == target_port(&ports(&service)[0])?, "the target of port 80 changed");
    ensure!(changed.metadata.uid == service.metadata.uid, "the Service was replaced");
    wait_until_served(SocketAddr::new(address.ip(), 8081)).await?;
    wait_until_closed(SocketAddr::new(address.ip(), 8080)).await?;
    load.wait_for_more(REQUESTS).await?;
    load.stop().await?;
    cluster.kubectl(&["delete", "gateway,httproute", "fronts"]).await?;
    wait_until_deleted(cluster, "fronts-portico").await?;
    cluster.kubectl(&["delete", "service,endpointslice", "fronts"]).await.map(drop)
}

pub(crate) async fn longest_gateway_name_has_a_service(cluster: &Cluster) -> Result<()> {
    let _backend = Backend::start(cluster, "long").await?;
    let name = "g".repeat(MAX_NAME_LENGTH);
    apply(cluster, &[gateway(&name), route(&name, &name, HOST, prefix("/"), "long")]).await?;
    wait_until_served(wait_until_programmed(cluster, &name).await?).await?;
    let selector = "--selector=app.kubernetes.io/managed-by=portico";
    let found = cluster.kubectl(&["get", "services", selector, "--output=name"]).await?;
    let found: Vec<&str> = found.lines().filter_map(|line| line.strip_prefix("service/")).collect();
    let [service] = found[..] else { bail!("expected one Service: {found:?}") };
    ensure!(service.len() == 63 && service.starts_with("gggg"), "{service}");
    cluster.kubectl(&["delete", "gateway,httproute", &name]).await?;
    wait_until_deleted(cluster, service).await?;
    cluster.kubectl(&["delete", "service,endpointslice", "long"]).await.map(drop)
}

pub(crate) async fn foreign_service_is_not_changed(cluster: &Cluster) -> Result<()> {
    let foreign = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "foreign-portico" },
        "spec": { "selector": { "app": "foreign" }, "ports": [{ "port": 80 }] },
    });
    apply(cluster, &[foreign]).await?;
    let before = service(cluster, "foreign-portico").await?;
    apply(cluster, &[gateway("foreign")]).await?;
    wait_until_unprogrammed(
        cluster,
        "foreign",
        "AddressNotAssigned",
        &["default/foreign-portico", "not created by Portico"],
    )
    .await?;
    ensure!(service(cluster, "foreign-portico").await? == before, "the foreign Service was changed");
    // The EndpointSlice controller creates one for the selector, without endpoints.
    let slices = slices(cluster, "foreign-portico").await?;
    ensure!(
        slices.iter().all(|slice| slice.endpoints.iter().flatten().count() == 0),
        "the foreign Service got endpoints: {slices:?}"
    );
    cluster.kubectl(&["delete", "service", "foreign-portico"]).await?;
    wait_until_programmed(cluster, "foreign").await?;
    cluster.kubectl(&["delete", "gateway", "foreign"]).await?;
    wait_until_deleted(cluster, "foreign-portico").await
}

pub(crate) async fn unusable_address_keeps_the_service(cluster: &Cluster) -> Result<()> {
    let _backend = Backend::start(cluster, "asked").await?;
    let gateway_with_address = |kind: &str, address: &str| {
        let mut gateway = gateway("asked");
        gateway["spec"]["addresses"] = json!([{ "type": kind, "value": address }]);
        gateway
    };
    let requested = "198.18.100.100";
    apply(
        cluster,
        &[gateway_with_address("IPAddress", requested), route("asked", "asked", HOST, prefix("/"), "asked")],
    )
    .await?;
    let address = wait_until_programmed(cluster, "asked").await?;
    ensure!(address.ip().to_string() == requested, "requested {requested}, got {address}");
    wait_until_served(address).await?;
    let uid = service(cluster, "asked-portico").await?.metadata.uid;

    // An address outside of the load balancer's range, and one of an unknown type.
    apply(cluster, &[gateway_with_address("IPAddress", "192.0.2.1")]).await?;
    wait_until_unprogrammed(cluster, "asked", "AddressNotUsable", &["192.0.2.1"]).await?;
    wait_until_closed(address).await.context("the previous address is still served")?;
    apply(cluster, &[gateway_with_address("example.com/unknown-type", "here")]).await?;
    until("the Gateway is not accepted", async || {
        let gateway = gateways(cluster).get("asked").await?;
        let accepted = condition(&gateway, &gateway.data["status"]["conditions"], "Accepted")?;
        ensure!(accepted["reason"] == "UnsupportedAddress", "{accepted}");
        Ok(())
    })
    .await?;
    ensure!(service(cluster, "asked-portico").await?.metadata.uid == uid, "the Service was replaced");

    let remove_addresses = json!([{ "op": "remove", "path": "/spec/addresses" }]);
    let patch = Patch::Json::<()>(serde_json::from_value(remove_addresses)?);
    gateways(cluster).patch("asked", &PatchParams::default(), &patch).await?;
    let assigned = wait_until_programmed(cluster, "asked").await?;
    ensure!(assigned == address, "the address changed from {address} to {assigned}");
    wait_until_served(address).await?;
    ensure!(service(cluster, "asked-portico").await?.metadata.uid == uid, "the Service was replaced");
    cluster.kubectl(&["delete", "gateway,httproute", "asked"]).await?;
    wait_until_deleted(cluster, "asked-portico").await?;
    cluster.kubectl(&["delete", "service,endpointslice", "asked"]).await.map(drop)
}

/// Switches the addresses of Gateways from load balancers to a pool and back. What only one of them needs is removed.
pub(crate) async fn address_source_can_be_switched(cluster: &Cluster) -> Result<()> {
    let _backend = Backend::start(cluster, "provider").await?;
    let mut gateway_object = gateway("provider");
    // Pods cannot bind port 80.
    gateway_object["spec"]["listeners"] = json!([listener("http", 8080)]);
    apply(cluster, &[gateway_object, route("provider", "provider", HOST, prefix("/"), "provider")]).await?;
    let load_balancer = at_port_8080(wait_until_programmed(cluster, "provider").await?);
    wait_until_served(load_balancer).await?;
    let set_arguments = async |arguments: Value| -> Result<()> {
        let container = json!({ "name": "portico", "args": arguments });
        let patch = json!({ "spec": { "template": { "spec": { "containers": [container] } } } }).to_string();
        cluster.kubectl(&["patch", "deployment", "portico", "--namespace", NAMESPACE, "--patch", &patch]).await?;
        wait_for_rollout(cluster).await
    };
    set_arguments(json!(["run", "--gateway-address-pool", "0.0.0.0"])).await?;
    until("the Service is headless", async || {
        let service = service(cluster, "provider-portico").await?;
        let spec = service.spec.context("the Service has no spec")?;
        ensure!(spec.cluster_ip.as_deref() == Some("None") && spec.ports.is_none(), "{spec:?}");
        let slices = slices(cluster, "provider-portico").await?;
        ensure!(slices.is_empty(), "{} EndpointSlices are left", slices.len());
        Ok(())
    })
    .await?;
    until("the Gateway has the address of a Pod", async || {
        let address = at_port_8080(wait_until_programmed(cluster, "provider").await?);
        ensure!(address.ip() != load_balancer.ip(), "the address is {address}");
        Target::new(address, HOST, "/").expect(200, "provider").await
    })
    .await?;
    set_arguments(json!(["run"])).await?;
    wait_for_endpoints(cluster, "provider-portico", &pods(cluster).await?).await?;
    until("the route is served through a load balancer again", async || {
        let service = service(cluster, "provider-portico").await?;
        ensure!(service.spec.context("the Service has no spec")?.type_.as_deref() == Some("LoadBalancer"));
        Target::new(at_port_8080(wait_until_programmed(cluster, "provider").await?), HOST, "/")
            .expect(200, "provider")
            .await
    })
    .await?;
    cluster.kubectl(&["delete", "gateway,httproute", "provider"]).await?;
    wait_until_deleted(cluster, "provider-portico").await?;
    cluster.kubectl(&["delete", "service,endpointslice", "provider"]).await.map(drop)
}

/// Checks the fields of the Service that are documented.
async fn check_fields(cluster: &Cluster, service: &Service) -> Result<()> {
    let spec = service.spec.as_ref().context("the Service has no spec")?;
    ensure!(spec.type_.as_deref() == Some("LoadBalancer") && spec.selector.is_none(), "{spec:?}");
    ensure!(ports(service).iter().map(|port| port.port).eq([80, 8080]), "{spec:?}");
    for port in ports(service) {
        ensure!((10_000..=32_767).contains(&target_port(port)?), "{port:?}");
    }
    // The cluster has both families, although the load balancer serves only IPv4.
    let families = spec.ip_families.as_deref().unwrap_or_default();
    ensure!(families == ["IPv4", "IPv6"], "the families are {families:?}");
    let gateway = gateways(cluster).get("fronts").await?;
    let owners = service.metadata.owner_references.as_deref().unwrap_or_default();
    let [owner] = owners else { bail!("expected one owner: {owners:?}") };
    ensure!(Some(&owner.uid) == gateway.metadata.uid.as_ref() && owner.controller == Some(true), "{owner:?}");
    let labels = service.metadata.labels.as_ref().context("the Service has no labels")?;
    for (name, value) in [
        ("example.com/team", "web"),
        ("example.com/gone", "soon"),
        ("gateway.networking.k8s.io/gateway-name", "fronts"),
        ("gateway.networking.k8s.io/gateway-class-name", "portico"),
        ("app.kubernetes.io/managed-by", "portico"),
    ] {
        ensure!(labels.get(name).map(String::as_str) == Some(value), "{name} is not {value}: {labels:?}");
    }
    let annotations = service.metadata.annotations.as_ref().context("the Service has no annotations")?;
    ensure!(annotations["example.com/balancer"] == "internal", "{annotations:?}");
    Ok(())
}

/// Waits until a Gateway is not programmed, with this reason and a message that has these words.
async fn wait_until_unprogrammed(cluster: &Cluster, name: &str, reason: &str, words: &[&str]) -> Result<()> {
    until(&format!("Gateway {name} is not programmed"), async || {
        let gateway = gateways(cluster).get(name).await?;
        let found = condition(&gateway, &gateway.data["status"]["conditions"], "Programmed")?;
        ensure!(found["status"] == "False" && found["reason"] == reason, "{found}");
        let message = found["message"].as_str().unwrap_or_default();
        ensure!(words.iter().all(|word| message.contains(word)), "{words:?} are missing in `{message}`");
        Ok(())
    })
    .await
}

async fn wait_until_served(address: SocketAddr) -> Result<()> {
    until(&format!("{address} responds"), async || Target::new(address, HOST, "/").expect(200, "").await).await
}

async fn wait_until_closed(address: SocketAddr) -> Result<()> {
    until(&format!("{address} is closed"), async || {
        ensure!(Target::new(address, HOST, "/").request().await.is_err(), "the address still accepts requests");
        Ok(())
    })
    .await
}

async fn service(cluster: &Cluster, name: &str) -> Result<Service> {
    let services: Api<Service> = Api::default_namespaced(cluster.client());
    services.get(name).await.with_context(|| format!("Service {name}"))
}

fn ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default()
}

fn target_port(port: &ServicePort) -> Result<i32> {
    match port.target_port {
        Some(IntOrString::Int(number)) => Ok(number),
        ref other => bail!("{other:?} is not a number"),
    }
}

fn listener(name: &str, port: u16) -> Value {
    json!({ "name": name, "port": port, "protocol": "HTTP" })
}

fn at_port_8080(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), 8080)
}
