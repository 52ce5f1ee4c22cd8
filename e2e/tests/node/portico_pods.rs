//! Features of the node that only Portico's own Pods use, tested with Pods of the echo server.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::PostParams;
use portico_e2e::cluster::Cluster;
use portico_e2e::node::Node;
use serde_json::json;
use tokio::time::sleep;

use crate::node::echo::{
    address, connect, deployment, describe, get, is_ready, merge, pods, restarts, until, wait_until_ready,
};

pub(crate) async fn probes_control_the_pod(cluster: &Cluster) -> Result<()> {
    let probe =
        |path: &str| json!({ "httpGet": { "path": path, "port": 3000 }, "periodSeconds": 1, "failureThreshold": 5 });
    let healthy_probes =
        json!({ "readinessProbe": probe("/health"), "livenessProbe": probe("/health"), "startupProbe": probe("/") });
    cluster.apply(&deployment("well", 1, healthy_probes).to_string()).await?;
    cluster.apply(&deployment("busy", 1, json!({ "readinessProbe": probe("/status/503") })).to_string()).await?;
    cluster.apply(&deployment("dead", 1, json!({ "livenessProbe": probe("/status/500") })).to_string()).await?;
    wait_until_ready(cluster, "well", 1).await?;
    let restarted = until("the Pod of Deployment dead is restarted", async || {
        let pods = pods(cluster, "dead").await?;
        if restarts(&pods) > 0 { Ok(pods) } else { bail!("{}", describe(&pods)) }
    });
    restarted.await?;
    let [well, busy] = [pods(cluster, "well").await?, pods(cluster, "busy").await?];
    ensure!(restarts(&well) == 0 && restarts(&busy) == 0, "{}", describe(&[well, busy].concat()));
    ensure!(!busy.iter().any(is_ready), "{}", describe(&busy));
    ensure!(get(address(&busy[0])?, 3000, "/").await?.starts_with("HTTP/1.1 200"), "the Pod must be running");
    cluster.kubectl(&["delete", "deployment", "well", "busy", "dead"]).await.map(drop)
}

pub(crate) async fn pod_has_its_account_and_privileges(cluster: &Cluster) -> Result<()> {
    let confined = json!({
        "runAsUser": 1234,
        "runAsGroup": 2345,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] },
    });
    // Without root, this port needs the sysctl of the Pod's network.
    let container_fields = json!({ "securityContext": confined, "env": [{ "name": "HTTP_PORT", "value": "80" }] });
    let mut deployment = deployment("confined", 1, container_fields);
    let sysctls = json!([{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "80" }]);
    let spec = json!({ "securityContext": { "sysctls": sysctls } });
    merge(&mut deployment, json!({ "spec": { "template": { "spec": spec } } }));
    cluster.apply(&deployment.to_string()).await?;
    let pod = wait_until_ready(cluster, "confined", 1).await?.remove(0);
    let address = address(&pod)?;
    until("the Pod responds on port 80", async || get(address, 80, "/").await).await?;
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let root = cluster.folder().join("pods").join(uid).join("root");
    let process = process_with_root(&root).context("no process has the Pod's root")?;
    let status = fs::read_to_string(process.join("status"))?;
    let value_of = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    for (name, expected) in [
        ("Uid:", "1234\t1234\t1234\t1234"),
        ("Gid:", "2345\t2345\t2345\t2345"),
        ("CapEff:", "0000000000000000"),
        // Only CAP_NET_BIND_SERVICE, bit 10.
        ("CapBnd:", "0000000000000400"),
        ("NoNewPrivs:", "1"),
    ] {
        ensure!(value_of(name) == Some(expected), "{name} {:?} instead of {expected}", value_of(name));
    }
    let mounts = fs::read_to_string(process.join("mountinfo"))?;
    ensure!(mounts.contains(" / ro,"), "the root is writable: {mounts}");
    let account = root.join("var/run/secrets/kubernetes.io/serviceaccount");
    ensure!(fs::read_to_string(account.join("namespace"))? == "default");
    ensure!(fs::read_to_string(account.join("ca.crt"))?.starts_with("-----BEGIN CERTIFICATE-----"));
    let token = fs::read_to_string(account.join("token"))?;
    let review = json!({ "metadata": {}, "spec": { "token": token } });
    let reviews: Api<TokenReview> = Api::all(cluster.client());
    let review = reviews.create(&PostParams::default(), &serde_json::from_value(review)?).await?;
    let user = review.status.and_then(|status| status.user).and_then(|user| user.username);
    ensure!(user.as_deref() == Some("system:serviceaccount:default:default"), "{user:?}");
    Ok(())
}

/// The folder in /proc of the process with this root folder.
fn process_with_root(root: &Path) -> Option<PathBuf> {
    let processes = fs::read_dir("/proc").ok()?;
    let mut processes = processes.filter_map(|process| Some(process.ok()?.path()));
    processes.find(|process| fs::read_link(process.join("root")).is_ok_and(|link| link == root))
}

/// The grace period of the Pod, much longer than it needs to end.
const GRACE_SECONDS: i64 = 50;
/// The time between the deletion of the Pod and SIGTERM.
const PAUSE_SECONDS: i64 = 3;

pub(crate) async fn portico_pod_serves_during_its_pause(cluster: &Cluster) -> Result<()> {
    let container_fields = json!({ "lifecycle": { "preStop": { "sleep": { "seconds": PAUSE_SECONDS } } } });
    let mut deployment = deployment("graceful", 1, container_fields);
    // The node terminates only Pods with this label gracefully.
    let label = json!({ "app.kubernetes.io/name": "portico" });
    let spec = json!({ "terminationGracePeriodSeconds": GRACE_SECONDS });
    let template = json!({ "metadata": { "labels": label }, "spec": spec });
    merge(&mut deployment, json!({ "spec": { "template": template } }));
    cluster.apply(&deployment.to_string()).await?;
    let pod = wait_until_ready(cluster, "graceful", 1).await?.remove(0);
    let (name, address) = (pod.metadata.name.clone().unwrap_or_default(), address(&pod)?);
    cluster.kubectl(&["delete", "deployment", "graceful", "--wait=false"]).await?;
    let api: Api<Pod> = Api::namespaced(cluster.client(), "default");
    let deletion_timestamp = async || match api.get_opt(&name).await?.and_then(|pod| pod.metadata.deletion_timestamp) {
        Some(timestamp) => Ok(timestamp.0),
        None => bail!("the Pod is not terminating"),
    };
    // The deletion timestamp is the end of the grace period.
    let grace_end = until("the Pod is terminating", deletion_timestamp).await?;
    let pause_end = grace_end - SignedDuration::from_secs(GRACE_SECONDS - PAUSE_SECONDS);
    loop {
        let response = get(address, 3000, "/late").await;
        if Timestamp::now() >= pause_end {
            break;
        }
        response.context("the Pod ended before the end of its pause")?;
        sleep(Duration::from_millis(50)).await; // Between two requests.
    }
    let check_deleted =
        async || if api.get_opt(&name).await?.is_none() { Ok(()) } else { bail!("the Pod still exists") };
    until("the Pod is deleted", check_deleted).await?;
    ensure!(Timestamp::now() < grace_end, "SIGTERM did not end the Pod");
    ensure!(connect(address, 3000).await.is_err());
    Ok(())
}

pub(crate) async fn killed_pod_is_restarted(cluster: &Cluster, node: &Node) -> Result<()> {
    cluster.apply(&deployment("killed", 1, json!({})).to_string()).await?;
    let IpAddr::V4(address) = address(&wait_until_ready(cluster, "killed", 1).await?[0])? else { bail!("not IPv4") };
    node.crash(address)?;
    until("the Pod is restarted", async || {
        let pods = wait_until_ready(cluster, "killed", 1).await?;
        if restarts(&pods) == 1 { Ok(()) } else { bail!("{}", describe(&pods)) }
    })
    .await?;
    // The Pod keeps its address.
    get(address.into(), 3000, "/").await.map(drop)
}

pub(crate) async fn pods_do_not_need_the_api_server(cluster: &mut Cluster) -> Result<()> {
    cluster.apply(&deployment("steady", 1, json!({})).to_string()).await?;
    let before = wait_until_ready(cluster, "steady", 1).await?.remove(0);
    cluster.kill_apiserver()?;
    let response = get(address(&before)?, 3000, "/").await;
    cluster.start_apiserver().await?;
    ensure!(response?.starts_with("HTTP/1.1 200"));
    // The node follows the API server again: the old Pod is kept, and a new one starts.
    cluster.apply(&deployment("steady", 2, json!({})).to_string()).await?;
    let after = wait_until_ready(cluster, "steady", 2).await?;
    let is_same_pod = |pod: &Pod| pod.metadata.uid == before.metadata.uid && address(pod).ok() == address(&before).ok();
    ensure!(after.iter().any(is_same_pod) && restarts(&after) == 0, "{}", describe(&after));
    Ok(())
}
