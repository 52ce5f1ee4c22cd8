//! What users get wrong with plugins and consumers, each once on a real API server: the object says what is wrong and what
//! would be right, in its condition and in an event, and so does the event of who refers to it; requests are refused wherever
//! something may guard.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use portico_e2e::cluster::Cluster;
use serde_json::{Value, json};

use crate::backend::Backend;
use crate::client::Target;
use crate::objects::{apply, gateway, prefix, programmed, route, until};
use crate::plugins::{consumer, plugin, secret};

const HOST: &str = "misfits.example";

/// A plugin on a route of its own.
struct Misfit {
    /// Of the plugin and its route.
    name: &'static str,
    plugin: Value,
    /// The condition that tells.
    condition: (&'static str, &'static str),
    /// What its message says: field, reason and remedy.
    words: &'static [&'static str],
    /// What the route answers meanwhile.
    answer: u16,
}

pub(crate) async fn everything_that_is_wrong_is_told_on_the_object_and_where_it_is_used(
    cluster: &Cluster,
) -> Result<()> {
    let _backend = Backend::start(cluster, "misfits").await?;
    apply(cluster, &[gateway("misfits")]).await?;
    let address = programmed(cluster, "misfits").await?;
    let misfits = misfits();
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
        is_told(cluster, address, misfit).await.with_context(|| format!("{} is to be told", misfit.name))?;
    }

    until("the route whose plugin does not exist refuses", async || asks(address, "nowhere", 503).await).await?;
    has_event(cluster, "httproute/nowhere", &["konghq.com/plugins", "no-such-plugin", "create"]).await?;

    two_who_want_one_credential(cluster).await.context("a credential that two want")?;
    two_for_everything(cluster).await.context("two plugins for everything")?;
    a_regular_expression_that_is_none(cluster).await.context("a regular expression")?;

    cluster.kubectl(&["delete", "httproute,kongplugin,kongconsumer", "--all"]).await?;
    cluster.kubectl(&["delete", "secret", "patches", "first-key", "second-key"]).await?;
    cluster.kubectl(&["delete", "gateway,service,endpointslice", "misfits"]).await.map(drop)
}

fn misfits() -> Vec<Misfit> {
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
    let misfit = |name, plugin, condition, words, answer| Misfit { name, plugin, condition, words, answer };
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
            &["config.minute", "whole number"],
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
        // In effect as it says: without its server it lets everybody through.
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
            &["config.redis.host", "127.0.0.1", "Portico itself"],
            503,
        ),
    ]
}

async fn is_told(cluster: &Cluster, address: SocketAddr, misfit: &Misfit) -> Result<()> {
    let Misfit { name, condition: (kind, status), words, answer, .. } = misfit;
    until("what its route answers", async || asks(address, name, *answer).await).await?;
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

async fn two_who_want_one_credential(cluster: &Cluster) -> Result<()> {
    apply(cluster, &[secret("first-key", "key-auth", "key", "the-same"), consumer("first", &["first-key"])]).await?;
    until("the first has it", async || programmed_is(cluster, "kongconsumer/first", "True").await).await?;
    // Who is older is told by seconds.
    until("a second has passed", async || is_older_than_now(cluster, "kongconsumer/first").await).await?;
    apply(cluster, &[secret("second-key", "key-auth", "key", "the-same"), consumer("second", &["second-key"])]).await?;
    until("the second is refused", async || programmed_is(cluster, "kongconsumer/second", "False").await).await?;
    has_event(cluster, "kongconsumer/second", &["credentials[0]", "first", "older"]).await?;
    programmed_is(cluster, "kongconsumer/first", "True").await?;
    let told = cluster.kubectl(&["describe", "kongconsumer", "second"]).await?;
    ensure!(!told.contains("the-same"), "the secret is told: {told}");
    Ok(())
}

async fn two_for_everything(cluster: &Cluster) -> Result<()> {
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
        until("neither runs", async || programmed_is(cluster, &object, "False").await).await?;
        has_event(cluster, &object, &["metadata.labels[global]", "correlation-id", "keep"]).await?;
    }
    cluster.kubectl(&["delete", "kongclusterplugin", "one"]).await?;
    until("the other runs", async || programmed_is(cluster, "kongclusterplugin/two", "True").await).await?;
    cluster.kubectl(&["delete", "kongclusterplugin", "two"]).await.map(drop)
}

async fn a_regular_expression_that_is_none(cluster: &Cluster) -> Result<()> {
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

async fn asks(address: SocketAddr, name: &str, status: u16) -> Result<()> {
    Target::new(address, HOST, &format!("/{name}")).expect(status, "").await
}

/// Waits until the object has an event that warns with these words.
async fn has_event(cluster: &Cluster, object: &str, words: &[&str]) -> Result<()> {
    let (kind, name) = object.split_once('/').context("kind/name")?;
    until(&format!("an event on {object}"), async || {
        let told = cluster.kubectl(&["describe", kind, name]).await?;
        let is_it = |line: &&str| line.contains("Warning") && words.iter().all(|word| line.contains(word));
        ensure!(told.lines().any(|line| is_it(&line)), "no event with {words:?}: {told}");
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
    ensure!(k8s_openapi::jiff::Timestamp::now().as_second() > made.as_second(), "{object} is of this second");
    Ok(())
}
