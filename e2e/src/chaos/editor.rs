//! Edits routes at a fixed rate, also while the API server does not respond.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result};
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::objects::{EDIT_POINTER, EDITED_ROUTES, routes};
use crate::cluster::Cluster;

/// Running edits. They stop when dropped.
pub(super) struct Editor {
    counts: Arc<EditCounts>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct EditCounts {
    next: AtomicUsize,
    applied: AtomicUsize,
    failed: AtomicUsize,
}

/// Edits at the same time, since each takes some milliseconds.
const TASKS: u32 = 5;
const EDIT_TIMEOUT: Duration = Duration::from_secs(5);

impl Editor {
    /// Edits the routes in turn, this many of them per second.
    pub(super) fn start(cluster: &Cluster, rate: u32) -> Editor {
        let counts = Arc::new(EditCounts::default());
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            tasks.spawn(edit_continuously(routes(cluster), Arc::clone(&counts), rate));
        }
        Editor { counts, _tasks: tasks }
    }

    /// The number of edits that the API server has accepted, and of those that failed.
    pub(super) fn counts(&self) -> [usize; 2] {
        [self.counts.applied.load(Relaxed), self.counts.failed.load(Relaxed)]
    }
}

async fn edit_continuously(routes: Api<DynamicObject>, counts: Arc<EditCounts>, rate: u32) {
    let mut ticks = interval(Duration::from_secs(TASKS.into()) / rate.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let number = counts.next.fetch_add(1, Relaxed);
        let name = format!("edited-{}", number % EDITED_ROUTES);
        let edit = timeout(EDIT_TIMEOUT, edit(&routes, &name, number)).await;
        let count = if edit.is_ok_and(|edit| edit.is_ok()) { &counts.applied } else { &counts.failed };
        count.fetch_add(1, Relaxed);
    }
}

/// Writes this number into the responses of a route.
pub(super) async fn edit(routes: &Api<DynamicObject>, name: &str, number: usize) -> Result<()> {
    let operations = json!([{ "op": "replace", "path": EDIT_POINTER, "value": number.to_string() }]);
    let patch = Patch::Json::<()>(serde_json::from_value(operations)?);
    let edited = routes.patch(name, &PatchParams::default(), &patch).await;
    edited.map(drop).with_context(|| format!("cannot edit the route {name}"))
}
