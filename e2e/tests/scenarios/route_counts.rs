//! Waits for the route count of a Gateway, which is written last.

use anyhow::{Result, ensure};
use kube::api::DynamicObject;
use portico_e2e::cluster::Cluster;

use crate::scenarios::objects::{gateways, until};

/// Waits until the first listener of a Gateway counts this number of routes. Count updates are delayed, so one may
/// follow after everything is served.
pub(crate) async fn wait_until_counted(cluster: &Cluster, name: &str, routes: usize) -> Result<DynamicObject> {
    let api = gateways(cluster);
    until(&format!("Gateway {name} counts {routes} routes"), async || {
        let gateway = api.get(name).await?;
        let counted = &gateway.data["status"]["listeners"][0]["attachedRoutes"];
        ensure!(*counted == routes, "the listener counts {counted} routes");
        Ok(gateway)
    })
    .await
}
