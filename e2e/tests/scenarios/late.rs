//! A cluster that is not ready for Portico: no CRDs yet, or a right that is missing.

use std::fs;

use anyhow::{Result, ensure};
use portico_e2e::cluster::{Channel, Cluster};
use portico_e2e::portico::{Portico, install_class};
use serde_json::{Value, json};

use crate::backend::Backend;
use crate::client::Target;
use crate::objects::{accepted, apply, gateway, prefix, programmed, route, until};

const HOST: &str = "late.example";

pub(crate) async fn crds_may_come_after_portico(cluster: &Cluster) -> Result<()> {
    let _backend = Backend::start(cluster, "late").await?;
    let mut portico = Portico::start(cluster, "late", &[]).await?;
    let process = portico.id();
    cluster.install_crds(Channel::Standard).await?;
    install_class(cluster).await?;
    serves(cluster).await?;
    ensure!(portico.id() == process, "it was started again");
    portico.stop().await
}

/// After the one before, which leaves the CRDs.
pub(crate) async fn a_missing_right_is_named_and_the_rest_is_served(cluster: &Cluster) -> Result<()> {
    let _backend = Backend::start(cluster, "late").await?;
    let mut portico = Portico::prepare(cluster, "forbidden", &[]).await?;
    let role = cluster.kubectl(&["get", "clusterrole", "portico", "--output=json"]).await?;
    let mut role: Value = serde_json::from_str(&role)?;
    for rule in role["rules"].as_array_mut().into_iter().flatten() {
        if let Some(resources) = rule["resources"].as_array_mut() {
            resources.retain(|resource| resource != "backendtlspolicies");
        }
    }
    let rules = json!([{ "op": "replace", "path": "/rules", "value": role["rules"] }]).to_string();
    cluster.kubectl(&["patch", "clusterrole", "portico", "--type=json", "--patch", &rules]).await?;
    portico.restart().await?;
    serves(cluster).await?;
    until("the log names the kind and the rule", async || {
        let log = fs::read_to_string(portico.log())?;
        let line = log.lines().find(|line| line.contains("backendtlspolicies")).unwrap_or_default();
        for part in ["403", "forbidden", "gateway.networking.k8s.io", "list, watch", "BackendTLSPolicy"] {
            ensure!(line.contains(part), "`{part}` is not in the line `{line}`");
        }
        Ok(())
    })
    .await?;
    let others = fs::read_to_string(portico.log())?;
    let others: Vec<&str> =
        others.lines().filter(|line| line.contains("is forbidden") && !line.contains("backendtlspolicies")).collect();
    ensure!(others.is_empty(), "more is forbidden: {others:?}");
    portico.stop().await
}

/// A Gateway and a route from nothing to an answer.
async fn serves(cluster: &Cluster) -> Result<()> {
    apply(cluster, &[gateway("late"), route("late", "late", HOST, prefix("/"), "late")]).await?;
    let address = programmed(cluster, "late").await?;
    until("the route answers", async || Target::new(address, HOST, "/").expect(200, "late").await).await?;
    accepted(cluster, "late").await?;
    cluster.kubectl(&["delete", "gateway,httproute,service,endpointslice", "late"]).await.map(drop)
}
