//! Tests of two replicas: both serve, only the leader writes statuses, and the other takes over when it is stopped or
//! killed.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::stream::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{WatchEvent, WatchParams};
use portico_e2e::cluster::Cluster;
use portico_e2e::portico::{NAMESPACE, Portico};
use tokio::time::{Instant, timeout};

use crate::scenarios::backend::Backend;
use crate::scenarios::client::{Connection, Target};
use crate::scenarios::load::Load;
use crate::scenarios::objects::{
    SCENARIO_TIMEOUT, add_path, apply, gateway, gateways, prefix, route, routes, until, wait_until_accepted,
    wait_until_programmed,
};
use crate::scenarios::route_counts::wait_until_counted;

const HOST: &str = "replicas.example";
/// Requests that must be served before the next step.
const REQUESTS: usize = 100;
/// Client connections; enough that each replica has some of them.
const CONNECTIONS: u32 = 64;
const LEASE: &str = "portico-leader";
/// The limit for the replacement of a killed leader: three times the duration of the Lease, which must expire first.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) async fn another_replica_takes_over_leadership(cluster: &Cluster) -> Result<()> {
    migrate_pending_connections()?;
    let _backend = Backend::start(cluster, "replicas").await?;
    let mut one = Portico::start(cluster, "one", &[]).await?;
    leader(cluster, |name| name == "one").await?;
    let mut two = Portico::start(cluster, "two", &[]).await?;
    apply(cluster, &[gateway("replicas"), route("replicas", "replicas", HOST, prefix("/kept"), "replicas")]).await?;
    let address = wait_until_programmed(cluster, "replicas").await?;
    let target = Target::new(address, HOST, "/kept");
    until("the route is served", async || target.expect(200, "replicas").await).await?;
    wait_until_accepted(cluster, "replicas").await?;
    ensure!(leader(cluster, |_| true).await? == "one", "the leader changed without need");
    wait_until_counted(cluster, "replicas", 1).await?;
    let before = resource_versions(cluster).await?;

    both_serve_until_one_is_killed(&target, &mut one, &two).await.context("a crash")?;
    let load = Load::start(&target);
    within(TAKE_OVER_TIMEOUT, leader(cluster, |name| name == "two")).await?;
    load.wait_for_more(REQUESTS).await?;
    ensure!(resource_versions(cluster).await? == before, "the new leader wrote unchanged statuses");
    the_leader_writes(cluster, &target, "/crashed").await?;

    one.restart().await?;
    let before = resource_versions(cluster).await?;
    load.wait_for_more(REQUESTS).await?;
    let held = leases(cluster).get(LEASE).await?;
    let (stopped, handed_over) = tokio::join!(two.stop(), wait_for_hand_over(cluster, &held, "one"));
    stopped?;
    handed_over?;
    load.wait_for_more(REQUESTS).await?;
    ensure!(resource_versions(cluster).await? == before, "the new leader wrote unchanged statuses");
    the_leader_writes(cluster, &target, "/stopped").await?;
    load.wait_for_more(REQUESTS).await?;
    load.stop().await?;
    cluster.kubectl(&["delete", "gateway,httproute,service,endpointslice", "replicas"]).await?;
    one.stop().await
}

/// Lets the kernel move pending connections of a closing listener to that of the other replica, because both use one
/// address. Clusters do not need this: each Pod has its own address.
pub(crate) fn migrate_pending_connections() -> Result<()> {
    std::fs::write("/proc/sys/net/ipv4/tcp_migrate_req", "1").context("the kernel does not support tcp_migrate_req")
}

/// Opens keep-alive connections to both replicas and kills one. Exactly its connections must break.
async fn both_serve_until_one_is_killed(target: &Target, killed: &mut Portico, survivor: &Portico) -> Result<()> {
    let mut connections: Vec<Connection> = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = target.connect().await?;
        until("the replica of this connection serves the route", async || {
            let response = connection.request(target).await?;
            ensure!(response.status == 200, "{response:?}");
            Ok(())
        })
        .await?;
        connections.push(connection);
    }
    let replicas = [&*killed, survivor];
    // Closed connections of earlier requests are counted a little longer.
    let [killed_count, survivor_count] = until("each connection is counted by one replica", async || {
        let counts = [open_connections(replicas[0]).await?, open_connections(replicas[1]).await?];
        ensure!(counts[0] + counts[1] == f64::from(CONNECTIONS), "of {CONNECTIONS}, the replicas count {counts:?}");
        Ok(counts)
    })
    .await?;
    ensure!(
        killed_count > 0.0 && survivor_count > 0.0,
        "{killed_count} connections to the replica that is killed, {survivor_count} to the other"
    );
    killed.kill().await?;
    let mut working = 0_u32;
    for connection in &mut connections {
        if connection.request(target).await.is_ok_and(|response| response.status == 200) {
            working += 1;
        }
    }
    ensure!(
        f64::from(working) == survivor_count,
        "{working} of {survivor_count} connections to the survivor still work"
    );
    Ok(())
}

/// The number of client connections of a replica.
async fn open_connections(portico: &Portico) -> Result<f64> {
    portico.metric("portico_connections").await?.context("the metric portico_connections is missing")
}

/// Adds a path to the route: the leader must write the route's status, and the path be served.
async fn the_leader_writes(cluster: &Cluster, target: &Target, path: &str) -> Result<()> {
    add_path(cluster, "replicas", path).await?;
    wait_until_accepted(cluster, "replicas").await?;
    let changed = Target { path: path.to_owned(), ..target.clone() };
    until("the change is served", async || changed.expect(200, "replicas").await).await
}

/// Waits until the name of the leader is an expected one, and returns it.
pub(crate) async fn leader(cluster: &Cluster, is_expected: impl Fn(&str) -> bool) -> Result<String> {
    let leases = leases(cluster);
    until("the expected replica leads", async || {
        let lease = leases.get(LEASE).await?;
        match holder(&lease) {
            "" => bail!("no replica leads"),
            name if is_expected(name) => Ok(name.to_owned()),
            name => bail!("`{name}` leads"),
        }
    })
    .await
}

/// Waits until this replica holds the Lease that another replica held before. The other replica must have released it:
/// a Lease that expires passes to the next holder without a version that has no holder.
async fn wait_for_hand_over(cluster: &Cluster, held: &Lease, successor: &str) -> Result<()> {
    let version = held.metadata.resource_version.as_deref().context("the Lease has no resourceVersion")?;
    let parameters = WatchParams::default().fields(&format!("metadata.name={LEASE}"));
    let mut changes = leases(cluster).watch(&parameters, version).await?.boxed();
    let take_over = async {
        let mut was_released = false;
        while let Some(change) = changes.try_next().await? {
            let lease = match change {
                WatchEvent::Modified(lease) => lease,
                WatchEvent::Bookmark(_) => continue,
                other => bail!("the Lease was not changed, but: {other:?}"),
            };
            was_released |= holder(&lease).is_empty();
            if holder(&lease) == successor {
                ensure!(was_released, "{successor} took the Lease, which its holder had not released");
                return anyhow::Ok(());
            }
        }
        bail!("the watch of the Lease ended")
    };
    timeout(SCENARIO_TIMEOUT, take_over).await.with_context(|| format!("{successor} did not take the Lease"))?
}

fn leases(cluster: &Cluster) -> Api<Lease> {
    Api::namespaced(cluster.client(), NAMESPACE)
}

/// The name of the replica that holds the Lease; empty if none does.
fn holder(lease: &Lease) -> &str {
    let identity = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
    // The identity has a unique suffix, because a restarted replica has the same name.
    identity.split_once('_').map_or(identity, |(name, _)| name)
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
