//! Measures how soon edits of single objects are served, from the API server's response to the first 200.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::client::{Connection, Target};
use super::propagation::{PropagationMetrics, wait_for_status};
use super::statistics::{DurationStats, ms};
use crate::portico::Portico;

/// An edit that has not been sent yet: another value of one field of an object.
pub(super) struct Edit {
    pub(super) api: Api<DynamicObject>,
    pub(super) name: String,
    /// The JSON pointer of the field.
    pub(super) field: &'static str,
    pub(super) value: String,
    /// Requests to this target get 404 before the edit, and 200 once the edit is served.
    pub(super) target: Target,
}

/// How soon edits are served, one after another.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct EditTimes {
    /// From the API server's response to the first response of the edited object.
    pub to_first_200: DurationStats,
    /// Portico's share of every change, as a mean in milliseconds: from the watch event to the snapshot swap.
    pub inside: f64,
}

/// Delay between two edits: long enough to write the status for the previous one.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn measure(
    portico: &Portico,
    samples: usize,
    mut next_edit: impl FnMut() -> Edit,
) -> Result<EditTimes> {
    let before = PropagationMetrics::scrape(portico).await?;
    let mut times = Vec::new();
    for _ in 0..samples {
        let edit = next_edit();
        let mut connection = Connection::open(edit.target.address).await?;
        wait_for_status(&mut connection, &edit.target, 404).await.context("the edit is served before it is sent")?;
        edit.send().await?;
        let stored = Instant::now();
        wait_for_status(&mut connection, &edit.target, 200).await.context("the edit is not served")?;
        times.push(stored.elapsed());
        sleep(PAUSE).await;
    }
    let after = PropagationMetrics::scrape(portico).await?;
    let changes = after.change_count - before.change_count;
    ensure!(changes > 0.0, "Portico has counted no change");
    Ok(EditTimes {
        to_first_200: DurationStats::from_durations(&times).context("no edit was measured")?,
        inside: (after.change_seconds - before.change_seconds) / changes * 1000.0,
    })
}

impl Edit {
    /// Sends the edit to the API server.
    async fn send(&self) -> Result<()> {
        let patch = json!([{ "op": "replace", "path": self.field, "value": self.value }]);
        let patch = Patch::<DynamicObject>::Json(serde_json::from_value(patch)?);
        let edited = self.api.patch(&self.name, &PatchParams::default(), &patch).await;
        edited.map(drop).context("the edit was rejected")
    }
}

impl EditTimes {
    pub(super) const HEAD: [&str; 6] = ["edits", "mean", "median", "p95", "max", "watch to swap"];

    pub(super) fn cells(&self) -> Vec<String> {
        self.to_first_200.cells().into_iter().chain([ms(self.inside)]).collect()
    }
}
