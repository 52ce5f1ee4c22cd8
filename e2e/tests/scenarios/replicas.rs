//! Tests of two replicas: both serve, only the leader writes statuses, and the other takes over when it is stopped or
//! killed.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams};
use portico_e2e::cluster::Cluster;
use portico_e2e::portico::{NAMESPACE, Portico};
use serde_json::json;
use tokio::time::Instant;

use crate::scenarios::backend::Backend;
use crate::scenarios::client::{Connection, Target};
use crate::scenarios::load::Load;
use crate::scenarios::objects::{
    apply, gateway, gateways, prefix, route, routes, until, wait_until_accepted, wait_until_programmed,
};

const HOST: &str = "replicas.example";
/// Requests that must be served before the next step.
const REQUESTS: usize = 100;
/// Client connections; enough that each replica has some of them.
const CONNECTIONS: usize = 64;

pub(crate) async fn another_replica_takes_over_leadership(cluster: &Cluster) -> Result<()> {
    migrate_pending_connections()?;
    let _backend = Backend::start(cluster, "replicas").await?;
    let mut one = Portico::start(cluster, "one", &[]).await?;
    leader(cluster, |name| name == "one").await?;
    let mut two = Portico::start(cluster, "two", &[]).await?;
    apply(cluster, &[gateway("replicas"), route("replicas", "replicas", HOST, prefix("/"), "replicas")]).await?;
    let address = wait_until_programmed(cluster, "replicas").await?;
    let target = Target::new(address, HOST, "/");
    until("the route is served", async || target.expect(200, "replicas").await).await?;
    wait_until_accepted(cluster, "replicas").await?;
    ensure!(leader(cluster, |_| true).await? == "one", "the leader changed without need");
    let before = resource_versions(cluster).await?;

    both_serve_until_one_is_killed(&target, &mut one, &two).await.context("a crash")?;
    let load = Load::start(&target);
    within(Duration::from_secs(15), leader(cluster, |name| name == "two")).await?;
    load.wait_for_more(REQUESTS).await?;
    ensure!(resource_versions(cluster).await? == before, "the new leader wrote unchanged statuses");
    the_leader_writes(cluster, &target, "/crashed").await?;

    one.restart().await?;
    let before = resource_versions(cluster).await?;
    load.wait_for_more(REQUESTS).await?;
    // The leader releases the Lease before its requests have ended, so the time starts with the signal.
    let (stopped, led) =
        tokio::join!(two.stop(), within(Duration::from_secs(2), leader(cluster, |name| name == "one")));
    stopped?;
    led?;
    load.wait_for_more(REQUESTS).await?;
    ensure!(resource_versions(cluster).await? == before, "the new leader wrote unchanged statuses");
    the_leader_writes(cluster, &target, "/stopped").await?;
    load.wait_for_more(REQUESTS).await?;
    load.stop()?;
    cluster.kubectl(&["delete", "gateway,httproute,service,endpointslice", "replicas"]).await?;
    one.stop().await
}

/// Lets the kernel move pending connections of a closing listener to that of the other replica, because both use one
/// address. Clusters do not need this: each Pod has its own address.
fn migrate_pending_connections() -> Result<()> {
    std::fs::write("/proc/sys/net/ipv4/tcp_migrate_req", "1").context("the kernel does not support tcp_migrate_req")
}

/// Opens keep-alive connections to both replicas and kills one. Exactly its connections must break.
async fn both_serve_until_one_is_killed(target: &Target, killed: &mut Portico, survivor: &Portico) -> Result<()> {
    let mut connections: Vec<Connection> = Vec::new();
    let (mut killed_count, mut survivor_count) = (0, 0);
    for _ in 0..CONNECTIONS {
        let (killed_before, survivor_before) = (open_connections(killed).await?, open_connections(survivor).await?);
        let mut connection = target.connect().await?;
        connection.request(target).await?;
        connections.push(connection);
        match (open_connections(killed).await? > killed_before, open_connections(survivor).await? > survivor_before) {
            (true, false) => killed_count += 1,
            (false, true) => survivor_count += 1,
            counted_by => bail!("a connection is counted by both replicas or by none: {counted_by:?}"),
        }
    }
    ensure!(
        killed_count > 0 && survivor_count > 0,
        "{killed_count} connections to the replica that is killed, {survivor_count} to the other"
    );
    killed.kill().await?;
    let mut working = 0;
    for connection in &mut connections {
        if connection.request(target).await.is_ok_and(|response| response.status == 200) {
            working += 1;
        }
    }
    ensure!(working == survivor_count, "{working} of {survivor_count} connections to the survivor still work");
    Ok(())
}

/// The number of client connections of a replica.
async fn open_connections(portico: &Portico) -> Result<f64> {
    portico.metric("portico_connections").await?.context("the metric portico_connections is missing")
}

/// Changes the route: the leader must write its status, and the change be served.
async fn the_leader_writes(cluster: &Cluster, target: &Target, path: &str) -> Result<()> {
    let added = json!([{ "op": "replace", "path": "/spec/rules/0/matches/0/path/value", "value": "/" },
        { "op": "add", "path": "/spec/rules/0/matches/-", "value": { "path": prefix(path) } }]);
    let patch = Patch::Json::<()>(serde_json::from_value(added)?);
    routes(cluster).patch("replicas", &PatchParams::default(), &patch).await?;
    wait_until_accepted(cluster, "replicas").await?;
    Target { path: path.to_owned(), ..target.clone() }.expect(200, "replicas").await
}

/// Waits until the name of the leader is an expected one, and returns it.
pub(crate) async fn leader(cluster: &Cluster, is_expected: impl Fn(&str) -> bool) -> Result<String> {
    let leases: Api<Lease> = Api::namespaced(cluster.client(), NAMESPACE);
    until("the expected replica leads", async || {
        let lease = leases.get("portico-leader").await?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
        // The holder identity has a unique suffix, because a restarted replica has the same name.
        match holder.split_once('_') {
            Some((holder, _)) if is_expected(holder) => Ok(holder.to_owned()),
            _ => bail!("`{holder}` leads"),
        }
    })
    .await
}

/// Fails if the work takes longer than the limit.
async fn within<Output>(limit: Duration, work: impl Future<Output = Result<Output>>) -> Result<Output> {
    let start = Instant::now();
    let output = work.await?;
    ensure!(start.elapsed() <= limit, "it took {:?} instead of at most {limit:?}", start.elapsed());
    Ok(output)
}

/// Resource versions of the objects whose status Portico writes.
async fn resource_versions(cluster: &Cluster) -> Result<[Option<String>; 2]> {
    let gateway = gateways(cluster).get("replicas").await?;
    let route = routes(cluster).get("replicas").await?;
    Ok([gateway.metadata.resource_version, route.metadata.resource_version])
}
