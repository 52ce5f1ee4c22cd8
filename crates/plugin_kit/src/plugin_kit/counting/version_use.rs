//! How many requests each version of an API has got, for metrics and the report of the admin listener.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use serde_json::{Value, json};

use super::usage_report::UsageReports;
use crate::plugin_api::kind::BuildCx;

/// The requests for the versions of one plugin object, as it is configured.
pub struct VersionUse {
    pub(super) object: String,
    pub(super) versions: Box<[Arc<VersionTotals>]>,
    /// Keeps the reports while a plugin uses them.
    _reports: Arc<UsageReports>,
}

/// The requests for a version since the process has started.
pub(super) struct VersionTotals {
    name: Arc<str>,
    served: AtomicU64,
    refused: AtomicU64,
}

/// A number of requests for a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionTotal {
    pub object: String,
    pub version: Arc<str>,
    /// Whether they were refused because the version has ended.
    pub is_refused: bool,
    pub requests: u64,
}

impl VersionUse {
    /// The use of the object of `cx`, whose versions have these names. The numbers of a version outlive changes of the
    /// object that keep the version.
    pub fn of<'n>(versions: impl Iterator<Item = &'n str>, cx: &BuildCx<'_>) -> Arc<VersionUse> {
        let totals = |name: &str| {
            let [served, refused] = [(); 2].map(|()| AtomicU64::new(0));
            let key = format!("{} version {name}", cx.object);
            cx.state.get_or_create(&key, || VersionTotals { name: name.into(), served, refused })
        };
        let reports = UsageReports::of(cx.state);
        let version_use = Arc::new(VersionUse {
            object: cx.object.to_owned(),
            versions: versions.map(totals).collect(),
            _reports: Arc::clone(&reports),
        });
        reports.add_versions(&version_use);
        version_use
    }

    /// Counts a request for the version of this index. Returns the name of the version.
    pub fn record(&self, index: usize, is_refused: bool) -> &Arc<str> {
        let version = &self.versions[index];
        let counter = if is_refused { &version.refused } else { &version.served };
        counter.fetch_add(1, Relaxed);
        &version.name
    }
}

impl VersionTotals {
    pub(super) fn totals(&self, object: &str) -> [VersionTotal; 2] {
        [(false, &self.served), (true, &self.refused)].map(|(is_refused, requests)| VersionTotal {
            object: object.to_owned(),
            version: Arc::clone(&self.name),
            is_refused,
            requests: requests.load(Relaxed),
        })
    }

    pub(super) fn to_json(&self) -> Value {
        let (served, refused) = (self.served.load(Relaxed), self.refused.load(Relaxed));
        json!({"version": *self.name, "served": served, "refused": refused})
    }
}
