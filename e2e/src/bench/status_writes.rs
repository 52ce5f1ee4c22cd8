//! Applies many routes at once and measures how long until all are counted, and how many status writes that takes.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use kube::Api;
use kube::api::{DynamicObject, WatchEvent, WatchParams};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::objects::{OBJECT_TIMEOUT, RouteSet};
use super::statistics::load;
use crate::portico::Portico;

/// Without writes for this long, all are finished: longer than the interval between writes of one object.
const QUIET_PERIOD: Duration = Duration::from_secs(6);
/// Events that may be queued.
const QUEUE: usize = 1024;

#[derive(Clone, Debug, Serialize)]
pub struct StatusWrites {
    pub routes: usize,
    /// Seconds from the first route to the API server's last response.
    pub applied: f64,
    /// Seconds from then until the Gateway's status counts all routes.
    pub counted: f64,
    /// Seconds from then until every route has a status.
    pub told: f64,
    pub gateway_writes: usize,
    pub route_writes: usize,
    /// Failed status writes of all kinds, from Portico's metrics.
    pub failed_writes: f64,
    pub load: f64,
}

impl StatusWrites {
    pub(super) const HEAD: [&str; 8] = [
        "routes",
        "applied in s",
        "all counted s later",
        "all with status s later",
        "Gateway writes",
        "route writes",
        "failed writes",
        "load",
    ];

    pub(super) fn row(&self) -> Vec<String> {
        vec![
            self.routes.to_string(),
            format!("{:.1}", self.applied),
            format!("{:.3}", self.counted),
            format!("{:.3}", self.told),
            self.gateway_writes.to_string(),
            self.route_writes.to_string(),
            format!("{:.0}", self.failed_writes),
            format!("{:.2}", self.load),
        ]
    }
}

pub(super) async fn measure(portico: &Portico, stock: &mut RouteSet, number: usize) -> Result<StatusWrites> {
    let failed = failed_writes(portico).await?;
    let (sender, mut writes) = mpsc::channel(QUEUE);
    let mut watches = JoinSet::new();
    let named = WatchParams::default().fields(&format!("metadata.name={}", stock.name()));
    let version = stock
        .gateways
        .get(stock.name())
        .await?
        .metadata
        .resource_version
        .context("the Gateway has no resourceVersion")?;
    watches.spawn(follow(stock.gateways.clone(), named, version, sender.clone()));
    let labels = stock.list_params();
    let version = stock
        .routes
        .list_metadata(&labels)
        .await?
        .metadata
        .resource_version
        .context("the list has no resourceVersion")?;
    let labelled = WatchParams::default().labels(&labels.label_selector.unwrap_or_default());
    watches.spawn(follow(stock.routes.clone(), labelled, version, sender));

    let begin = Instant::now();
    // Events are received while the routes are applied, so that their times are exact.
    let mut seen = ObservedWrites::default();
    {
        let adding = stock.add(number);
        tokio::pin!(adding);
        loop {
            tokio::select! {
                added = &mut adding => break added?,
                Some(write) = writes.recv() => seen.record(write),
            }
        }
    }
    let applied = Instant::now();
    loop {
        let limit = if seen.counted(number) && seen.all_have_status(number) { QUIET_PERIOD } else { OBJECT_TIMEOUT };
        match timeout(limit, writes.recv()).await {
            Ok(Some(write)) => seen.record(write),
            Ok(None) => bail!("a watch of the bench ended"),
            Err(_) if limit == QUIET_PERIOD => break,
            Err(_) => {
                bail!("of {number} routes, {} have a status and {:?} are counted", seen.with_status.len(), seen.count)
            }
        }
    }
    let after = |at: Option<Instant>| at.map_or(0.0, |at| at.saturating_duration_since(applied).as_secs_f64());
    Ok(StatusWrites {
        routes: number,
        applied: (applied - begin).as_secs_f64(),
        counted: after(seen.counted_at),
        told: after(seen.with_status_at),
        gateway_writes: seen.gateway_writes,
        route_writes: seen.route_writes,
        failed_writes: failed_writes(portico).await? - failed,
        load: load()?,
    })
}

/// A written object, and when the event was received.
struct Write(Instant, DynamicObject);

#[derive(Default)]
struct ObservedWrites {
    gateway_writes: usize,
    route_writes: usize,
    /// The number of routes in the Gateway's status.
    count: Option<u64>,
    counted_at: Option<Instant>,
    /// Routes with a status.
    with_status: HashSet<String>,
    with_status_at: Option<Instant>,
}

impl ObservedWrites {
    fn record(&mut self, Write(at, object): Write) {
        if let Some(count) = object.data["status"]["listeners"][0]["attachedRoutes"].as_u64() {
            self.gateway_writes += 1;
            if self.count != Some(count) {
                (self.count, self.counted_at) = (Some(count), Some(at));
            }
        } else {
            self.route_writes += 1;
            if self.with_status.insert(object.metadata.name.unwrap_or_default()) {
                self.with_status_at = Some(at);
            }
        }
    }

    fn counted(&self, number: usize) -> bool {
        self.count == u64::try_from(number).ok()
    }

    fn all_have_status(&self, number: usize) -> bool {
        self.with_status.len() == number
    }
}

/// Sends every write of these objects after this version until the receiver is gone. When the API server closes a watch
/// that falls behind, it resumes at the last version.
async fn follow(api: Api<DynamicObject>, which: WatchParams, mut version: String, writes: mpsc::Sender<Write>) {
    while let Ok(events) = api.watch(&which, &version).await {
        let mut events = events.boxed();
        while let Some(Ok(event)) = events.next().await {
            let (object, written) = match event {
                WatchEvent::Modified(object) => (object, true),
                WatchEvent::Added(object) => (object, false),
                WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => continue,
                // Missed events cannot be recovered; the closed channel fails the benchmark.
                WatchEvent::Error(_) => return,
            };
            if let Some(seen) = &object.metadata.resource_version {
                version.clone_from(seen);
            }
            if written && writes.send(Write(Instant::now(), object)).await.is_err() {
                return;
            }
        }
    }
}

async fn failed_writes(portico: &Portico) -> Result<f64> {
    let page = portico.get("/metrics").await?;
    let lines = page.lines().filter(|line| line.starts_with("portico_status_writes_total{"));
    let values = lines.filter(|line| !line.contains("result=\"written\"")).filter_map(|line| line.rsplit_once(' '));
    Ok(values.filter_map(|(_, value)| value.parse::<f64>().ok()).sum())
}
