//! Two replicas: both serve, the leader writes statuses, and the leader is stopped or killed.

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
const SOME: usize = 100;
/// Enough that each replica has some of them.
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
    load.wait_for_more(SOME).await?;
    ensure!(resource_versions(cluster).await? == before, "the new leader wrote unchanged statuses");
    the_leader_writes(cluster, &target, "/crashed").await?;

    one.restart().await?;
    let before = resource_versions(cluster).await?;
    load.wait_for_more(SOME).await?;
    // The leader releases the Lease before its requests have ended, so the time starts with the signal.
    let (stopped, led) =
        tokio::join!(two.stop(), within(Duration::from_secs(2), leader(cluster, |name| name == "one")));
    stopped?;
    led?;
    load.wait_for_more(SOME).await?;
    ensure!(resource_versions(cluster).await? == before, "the new leader wrote unchanged statuses");
    the_leader_writes(cluster, &target, "/stopped").await?;
    load.wait_for_more(SOME).await?;
    load.stop()?;
    cluster.kubectl(&["delete", "gateway,httproute,service,endpointslice", "replicas"]).await?;
    one.stop().await
}

/// Pending connections of a closing listener move to the other replica's. Pods have their own addresses, so clusters do
/// not need this.
fn migrate_pending_connections() -> Result<()> {
    std::fs::write("/proc/sys/net/ipv4/tcp_migrate_req", "1").context("the kernel does not support tcp_migrate_req")
}

/// With keep-alive connections to both replicas, exactly those to the killed one break.
async fn both_serve_until_one_is_killed(target: &Target, killed: &mut Portico, survivor: &Portico) -> Result<()> {
    let mut connections: Vec<Connection> = Vec::new();
    let (mut theirs, mut ours) = (0, 0);
    for _ in 0..CONNECTIONS {
        let (at_killed, at_survivor) = (open_connections(killed).await?, open_connections(survivor).await?);
        let mut connection = target.connect().await?;
        connection.request(target).await?;
        connections.push(connection);
        match (open_connections(killed).await? > at_killed, open_connections(survivor).await? > at_survivor) {
            (true, false) => theirs += 1,
            (false, true) => ours += 1,
            both => bail!("a connection is counted by both replicas or by none: {both:?}"),
        }
    }
    ensure!(theirs > 0 && ours > 0, "{theirs} connections at one, {ours} at the other");
    killed.kill().await?;
    let mut working = 0;
    for connection in &mut connections {
        if connection.request(target).await.is_ok_and(|answer| answer.status == 200) {
            working += 1;
        }
    }
    ensure!(working == ours, "{working} of {ours} connections to the survivor still work");
    Ok(())
}

/// The number of client connections of a replica.
async fn open_connections(portico: &Portico) -> Result<f64> {
    portico.metric("portico_connections").await?.context("the metric portico_connections is missing")
}

async fn the_leader_writes(cluster: &Cluster, target: &Target, path: &str) -> Result<()> {
    let added = json!([{ "op": "replace", "path": "/spec/rules/0/matches/0/path/value", "value": "/" },
        { "op": "add", "path": "/spec/rules/0/matches/-", "value": { "path": prefix(path) } }]);
    let patch = Patch::Json::<()>(serde_json::from_value(added)?);
    routes(cluster).patch("replicas", &PatchParams::default(), &patch).await?;
    wait_until_accepted(cluster, "replicas").await?;
    Target { path: path.to_owned(), ..target.clone() }.expect(200, "replicas").await
}

/// Waits until the leader's name satisfies the condition, and returns it.
pub(crate) async fn leader(cluster: &Cluster, meant: impl Fn(&str) -> bool) -> Result<String> {
    let leases: Api<Lease> = Api::namespaced(cluster.client(), NAMESPACE);
    until("the expected replica leads", async || {
        let lease = leases.get("portico-leader").await?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
        // The holder identity has a unique suffix, because a restarted replica has the same name.
        match holder.split_once('_') {
            Some((holder, _)) if meant(holder) => Ok(holder.to_owned()),
            _ => bail!("`{holder}` leads"),
        }
    })
    .await
}

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
