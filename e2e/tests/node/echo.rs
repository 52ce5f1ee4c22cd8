//! Helpers for Pods of the echo server: their Deployment, waiting for their status, and requests to them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use portico_e2e::cluster::Cluster;
use portico_e2e::wait;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Long enough for a busy machine; only a failing test takes that long.
pub(crate) const NODE_TIMEOUT: Duration = Duration::from_secs(180);

/// A Deployment of the echo server, whose container has these additional fields.
pub(crate) fn deployment(name: &str, replicas: u32, container_fields: Value) -> Value {
    let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
    let mut container = json!({
        "name": name,
        "image": "gateway-api/conformance/echo-basic:v0.1.0",
        "env": [
            { "name": "POD_NAME", "valueFrom": field("metadata.name") },
            { "name": "NAMESPACE", "valueFrom": field("metadata.namespace") },
        ],
    });
    merge(&mut container, container_fields);
    let labels = json!({ "app": name });
    let template = json!({ "metadata": { "labels": labels }, "spec": { "containers": [container] } });
    let spec = json!({ "replicas": replicas, "selector": { "matchLabels": labels }, "template": template });
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name }, "spec": spec })
}

/// Merges `addition` into `value`: objects field by field, lists by appending. Other values are replaced.
pub(crate) fn merge(value: &mut Value, addition: Value) {
    match (value, addition) {
        (Value::Object(fields), Value::Object(additions)) => {
            for (name, addition) in additions {
                merge(fields.entry(name).or_insert(Value::Null), addition);
            }
        }
        (Value::Array(items), Value::Array(additions)) => items.extend(additions),
        (value, addition) => *value = addition,
    }
}

pub(crate) async fn pods(cluster: &Cluster, app: &str) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    Ok(pods.list(&ListParams::default().labels(&format!("app={app}"))).await?.items)
}

/// Waits until the app has exactly this number of Pods, all ready.
pub(crate) async fn wait_until_ready(cluster: &Cluster, app: &str, count: usize) -> Result<Vec<Pod>> {
    until(&format!("{app} has {count} ready Pods"), async || {
        let pods = pods(cluster, app).await?;
        let all_ready = pods.len() == count && pods.iter().all(is_ready);
        if all_ready { Ok(pods) } else { bail!("there are {}", describe(&pods)) }
    })
    .await
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The statuses of the Pods as JSON, for error messages.
pub(crate) fn describe(pods: &[Pod]) -> String {
    serde_json::to_string(&pods.iter().map(|pod| &pod.status).collect::<Vec<_>>()).unwrap_or_default()
}

pub(crate) fn address(pod: &Pod) -> Result<IpAddr> {
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).context("the Pod has no address")?;
    address.parse().context("not an address")
}

/// Fails unless the port accepts a connection.
pub(crate) async fn connect(address: IpAddr, port: u16) -> Result<()> {
    let connecting = TcpStream::connect(SocketAddr::new(address, port));
    timeout(Duration::from_secs(5), connecting)
        .await
        .context("no connection within 5 s")?
        .context("no connection")
        .map(drop)
}

/// Sends a GET request and returns the complete response, with its status line and headers.
pub(crate) async fn get(address: IpAddr, port: u16, path: &str) -> Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(SocketAddr::new(address, port)).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut response = String::new();
        stream.read_to_string(&mut response).await?;
        Ok::<_, anyhow::Error>(response)
    };
    timeout(Duration::from_secs(5), exchange).await.context("no response within 5 s")?
}

/// The number of restarts of all containers together.
pub(crate) fn restarts(pods: &[Pod]) -> i32 {
    let statuses = pods.iter().filter_map(|pod| pod.status.as_ref()?.container_statuses.as_ref()).flatten();
    statuses.map(|status| status.restart_count).sum()
}

/// Retries until `attempt` succeeds. `condition` is a clause for the error message, such as "the Pod is ready".
pub(crate) async fn until<Output>(condition: &str, attempt: impl AsyncFnMut() -> Result<Output>) -> Result<Output> {
    wait::until(condition, NODE_TIMEOUT, attempt).await
}
