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
use super::objects::{GATEWAY_API, OBJECT_TIMEOUT, create, gateway, kind, wait_until_programmed};
use super::statistics::{DurationStats, load};
use crate::cluster::Cluster;
use crate::wait::until;

const NAME: &str = "failover";
/// Idle connections that the client keeps.
const MAX_IDLE: usize = 16;

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
        let failures: Vec<String> = self.failures.iter().map(|(what, number)| format!("{number}x {what}")).collect();
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

/// Requires a node.
pub(super) async fn measure(cluster: &Cluster, rate: u32, time: Duration) -> Result<Failover> {
    let gateways = kind(cluster, GATEWAY_API, "v1", "Gateway");
    let routes = kind(cluster, GATEWAY_API, "v1", "HTTPRoute");
    let services = kind(cluster, "", "v1", "Service");
    let deployments = kind(cluster, "apps", "v1", "Deployment");
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
    let listed = pods.list(&ListParams::default().labels(&format!("app={NAME}"))).await?;
    let victim = listed.items.into_iter().find_map(|pod| pod.metadata.name).context("there is no Pod to delete")?;
    let begin = Instant::now();
    let requests = send_requests(&target, rate, time, begin);
    let deletion = async {
        sleep_until(begin + time / 2).await;
        pods.delete(&victim, &DeleteParams::default()).await.context("cannot delete the Pod")?;
        let deleted = Instant::now();
        until("the Pod is gone", OBJECT_TIMEOUT, async || {
            ensure!(pods.get_opt(&victim).await?.is_none(), "{victim} still exists");
            Ok(())
        })
        .await?;
        anyhow::Ok([deleted, Instant::now()])
    };
    let (seen, deleted) = tokio::join!(requests, deletion);
    for (api, name) in [(&routes, NAME), (&gateways, NAME), (&services, NAME), (&deployments, NAME)] {
        let api: &Api<DynamicObject> = api;
        api.delete(name, &DeleteParams::foreground()).await?;
    }
    seen.into_failover(rate, deleted?)
}

/// Waits until Portico forwards requests to both Pods.
async fn wait_for_both_pods(cluster: &Cluster, target: &Target) -> Result<()> {
    cluster.kubectl(&["rollout", "status", "deployment/failover", "--timeout=60s"]).await?;
    let mut connection = Connection::open(target.address).await?;
    until("both Pods respond", OBJECT_TIMEOUT, async || {
        let mut pods = BTreeSet::new();
        for _ in 0..8 {
            let (status, body) = connection.request(target).await?;
            ensure!(status == 200, "{status}");
            let answer: Value = serde_json::from_str(&body).context("the response of echo-basic is not JSON")?;
            pods.extend(answer["pod"].as_str().map(str::to_owned));
        }
        ensure!(pods.len() == 2, "only {pods:?} responded");
        Ok(())
    })
    .await
}

#[derive(Default)]
struct RequestResults {
    answers: Vec<Duration>,
    failures: Vec<(Instant, String)>,
}

impl RequestResults {
    fn into_failover(self, rate: u32, [deleted, gone]: [Instant; 2]) -> Result<Failover> {
        let last = self.failures.iter().map(|(at, _)| at.saturating_duration_since(deleted)).max();
        let mut failures = BTreeMap::<String, usize>::new();
        for (_, what) in &self.failures {
            *failures.entry(what.clone()).or_default() += 1;
        }
        Ok(Failover {
            rate,
            ok: self.answers.len(),
            failed: self.failures.len(),
            gone: (gone - deleted).as_secs_f64() * 1000.0,
            last_failure: last.unwrap_or_default().as_secs_f64() * 1000.0,
            answers: DurationStats::from_durations(&self.answers),
            failures: failures.into_iter().collect(),
            load: load()?,
        })
    }
}

/// Sends requests at a fixed rate, independent of responses, like many clients.
async fn send_requests(target: &Target, rate: u32, time: Duration, begin: Instant) -> RequestResults {
    let kept = Arc::new(Mutex::new(Vec::<Connection>::new()));
    let mut asking = JoinSet::new();
    let number = (time.as_secs_f64() * f64::from(rate)) as u32;
    for request in 0..number {
        let due = begin + Duration::from_secs_f64(f64::from(request) / f64::from(rate));
        sleep_until(due).await;
        let (target, kept) = (target.clone(), kept.clone());
        asking.spawn(async move {
            let answer = send_request(&target, &kept).await;
            (Instant::now(), due, answer)
        });
    }
    let mut seen = RequestResults::default();
    while let Some(asked) = asking.join_next().await {
        match asked {
            Ok((at, due, Ok(()))) => seen.answers.push(at - due),
            Ok((_, due, Err(error))) => seen.failures.push((due, format!("{error:#}"))),
            Err(panic) => seen.failures.push((begin, panic.to_string())),
        }
    }
    seen
}

async fn send_request(target: &Target, kept: &Mutex<Vec<Connection>>) -> Result<()> {
    let mut idle = kept.lock().pop();
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
        let mut kept = kept.lock();
        if kept.len() < MAX_IDLE {
            kept.push(connection);
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
