//! A thousand routes at once: all of them answer, and the Gateway's status is written a few times only.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use kube::api::{DynamicObject, PostParams, WatchEvent, WatchParams};
use portico_e2e::cluster::Cluster;
use tokio::task::JoinSet;

use crate::backend::Backend;
use crate::client::Target;
use crate::counts::counted;
use crate::objects::{accepted, apply, gateway, gateways, prefix, programmed, route, routes, until};

const HOST: &str = "thousand.example";
const ROUTES: usize = 1000;
/// As many as `kubectl` and controllers have under way.
const AT_A_TIME: usize = 16;
/// What the Gateway may be written meanwhile.
const MOST_WRITES: usize = 20;

pub(crate) async fn a_thousand_routes_are_counted_in_a_few_writes(cluster: &Cluster) -> Result<()> {
    let _backend = Backend::start(cluster, "thousand").await?;
    apply(cluster, &[gateway("thousand")]).await?;
    let address = programmed(cluster, "thousand").await?;
    let writes = Writes::watch(cluster, "thousand").await?;
    let made = (0..ROUTES).map(|number| {
        let path = format!("/{number}");
        route(&format!("thousand-{number}"), "thousand", HOST, prefix(&path), "thousand")
    });
    let api = routes(cluster);
    stream::iter(made)
        .map(|route| {
            let api = api.clone();
            async move {
                let mut route: DynamicObject = serde_json::from_value(route)?;
                route.metadata.labels = Some([("scenario".to_owned(), "thousand".to_owned())].into());
                api.create(&PostParams::default(), &route).await.map(drop).context("a route is refused")
            }
        })
        .buffer_unordered(AT_A_TIME)
        .try_collect::<Vec<()>>()
        .await?;
    let last = counted(cluster, "thousand", ROUTES).await?;
    for number in [0, ROUTES / 2, ROUTES - 1] {
        Target::new(address, HOST, &format!("/{number}")).expect(200, &format!("thousand /{number}")).await?;
        accepted(cluster, &format!("thousand-{number}")).await?;
    }
    let number = writes.until(last.metadata.resource_version.as_deref()).await?;
    ensure!(number <= MOST_WRITES, "the Gateway was written {number} times");
    cluster.kubectl(&["delete", "httproutes", "--selector=scenario=thousand", "--wait=false"]).await?;
    cluster.kubectl(&["delete", "gateway,service,endpointslice", "thousand"]).await.map(drop)
}

/// How often an object is written, from now on.
struct Writes {
    seen: Arc<parking_lot::Mutex<Vec<String>>>,
    number: Arc<AtomicUsize>,
    _watch: JoinSet<()>,
}

impl Writes {
    async fn watch(cluster: &Cluster, name: &str) -> Result<Writes> {
        let api = gateways(cluster);
        let version = api.get(name).await?.metadata.resource_version.context("it has no version")?;
        let only = WatchParams::default().fields(&format!("metadata.name={name}"));
        let mut events = api.watch(&only, &version).await?.boxed();
        let (seen, number) = (Arc::new(parking_lot::Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let mut watch = JoinSet::new();
        let writes = (seen.clone(), number.clone());
        watch.spawn(async move {
            while let Some(Ok(event)) = events.next().await {
                if let WatchEvent::Modified(object) = event {
                    writes.1.fetch_add(1, Ordering::Relaxed);
                    writes.0.lock().extend(object.metadata.resource_version);
                }
            }
        });
        Ok(Writes { seen, number, _watch: watch })
    }

    /// How many there were once this version has come.
    async fn until(&self, version: Option<&str>) -> Result<usize> {
        let version = version.context("it has no version")?;
        until("the watch has caught up", async || {
            ensure!(self.seen.lock().iter().any(|seen| seen == version), "{version} has not come");
            Ok(self.number.load(Ordering::Relaxed))
        })
        .await
    }
}
