//! Portico as its manifests have it: installed, replaced while requests flow, and removed.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ListParams;
use portico_e2e::cluster::Cluster;
use portico_e2e::portico::NAMESPACE;

use crate::backend::Backend;
use crate::client::Target;
use crate::counts::counted;
use crate::load::Load;
use crate::objects::{accepted, apply, gateway, gateways, prefix, programmed, route, routes, until};
use crate::replicas::leader;

const HOST: &str = "deployed.example";
const SOME: usize = 100;
/// Of the Deployment in the manifests.
const REPLICAS: usize = 2;

/// Needs a node, and `make image-root`.
pub(crate) async fn install(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["apply", "-f", &manifests("install.yaml")?]).await?;
    rolled_out(cluster).await?;
    // The same once more, as the manual has it otherwise: nothing is rolled out anew.
    let before = pods(cluster).await?;
    cluster.kubectl(&["apply", "-k", &manifests("base")?]).await?;
    rolled_out(cluster).await?;
    let after = pods(cluster).await?;
    ensure!(before == after && after.len() == REPLICAS, "{after:?} were {before:?}");
    Ok(())
}

/// After [`install`]. Every Pod of it is another one afterwards.
pub(crate) async fn no_request_fails_while_its_pods_are_replaced(cluster: &Cluster) -> Result<()> {
    let _backend = Backend::start(cluster, "deployed").await?;
    apply(cluster, &[gateway("deployed"), route("deployed", "deployed", HOST, prefix("/"), "deployed")]).await?;
    let target = Target::new(programmed(cluster, "deployed").await?, HOST, "/");
    accepted(cluster, "deployed").await?;
    until("the route answers", async || target.expect(200, "deployed").await).await?;
    leads_to(cluster, "deployed-portico", &pods(cluster).await?).await?;
    counted(cluster, "deployed", 1).await?;
    let before = versions(cluster).await?;

    let load = Load::start(&target);
    load.more(SOME).await?;
    let old = leader(cluster, |_| true).await?;
    let delete = ["delete", "pod", &old, "--namespace", NAMESPACE, "--wait=false"];
    cluster.kubectl(&delete).await?;
    leader(cluster, |name| name != old).await.context("another Pod leads")?;
    without(cluster, &BTreeSet::from([old])).await?;
    load.more(SOME).await?;
    no_failure(&load, "the Pod that led was deleted")?;

    let old = pods(cluster).await?;
    cluster.kubectl(&["rollout", "restart", "deployment/portico", "--namespace", NAMESPACE]).await?;
    rolled_out(cluster).await?;
    without(cluster, &old).await?;
    load.more(SOME).await?;
    no_failure(&load, "the Deployment was rolled")?;
    load.stop()?;
    let after = versions(cluster).await?;
    ensure!(after == before, "what was right was written again: {after:?} was {before:?}");
    cluster.kubectl(&["delete", "gateway,httproute", "deployed"]).await?;
    gone(cluster, "deployed-portico").await.context("the Service outlives its Gateway")?;
    cluster.kubectl(&["delete", "service,endpointslice", "deployed"]).await.map(drop)
}

/// After [`install`], which is undone. Gateways that are there then keep their addresses for the next time.
pub(crate) async fn what_is_removed_is_gone_and_can_come_back(cluster: &Cluster) -> Result<()> {
    let _backend = Backend::start(cluster, "removed").await?;
    apply(cluster, &[gateway("removed"), route("removed", "removed", HOST, prefix("/"), "removed")]).await?;
    let target = Target::new(programmed(cluster, "removed").await?, HOST, "/");
    until("the route answers", async || target.expect(200, "removed").await).await?;
    let old = pods(cluster).await?;
    cluster.kubectl(&["delete", "-f", &manifests("install.yaml")?]).await?;
    for kind in ["clusterrole", "clusterrolebinding", "gatewayclass"] {
        let left = cluster.kubectl(&["get", kind, "portico", "--ignore-not-found", "--output=name"]).await?;
        ensure!(left.is_empty(), "{left} is left");
    }
    let left = cluster.kubectl(&["get", "namespace", NAMESPACE, "--ignore-not-found", "--output=name"]).await?;
    ensure!(left.is_empty(), "{left} is left");
    ensure!(target.ask().await.is_err(), "somebody answers in place of Portico");

    install(cluster).await?;
    let now = Target::new(programmed(cluster, "removed").await?, HOST, "/");
    ensure!(now.address == target.address, "the address has changed: {} was {}", now.address, target.address);
    leads_to(cluster, "removed-portico", &pods(cluster).await?).await?;
    ensure!(pods(cluster).await?.is_disjoint(&old));
    until("the route answers again", async || target.expect(200, "removed").await).await?;

    // In the order of the manual, which leaves nothing.
    cluster.kubectl(&["delete", "gateway,httproute", "removed"]).await?;
    gone(cluster, "removed-portico").await?;
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

/// Waits until a Service leads to exactly these Pods, and all of them take requests.
pub(crate) async fn leads_to(cluster: &Cluster, service: &str, pods: &BTreeSet<String>) -> Result<Vec<EndpointSlice>> {
    until(&format!("Service {service} leads to {pods:?}"), async || {
        let slices = slices(cluster, service).await?;
        let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        let ready = endpoints
            .filter(|endpoint| endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true)));
        let names: BTreeSet<_> = ready.filter_map(|endpoint| endpoint.target_ref.clone()?.name).collect();
        ensure!(names == *pods && slices.len() == pods.len(), "it leads to {names:?}, in {} slices", slices.len());
        Ok(slices)
    })
    .await
}

pub(crate) async fn slices(cluster: &Cluster, service: &str) -> Result<Vec<EndpointSlice>> {
    let slices: Api<EndpointSlice> = Api::default_namespaced(cluster.client());
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    Ok(slices.list(&of_service).await?.items)
}

/// Waits until neither the Service nor an EndpointSlice of it is there.
pub(crate) async fn gone(cluster: &Cluster, service: &str) -> Result<()> {
    let services: Api<Service> = Api::default_namespaced(cluster.client());
    until(&format!("Service {service} is gone"), async || {
        ensure!(services.get_opt(service).await?.is_none(), "it is there");
        let left = slices(cluster, service).await?;
        ensure!(left.is_empty(), "{} of its EndpointSlices are there", left.len());
        Ok(())
    })
    .await
}

/// Waits until all Pods are ready that should be, and no other is left.
pub(crate) async fn rolled_out(cluster: &Cluster) -> Result<()> {
    let status = ["rollout", "status", "deployment/portico", "--namespace", NAMESPACE, "--timeout=100s"];
    cluster.kubectl(&status).await?;
    until("the old Pods are gone", async || {
        let now = pods(cluster).await?;
        ensure!(now.len() == REPLICAS, "there are {now:?}");
        Ok(())
    })
    .await
}

/// Waits until none of these Pods is left and as many others as there should be are.
async fn without(cluster: &Cluster, old: &BTreeSet<String>) -> Result<()> {
    until("these Pods are gone", async || {
        let now = pods(cluster).await?;
        ensure!(now.is_disjoint(old), "{now:?} has some of {old:?}");
        Ok(())
    })
    .await?;
    rolled_out(cluster).await
}

fn no_failure(load: &Load, when: &str) -> Result<()> {
    let failures = load.seen().failures;
    match failures.first() {
        None => Ok(()),
        Some(first) => bail!("{} requests failed while {when}; the first: {first}", failures.len()),
    }
}

/// Those of what Portico writes.
async fn versions(cluster: &Cluster) -> Result<[Option<String>; 3]> {
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
