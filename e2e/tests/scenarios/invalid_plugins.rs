//! Tests of invalid plugins and consumers on a real API server. The condition and the event of the object have the
//! error and the remedy, objects that refer to it get an event, and routes with an invalid plugin reject requests.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use portico_e2e::cluster::Cluster;
use serde_json::{Value, json};

use crate::scenarios::backend::Backend;
use crate::scenarios::client::Target;
use crate::scenarios::objects::{apply, gateway, prefix, route, until, wait_until_programmed};
use crate::scenarios::plugins::{consumer, plugin, secret};

const HOST: &str = "invalid.example";
/// More than JSON libraries read, and a tenth of what the API server accepts.
const LEVELS: usize = 1000;

/// A plugin on its own route.
struct InvalidPlugin {
    /// The name of the plugin and its route.
    name: &'static str,
    plugin: Value,
    /// The condition with the error, and its status.
    condition: (&'static str, &'static str),
    /// Parts of the message: field, reason and remedy.
    words: &'static [&'static str],
    /// The status code of responses of the route.
    status: u16,
}

pub(crate) async fn errors_are_reported_on_plugins_and_their_routes(cluster: &Cluster) -> Result<()> {
    let _backend = Backend::start(cluster, "invalid-plugins").await?;
    apply(cluster, &[gateway("invalid-plugins")]).await?;
    let address = wait_until_programmed(cluster, "invalid-plugins").await?;
    let invalid_plugins = invalid_plugins();
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "patches" },
        "stringData": { "unquoted": "a-string-without-quotes" },
    })];
    for invalid_plugin in &invalid_plugins {
        objects.push(invalid_plugin.plugin.clone());
        objects.push(route_with_plugin(invalid_plugin.name, invalid_plugin.name));
    }
    objects.push(route_with_plugin("nowhere", "no-such-plugin"));
    apply(cluster, &objects).await?;
    for invalid_plugin in &invalid_plugins {
        is_reported(cluster, address, invalid_plugin)
            .await
            .with_context(|| format!("error of {}", invalid_plugin.name))?;
    }

    until("the route with the missing plugin returns 503", async || expect_status(address, "nowhere", 503).await)
        .await?;
    has_event(cluster, "httproute/nowhere", &["konghq.com/plugins", "no-such-plugin", "create"]).await?;

    deeply_nested_plugin_is_rejected_alone(cluster, address).await.context("a deeply nested plugin")?;
    duplicate_credential_is_rejected(cluster).await.context("a duplicate credential")?;
    duplicate_global_plugins_are_rejected(cluster).await.context("two global plugins")?;
    invalid_regular_expression_is_reported(cluster).await.context("a regular expression")?;

    cluster.kubectl(&["delete", "httproute,kongplugin,kongconsumer", "--all"]).await?;
    cluster.kubectl(&["delete", "secret", "patches", "first-key", "second-key"]).await?;
    cluster.kubectl(&["delete", "gateway,service,endpointslice", "invalid-plugins"]).await.map(drop)
}

fn invalid_plugins() -> Vec<InvalidPlugin> {
    const INVALID: (&str, &str) = ("Programmed", "False");
    let mut patched = plugin("json", "acl", json!({}));
    patched["configPatches"] = json!([
        { "path": "/allow", "valueFrom": { "secretKeyRef": { "name": "patches", "key": "unquoted" } } }
    ]);
    let mut from_missing_secret = plugin("secret", "acl", json!({}));
    from_missing_secret.as_object_mut().map(|fields| fields.remove("config"));
    from_missing_secret["configFrom"] = json!({ "secretKeyRef": { "name": "not-there", "key": "config" } });
    let redis =
        |host: &str| json!({ "minute": 100, "policy": "redis", "redis": { "host": host, "port": 1, "timeout": 200 } });
    let case = |name, plugin, condition, words, status| InvalidPlugin { name, plugin, condition, words, status };
    vec![
        case("unknown", plugin("unknown", "kee-auth", json!({})), INVALID, &["plugin: ", "kee-auth"], 503),
        case(
            "field",
            plugin("field", "key-auth", json!({ "key_name": [] })),
            INVALID,
            &["config.key_name", "key_names"],
            503,
        ),
        case(
            "type",
            plugin("type", "rate-limiting", json!({ "minute": "five" })),
            INVALID,
            &["config.minute", "integer"],
            503,
        ),
        case("secret", from_missing_secret, INVALID, &["configFrom.secretKeyRef", "not-there", "create"], 503),
        case("json", patched, INVALID, &["configPatches[0]", "patches", "unquoted", "quotes"], 503),
        case(
            "regex",
            plugin("regex", "bot-detection", json!({ "deny": ["("] })),
            INVALID,
            &["config.deny[0]", "unclosed group"],
            503,
        ),
        // This plugin is active: by default, all requests are allowed while Redis cannot be reached.
        case(
            "redis",
            plugin("redis", "rate-limiting", redis("192.0.2.1")),
            ("Degraded", "True"),
            &["config.redis", "192.0.2.1"],
            200,
        ),
        case(
            "own-redis",
            plugin("own-redis", "rate-limiting", redis("127.0.0.1")),
            INVALID,
            &["config.redis.host", "127.0.0.1", "loopback"],
            503,
        ),
    ]
}

async fn is_reported(cluster: &Cluster, address: SocketAddr, invalid_plugin: &InvalidPlugin) -> Result<()> {
    let InvalidPlugin { name, condition: (condition_type, condition_status), words, status, .. } = invalid_plugin;
    until("the route returns the expected status code", async || expect_status(address, name, *status).await).await?;
    let object = format!("kongplugin/{name}");
    until("the plugin has the condition", async || {
        let object: Value = serde_json::from_str(&cluster.kubectl(&["get", &object, "--output=json"]).await?)?;
        let conditions = object["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
        let condition = conditions.iter().find(|condition| condition["type"] == *condition_type);
        let condition = condition.with_context(|| format!("no {condition_type} in {conditions:?}"))?;
        let message = condition["message"].as_str().unwrap_or_default();
        ensure!(
            condition["status"] == *condition_status && words.iter().all(|word| message.contains(word)),
            "{condition}"
        );
        Ok(())
    })
    .await?;
    has_event(cluster, &object, words).await?;
    has_event(cluster, &format!("httproute/{name}"), &["konghq.com/plugins", &format!("default/{name}")]).await
}

/// The API server accepts objects that JSON libraries cannot read. The events of other plugins must still arrive.
async fn deeply_nested_plugin_is_rejected_alone(cluster: &Cluster, address: SocketAddr) -> Result<()> {
    let nested = format!("{}{}", "[".repeat(LEVELS), "]".repeat(LEVELS));
    let deep = plugin("deep", "cors", json!({ "nested": null })).to_string().replace("null", &nested);
    cluster.apply(&deep).await?;
    apply(cluster, &[route_with_plugin("deep", "deep"), route_with_plugin("later", "later")]).await?;
    has_event(cluster, "kongplugin/deep", &["more than 64 lists and objects", "nest"]).await?;
    until("its route returns 503", async || expect_status(address, "deep", 503).await).await?;
    apply(cluster, &[plugin("later", "key-auth", json!({}))]).await?;
    until("a later plugin is in effect", async || expect_status(address, "later", 401).await).await?;
    cluster.kubectl(&["delete", "kongplugin", "deep"]).await?;
    has_event(cluster, "httproute/deep", &["konghq.com/plugins", "neither", "create"]).await
}

async fn duplicate_credential_is_rejected(cluster: &Cluster) -> Result<()> {
    apply(cluster, &[secret("first-key", "key-auth", "key", "the-same"), consumer("first", &["first-key"])]).await?;
    until("the first consumer is programmed", async || {
        ensure_programmed_is(cluster, "kongconsumer/first", "True").await
    })
    .await?;
    // Creation timestamps have a resolution of seconds.
    until("a second has passed", async || is_older_than_now(cluster, "kongconsumer/first").await).await?;
    apply(cluster, &[secret("second-key", "key-auth", "key", "the-same"), consumer("second", &["second-key"])]).await?;
    until("the second consumer is rejected", async || {
        ensure_programmed_is(cluster, "kongconsumer/second", "False").await
    })
    .await?;
    has_event(cluster, "kongconsumer/second", &["credentials[0]", "first", "older"]).await?;
    ensure_programmed_is(cluster, "kongconsumer/first", "True").await?;
    let described = cluster.kubectl(&["describe", "kongconsumer", "second"]).await?;
    ensure!(!described.contains("the-same"), "the output contains the secret: {described}");
    Ok(())
}

async fn duplicate_global_plugins_are_rejected(cluster: &Cluster) -> Result<()> {
    let global_plugin = |name: &str| {
        json!({
            "apiVersion": "configuration.konghq.com/v1", "kind": "KongClusterPlugin", "plugin": "correlation-id",
            "metadata": {
                "name": name, "labels": { "global": "true" }, "annotations": { "kubernetes.io/ingress.class": "portico" },
            },
        })
    };
    apply(cluster, &[global_plugin("one"), global_plugin("two")]).await?;
    for name in ["one", "two"] {
        let object = format!("kongclusterplugin/{name}");
        until("both plugins are rejected", async || ensure_programmed_is(cluster, &object, "False").await).await?;
        has_event(cluster, &object, &["metadata.labels[global]", "correlation-id", "keep"]).await?;
    }
    cluster.kubectl(&["delete", "kongclusterplugin", "one"]).await?;
    until("the remaining plugin is programmed", async || {
        ensure_programmed_is(cluster, "kongclusterplugin/two", "True").await
    })
    .await?;
    cluster.kubectl(&["delete", "kongclusterplugin", "two"]).await.map(drop)
}

async fn invalid_regular_expression_is_reported(cluster: &Cluster) -> Result<()> {
    let backend = json!({ "service": { "name": "invalid-plugins", "port": { "number": 80 } } });
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

fn route_with_plugin(name: &str, plugin: &str) -> Value {
    let mut route = route(name, "invalid-plugins", HOST, prefix(&format!("/{name}")), "invalid-plugins");
    route["metadata"]["annotations"] = json!({ "konghq.com/plugins": plugin });
    route
}

async fn expect_status(address: SocketAddr, name: &str, status: u16) -> Result<()> {
    Target::new(address, HOST, &format!("/{name}")).expect(status, "").await
}

/// Waits until the object has a warning event with these words.
async fn has_event(cluster: &Cluster, object: &str, words: &[&str]) -> Result<()> {
    let (kind, name) = object.split_once('/').context("an object must be KIND/NAME")?;
    until(&format!("{object} has the event"), async || {
        let described = cluster.kubectl(&["describe", kind, name]).await?;
        let is_expected = |line: &&str| line.contains("Warning") && words.iter().all(|word| line.contains(word));
        ensure!(described.lines().any(|line| is_expected(&line)), "no event with {words:?}: {described}");
        Ok(())
    })
    .await
}

async fn ensure_programmed_is(cluster: &Cluster, object: &str, expected: &str) -> Result<()> {
    let path = r#"jsonpath={.status.conditions[?(@.type=="Programmed")].status}"#;
    let found = cluster.kubectl(&["get", object, "--output", path]).await?;
    ensure!(found.trim() == expected, "{object} has Programmed={found}");
    Ok(())
}

async fn is_older_than_now(cluster: &Cluster, object: &str) -> Result<()> {
    let created = cluster.kubectl(&["get", object, "--output", "jsonpath={.metadata.creationTimestamp}"]).await?;
    let created: k8s_openapi::jiff::Timestamp = created.trim().parse()?;
    ensure!(
        k8s_openapi::jiff::Timestamp::now().as_second() > created.as_second(),
        "{object} was created in this second"
    );
    Ok(())
}
