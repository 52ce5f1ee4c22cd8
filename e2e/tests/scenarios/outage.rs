//! The API server goes away and comes back while requests flow.

use anyhow::{Result, ensure};
use kube::api::{Patch, PatchParams};
use portico_e2e::cluster::Cluster;
use serde_json::json;

use crate::backend::Backend;
use crate::client::Target;
use crate::counts::counted;
use crate::load::Load;
use crate::objects::{accepted, apply, gateway, gateways, prefix, programmed, route, routes, until};

const HOST: &str = "outage.example";
/// Requests between two events: enough that some fall upon each.
const SOME: usize = 100;

pub(crate) async fn requests_are_answered_while_the_api_server_is_away(cluster: &mut Cluster) -> Result<()> {
    let _backend = Backend::start(cluster, "outage").await?;
    apply(cluster, &[gateway("outage"), route("outage", "outage", HOST, prefix("/kept"), "outage")]).await?;
    let address = programmed(cluster, "outage").await?;
    let target = Target::new(address, HOST, "/kept");
    until("the route answers", async || target.expect(200, "outage").await).await?;
    accepted(cluster, "outage").await?;
    counted(cluster, "outage", 1).await?;
    let before = gateways(cluster).get("outage").await?;

    let load = Load::start(&target);
    load.more(SOME).await?;
    cluster.stop_apiserver()?;
    load.more(SOME).await?;
    cluster.start_apiserver().await?;
    changes_are_followed(cluster, &target, "/stopped").await?;
    load.more(SOME).await?;
    cluster.kill_apiserver()?;
    load.more(SOME).await?;
    cluster.start_apiserver().await?;
    changes_are_followed(cluster, &target, "/killed").await?;
    load.more(SOME).await?;
    load.stop()?;

    let after = gateways(cluster).get("outage").await?;
    let (then, later) = (&before.metadata.resource_version, &after.metadata.resource_version);
    ensure!(then == later, "written again: {before:?} is now {after:?}");
    cluster.kubectl(&["delete", "gateway,httproute,service,endpointslice", "outage"]).await.map(drop)
}

/// A change that is made after the return answers, and the status speaks of it.
async fn changes_are_followed(cluster: &Cluster, target: &Target, path: &str) -> Result<()> {
    let added = json!([{ "op": "add", "path": "/spec/rules/0/matches/-", "value": { "path": prefix(path) } }]);
    let patch = Patch::Json::<()>(serde_json::from_value(added)?);
    routes(cluster).patch("outage", &PatchParams::default(), &patch).await?;
    let changed = Target { path: path.to_owned(), ..target.clone() };
    until("the change is served", async || changed.expect(200, "outage").await).await?;
    accepted(cluster, "outage").await.map(drop)
}
