//! Applies many routes at once and measures how long until all are counted in the Gateway's status (`attachedRoutes`)
//! and have a status themselves, and how many status writes that takes.

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

/// After this time without a write, all writes are finished. It is longer than the interval between two writes of one
/// object.
const QUIET_PERIOD: Duration = Duration::from_secs(6);
/// How many events may be queued.
const QUEUE_SIZE: usize = 1024;

/// The measurements for routes that are applied at once.
#[derive(Clone, Debug, Serialize)]
pub struct StatusWrites {
    pub routes: usize,
    /// Seconds from the first route to the API server's last response.
    pub applied: f64,
    /// Seconds from that response until the Gateway's status counts all routes.
    pub counted: f64,
    /// Seconds from that response until every route has a status.
    pub with_status: f64,
    pub gateway_writes: usize,
    pub route_writes: usize,
    /// Failed status writes of all kinds, from Portico's metrics.
    pub failed_writes: f64,
    /// The machine's load average of the last minute.
    pub load: f64,
}

impl StatusWrites {
    pub(super) const HEAD: [&str; 8] = [
        "routes",
        "applied in s",
        "all counted after s",
        "all with status after s",
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
            format!("{:.3}", self.with_status),
            self.gateway_writes.to_string(),
            self.route_writes.to_string(),
            format!("{:.0}", self.failed_writes),
            format!("{:.2}", self.load),
        ]
    }
}

pub(super) async fn measure(portico: &Portico, route_set: &mut RouteSet, count: usize) -> Result<StatusWrites> {
    let failed_before = failed_writes(portico).await?;
    let (sender, mut writes) = mpsc::channel(QUEUE_SIZE);
    let mut watches = JoinSet::new();
    let gateway_filter = WatchParams::default().fields(&format!("metadata.name={}", route_set.name()));
    let version = route_set
        .gateways
        .get(route_set.name())
        .await?
        .metadata
        .resource_version
        .context("the Gateway has no resourceVersion")?;
    watches.spawn(follow(route_set.gateways.clone(), gateway_filter, version, sender.clone()));
    let labels = route_set.list_params();
    let version = route_set
        .routes
        .list_metadata(&labels)
        .await?
        .metadata
        .resource_version
        .context("the list has no resourceVersion")?;
    let route_filter = WatchParams::default().labels(&labels.label_selector.unwrap_or_default());
    watches.spawn(follow(route_set.routes.clone(), route_filter, version, sender));

    let begin = Instant::now();
    // Events are received while the routes are applied, so that their times are exact.
    let mut observed = ObservedWrites::default();
    {
        let creation = route_set.create_up_to(count);
        tokio::pin!(creation);
        loop {
            tokio::select! {
                created = &mut creation => break created?,
                Some(write) = writes.recv() => observed.record(write),
            }
        }
    }
    let applied = Instant::now();
    loop {
        let is_complete = observed.has_counted(count) && observed.all_have_status(count);
        let limit = if is_complete { QUIET_PERIOD } else { OBJECT_TIMEOUT };
        match timeout(limit, writes.recv()).await {
            Ok(Some(write)) => observed.record(write),
            Ok(None) => bail!("the watches of the benchmark ended"),
            Err(_) if is_complete => break,
            Err(_) => {
                bail!(
                    "of {count} routes, {} have a status and {:?} are counted",
                    observed.with_status.len(),
                    observed.count
                )
            }
        }
    }
    let after = |at: Option<Instant>| at.map_or(0.0, |at| at.saturating_duration_since(applied).as_secs_f64());
    Ok(StatusWrites {
        routes: count,
        applied: (applied - begin).as_secs_f64(),
        counted: after(observed.counted_at),
        with_status: after(observed.with_status_at),
        gateway_writes: observed.gateway_writes,
        route_writes: observed.route_writes,
        failed_writes: failed_writes(portico).await? - failed_before,
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
        // Only the status of a Gateway has listeners; other objects are routes.
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

    fn has_counted(&self, number: usize) -> bool {
        self.count == u64::try_from(number).ok()
    }

    fn all_have_status(&self, number: usize) -> bool {
        self.with_status.len() == number
    }
}

/// Sends every change of these objects after this version until the receiver is gone. Created objects are not sent,
/// since the benchmark creates them, and Portico writes their status later. When the API server closes the watch, for
/// example because it fell behind, a new watch starts at the last version.
async fn follow(api: Api<DynamicObject>, parameters: WatchParams, mut version: String, writes: mpsc::Sender<Write>) {
    while let Ok(events) = api.watch(&parameters, &version).await {
        let mut events = events.boxed();
        while let Some(Ok(event)) = events.next().await {
            let (object, is_status_write) = match event {
                WatchEvent::Modified(object) => (object, true),
                WatchEvent::Added(object) => (object, false),
                WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => continue,
                // Missed events cannot be recovered. The benchmark fails if it waits for one of them, or if the other
                // watch ends, too.
                WatchEvent::Error(_) => return,
            };
            if let Some(seen) = &object.metadata.resource_version {
                version.clone_from(seen);
            }
            if is_status_write && writes.send(Write(Instant::now(), object)).await.is_err() {
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
