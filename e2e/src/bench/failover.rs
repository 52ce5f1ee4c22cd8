//! Deletes one of two Pods while requests flow, without retries in the client or the route.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, ListParams};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::client::{Connection, Target};
use super::objects::{OBJECT_TIMEOUT, create, gateway, resource_api, wait_until_programmed};
use super::statistics::{DurationStats, load};
use crate::cluster::Cluster;
use crate::wait::until;

const NAME: &str = "failover";
/// Idle connections that the client keeps.
const MAX_IDLE: usize = 16;

/// The results of requests during which one of two Pods was deleted.
#[derive(Clone, Debug, Serialize)]
pub struct Failover {
    pub rate: u32,
    pub ok: usize,
    pub failed: usize,
    /// Milliseconds from the response to the deletion until the Pod was gone.
    pub gone: f64,
    /// Milliseconds from the response to the deletion until the last failed request.
    pub last_failure: f64,
    /// Milliseconds from the scheduled time of a request to its response.
    pub answers: Option<DurationStats>,
    /// Errors of failed requests and their counts.
    pub failures: Vec<(String, usize)>,
    pub load: f64,
}

impl Failover {
    pub(super) const HEAD: [&str; 10] = [
        "requests/s",
        "ok",
        "failed",
        "Pod gone after ms",
        "last failed after ms",
        "mean ms",
        "p95 ms",
        "max ms",
        "failures",
        "load",
    ];

    pub(super) fn row(&self) -> Vec<String> {
        let [_, mean, _, p95, max] = self.answers.as_ref().map(DurationStats::cells).unwrap_or_default();
        let failures: Vec<String> = self.failures.iter().map(|(error, count)| format!("{count}x {error}")).collect();
        vec![
            self.rate.to_string(),
            self.ok.to_string(),
            self.failed.to_string(),
            format!("{:.0}", self.gone),
            format!("{:.0}", self.last_failure),
            mean,
            p95,
            max,
            if failures.is_empty() { "-".to_owned() } else { failures.join(", ") },
            format!("{:.2}", self.load),
        ]
    }
}

/// Measures on a cluster with a node.
pub(super) async fn measure(cluster: &Cluster, rate: u32, time: Duration) -> Result<Failover> {
    let gateways = resource_api(cluster, "Gateway");
    let routes = resource_api(cluster, "HTTPRoute");
    let services = resource_api(cluster, "Service");
    let deployments = resource_api(cluster, "Deployment");
    for (api, object) in
        [(&deployments, deployment()), (&services, service()), (&gateways, gateway(NAME)), (&routes, route())]
    {
        create(api, &object).await?;
    }
    let target = Target {
        address: wait_until_programmed(&gateways, NAME).await?,
        host: "failover.example".into(),
        path: "/".into(),
    };
    wait_for_both_pods(cluster, &target).await?;

    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let pod_list = pods.list(&ListParams::default().labels(&format!("app={NAME}"))).await?;
    let pod_name = pod_list.items.into_iter().find_map(|pod| pod.metadata.name).context("there is no Pod to delete")?;
    let begin = Instant::now();
    let requests = send_requests(&target, rate, time, begin);
    let deletion = async {
        sleep_until(begin + time / 2).await;
        pods.delete(&pod_name, &DeleteParams::default()).await.context("cannot delete the Pod")?;
        let deleted = Instant::now();
        until("the Pod is gone", OBJECT_TIMEOUT, async || {
            ensure!(pods.get_opt(&pod_name).await?.is_none(), "{pod_name} still exists");
            Ok(())
        })
        .await?;
        anyhow::Ok([deleted, Instant::now()])
    };
    let (results, deleted) = tokio::join!(requests, deletion);
    for (api, name) in [(&routes, NAME), (&gateways, NAME), (&services, NAME), (&deployments, NAME)] {
        let api: &Api<DynamicObject> = api;
        api.delete(name, &DeleteParams::foreground()).await?;
    }
    results.into_failover(rate, deleted?)
}

/// Waits until Portico forwards requests to both Pods.
async fn wait_for_both_pods(cluster: &Cluster, target: &Target) -> Result<()> {
    cluster.kubectl(&["rollout", "status", "deployment/failover", "--timeout=180s"]).await?;
    until("both Pods respond", OBJECT_TIMEOUT, async || {
        let mut connection = Connection::open(target.address).await?;
        let mut pods = BTreeSet::new();
        for _ in 0..8 {
            let (status, body) = connection.request(target).await?;
            ensure!(status == 200, "{status}");
            let response: Value = serde_json::from_str(&body).context("the response of echo-basic is not JSON")?;
            pods.extend(response["pod"].as_str().map(str::to_owned));
        }
        ensure!(pods.len() == 2, "only {pods:?} responded");
        Ok(())
    })
    .await
}

#[derive(Default)]
struct RequestResults {
    response_times: Vec<Duration>,
    failures: Vec<(Instant, String)>,
}

impl RequestResults {
    fn into_failover(self, rate: u32, [deleted, gone]: [Instant; 2]) -> Result<Failover> {
        let last_failure = self.failures.iter().map(|(at, _)| at.saturating_duration_since(deleted)).max();
        let mut failures = BTreeMap::<String, usize>::new();
        for (_, error) in &self.failures {
            *failures.entry(error.clone()).or_default() += 1;
        }
        Ok(Failover {
            rate,
            ok: self.response_times.len(),
            failed: self.failures.len(),
            gone: (gone - deleted).as_secs_f64() * 1000.0,
            last_failure: last_failure.unwrap_or_default().as_secs_f64() * 1000.0,
            answers: DurationStats::from_durations(&self.response_times),
            failures: failures.into_iter().collect(),
            load: load()?,
        })
    }
}

/// Sends requests at a fixed rate, independent of responses, like many clients.
async fn send_requests(target: &Target, rate: u32, time: Duration, begin: Instant) -> RequestResults {
    let idle_connections = Arc::new(Mutex::new(Vec::<Connection>::new()));
    let mut requests = JoinSet::new();
    let count = (time.as_secs_f64() * f64::from(rate)) as u32;
    for request in 0..count {
        let due = begin + Duration::from_secs_f64(f64::from(request) / f64::from(rate));
        sleep_until(due).await;
        let (target, idle_connections) = (target.clone(), idle_connections.clone());
        requests.spawn(async move {
            let response = send_request(&target, &idle_connections).await;
            (Instant::now(), due, response)
        });
    }
    let mut results = RequestResults::default();
    while let Some(finished) = requests.join_next().await {
        match finished {
            Ok((at, due, Ok(()))) => results.response_times.push(at - due),
            Ok((_, due, Err(error))) => results.failures.push((due, format!("{error:#}"))),
            Err(panic) => results.failures.push((begin, panic.to_string())),
        }
    }
    results
}

async fn send_request(target: &Target, idle_connections: &Mutex<Vec<Connection>>) -> Result<()> {
    let mut idle = idle_connections.lock().pop();
    let open = match &mut idle {
        Some(connection) => connection.is_open().await,
        None => false,
    };
    let mut connection = match idle {
        Some(connection) if open => connection,
        _ => Connection::open(target.address).await?,
    };
    let status = connection.request_status(target).await?;
    {
        let mut idle_connections = idle_connections.lock();
        if idle_connections.len() < MAX_IDLE {
            idle_connections.push(connection);
        }
    }
    ensure!(status == 200, "{status}");
    Ok(())
}

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
    });
    let template = json!({ "metadata": { "labels": { "app": NAME } }, "spec": { "containers": [container] } });
    let selector = json!({ "matchLabels": { "app": NAME } });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": NAME },
        "spec": { "replicas": 2, "selector": selector, "template": template },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": NAME },
        "spec": { "selector": { "app": NAME }, "ports": [{ "port": 80, "targetPort": 3000 }] },
    })
}

fn route() -> Value {
    let rule = json!({ "backendRefs": [{ "name": NAME, "port": 80 }] });
    let spec = json!({ "parentRefs": [{ "name": NAME }], "hostnames": ["failover.example"], "rules": [rule] });
    json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": { "name": NAME }, "spec": spec })
}
