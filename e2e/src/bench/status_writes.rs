//! Many routes at once: how long until all are counted, and how often statuses are written meanwhile.

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

use super::figures::load;
use super::objects::{PATIENCE, Stock};
use crate::portico::Portico;

/// Nothing more is written when nothing came for so long: longer than writes of one object are ever apart.
const SILENCE: Duration = Duration::from_secs(6);
/// Events that may wait to be looked at.
const QUEUE: usize = 1024;

#[derive(Clone, Debug, Serialize)]
pub struct StatusWrites {
    pub routes: usize,
    /// Seconds from the first route to the API server's last answer.
    pub applied: f64,
    /// Seconds from then until the Gateway's status counts all of them.
    pub counted: f64,
    /// And until every route has a status.
    pub told: f64,
    pub gateway_writes: usize,
    pub route_writes: usize,
    /// Writes that Portico counts and that did not succeed, of both.
    pub failed_writes: f64,
    pub load: f64,
}

impl StatusWrites {
    pub(super) const HEAD: [&str; 8] = [
        "routes",
        "applied in s",
        "all counted s later",
        "all told s later",
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

pub(super) async fn measure(portico: &Portico, stock: &mut Stock, number: usize) -> Result<StatusWrites> {
    let failed = failures(portico).await?;
    let (sender, mut writes) = mpsc::channel(QUEUE);
    let mut watches = JoinSet::new();
    let named = WatchParams::default().fields(&format!("metadata.name={}", stock.name()));
    let version = stock.gateways.get(stock.name()).await?.metadata.resource_version.context("it has no version")?;
    watches.spawn(follow(stock.gateways.clone(), named, version, sender.clone()));
    let labels = stock.ours();
    let version = stock.routes.list_metadata(&labels).await?.metadata.resource_version.context("no version")?;
    let labelled = WatchParams::default().labels(&labels.label_selector.unwrap_or_default());
    watches.spawn(follow(stock.routes.clone(), labelled, version, sender));

    let begin = Instant::now();
    // Watched while they are applied: what is seen late would be counted late.
    let mut seen = Seen::default();
    {
        let adding = stock.add(number);
        tokio::pin!(adding);
        loop {
            tokio::select! {
                added = &mut adding => break added?,
                Some(write) = writes.recv() => seen.take(write),
            }
        }
    }
    let applied = Instant::now();
    loop {
        let patience = if seen.counted(number) && seen.told(number) { SILENCE } else { PATIENCE };
        match timeout(patience, writes.recv()).await {
            Ok(Some(write)) => seen.take(write),
            Ok(None) => bail!("a watch of the bench ended"),
            Err(_) if patience == SILENCE => break,
            Err(_) => bail!("{} routes are told and {:?} counted, of {number}", seen.told.len(), seen.count),
        }
    }
    let after = |at: Option<Instant>| at.map_or(0.0, |at| at.saturating_duration_since(applied).as_secs_f64());
    Ok(StatusWrites {
        routes: number,
        applied: (applied - begin).as_secs_f64(),
        counted: after(seen.counted_at),
        told: after(seen.told_at),
        gateway_writes: seen.gateway_writes,
        route_writes: seen.route_writes,
        failed_writes: failures(portico).await? - failed,
        load: load()?,
    })
}

/// An object that was written, and when that was seen.
struct Write(Instant, DynamicObject);

#[derive(Default)]
struct Seen {
    gateway_writes: usize,
    route_writes: usize,
    /// The count in the Gateway's status.
    count: Option<u64>,
    counted_at: Option<Instant>,
    /// Routes with a status.
    told: HashSet<String>,
    told_at: Option<Instant>,
}

impl Seen {
    fn take(&mut self, Write(at, object): Write) {
        if let Some(count) = object.data["status"]["listeners"][0]["attachedRoutes"].as_u64() {
            self.gateway_writes += 1;
            if self.count != Some(count) {
                (self.count, self.counted_at) = (Some(count), Some(at));
            }
        } else {
            self.route_writes += 1;
            if self.told.insert(object.metadata.name.unwrap_or_default()) {
                self.told_at = Some(at);
            }
        }
    }

    fn counted(&self, number: usize) -> bool {
        self.count == u64::try_from(number).ok()
    }

    fn told(&self, number: usize) -> bool {
        self.told.len() == number
    }
}

/// Tells every write of objects after this version, until the other end is gone. A watch that falls behind is closed by
/// the API server, and goes on where it was.
async fn follow(api: Api<DynamicObject>, which: WatchParams, mut version: String, writes: mpsc::Sender<Write>) {
    while let Ok(events) = api.watch(&which, &version).await {
        let mut events = events.boxed();
        while let Some(Ok(event)) = events.next().await {
            let (object, written) = match event {
                WatchEvent::Modified(object) => (object, true),
                WatchEvent::Added(object) => (object, false),
                WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => continue,
                // What was missed meanwhile is known to nobody; without its end of the queue the bench fails.
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

async fn failures(portico: &Portico) -> Result<f64> {
    let page = portico.get("/metrics").await?;
    let lines = page.lines().filter(|line| line.starts_with("portico_status_writes_total{"));
    let values = lines.filter(|line| !line.contains("result=\"written\"")).filter_map(|line| line.rsplit_once(' '));
    Ok(values.filter_map(|(_, value)| value.parse::<f64>().ok()).sum())
}
