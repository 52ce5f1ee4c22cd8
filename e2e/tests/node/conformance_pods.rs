//! Features of the node that the conformance suite needs.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use portico_e2e::cluster::Cluster;
use serde_json::json;
use tokio::time::Instant;

use crate::node::echo::{address, connect, deployment, describe, get, merge, pods, until, wait_until_ready};

pub(crate) async fn two_replicas_serve_and_have_logs(cluster: &Cluster) -> Result<()> {
    cluster.apply(&deployment("echo", 2, json!({})).to_string()).await?;
    let pods = wait_until_ready(cluster, "echo", 2).await?;
    for pod in &pods {
        let response = get(address(pod)?, 3000, "/some-path").await?;
        ensure!(response.contains("some-path"), "{response}");
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        ensure!(response.contains(name), "{name} is missing in {response}");
        let logs = cluster.kubectl(&["logs", name]).await?;
        ensure!(logs.contains("some-path"), "the log of {name}: {logs}");
    }
    Ok(())
}

pub(crate) async fn missing_secret_is_waited_for(cluster: &Cluster) -> Result<()> {
    let volume = json!({ "name": "secret", "secret": {
        "secretName": "late", "items": [{ "key": "crt", "path": "tls/server.crt" }, { "key": "key", "path": "key" }],
    } });
    let variable = |name: &str, value: &str| json!({ "name": name, "value": value });
    let container_fields = json!({
        "volumeMounts": [{ "name": "secret", "mountPath": "/etc/secret-volume" }],
        "env": [
            variable("TLS_SERVER_CERT", "/etc/secret-volume/tls/server.crt"),
            variable("TLS_SERVER_PRIVKEY", "/etc/secret-volume/key"),
        ],
    });
    let mut deployment = deployment("late", 1, container_fields);
    merge(&mut deployment, json!({ "spec": { "template": { "spec": { "volumes": [volume] } } } }));
    cluster.apply(&deployment.to_string()).await?;
    let message = "Secret default/late does not exist";
    until("the Pod waits for its Secret", async || {
        let pods = describe(&pods(cluster, "late").await?);
        if pods.contains(message) { Ok(()) } else { bail!("{pods}") }
    })
    .await?;
    let (certificate, key) = certificate()?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "late" },
        "stringData": { "crt": certificate, "key": key },
    });
    cluster.apply(&secret.to_string()).await?;
    let pod = wait_until_ready(cluster, "late", 1).await?.remove(0);
    // The server listens on this port only with a readable certificate.
    let address = address(&pod)?;
    until("the port that needs the Secret accepts connections", async || connect(address, 8443).await).await
}

pub(crate) async fn crashed_pod_is_restarted(cluster: &Cluster) -> Result<()> {
    // Without its certificate, the echo server exits at once.
    let variable = |name: &str, value: &str| json!({ "name": name, "value": value });
    let container_fields = json!({ "env": [
        variable("GRPC_ECHO_SERVER", "1"),
        variable("TLS_SERVER_CERT", "/none"),
        variable("TLS_SERVER_PRIV_KEY", "/none"),
    ] });
    cluster.apply(&deployment("crashing", 1, container_fields).to_string()).await?;
    until("the Pod was started three times", async || {
        let pods = pods(cluster, "crashing").await?;
        let statuses = pods.first().and_then(|pod| pod.status.as_ref()?.container_statuses.as_ref());
        let status = statuses.and_then(|statuses| statuses.first()).context("no container status")?;
        let last_exit = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        let has_failed = last_exit.is_some_and(|exit| exit.exit_code != 0);
        if status.restart_count >= 2 && has_failed && !status.ready { Ok(()) } else { bail!("{}", describe(&pods)) }
    })
    .await?;
    let name = pods(cluster, "crashing").await?.remove(0).metadata.name.unwrap_or_default();
    cluster.kubectl(&["logs", "--previous", &name]).await.map(drop)
}

pub(crate) async fn undeclared_port_makes_a_pod_ready(cluster: &Cluster) -> Result<()> {
    let container_fields = json!({
        "ports": [{ "containerPort": 3000 }],
        "env": [{ "name": "HTTP_PORT", "value": "3333" }],
    });
    cluster.apply(&deployment("elsewhere", 1, container_fields).to_string()).await?;
    let pod = wait_until_ready(cluster, "elsewhere", 1).await?.remove(0);
    get(address(&pod)?, 3333, "/").await.map(drop)
}

/// Must be called after a restart of the node, which must run the existing Pods again.
pub(crate) async fn restarted_node_takes_over_its_pods(cluster: &Cluster) -> Result<()> {
    for pod in pods(cluster, "echo").await? {
        let name = pod.metadata.name.unwrap_or_default();
        until(&format!("{name} responds"), async || {
            let pods = pods(cluster, "echo").await?;
            let pod = pods.iter().find(|pod| pod.metadata.name.as_ref() == Some(&name)).context("the Pod is gone")?;
            ensure!(get(address(pod)?, 3000, "/again").await?.contains(&name), "another Pod responded");
            let addresses = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
            ensure!(
                addresses.count() == 1,
                "the address from before the restart is still in the status: {}",
                describe(&pods)
            );
            Ok(())
        })
        .await?;
    }
    Ok(())
}

pub(crate) async fn deleted_pods_are_removed_quickly(cluster: &Cluster) -> Result<()> {
    let started = Instant::now();
    cluster.kubectl(&["delete", "deployment,pod", "--all", "--wait=false"]).await?;
    until("the namespace has no Pods", async || {
        let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
        let left = pods.list(&ListParams::default()).await?.items;
        if left.is_empty() { Ok(()) } else { bail!("there are {}", describe(&left)) }
    })
    .await?;
    let elapsed = started.elapsed();
    ensure!(elapsed < Duration::from_secs(25), "deletion took {elapsed:?}, so the grace period was not cut short");
    Ok(())
}

/// A self-signed certificate and its key, in PEM.
fn certificate() -> Result<(String, String)> {
    let generated = rcgen::generate_simple_self_signed(vec!["test".to_owned()])?;
    Ok((generated.cert.pem(), generated.signing_key.serialize_pem()))
}
