//! A thousand routes at once: all are served, with only a few status writes for the Gateway.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use kube::api::{DynamicObject, PostParams, WatchEvent, WatchParams};
use portico_e2e::cluster::Cluster;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::scenarios::backend::Backend;
use crate::scenarios::client::Target;
use crate::scenarios::objects::{
    apply, gateway, gateways, prefix, route, routes, until, wait_until_accepted, wait_until_programmed,
};
use crate::scenarios::route_counts::wait_until_counted;

const HOST: &str = "thousand.example";
const ROUTES: usize = 1000;
/// The number of concurrent requests that create routes.
const CONCURRENT_REQUESTS: usize = 16;
/// The maximum number of status writes for the Gateway in addition to one a second: an API server under load may pause
/// between the routes.
const MAX_BURST_WRITES: u64 = 12;

pub(crate) async fn thousand_routes_need_few_writes(cluster: &Cluster) -> Result<()> {
    let _backend = Backend::start(cluster, "thousand").await?;
    apply(cluster, &[gateway("thousand")]).await?;
    let address = wait_until_programmed(cluster, "thousand").await?;
    let writes = WriteCounter::watch(cluster, "thousand").await?;
    let new_routes = (0..ROUTES).map(|number| {
        let path = format!("/{number}");
        route(&format!("thousand-{number}"), "thousand", HOST, prefix(&path), "thousand")
    });
    let api = routes(cluster);
    let started = Instant::now();
    stream::iter(new_routes)
        .map(|route| {
            let api = api.clone();
            async move {
                let mut route: DynamicObject = serde_json::from_value(route)?;
                route.metadata.labels = Some([("scenario".to_owned(), "thousand".to_owned())].into());
                api.create(&PostParams::default(), &route).await.map(drop).context("the route was rejected")
            }
        })
        .buffer_unordered(CONCURRENT_REQUESTS)
        .try_collect::<Vec<()>>()
        .await?;
    let gateway = wait_until_counted(cluster, "thousand", ROUTES).await?;
    let took = started.elapsed();
    let max_writes = MAX_BURST_WRITES + took.as_secs();
    for number in [0, ROUTES / 2, ROUTES - 1] {
        Target::new(address, HOST, &format!("/{number}")).expect(200, &format!("thousand /{number}")).await?;
        wait_until_accepted(cluster, &format!("thousand-{number}")).await?;
    }
    let write_count = writes.until(gateway.metadata.resource_version.as_deref()).await?;
    ensure!(write_count <= max_writes, "the Gateway was written {write_count} times in {took:?}");
    cluster.kubectl(&["delete", "httproutes", "--selector=scenario=thousand", "--wait=false"]).await?;
    cluster.kubectl(&["delete", "gateway,service,endpointslice", "thousand"]).await.map(drop)
}

/// Counts the writes of a Gateway from the call of [`WriteCounter::watch`] on.
struct WriteCounter {
    /// The resource versions that the watch has received.
    versions: Arc<parking_lot::Mutex<Vec<String>>>,
    count: Arc<AtomicU64>,
    _watch: JoinSet<()>,
}

impl WriteCounter {
    async fn watch(cluster: &Cluster, name: &str) -> Result<WriteCounter> {
        let api = gateways(cluster);
        let version = api.get(name).await?.metadata.resource_version.context("the object has no resourceVersion")?;
        let watch_params = WatchParams::default().fields(&format!("metadata.name={name}"));
        let mut events = api.watch(&watch_params, &version).await?.boxed();
        let (versions, count) = (Arc::new(parking_lot::Mutex::new(Vec::new())), Arc::new(AtomicU64::new(0)));
        let mut watch = JoinSet::new();
        let (received_versions, received_count) = (versions.clone(), count.clone());
        watch.spawn(async move {
            while let Some(Ok(event)) = events.next().await {
                if let WatchEvent::Modified(object) = event {
                    received_count.fetch_add(1, Ordering::Relaxed);
                    received_versions.lock().extend(object.metadata.resource_version);
                }
            }
        });
        Ok(WriteCounter { versions, count, _watch: watch })
    }

    /// Waits until the watch has received this resource version, and returns the number of writes.
    async fn until(&self, version: Option<&str>) -> Result<u64> {
        let version = version.context("the object has no resourceVersion")?;
        until("the watch has caught up", async || {
            ensure!(self.versions.lock().iter().any(|received| received == version), "{version} was not received");
            Ok(self.count.load(Ordering::Relaxed))
        })
        .await
    }
}
