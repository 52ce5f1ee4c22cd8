//! Two replicas: all serve, one writes; the one that writes goes, in order or by a crash.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams};
use portico_e2e::cluster::Cluster;
use portico_e2e::portico::{NAMESPACE, Portico};
use serde_json::json;
use tokio::time::Instant;

use crate::backend::Backend;
use crate::client::{Connection, Target};
use crate::load::Load;
use crate::objects::{accepted, apply, gateway, gateways, prefix, programmed, route, routes, until};

const HOST: &str = "replicas.example";
const SOME: usize = 100;
/// Enough that each replica has some.
const CONNECTIONS: usize = 64;

pub(crate) async fn another_replica_takes_over_from_the_one_that_leads(cluster: &Cluster) -> Result<()> {
    hand_connections_over()?;
    let _backend = Backend::start(cluster, "replicas").await?;
    let mut one = Portico::start(cluster, "one", &[]).await?;
    leader(cluster, |name| name == "one").await?;
    let mut two = Portico::start(cluster, "two", &[]).await?;
    apply(cluster, &[gateway("replicas"), route("replicas", "replicas", HOST, prefix("/"), "replicas")]).await?;
    let address = programmed(cluster, "replicas").await?;
    let target = Target::new(address, HOST, "/");
    until("the route answers", async || target.expect(200, "replicas").await).await?;
    accepted(cluster, "replicas").await?;
    ensure!(leader(cluster, |_| true).await? == "one", "two leads without need");
    let before = versions(cluster).await?;

    both_serve_until_one_is_killed(&target, &mut one, &two).await.context("a crash")?;
    let load = Load::start(&target);
    within(Duration::from_secs(15), leader(cluster, |name| name == "two")).await?;
    load.more(SOME).await?;
    ensure!(versions(cluster).await? == before, "the new leader has written again");
    the_leader_writes(cluster, &target, "/crashed").await?;

    one.restart().await?;
    let before = versions(cluster).await?;
    load.more(SOME).await?;
    // Its requests end before it does, so the time until the other one leads begins when it is asked.
    let (stopped, led) =
        tokio::join!(two.stop(), within(Duration::from_secs(2), leader(cluster, |name| name == "one")));
    stopped?;
    led?;
    load.more(SOME).await?;
    ensure!(versions(cluster).await? == before, "the new leader has written again");
    the_leader_writes(cluster, &target, "/stopped").await?;
    load.more(SOME).await?;
    load.stop()?;
    cluster.kubectl(&["delete", "gateway,httproute,service,endpointslice", "replicas"]).await?;
    one.stop().await
}

/// Connections that wait at a listener when it closes go to the other replica's. Between Pods, which have addresses of
/// their own, a cluster sends nothing more to the one that leaves.
fn hand_connections_over() -> Result<()> {
    std::fs::write("/proc/sys/net/ipv4/tcp_migrate_req", "1").context("this kernel hands no connections over")
}

/// Kept connections to both: exactly those of the killed one break.
async fn both_serve_until_one_is_killed(target: &Target, killed: &mut Portico, survivor: &Portico) -> Result<()> {
    let mut connections: Vec<Connection> = Vec::new();
    let (mut theirs, mut ours) = (0, 0);
    for _ in 0..CONNECTIONS {
        let (at_killed, at_survivor) = (open(killed).await?, open(survivor).await?);
        let mut connection = target.connect().await?;
        connection.ask(target).await?;
        connections.push(connection);
        match (open(killed).await? > at_killed, open(survivor).await? > at_survivor) {
            (true, false) => theirs += 1,
            (false, true) => ours += 1,
            both => bail!("a connection is at both or none: {both:?}"),
        }
    }
    ensure!(theirs > 0 && ours > 0, "{theirs} connections at one, {ours} at the other");
    killed.kill().await?;
    let mut answered = 0;
    for connection in &mut connections {
        if connection.ask(target).await.is_ok_and(|answer| answer.status == 200) {
            answered += 1;
        }
    }
    ensure!(answered == ours, "{answered} of {ours} kept connections to the survivor answered");
    Ok(())
}

/// How many connections of clients a replica has.
async fn open(portico: &Portico) -> Result<f64> {
    portico.metric("portico_connections").await?.context("no count of connections")
}

async fn the_leader_writes(cluster: &Cluster, target: &Target, path: &str) -> Result<()> {
    let added = json!([{ "op": "replace", "path": "/spec/rules/0/matches/0/path/value", "value": "/" },
        { "op": "add", "path": "/spec/rules/0/matches/-", "value": { "path": prefix(path) } }]);
    let patch = Patch::Json::<()>(serde_json::from_value(added)?);
    routes(cluster).patch("replicas", &PatchParams::default(), &patch).await?;
    accepted(cluster, "replicas").await?;
    Target { path: path.to_owned(), ..target.clone() }.expect(200, "replicas").await
}

/// Waits until a replica leads whose name is one of those meant, and says which.
pub(crate) async fn leader(cluster: &Cluster, meant: impl Fn(&str) -> bool) -> Result<String> {
    let leases: Api<Lease> = Api::namespaced(cluster.client(), NAMESPACE);
    until("the right replica leads", async || {
        let lease = leases.get("portico-leader").await?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
        // The Lease has more than the name, which a replica has again when it starts again.
        match holder.split_once('_') {
            Some((holder, _)) if meant(holder) => Ok(holder.to_owned()),
            _ => bail!("`{holder}` does"),
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

/// Those of everything that has a status of ours.
async fn versions(cluster: &Cluster) -> Result<[Option<String>; 2]> {
    let gateway = gateways(cluster).get("replicas").await?;
    let route = routes(cluster).get("replicas").await?;
    Ok([gateway.metadata.resource_version, route.metadata.resource_version])
}
