//! Portico as a Deployment of its manifests: installation, rolling updates under load, and removal.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ListParams;
use portico_e2e::cluster::Cluster;
use portico_e2e::portico::NAMESPACE;

use crate::scenarios::backend::Backend;
use crate::scenarios::client::Target;
use crate::scenarios::load::Load;
use crate::scenarios::objects::{
    apply, gateway, gateways, prefix, route, routes, until, wait_until_accepted, wait_until_programmed,
};
use crate::scenarios::replicas::leader;
use crate::scenarios::route_counts::wait_until_counted;

const HOST: &str = "deployed.example";
/// Requests that must be served before the next step.
const REQUESTS: usize = 100;
/// The replicas of the Deployment in the manifests.
const REPLICAS: usize = 2;

/// Needs a node, and the output of `make image-root-test`.
pub(crate) async fn install(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["apply", "-f", &manifests("install.yaml")?]).await?;
    wait_for_rollout(cluster).await?;
    // Applies the same objects with kustomize: no Pod is replaced.
    let before = pods(cluster).await?;
    cluster.kubectl(&["apply", "-k", &manifests("base")?]).await?;
    wait_for_rollout(cluster).await?;
    let after = pods(cluster).await?;
    ensure!(before == after && after.len() == REPLICAS, "{after:?} were {before:?}");
    Ok(())
}

/// Needs [`install`]. Replaces the leader, and then all Pods.
pub(crate) async fn replacing_portico_pods_fails_no_request(cluster: &Cluster) -> Result<()> {
    let _backend = Backend::start(cluster, "deployed").await?;
    apply(cluster, &[gateway("deployed"), route("deployed", "deployed", HOST, prefix("/"), "deployed")]).await?;
    let target = Target::new(wait_until_programmed(cluster, "deployed").await?, HOST, "/");
    wait_until_accepted(cluster, "deployed").await?;
    until("the route is served", async || target.expect(200, "deployed").await).await?;
    wait_for_endpoints(cluster, "deployed-portico", &pods(cluster).await?).await?;
    wait_until_counted(cluster, "deployed", 1).await?;
    let before = resource_versions(cluster).await?;

    let load = Load::start(&target);
    load.wait_for_more(REQUESTS).await?;
    let old_leader = leader(cluster, |_| true).await?;
    let delete = ["delete", "pod", &old_leader, "--namespace", NAMESPACE, "--wait=false"];
    cluster.kubectl(&delete).await?;
    leader(cluster, |name| name != old_leader).await.context("no other Pod became leader")?;
    wait_until_replaced(cluster, &BTreeSet::from([old_leader])).await?;
    load.wait_for_more(REQUESTS).await?;
    check_no_failure(&load, "the leader was deleted")?;

    let old = pods(cluster).await?;
    cluster.kubectl(&["rollout", "restart", "deployment/portico", "--namespace", NAMESPACE]).await?;
    wait_for_rollout(cluster).await?;
    wait_until_replaced(cluster, &old).await?;
    load.wait_for_more(REQUESTS).await?;
    check_no_failure(&load, "the Deployment was rolled")?;
    load.stop().await?;
    let after = resource_versions(cluster).await?;
    ensure!(after == before, "unchanged statuses were written again: {before:?} became {after:?}");
    cluster.kubectl(&["delete", "gateway,httproute", "deployed"]).await?;
    wait_until_deleted(cluster, "deployed-portico").await.context("the Service still exists without its Gateway")?;
    cluster.kubectl(&["delete", "service,endpointslice", "deployed"]).await.map(drop)
}

/// Needs [`install`]. Removes Portico, installs it again for the existing Gateways, which keep their addresses, and
/// removes everything.
pub(crate) async fn removal_is_complete_and_reversible(cluster: &Cluster) -> Result<()> {
    let _backend = Backend::start(cluster, "removed").await?;
    apply(cluster, &[gateway("removed"), route("removed", "removed", HOST, prefix("/"), "removed")]).await?;
    let target = Target::new(wait_until_programmed(cluster, "removed").await?, HOST, "/");
    until("the route is served", async || target.expect(200, "removed").await).await?;
    let old = pods(cluster).await?;
    cluster.kubectl(&["delete", "-f", &manifests("install.yaml")?]).await?;
    for kind in ["clusterrole", "clusterrolebinding", "gatewayclass"] {
        let left = cluster.kubectl(&["get", kind, "portico", "--ignore-not-found", "--output=name"]).await?;
        ensure!(left.is_empty(), "{left} is left");
    }
    let left = cluster.kubectl(&["get", "namespace", NAMESPACE, "--ignore-not-found", "--output=name"]).await?;
    ensure!(left.is_empty(), "{left} is left");
    ensure!(target.request().await.is_err(), "the address still accepts requests");

    install(cluster).await?;
    let new_target = Target::new(wait_until_programmed(cluster, "removed").await?, HOST, "/");
    ensure!(
        new_target.address == target.address,
        "the address has changed: {} was {}",
        new_target.address,
        target.address
    );
    wait_for_endpoints(cluster, "removed-portico", &pods(cluster).await?).await?;
    ensure!(pods(cluster).await?.is_disjoint(&old));
    until("the route is served again", async || target.expect(200, "removed").await).await?;

    // Deletion in the documented order leaves nothing behind.
    cluster.kubectl(&["delete", "gateway,httproute", "removed"]).await?;
    wait_until_deleted(cluster, "removed-portico").await?;
    cluster.kubectl(&["delete", "service,endpointslice", "removed"]).await?;
    cluster.kubectl(&["delete", "-f", &manifests("install.yaml")?]).await?;
    for kind in ["services", "endpointslices.discovery.k8s.io"] {
        let selector = "--selector=app.kubernetes.io/managed-by=portico";
        let left = cluster.kubectl(&["get", kind, "--all-namespaces", selector, "--output=name"]).await?;
        ensure!(left.is_empty(), "{left} is left");
    }
    Ok(())
}

/// The names of Portico's Pods.
pub(crate) async fn pods(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), NAMESPACE);
    let pods = pods.list(&ListParams::default().labels("app.kubernetes.io/name=portico")).await?;
    Ok(pods.into_iter().filter_map(|pod| pod.metadata.name).collect())
}

/// Waits until a Service has exactly these Pods as ready endpoints.
pub(crate) async fn wait_for_endpoints(
    cluster: &Cluster,
    service: &str,
    pods: &BTreeSet<String>,
) -> Result<Vec<EndpointSlice>> {
    until(&format!("Service {service} has the endpoints {pods:?}"), async || {
        let slices = slices(cluster, service).await?;
        let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        let ready = endpoints
            .filter(|endpoint| endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true)));
        let names: BTreeSet<_> = ready.filter_map(|endpoint| endpoint.target_ref.clone()?.name).collect();
        ensure!(
            names == *pods && slices.len() == pods.len(),
            "its endpoints are {names:?}, in {} slices",
            slices.len()
        );
        Ok(slices)
    })
    .await
}

/// The EndpointSlices of a Service.
pub(crate) async fn slices(cluster: &Cluster, service: &str) -> Result<Vec<EndpointSlice>> {
    let slices: Api<EndpointSlice> = Api::default_namespaced(cluster.client());
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    Ok(slices.list(&of_service).await?.items)
}

/// Waits until the Service and its EndpointSlices are deleted.
pub(crate) async fn wait_until_deleted(cluster: &Cluster, service: &str) -> Result<()> {
    let services: Api<Service> = Api::default_namespaced(cluster.client());
    until(&format!("Service {service} is gone"), async || {
        ensure!(services.get_opt(service).await?.is_none(), "the Service still exists");
        let left = slices(cluster, service).await?;
        ensure!(left.is_empty(), "{} of its EndpointSlices still exist", left.len());
        Ok(())
    })
    .await
}

/// Waits until all Pods are ready and old ones are gone.
pub(crate) async fn wait_for_rollout(cluster: &Cluster) -> Result<()> {
    let status = ["rollout", "status", "deployment/portico", "--namespace", NAMESPACE, "--timeout=180s"];
    cluster.kubectl(&status).await?;
    until("the old Pods are gone", async || {
        let now = pods(cluster).await?;
        ensure!(now.len() == REPLICAS, "there are {now:?}");
        Ok(())
    })
    .await
}

/// Waits until these Pods are replaced by others.
async fn wait_until_replaced(cluster: &Cluster, old: &BTreeSet<String>) -> Result<()> {
    until("these Pods are gone", async || {
        let now = pods(cluster).await?;
        ensure!(now.is_disjoint(old), "{now:?} contains old Pods of {old:?}");
        Ok(())
    })
    .await?;
    wait_for_rollout(cluster).await
}

/// Fails if a request of the load has failed.
fn check_no_failure(load: &Load, when: &str) -> Result<()> {
    let failures = load.results().failures;
    match failures.first() {
        None => Ok(()),
        Some(first) => bail!("{} requests failed while {when}; the first: {first}", failures.len()),
    }
}

/// Resource versions of the objects of [`replacing_portico_pods_fails_no_request`] that Portico writes.
async fn resource_versions(cluster: &Cluster) -> Result<[Option<String>; 3]> {
    let gateway = gateways(cluster).get("deployed").await?.metadata;
    let route = routes(cluster).get("deployed").await?.metadata;
    let services: Api<Service> = Api::default_namespaced(cluster.client());
    let service = services.get("deployed-portico").await?.metadata;
    Ok([gateway, route, service].map(|metadata| metadata.resource_version))
}

fn manifests(name: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("manifests").join(name);
    Ok(path.to_str().context("the checkout's path is not UTF-8")?.to_owned())
}
