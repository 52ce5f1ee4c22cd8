//! Tests of Portico in clusters where CRDs or RBAC rules are missing.

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
    let process = portico.process_id();
    cluster.install_crds(Channel::Standard).await?;
    install_class(cluster).await?;
    route_is_served(cluster).await?;
    ensure!(portico.process_id() == process, "Portico was restarted");
    portico.stop().await
}

/// Needs the CRDs of the Gateway API.
pub(crate) async fn missing_permission_is_named_and_the_rest_is_served(cluster: &Cluster) -> Result<()> {
    let _backend = Backend::start(cluster, "late").await?;
    let mut portico = Portico::prepare(cluster, "forbidden", &[]).await?;
    let original_rules = remove_permission(cluster, "udproutes").await?;
    portico.restart().await?;
    route_is_served(cluster).await?;
    until("the log names the kind and the rule", async || {
        let log = fs::read_to_string(portico.log())?;
        let line = log.lines().find(|line| line.contains("udproutes")).unwrap_or_default();
        for part in ["403", "forbidden", "gateway.networking.k8s.io", "list, watch", "UDPRoute"] {
            ensure!(line.contains(part), "`{part}` is missing in the line `{line}`");
        }
        Ok(())
    })
    .await?;
    let log = fs::read_to_string(portico.log())?;
    let others: Vec<&str> =
        log.lines().filter(|line| line.contains("is forbidden") && !line.contains("udproutes")).collect();
    ensure!(others.is_empty(), "other kinds are forbidden, too: {others:?}");
    wait_until_class_names(cluster, "UDPRoute").await?;
    set_rules(cluster, &original_rules).await?;
    wait_until_class_omits(cluster, "UDPRoute").await?;
    ensure!(
        fs::read_to_string(portico.log())?.contains("Can be watched again"),
        "the log does not report that the kind can be watched again"
    );
    portico.stop().await
}

/// While a policy might require TLS for a backend, nothing is sent to it in plain text.
pub(crate) async fn unreadable_policies_block_requests(cluster: &Cluster) -> Result<()> {
    let _backend = Backend::start(cluster, "late").await?;
    let mut portico = Portico::prepare(cluster, "unknown", &[]).await?;
    let process = {
        let original_rules = remove_permission(cluster, "backendtlspolicies").await?;
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
        wait_until_class_names(cluster, "BackendTLSPolicy").await?;
        Target::new(address, HOST, "/").expect(500, "").await?;
        set_rules(cluster, &original_rules).await?;
        portico.process_id()
    };
    route_is_served(cluster).await?;
    wait_until_class_omits(cluster, "BackendTLSPolicy").await?;
    ensure!(portico.process_id() == process, "Portico was restarted");
    portico.stop().await
}

/// Removes a kind from Portico's ClusterRole, and returns the original rules.
async fn remove_permission(cluster: &Cluster, kind: &str) -> Result<Value> {
    let role = cluster.kubectl(&["get", "clusterrole", "portico", "--output=json"]).await?;
    let original_rules = serde_json::from_str::<Value>(&role)?["rules"].take();
    let mut rules = original_rules.clone();
    for rule in rules.as_array_mut().into_iter().flatten() {
        if let Some(resources) = rule["resources"].as_array_mut() {
            resources.retain(|resource| resource != kind);
        }
    }
    ensure!(rules != original_rules, "no rule for {kind}");
    set_rules(cluster, &rules).await?;
    Ok(original_rules)
}

async fn set_rules(cluster: &Cluster, rules: &Value) -> Result<()> {
    let patch = json!([{ "op": "replace", "path": "/rules", "value": rules }]).to_string();
    cluster.kubectl(&["patch", "clusterrole", "portico", "--type=json", "--patch", &patch]).await.map(drop)
}

/// Waits until the GatewayClass reports that a kind cannot be read.
async fn wait_until_class_names(cluster: &Cluster, kind: &str) -> Result<()> {
    until(&format!("the GatewayClass names {kind}"), async || {
        let message = class_message(cluster).await?;
        ensure!(message.contains(kind), "{message}");
        Ok(())
    })
    .await
}

/// Waits until the GatewayClass no longer reports that a kind cannot be read.
async fn wait_until_class_omits(cluster: &Cluster, kind: &str) -> Result<()> {
    until(&format!("the GatewayClass does not name {kind}"), async || {
        let message = class_message(cluster).await?;
        ensure!(!message.is_empty() && !message.contains(kind), "{message}");
        Ok(())
    })
    .await
}

/// The message of the condition `Accepted`.
async fn class_message(cluster: &Cluster) -> Result<String> {
    let output = "--output=jsonpath={.status.conditions[?(@.type==\"Accepted\")].message}";
    cluster.kubectl(&["get", "gatewayclass", "portico", output]).await
}

/// Creates a Gateway and a route, waits until the route is served, and deletes them.
async fn route_is_served(cluster: &Cluster) -> Result<()> {
    apply(cluster, &[gateway("late"), route("late", "late", HOST, prefix("/"), "late")]).await?;
    let address = wait_until_programmed(cluster, "late").await?;
    until("the route is served", async || Target::new(address, HOST, "/").expect(200, "late").await).await?;
    wait_until_accepted(cluster, "late").await?;
    cluster.kubectl(&["delete", "gateway,httproute,service,endpointslice", "late"]).await.map(drop)
}
