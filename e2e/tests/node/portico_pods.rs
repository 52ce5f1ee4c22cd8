//! Features of the node that only Portico's own Pods use.

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
    let well =
        json!({ "readinessProbe": probe("/health"), "livenessProbe": probe("/health"), "startupProbe": probe("/") });
    cluster.apply(&deployment("well", 1, well).to_string()).await?;
    cluster.apply(&deployment("busy", 1, json!({ "readinessProbe": probe("/status/503") })).to_string()).await?;
    cluster.apply(&deployment("dead", 1, json!({ "livenessProbe": probe("/status/500") })).to_string()).await?;
    wait_until_ready(cluster, "well", 1).await?;
    let restarted = until("restarted Pod", async || {
        let pods = pods(cluster, "dead").await?;
        if restarts(&pods) > 0 { Ok(pods) } else { bail!("{}", describe(&pods)) }
    });
    restarted.await?;
    let others = [pods(cluster, "well").await?, pods(cluster, "busy").await?];
    ensure!(others.iter().all(|pods| restarts(pods) == 0), "{}", describe(&others.concat()));
    ensure!(!others[1].iter().any(is_ready), "{}", describe(&others[1]));
    ensure!(get(address(&others[1][0])?, 3000, "/").await?.starts_with("HTTP/1.1 200"), "the Pod must be running");
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
    let more = json!({ "securityContext": confined, "env": [{ "name": "HTTP_PORT", "value": "80" }] });
    let mut deployment = deployment("confined", 1, more);
    let sysctls = json!([{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "80" }]);
    let spec = json!({ "securityContext": { "sysctls": sysctls } });
    merge(&mut deployment, json!({ "spec": { "template": { "spec": spec } } }));
    cluster.apply(&deployment.to_string()).await?;
    let pod = wait_until_ready(cluster, "confined", 1).await?.remove(0);
    let address = address(&pod)?;
    until("response on port 80", async || get(address, 80, "/").await).await?;
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let root = cluster.folder().join("pods").join(uid).join("root");
    let process = process_in(&root).context("no process has the Pod's root")?;
    let status = fs::read_to_string(process.join("status"))?;
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    for (name, expected) in [
        ("Uid:", "1234\t1234\t1234\t1234"),
        ("Gid:", "2345\t2345\t2345\t2345"),
        ("CapEff:", "0000000000000000"),
        // Only CAP_NET_BIND_SERVICE, bit 10.
        ("CapBnd:", "0000000000000400"),
        ("NoNewPrivs:", "1"),
    ] {
        ensure!(line(name) == Some(expected), "{name} {:?} instead of {expected}", line(name));
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

/// The entry in /proc of the process with this root.
fn process_in(root: &Path) -> Option<PathBuf> {
    let processes = fs::read_dir("/proc").ok()?;
    let mut processes = processes.filter_map(|process| Some(process.ok()?.path()));
    processes.find(|process| fs::read_link(process.join("root")).is_ok_and(|link| link == root))
}

/// The grace period of the Pod in the test, far more than it needs.
const GRACE: i64 = 50;

pub(crate) async fn portico_pod_serves_during_its_pause(cluster: &Cluster) -> Result<()> {
    let more = json!({ "lifecycle": { "preStop": { "sleep": { "seconds": 3 } } } });
    let mut deployment = deployment("ours", 1, more);
    let label = json!({ "app.kubernetes.io/name": "portico" });
    let spec = json!({ "terminationGracePeriodSeconds": GRACE });
    let template = json!({ "metadata": { "labels": label }, "spec": spec });
    merge(&mut deployment, json!({ "spec": { "template": template } }));
    cluster.apply(&deployment.to_string()).await?;
    let pod = wait_until_ready(cluster, "ours", 1).await?.remove(0);
    let (name, address) = (pod.metadata.name.clone().unwrap_or_default(), address(&pod)?);
    cluster.kubectl(&["delete", "deployment", "ours", "--wait=false"]).await?;
    let api: Api<Pod> = Api::namespaced(cluster.client(), "default");
    let ending = async || match api.get_opt(&name).await?.and_then(|pod| pod.metadata.deletion_timestamp) {
        Some(limit) => Ok(limit.0),
        None => bail!("the Pod is not terminating"),
    };
    // The deletion timestamp is the end of the grace period.
    let limit = until("Pod that is ending", ending).await?;
    let pause_is_over = limit - SignedDuration::from_secs(GRACE - 3);
    loop {
        let answer = get(address, 3000, "/late").await;
        if Timestamp::now() >= pause_is_over {
            break;
        }
        answer.context("the Pod ended before the end of its pause")?;
        // A short delay between requests.
        sleep(Duration::from_millis(50)).await;
    }
    let gone = async || if api.get_opt(&name).await?.is_none() { Ok(()) } else { bail!("the Pod still exists") };
    until("deletion of the Pod", gone).await?;
    ensure!(Timestamp::now() < limit, "SIGTERM did not end the Pod");
    ensure!(connect(address, 3000).await.is_err());
    Ok(())
}

pub(crate) async fn killed_pod_is_restarted(cluster: &Cluster, node: &Node) -> Result<()> {
    cluster.apply(&deployment("killed", 1, json!({})).to_string()).await?;
    let IpAddr::V4(address) = address(&wait_until_ready(cluster, "killed", 1).await?[0])? else { bail!("not IPv4") };
    node.crash(address)?;
    until("restarted Pod", async || {
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
    let answer = get(address(&before)?, 3000, "/").await;
    cluster.start_apiserver().await?;
    ensure!(answer?.starts_with("HTTP/1.1 200"));
    // The node follows the API server again: the old Pod is kept, and a new one starts.
    cluster.apply(&deployment("steady", 2, json!({})).to_string()).await?;
    let after = wait_until_ready(cluster, "steady", 2).await?;
    let same = |pod: &Pod| pod.metadata.uid == before.metadata.uid && address(pod).ok() == address(&before).ok();
    ensure!(after.iter().any(same) && restarts(&after) == 0, "{}", describe(&after));
    Ok(())
}
