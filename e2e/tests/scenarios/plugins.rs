//! Plugins with `kubectl`: requests with a valid key pass, the status has the result, and a broken plugin is reported,
//! rejects requests, and works again when it is fixed.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use portico_e2e::cluster::Cluster;
use serde_json::{Value, json};

use crate::scenarios::backend::Backend;
use crate::scenarios::client::Target;
use crate::scenarios::load::Load;
use crate::scenarios::objects::{apply, gateway, prefix, route, until, wait_until_accepted, wait_until_programmed};

const HOST: &str = "plugins.example";
/// The paths of a route with plugins by annotation, and of one with plugins by filters.
const PATHS: [&str; 2] = ["/annotated", "/filtered"];
/// Requests that must be served before the next step.
const REQUESTS: usize = 50;

pub(crate) async fn key_auth_and_acl_restrict_access(cluster: &Cluster) -> Result<()> {
    let _backend = Backend::start(cluster, "plugins").await?;
    let output =
        until("kubectl explain works", async || cluster.kubectl(&["explain", "kongplugin.config"]).await).await?;
    ensure!(output.contains("FIELD: config"), "{output}");

    let mut annotated = route("annotated", "plugins", HOST, prefix(PATHS[0]), "plugins");
    annotated["metadata"]["annotations"] = json!({ "konghq.com/plugins": "keys, staff" });
    let mut filtered = route("filtered", "plugins", HOST, prefix(PATHS[1]), "plugins");
    filtered["spec"]["rules"][0]["filters"] = ["keys", "staff"]
        .map(|name| {
            let reference = json!({ "group": "configuration.konghq.com", "kind": "KongPlugin", "name": name });
            json!({ "type": "ExtensionRef", "extensionRef": reference })
        })
        .into();
    let consumers = [
        secret("ann-key", "key-auth", "key", "ann-1"),
        secret("ann-group", "acl", "group", "staff"),
        secret("bob-key", "key-auth", "key", "bob-1"),
        consumer("ann", &["ann-key", "ann-group"]),
        consumer("bob", &["bob-key"]),
    ];
    apply(cluster, &consumers).await?;
    apply(cluster, &[plugin("keys", "key-auth", json!({})), plugin("staff", "acl", json!({ "allow": ["staff"] }))])
        .await?;
    apply(cluster, &[gateway("plugins"), annotated, filtered]).await?;
    let address = wait_until_programmed(cluster, "plugins").await?;
    for path in PATHS {
        until("a request of a member of the group passes", async || {
            target_with_key(address, path, Some("ann-1")).expect(200, "plugins").await
        })
        .await?;
        target_with_key(address, path, None).expect(401, "").await?;
        target_with_key(address, path, Some("wrong")).expect(401, "").await?;
        target_with_key(address, path, Some("bob-1")).expect(403, "").await?;
    }
    wait_until_accepted(cluster, "annotated").await?;
    for object in ["kongplugin/keys", "kongplugin/staff", "kongconsumer/ann", "kongconsumer/bob"] {
        until("the object is programmed", async || is_programmed(cluster, object, "True").await).await?;
    }
    // The last column of `kubectl get`.
    let listed = cluster.kubectl(&["get", "kongplugins", "--no-headers"]).await?;
    ensure!(listed.lines().count() == 2 && listed.lines().all(|line| line.trim_end().ends_with("True")), "{listed}");

    broken_plugin_is_reported_and_rejects_requests(cluster, address).await?;
    key_rotation_fails_no_request_of_others(cluster, address).await?;
    cluster.kubectl(&["delete", "httproute", "annotated", "filtered"]).await?;
    cluster.kubectl(&["delete", "kongconsumer,kongplugin", "--all"]).await?;
    cluster.kubectl(&["delete", "secret", "ann-key", "ann-group", "bob-key"]).await?;
    cluster.kubectl(&["delete", "gateway,service,endpointslice", "plugins"]).await.map(drop)
}

async fn broken_plugin_is_reported_and_rejects_requests(cluster: &Cluster, address: SocketAddr) -> Result<()> {
    apply(cluster, &[plugin("staff", "acl", json!({ "allowed": ["staff"] }))]).await?;
    for path in PATHS {
        until("requests get 503", async || target_with_key(address, path, Some("ann-1")).expect(503, "").await).await?;
    }
    until("the plugin is not programmed", async || is_programmed(cluster, "kongplugin/staff", "False").await).await?;
    for (kind, name, words) in [
        ("kongplugin", "staff", "config.allowed"),
        ("httproute", "annotated", "KongPlugin/default/staff"),
        ("httproute", "filtered", "KongPlugin/default/staff"),
    ] {
        until(&format!("{kind} {name} has an event"), async || {
            let described = cluster.kubectl(&["describe", kind, name]).await?;
            let event = described.lines().find(|line| line.contains("KongConfigurationTranslationFailed"));
            ensure!(event.is_some_and(|event| event.contains("Warning") && event.contains(words)), "{described}");
            Ok(())
        })
        .await?;
    }
    apply(cluster, &[plugin("staff", "acl", json!({ "allow": ["staff"] }))]).await?;
    for path in PATHS {
        until("a request of a member of the group passes again", async || {
            target_with_key(address, path, Some("ann-1")).expect(200, "plugins").await
        })
        .await?;
    }
    until("the plugin is programmed again", async || is_programmed(cluster, "kongplugin/staff", "True").await).await?;
    until("an event reports the fix", async || {
        let described = cluster.kubectl(&["describe", "kongplugin", "staff"]).await?;
        ensure!(described.contains("Resolved"), "{described}");
        Ok(())
    })
    .await
}

async fn key_rotation_fails_no_request_of_others(cluster: &Cluster, address: SocketAddr) -> Result<()> {
    let load = Load::start(&target_with_key(address, PATHS[0], Some("ann-1")));
    load.wait_for_more(REQUESTS).await?;
    for number in 2..5 {
        let (old, new) = (format!("bob-{}", number - 1), format!("bob-{number}"));
        apply(cluster, &[secret("bob-key", "key-auth", "key", &new)]).await?;
        // The key is known, but its consumer is not in the group.
        until("the new key is known", async || target_with_key(address, PATHS[0], Some(&new)).expect(403, "").await)
            .await?;
        target_with_key(address, PATHS[0], Some(&old)).expect(401, "").await?;
        load.wait_for_more(REQUESTS).await?;
    }
    load.stop().await.map(drop)
}

fn target_with_key(address: SocketAddr, path: &str, key: Option<&str>) -> Target {
    Target { key: key.map(str::to_owned), ..Target::new(address, HOST, path) }
}

/// Checks the condition for the current generation of the object.
async fn is_programmed(cluster: &Cluster, object: &str, expected: &str) -> Result<()> {
    let object: Value = serde_json::from_str(&cluster.kubectl(&["get", object, "--output=json"]).await?)?;
    let conditions = object["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let [condition] = conditions else { anyhow::bail!("expected one condition: {conditions:?}") };
    ensure!(condition["type"] == "Programmed" && condition["status"] == expected, "{condition}");
    ensure!(condition["observedGeneration"] == object["metadata"]["generation"], "{condition}");
    Ok(())
}

pub(crate) fn plugin(name: &str, plugin: &str, config: Value) -> Value {
    json!({
        "apiVersion": "configuration.konghq.com/v1", "kind": "KongPlugin", "metadata": { "name": name },
        "plugin": plugin, "config": config,
    })
}

pub(crate) fn consumer(name: &str, credentials: &[&str]) -> Value {
    json!({
        "apiVersion": "configuration.konghq.com/v1", "kind": "KongConsumer",
        "metadata": { "name": name, "annotations": { "kubernetes.io/ingress.class": "portico" } },
        "username": name, "credentials": credentials,
    })
}

pub(crate) fn secret(name: &str, credential: &str, field: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": name, "labels": { "konghq.com/credential": credential } },
        "stringData": { field: value },
    })
}
