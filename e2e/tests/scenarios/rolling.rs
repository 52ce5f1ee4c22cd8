//! Replaces the Pods of a backend while requests flow.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use portico_e2e::cluster::Cluster;
use serde_json::{Value, json};

use crate::scenarios::client::Target;
use crate::scenarios::load::Load;
use crate::scenarios::objects::{apply, gateway, prefix, route, until, wait_until_programmed};

const HOST: &str = "rolling.example";
/// Requests that must be served before the next step.
const REQUESTS: usize = 100;

/// Needs a node.
pub(crate) async fn replacing_backend_pods_fails_no_request(cluster: &Cluster) -> Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "rolling" },
        "spec": { "selector": { "app": "rolling" }, "ports": [{ "port": 80, "targetPort": 3000 }] },
    });
    let route = route("rolling", "rolling", HOST, prefix("/"), "rolling");
    apply(cluster, &[deployment(), service, gateway("rolling"), route]).await?;
    wait_for_rollout(cluster).await?;
    let target = Target::new(wait_until_programmed(cluster, "rolling").await?, HOST, "/");
    until("the Pods respond", async || target.expect(200, "").await).await?;
    let old = pods(cluster).await?;

    let load = Load::start(&target);
    load.wait_for_more(REQUESTS).await?;
    cluster.kubectl(&["rollout", "restart", "deployment/rolling"]).await?;
    wait_for_rollout(cluster).await?;
    until("the old Pods are gone", async || {
        let now = pods(cluster).await?;
        ensure!(now.len() == 2 && now.is_disjoint(&old), "{now:?} instead of {old:?}");
        Ok(())
    })
    .await?;
    load.wait_for_more(REQUESTS).await?;
    let bodies = load.stop().await?.bodies;
    for pod in old.iter().chain(&pods(cluster).await?) {
        ensure!(bodies.iter().any(|body| body.contains(pod)), "Pod {pod} never responded");
    }
    cluster.kubectl(&["delete", "gateway,httproute,service,deployment", "rolling", "--wait=false"]).await.map(drop)
}

/// Two Pods of the echo server that serve for 10 s after their deletion, which must reach Portico meanwhile: usually it
/// takes less than a second, and longer on a busy machine.
fn deployment() -> Value {
    let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
    let container = json!({
        "name": "echo",
        "image": "gateway-api/conformance/echo-basic:v0.1.0",
        "env": [
            { "name": "POD_NAME", "valueFrom": field("metadata.name") },
            { "name": "NAMESPACE", "valueFrom": field("metadata.namespace") },
        ],
        "readinessProbe": { "httpGet": { "path": "/health", "port": 3000 }, "periodSeconds": 1 },
        "lifecycle": { "preStop": { "sleep": { "seconds": 10 } } },
    });
    // This label makes the node terminate Pods gracefully.
    let labels = json!({ "app": "rolling", "app.kubernetes.io/name": "portico" });
    let template = json!({ "metadata": { "labels": labels }, "spec": { "containers": [container] } });
    let strategy = json!({ "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } });
    let selector = json!({ "matchLabels": { "app": "rolling" } });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "rolling" },
        "spec": { "replicas": 2, "selector": selector, "strategy": strategy, "template": template },
    })
}

async fn wait_for_rollout(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["rollout", "status", "deployment/rolling", "--timeout=180s"]).await.map(drop)
}

/// The names of the Pods of the backend.
async fn pods(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let pods = pods.list(&ListParams::default().labels("app=rolling")).await?;
    Ok(pods.into_iter().filter_map(|pod| pod.metadata.name).collect())
}
