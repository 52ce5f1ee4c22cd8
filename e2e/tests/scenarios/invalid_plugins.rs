//! Invalid plugins and consumers, each once on a real API server: the object's condition and event have the error and
//! the remedy, referring objects get an event, and protected routes reject requests.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use portico_e2e::cluster::Cluster;
use serde_json::{Value, json};

use crate::scenarios::backend::Backend;
use crate::scenarios::client::Target;
use crate::scenarios::objects::{apply, gateway, prefix, route, until, wait_until_programmed};
use crate::scenarios::plugins::{consumer, plugin, secret};

const HOST: &str = "misfits.example";

/// A plugin on its own route.
struct InvalidPlugin {
    /// The name of the plugin and its route.
    name: &'static str,
    plugin: Value,
    /// The condition with the error, and its status.
    condition: (&'static str, &'static str),
    /// Words of its message: field, reason and remedy.
    words: &'static [&'static str],
    /// The status code of the route meanwhile.
    status: u16,
}

pub(crate) async fn errors_are_reported_on_object_and_user(cluster: &Cluster) -> Result<()> {
    let _backend = Backend::start(cluster, "misfits").await?;
    apply(cluster, &[gateway("misfits")]).await?;
    let address = wait_until_programmed(cluster, "misfits").await?;
    let misfits = invalid_plugins();
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "patches" },
        "stringData": { "unquoted": "a-string-without-quotes" },
    })];
    for misfit in &misfits {
        objects.push(misfit.plugin.clone());
        objects.push(annotated(misfit.name, misfit.name));
    }
    objects.push(annotated("nowhere", "no-such-plugin"));
    apply(cluster, &objects).await?;
    for misfit in &misfits {
        is_reported(cluster, address, misfit).await.with_context(|| format!("error of {}", misfit.name))?;
    }

    until("the route with the missing plugin returns 503", async || expect_status(address, "nowhere", 503).await)
        .await?;
    has_event(cluster, "httproute/nowhere", &["konghq.com/plugins", "no-such-plugin", "create"]).await?;

    duplicate_credential_is_rejected(cluster).await.context("a duplicate credential")?;
    duplicate_global_plugins_are_rejected(cluster).await.context("two global plugins")?;
    invalid_regular_expression_is_reported(cluster).await.context("a regular expression")?;

    cluster.kubectl(&["delete", "httproute,kongplugin,kongconsumer", "--all"]).await?;
    cluster.kubectl(&["delete", "secret", "patches", "first-key", "second-key"]).await?;
    cluster.kubectl(&["delete", "gateway,service,endpointslice", "misfits"]).await.map(drop)
}

fn invalid_plugins() -> Vec<InvalidPlugin> {
    const INVALID: (&str, &str) = ("Programmed", "False");
    let mut patched = plugin("json", "acl", json!({}));
    patched["configPatches"] = json!([
        { "path": "/allow", "valueFrom": { "secretKeyRef": { "name": "patches", "key": "unquoted" } } }
    ]);
    let mut from_nowhere = plugin("secret", "acl", json!({}));
    from_nowhere.as_object_mut().map(|fields| fields.remove("config"));
    from_nowhere["configFrom"] = json!({ "secretKeyRef": { "name": "not-there", "key": "config" } });
    let redis =
        |host: &str| json!({ "minute": 100, "policy": "redis", "redis": { "host": host, "port": 1, "timeout": 200 } });
    let misfit =
        |name, plugin, condition, words, answer| InvalidPlugin { name, plugin, condition, words, status: answer };
    vec![
        misfit("unknown", plugin("unknown", "kee-auth", json!({})), INVALID, &["plugin: ", "kee-auth"], 503),
        misfit(
            "field",
            plugin("field", "key-auth", json!({ "key_name": [] })),
            INVALID,
            &["config.key_name", "key_names"],
            503,
        ),
        misfit(
            "type",
            plugin("type", "rate-limiting", json!({ "minute": "five" })),
            INVALID,
            &["config.minute", "integer"],
            503,
        ),
        misfit("secret", from_nowhere, INVALID, &["configFrom.secretKeyRef", "not-there", "create"], 503),
        misfit("json", patched, INVALID, &["configPatches[0]", "patches", "unquoted", "quotes"], 503),
        misfit(
            "regex",
            plugin("regex", "bot-detection", json!({ "deny": ["("] })),
            INVALID,
            &["config.deny[0]", "unclosed group"],
            503,
        ),
        // Active as configured: without its Redis server it allows all requests.
        misfit(
            "redis",
            plugin("redis", "rate-limiting", redis("192.0.2.1")),
            ("Degraded", "True"),
            &["config.redis", "192.0.2.1"],
            200,
        ),
        misfit(
            "own-redis",
            plugin("own-redis", "rate-limiting", redis("127.0.0.1")),
            INVALID,
            &["config.redis.host", "127.0.0.1", "loopback"],
            503,
        ),
    ]
}

async fn is_reported(cluster: &Cluster, address: SocketAddr, misfit: &InvalidPlugin) -> Result<()> {
    let InvalidPlugin { name, condition: (kind, status), words, status: answer, .. } = misfit;
    until("status code of its route", async || expect_status(address, name, *answer).await).await?;
    let object = format!("kongplugin/{name}");
    until("its condition", async || {
        let object: Value = serde_json::from_str(&cluster.kubectl(&["get", &object, "--output=json"]).await?)?;
        let conditions = object["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
        let condition = conditions.iter().find(|condition| condition["type"] == *kind);
        let condition = condition.with_context(|| format!("no {kind} in {conditions:?}"))?;
        let message = condition["message"].as_str().unwrap_or_default();
        ensure!(condition["status"] == *status && words.iter().all(|word| message.contains(word)), "{condition}");
        Ok(())
    })
    .await?;
    has_event(cluster, &object, words).await?;
    has_event(cluster, &format!("httproute/{name}"), &["konghq.com/plugins", &format!("default/{name}")]).await
}

async fn duplicate_credential_is_rejected(cluster: &Cluster) -> Result<()> {
    apply(cluster, &[secret("first-key", "key-auth", "key", "the-same"), consumer("first", &["first-key"])]).await?;
    until("the first consumer is programmed", async || programmed_is(cluster, "kongconsumer/first", "True").await)
        .await?;
    // Creation timestamps have a resolution of seconds.
    until("a second has passed", async || is_older_than_now(cluster, "kongconsumer/first").await).await?;
    apply(cluster, &[secret("second-key", "key-auth", "key", "the-same"), consumer("second", &["second-key"])]).await?;
    until("the second consumer is rejected", async || programmed_is(cluster, "kongconsumer/second", "False").await)
        .await?;
    has_event(cluster, "kongconsumer/second", &["credentials[0]", "first", "older"]).await?;
    programmed_is(cluster, "kongconsumer/first", "True").await?;
    let described = cluster.kubectl(&["describe", "kongconsumer", "second"]).await?;
    ensure!(!described.contains("the-same"), "the output contains the secret: {described}");
    Ok(())
}

async fn duplicate_global_plugins_are_rejected(cluster: &Cluster) -> Result<()> {
    let of_all = |name: &str| {
        json!({
            "apiVersion": "configuration.konghq.com/v1", "kind": "KongClusterPlugin", "plugin": "correlation-id",
            "metadata": {
                "name": name, "labels": { "global": "true" }, "annotations": { "kubernetes.io/ingress.class": "portico" },
            },
        })
    };
    apply(cluster, &[of_all("one"), of_all("two")]).await?;
    for name in ["one", "two"] {
        let object = format!("kongclusterplugin/{name}");
        until("both plugins are rejected", async || programmed_is(cluster, &object, "False").await).await?;
        has_event(cluster, &object, &["metadata.labels[global]", "correlation-id", "keep"]).await?;
    }
    cluster.kubectl(&["delete", "kongclusterplugin", "one"]).await?;
    until("the remaining plugin is programmed", async || programmed_is(cluster, "kongclusterplugin/two", "True").await)
        .await?;
    cluster.kubectl(&["delete", "kongclusterplugin", "two"]).await.map(drop)
}

async fn invalid_regular_expression_is_reported(cluster: &Cluster) -> Result<()> {
    let backend = json!({ "service": { "name": "misfits", "port": { "number": 80 } } });
    let path = json!({ "path": "/~/(", "pathType": "ImplementationSpecific", "backend": backend });
    let ingress = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": { "name": "regex", "annotations": { "kubernetes.io/ingress.class": "portico" } },
        "spec": { "rules": [{ "host": HOST, "http": { "paths": [path] } }] },
    });
    apply(cluster, &[ingress]).await?;
    has_event(cluster, "ingress/regex", &["spec.rules[0].http.paths[0].path", "regular expression"]).await?;
    cluster.kubectl(&["delete", "ingress", "regex"]).await.map(drop)
}

fn annotated(name: &str, plugin: &str) -> Value {
    let mut route = route(name, "misfits", HOST, prefix(&format!("/{name}")), "misfits");
    route["metadata"]["annotations"] = json!({ "konghq.com/plugins": plugin });
    route
}

async fn expect_status(address: SocketAddr, name: &str, status: u16) -> Result<()> {
    Target::new(address, HOST, &format!("/{name}")).expect(status, "").await
}

/// Waits until the object has a warning event with these words.
async fn has_event(cluster: &Cluster, object: &str, words: &[&str]) -> Result<()> {
    let (kind, name) = object.split_once('/').context("kind/name")?;
    until(&format!("an event on {object}"), async || {
        let described = cluster.kubectl(&["describe", kind, name]).await?;
        let is_it = |line: &&str| line.contains("Warning") && words.iter().all(|word| line.contains(word));
        ensure!(described.lines().any(|line| is_it(&line)), "no event with {words:?}: {described}");
        Ok(())
    })
    .await
}

async fn programmed_is(cluster: &Cluster, object: &str, expected: &str) -> Result<()> {
    let path = r#"jsonpath={.status.conditions[?(@.type=="Programmed")].status}"#;
    let found = cluster.kubectl(&["get", object, "--output", path]).await?;
    ensure!(found.trim() == expected, "{object} has Programmed={found}");
    Ok(())
}

async fn is_older_than_now(cluster: &Cluster, object: &str) -> Result<()> {
    let made = cluster.kubectl(&["get", object, "--output", "jsonpath={.metadata.creationTimestamp}"]).await?;
    let made: k8s_openapi::jiff::Timestamp = made.trim().parse()?;
    ensure!(k8s_openapi::jiff::Timestamp::now().as_second() > made.as_second(), "{object} was created in this second");
    Ok(())
}
