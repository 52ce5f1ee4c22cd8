//! Clusters that are not prepared: missing CRDs, and missing RBAC rules.

use std::fs;

use anyhow::{Result, ensure};
use portico_e2e::cluster::{Channel, Cluster};
use portico_e2e::portico::{Portico, install_class};
use serde_json::{Value, json};

use crate::scenarios::backend::Backend;
use crate::scenarios::client::Target;
use crate::scenarios::objects::{
    apply, condition, gateway, prefix, route, routes, until, wait_until_accepted, wait_until_programmed,
};

const HOST: &str = "late.example";

pub(crate) async fn crds_may_be_installed_after_portico(cluster: &Cluster) -> Result<()> {
    let _backend = Backend::start(cluster, "late").await?;
    let mut portico = Portico::start(cluster, "late", &[]).await?;
    let process = portico.id();
    cluster.install_crds(Channel::Standard).await?;
    install_class(cluster).await?;
    serves(cluster).await?;
    ensure!(portico.id() == process, "Portico was restarted");
    portico.stop().await
}

/// After the previous scenario, which installs the CRDs.
pub(crate) async fn missing_permission_is_named_and_the_rest_is_served(cluster: &Cluster) -> Result<()> {
    let _backend = Backend::start(cluster, "late").await?;
    let mut portico = Portico::prepare(cluster, "forbidden", &[]).await?;
    let whole = remove_permission(cluster, "grpcroutes").await?;
    portico.restart().await?;
    serves(cluster).await?;
    until("the log names the kind and the rule", async || {
        let log = fs::read_to_string(portico.log())?;
        let line = log.lines().find(|line| line.contains("grpcroutes")).unwrap_or_default();
        for part in ["403", "forbidden", "gateway.networking.k8s.io", "list, watch", "GRPCRoute"] {
            ensure!(line.contains(part), "`{part}` is missing in the line `{line}`");
        }
        Ok(())
    })
    .await?;
    let others = fs::read_to_string(portico.log())?;
    let others: Vec<&str> =
        others.lines().filter(|line| line.contains("is forbidden") && !line.contains("grpcroutes")).collect();
    ensure!(others.is_empty(), "more is forbidden: {others:?}");
    wait_for_class_message(cluster, "GRPCRoute", true).await?;
    set_rules(cluster, &whole).await?;
    wait_for_class_message(cluster, "GRPCRoute", false).await?;
    ensure!(fs::read_to_string(portico.log())?.contains("Can be watched again"), "the log does not say so");
    portico.stop().await
}

/// While a policy might require TLS for a backend, nothing is sent to it in plain text.
pub(crate) async fn unreadable_policies_block_requests(cluster: &Cluster) -> Result<()> {
    let _backend = Backend::start(cluster, "late").await?;
    let mut portico = Portico::prepare(cluster, "unknown", &[]).await?;
    let process = {
        let whole = remove_permission(cluster, "backendtlspolicies").await?;
        portico.restart().await?;
        apply(cluster, &[gateway("late"), route("late", "late", HOST, prefix("/"), "late")]).await?;
        let address = wait_until_programmed(cluster, "late").await?;
        until("the route's status names the policy", async || {
            let route = routes(cluster).get("late").await?;
            let found = condition(&route, &route.data["status"]["parents"][0]["conditions"], "ResolvedRefs")?;
            ensure!(found["status"] == "False", "{found}");
            let message = found["message"].as_str().unwrap_or_default();
            ensure!(message.contains("BackendTLSPolicies") && message.contains("ClusterRole"), "{message}");
            Ok(())
        })
        .await?;
        wait_for_class_message(cluster, "BackendTLSPolicy", true).await?;
        Target::new(address, HOST, "/").expect(500, "").await?;
        set_rules(cluster, &whole).await?;
        portico.id()
    };
    serves(cluster).await?;
    wait_for_class_message(cluster, "BackendTLSPolicy", false).await?;
    ensure!(portico.id() == process, "Portico was restarted");
    portico.stop().await
}

/// Removes a kind from Portico's ClusterRole, and returns the original rules.
async fn remove_permission(cluster: &Cluster, kind: &str) -> Result<Value> {
    let role = cluster.kubectl(&["get", "clusterrole", "portico", "--output=json"]).await?;
    let whole = serde_json::from_str::<Value>(&role)?["rules"].take();
    let mut rules = whole.clone();
    for rule in rules.as_array_mut().into_iter().flatten() {
        if let Some(resources) = rule["resources"].as_array_mut() {
            resources.retain(|resource| resource != kind);
        }
    }
    ensure!(rules != whole, "no rule for {kind}");
    set_rules(cluster, &rules).await?;
    Ok(whole)
}

async fn set_rules(cluster: &Cluster, rules: &Value) -> Result<()> {
    let patch = json!([{ "op": "replace", "path": "/rules", "value": rules }]).to_string();
    cluster.kubectl(&["patch", "clusterrole", "portico", "--type=json", "--patch", &patch]).await.map(drop)
}

/// Waits until the GatewayClass names, or no longer names, a kind that cannot be read.
async fn wait_for_class_message(cluster: &Cluster, kind: &str, named: bool) -> Result<()> {
    let path = "--output=jsonpath={.status.conditions[?(@.type==\"Accepted\")].message}";
    until(&format!("whether the class names {kind} is {named}"), async || {
        let message = cluster.kubectl(&["get", "gatewayclass", "portico", path]).await?;
        ensure!(!message.is_empty() && message.contains(kind) == named, "{message}");
        Ok(())
    })
    .await
}

/// Creates a Gateway and a route, and waits until they are served.
async fn serves(cluster: &Cluster) -> Result<()> {
    apply(cluster, &[gateway("late"), route("late", "late", HOST, prefix("/"), "late")]).await?;
    let address = wait_until_programmed(cluster, "late").await?;
    until("the route is served", async || Target::new(address, HOST, "/").expect(200, "late").await).await?;
    wait_until_accepted(cluster, "late").await?;
    cluster.kubectl(&["delete", "gateway,httproute,service,endpointslice", "late"]).await.map(drop)
}
