//! The routes that a Gateway counts, which are the last that is written about it.

use anyhow::{Result, ensure};
use kube::api::DynamicObject;
use portico_e2e::cluster::Cluster;

use crate::objects::{gateways, until};

/// Waits until the first listener of a Gateway counts that many routes. Counts are written with a pause between them, so that
/// one may still come when everything is served.
pub(crate) async fn counted(cluster: &Cluster, name: &str, routes: usize) -> Result<DynamicObject> {
    let api = gateways(cluster);
    until(&format!("Gateway {name} counts {routes}"), async || {
        let gateway = api.get(name).await?;
        let counted = &gateway.data["status"]["listeners"][0]["attachedRoutes"];
        ensure!(*counted == routes, "it counts {counted}");
        Ok(gateway)
    })
    .await
}
