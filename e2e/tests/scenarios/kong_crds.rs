//! The CRDs that `portico crds` prints, on the API server and in `kubectl`.

use anyhow::{Context, Result, ensure};
use portico::api::definitions;
use portico_e2e::cluster::Cluster;
use portico_e2e::portico::install_kong_crds;
use serde_json::{Value, json};

use crate::scenarios::objects::{apply, until};

/// Installs the CRDs as `make e2e-up` does, and waits until all their kinds are served.
pub(crate) async fn install(cluster: &Cluster) -> Result<()> {
    install_kong_crds(cluster).await?;
    let names: Vec<String> = definitions::kinds().map(|kind| format!("{}.{}", kind.plural(), kind.group())).collect();
    let names = names.join(",");
    until("the kinds are served", async || cluster.kubectl(&["get", &names, "--all-namespaces"]).await.map(drop)).await
}

/// Checks `kubectl explain`, `kubectl get`, and the rules for immutable fields.
pub(crate) async fn kubectl_explains_and_lists_them(cluster: &Cluster) -> Result<()> {
    for (field, words) in [
        ("kongplugin", "A plugin configuration. It runs where an object refers to it"),
        ("kongplugin.config", "Configuration of the plugin."),
        ("kongplugin.configPatches.path", "as a JSON pointer"),
        ("kongplugin.configPatches.valueFrom.secretKeyRef", "so a string is quoted"),
        ("kongconsumer.credentials", "konghq.com/credential"),
        ("kongupstreampolicy.spec.hashOn", "Input of the hash for the algorithm `consistent-hashing`."),
        ("tcpingress.spec.rules.host", "Server name (SNI) of the TLS handshake"),
        ("kongservicefacade.spec.backendRef", "A Service in the same namespace."),
    ] {
        // The OpenAPI document is published a while after the kind is served.
        let output = until("kubectl explain works", async || cluster.kubectl(&["explain", field]).await).await?;
        // kubectl explain wraps lines.
        let output = output.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(output.contains(words), "the output of kubectl explain {field} is {output}");
    }

    let kong = |version: &str, kind: &str, name: &str, fields: Value| {
        let mut object = json!({ "apiVersion": format!("configuration.konghq.com/{version}"), "kind": kind, "metadata": { "name": name } });
        let object_fields = object.as_object_mut().expect("the object is a map");
        object_fields.extend(fields.as_object().cloned().unwrap_or_default());
        object
    };
    let plugin = kong("v1", "KongPlugin", "found", json!({ "plugin": "cors", "config": { "credentials": true } }));
    let consumer = kong("v1", "KongConsumer", "found", json!({ "username": "ann" }));
    let vault = kong("v1alpha1", "KongVault", "found", json!({ "spec": { "backend": "env", "prefix": "a" } }));
    apply(cluster, &[plugin, consumer, vault]).await?;
    let listed = cluster.kubectl(&["get", "kong"]).await?;
    for name in ["kongplugin.configuration.konghq.com/found", "kongconsumer.configuration.konghq.com/found"] {
        ensure!(listed.contains(name), "kubectl get kong lists\n{listed}");
    }
    let table = cluster.kubectl(&["get", "kp", "--output=wide"]).await?;
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let header = lines.next().context("the output has no header")?;
    ensure!(header == ["NAME", "PLUGIN-TYPE", "AGE", "DISABLED", "CONFIG", "PROGRAMMED"], "{table}");
    let row = lines.next().context("the output has no row")?;
    ensure!(row.starts_with(&["found", "cors"]), "{table}");
    let status = cluster.kubectl(&["get", "kc", "found", "--output=jsonpath={.status.conditions[0].reason}"]).await?;
    ensure!(status == "Pending", "a new consumer must have the status Pending: {status}");

    for (object, words) in [
        (kong("v1", "KongPlugin", "found", json!({ "plugin": "jwt" })), "plugin is immutable"),
        (
            kong("v1alpha1", "KongVault", "found", json!({ "spec": { "backend": "env", "prefix": "b" } })),
            "prefix is immutable",
        ),
    ] {
        let error = apply(cluster, &[object]).await.err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(error.contains(words), "the API server's error is: {error}");
    }
    // With this condition of a controller, the control plane is immutable.
    let programmed = json!([{ "type": "Programmed", "status": "True", "reason": "Programmed", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z" }]);
    let consumer_of = |control_plane: Value| {
        kong("v1", "KongConsumer", "found", json!({ "username": "ann", "spec": { "controlPlaneRef": control_plane } }))
    };
    apply(cluster, &[consumer_of(json!({ "type": "kic" }))]).await?;
    let patch = json!({ "status": { "conditions": programmed } }).to_string();
    cluster.kubectl(&["patch", "kc", "found", "--subresource=status", "--type=merge", "--patch", &patch]).await?;
    let moved = consumer_of(json!({ "type": "konnectNamespacedRef", "konnectNamespacedRef": { "name": "elsewhere" } }));
    let without_plane = kong("v1", "KongConsumer", "found", json!({ "username": "ann" }));
    for (object, words) in [(moved, "is immutable once the object is programmed"), (without_plane, "cannot be removed")]
    {
        let error = apply(cluster, &[object]).await.err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(error.contains(words), "the API server's error is: {error}");
    }
    cluster.kubectl(&["delete", "kp/found", "kc/found", "kv/found"]).await.map(drop)
}
