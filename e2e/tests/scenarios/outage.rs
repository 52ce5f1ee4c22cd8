//! Stops and restarts the API server while requests flow.

use anyhow::{Result, ensure};
use portico_e2e::cluster::Cluster;

use crate::scenarios::backend::Backend;
use crate::scenarios::client::Target;
use crate::scenarios::load::Load;
use crate::scenarios::objects::{
    add_path, apply, gateway, gateways, prefix, route, until, wait_until_accepted, wait_until_programmed,
};
use crate::scenarios::route_counts::wait_until_counted;

const HOST: &str = "outage.example";
/// Requests between two events: enough that some are in flight at each.
const REQUESTS: usize = 100;

pub(crate) async fn requests_are_served_during_an_outage(cluster: &mut Cluster) -> Result<()> {
    let _backend = Backend::start(cluster, "outage").await?;
    apply(cluster, &[gateway("outage"), route("outage", "outage", HOST, prefix("/kept"), "outage")]).await?;
    let address = wait_until_programmed(cluster, "outage").await?;
    let target = Target::new(address, HOST, "/kept");
    until("the route is served", async || target.expect(200, "outage").await).await?;
    wait_until_accepted(cluster, "outage").await?;
    wait_until_counted(cluster, "outage", 1).await?;
    let before = gateways(cluster).get("outage").await?;

    let load = Load::start(&target);
    load.wait_for_more(REQUESTS).await?;
    cluster.stop_apiserver()?;
    load.wait_for_more(REQUESTS).await?;
    cluster.start_apiserver().await?;
    changes_are_followed(cluster, &target, "/stopped").await?;
    load.wait_for_more(REQUESTS).await?;
    cluster.kill_apiserver()?;
    load.wait_for_more(REQUESTS).await?;
    cluster.start_apiserver().await?;
    changes_are_followed(cluster, &target, "/killed").await?;
    load.wait_for_more(REQUESTS).await?;
    load.stop().await?;

    let after = gateways(cluster).get("outage").await?;
    let unchanged = before.metadata.resource_version == after.metadata.resource_version;
    ensure!(unchanged, "the status was written again: {before:?} became {after:?}");
    cluster.kubectl(&["delete", "gateway,httproute,service,endpointslice", "outage"]).await.map(drop)
}

/// Changes the route after a restart of the API server: the change must be served, and the status be up to date.
async fn changes_are_followed(cluster: &Cluster, target: &Target, path: &str) -> Result<()> {
    add_path(cluster, "outage", path).await?;
    let changed = Target { path: path.to_owned(), ..target.clone() };
    until("the change is served", async || changed.expect(200, "outage").await).await?;
    wait_until_accepted(cluster, "outage").await.map(drop)
}
