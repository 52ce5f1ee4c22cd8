//! BackendPolicies with `kubectl`: columns, conditions, rejected mistakes, a Service that comes after its policy, and
//! requests that a policy divides.

use anyhow::{Result, ensure};
use portico_e2e::cluster::Cluster;
use serde_json::{Value, json};

use crate::scenarios::backend::Backend;
use crate::scenarios::client::Target;
use crate::scenarios::objects::{apply, gateway, prefix, route, until, wait_until_accepted, wait_until_programmed};

const HOST: &str = "policy.example";

pub(crate) async fn policies_are_checked_served_and_listed(cluster: &Cluster) -> Result<()> {
    until("kubectl explain works", async || cluster.kubectl(&["explain", "backendpolicy.spec.health.passive"]).await)
        .await?;
    mistakes_are_rejected(cluster).await?;
    apply(cluster, &[policy(json!({ "loadBalancing": { "algorithm": "Maglev", "hash": by_header() } }))]).await?;
    until("the policy has no target", async || {
        let listed = list(cluster).await?;
        ensure!(listed.contains("Maglev"), "{listed}");
        has_condition(cluster, "Accepted", "TargetNotFound").await
    })
    .await?;

    // The Service comes after its policy.
    let _backend = Backend::start(cluster, "policy").await?;
    apply(cluster, &[gateway("policy"), route("policy", "policy", HOST, prefix("/"), "policy")]).await?;
    let address = wait_until_programmed(cluster, "policy").await?;
    wait_until_accepted(cluster, "policy").await?;
    until("the policy is accepted", async || has_condition(cluster, "Accepted", "Accepted").await).await?;
    until("the policy is programmed", async || has_condition(cluster, "Programmed", "Programmed").await).await?;
    columns_are_those_of_the_definition(cluster).await?;
    let target = Target { key: Some("ann".to_owned()), ..Target::new(address, HOST, "/") };
    until("requests are served", async || target.expect(200, "policy").await).await?;

    apply(cluster, &[policy(json!({ "loadBalancing": { "algorithm": "Maglev", "hash": not_prime() } }))]).await?;
    until("the number is reported", async || has_condition(cluster, "Accepted", "Invalid").await).await?;
    let described = cluster.kubectl(&["describe", "backendpolicy", "policy"]).await?;
    ensure!(described.contains("maglevSize"), "{described}");
    target.expect(200, "policy").await?;
    cluster.kubectl(&["delete", "backendpolicy,gateway,httproute,service,endpointslice", "policy"]).await.map(drop)
}

async fn columns_are_those_of_the_definition(cluster: &Cluster) -> Result<()> {
    for (arguments, columns, values) in [
        (
            &["get", "backendpolicies"][..],
            &["NAME", "TARGETS", "ALGORITHM", "MODE", "ACCEPTED", "AGE"][..],
            &["policy", "policy", "Maglev", "Enforce", "True"][..],
        ),
        (
            &["get", "bkp", "-o", "wide"],
            &["NAME", "TARGETS", "ALGORITHM", "MODE", "ACCEPTED", "AGE", "PROGRAMMED"],
            &["policy", "policy", "Maglev", "Enforce", "True"],
        ),
    ] {
        let listed = cluster.kubectl(arguments).await?;
        let mut lines = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        ensure!(lines.next().as_deref() == Some(columns), "{listed}");
        let Some(row) = lines.next() else { anyhow::bail!("no policy is listed: {listed}") };
        ensure!(row.starts_with(values) && row.len() == columns.len(), "{listed}");
        if columns.ends_with(&["PROGRAMMED"]) {
            ensure!(row.ends_with(&["True"]), "{listed}");
        }
    }
    Ok(())
}

/// The API server refuses what the schema or a rule of it does not allow, and says what is wrong.
async fn mistakes_are_rejected(cluster: &Cluster) -> Result<()> {
    let mistakes = [
        (json!({ "loadBalancing": { "algorithm": "Maglev" } }), "hash.keys"),
        (json!({ "loadBalancing": { "algorithm": "Fastest" } }), "Unsupported value"),
        (json!({ "health": { "active": { "interval": "1s", "timeout": "2s" } } }), "timeout"),
        (json!({ "limits": { "maxRequests": 0 } }), "maxRequests"),
    ];
    for (spec, expected) in mistakes {
        let output = apply(cluster, &[policy(spec.clone())]).await;
        let Err(error) = output else { anyhow::bail!("{spec} was accepted") };
        ensure!(format!("{error:#}").contains(expected), "{spec}: {error:#}");
    }
    Ok(())
}

fn policy(mut spec: Value) -> Value {
    spec["targetRefs"] = json!([{ "group": "", "kind": "Service", "name": "policy" }]);
    json!({
        "apiVersion": "portico.dev/v1alpha1",
        "kind": "BackendPolicy",
        "metadata": { "name": "policy" },
        "spec": spec,
    })
}

fn by_header() -> Value {
    json!({ "keys": [{ "source": "Header", "name": "apikey" }] })
}

fn not_prime() -> Value {
    json!({ "keys": [{ "source": "Header", "name": "apikey" }], "maglevSize": 65536 })
}

async fn list(cluster: &Cluster) -> Result<String> {
    cluster.kubectl(&["get", "backendpolicies", "--no-headers"]).await
}

/// Fails unless an ancestor in the status has the condition with this reason.
async fn has_condition(cluster: &Cluster, kind: &str, reason: &str) -> Result<()> {
    let text = cluster.kubectl(&["get", "backendpolicy", "policy", "-o", "json"]).await?;
    let object: Value = serde_json::from_str(&text)?;
    let ancestors = object["status"]["ancestors"].as_array().into_iter().flatten();
    let mut conditions = ancestors.flat_map(|ancestor| ancestor["conditions"].as_array().into_iter().flatten());
    let is_found = conditions.any(|condition| condition["type"] == kind && condition["reason"] == reason);
    ensure!(is_found, "no condition {kind} with the reason {reason} in {}", object["status"]);
    Ok(())
}
