//! How many requests each version of an API has got, for metrics and the report of the admin listener.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use serde_json::{Value, json};

use super::usage_report::UsageReports;
use crate::plugin_api::kind::BuildCx;

/// The requests for the versions of one plugin object.
pub struct VersionUse {
    object: String,
    versions: Box<[VersionTotals]>,
    /// Keeps the reports while a plugin uses them.
    _reports: Arc<UsageReports>,
}

/// The requests for a version since the process has started.
struct VersionTotals {
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
    /// The use of the object of `cx`, whose versions have these names. It outlives changes of the object that keep
    /// them.
    pub fn of<'n>(versions: impl Iterator<Item = &'n str>, cx: &BuildCx<'_>) -> Arc<VersionUse> {
        let versions: Vec<&str> = versions.collect();
        let name = format!("{} versions {}", cx.object, versions.join(" "));
        let reports = UsageReports::of(cx.state);
        let version_use = cx.state.get_or_create(&name, || VersionUse {
            object: cx.object.to_owned(),
            versions: versions
                .iter()
                .map(|name| VersionTotals {
                    name: (*name).into(),
                    served: AtomicU64::new(0),
                    refused: AtomicU64::new(0),
                })
                .collect(),
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

    pub(super) fn object(&self) -> &str {
        &self.object
    }

    pub(super) fn totals(&self) -> impl Iterator<Item = VersionTotal> {
        self.versions.iter().flat_map(|version| {
            [(false, &version.served), (true, &version.refused)].map(|(is_refused, requests)| VersionTotal {
                object: self.object.clone(),
                version: Arc::clone(&version.name),
                is_refused,
                requests: requests.load(Relaxed),
            })
        })
    }

    pub(super) fn to_json(&self) -> Value {
        let versions = self.versions.iter().map(|version| {
            let (served, refused) = (version.served.load(Relaxed), version.refused.load(Relaxed));
            json!({"version": *version.name, "served": served, "refused": refused})
        });
        json!({"object": self.object, "versions": versions.collect::<Vec<_>>()})
    }
}
