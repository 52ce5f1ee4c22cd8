//! Registers the Node object and renews its Lease.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node as NodeObject;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::sleep;

use super::{NODE, kubelet};
use crate::cluster::ADDRESS;

/// The field manager of server-side apply.
const FIELD_MANAGER: &str = "portico-e2e";
/// How often the Lease is renewed, as by the kubelet.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(10);

/// Creates the Node and reports it as ready.
pub(crate) async fn register(client: &Client) -> Result<()> {
    let nodes: Api<NodeObject> = Api::all(client.clone());
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let labels = BTreeMap::from([
        ("kubernetes.io/hostname", NODE),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture),
    ]);
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE, "labels": labels } });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    nodes.patch(NODE, &parameters, &Patch::Apply(node)).await.context("cannot create the Node")?;
    let now = Timestamp::now().to_string();
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": "",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        })
    };
    let capacity = json!({ "cpu": "64", "memory": "64Gi", "pods": "1000", "ephemeral-storage": "100Gi" });
    let status = json!({ "status": {
        "addresses": [
            { "type": "InternalIP", "address": ADDRESS.to_string() },
            { "type": "Hostname", "address": NODE },
        ],
        "daemonEndpoints": { "kubeletEndpoint": { "Port": kubelet::PORT } },
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": [
            condition("Ready", "True", "KubeletReady"),
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID"),
        ],
    } });
    nodes
        .patch_status(NODE, &PatchParams::default(), &Patch::Merge(status))
        .await
        .context("cannot write the Node's status")?;
    // The admission plugin TaintNodesByCondition taints new Nodes as not ready, and the controller that removes the
    // taint does not run.
    let untainted = json!({ "spec": { "taints": null } });
    nodes.patch(NODE, &PatchParams::default(), &Patch::Merge(untainted)).await.context("cannot untaint the Node")?;
    write_lease(client).await.context("cannot write the Node's Lease")
}

/// Renews the Lease until dropped.
pub(crate) async fn renew_lease(client: Client) {
    loop {
        sleep(RENEWAL_INTERVAL).await;
        // Errors are ignored: the API server may be unavailable, and the next renewal follows soon.
        drop(write_lease(&client).await);
    }
}

async fn write_lease(client: &Client) -> Result<(), kube::Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let now = format!("{:.6}", Timestamp::now());
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": { "name": NODE },
        "spec": { "holderIdentity": NODE, "leaseDurationSeconds": 40, "renewTime": now },
    });
    leases.patch(NODE, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(lease)).await.map(drop)
}
