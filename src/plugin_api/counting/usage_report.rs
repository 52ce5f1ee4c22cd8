//! What consumers have used of their plans, and how often versions of APIs were used, for the report of the admin
//! listener and for metrics.

use std::borrow::Cow;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::entry_budget::{DEFAULT_ENTRIES, EntryBudget};
use super::identifier::LimitIdentifier;
use super::table::{CounterTable, TableCounters};
use super::version_use::{VersionTotal, VersionUse};
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::state::PluginState;

/// The use of all plugin objects.
#[derive(Default)]
pub struct UsageReports {
    objects: Mutex<Vec<Weak<PlanUse>>>,
    versions: Mutex<Vec<Weak<VersionUse>>>,
}

/// The use of the plans of one plugin object.
pub struct PlanUse {
    object: String,
    plans: Box<[PlanTotals]>,
    rows: CounterTable<UseRow>,
    /// Keeps the reports while a plugin uses them.
    _reports: Arc<UsageReports>,
}

/// The requests of a plan since the process has started.
#[derive(Debug)]
struct PlanTotals {
    plan: Box<str>,
    admitted: AtomicU64,
    rejected: AtomicU64,
    warned: AtomicU64,
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanOutcome {
    Admitted,
    /// Admitted, and near the end of a quota.
    Warned,
    Rejected,
}

impl PlanOutcome {
    pub const ALL: [PlanOutcome; 3] = [PlanOutcome::Admitted, PlanOutcome::Warned, PlanOutcome::Rejected];

    pub fn name(self) -> &'static str {
        match self {
            PlanOutcome::Admitted => "admitted",
            PlanOutcome::Warned => "warned",
            PlanOutcome::Rejected => "rejected",
        }
    }
}

/// What a request is counted by.
#[derive(Clone, Copy, Debug)]
pub struct RequestUse<'r> {
    pub client: &'r str,
    pub route: &'r str,
    /// The version of the API, if a plugin has determined it.
    pub version: Option<&'r str>,
}

/// The requests of one client on one route for one version.
#[derive(Debug, Default)]
struct UseRow(Mutex<UseCounts>);

#[derive(Clone, Debug, Default)]
struct UseCounts {
    client: Box<str>,
    route: Box<str>,
    /// Empty if no plugin has determined it.
    version: Box<str>,
    plan: Box<str>,
    admitted: u64,
    warned: u64,
    rejected: u64,
    last_second: u64,
    is_retired: bool,
}

impl UsageReports {
    /// The reports of this state, which exist while this or a plugin is kept.
    pub fn of(state: &PluginState) -> Arc<UsageReports> {
        state.get_or_create("usage reports", UsageReports::default)
    }

    fn objects(&self) -> Vec<Arc<PlanUse>> {
        let mut objects = self.objects.lock();
        objects.retain(|object| object.strong_count() > 0);
        let mut objects: Vec<Arc<PlanUse>> = objects.iter().filter_map(Weak::upgrade).collect();
        objects.sort_by(|one, other| one.object.cmp(&other.object));
        objects
    }

    /// The report of all objects.
    pub fn to_json(&self) -> Value {
        let objects: Vec<Value> = self.objects().iter().map(|object| object.to_json()).collect();
        let versions: Vec<Value> = self.versions().iter().map(|object| object.to_json()).collect();
        json!({"objects": objects, "versions": versions})
    }

    /// The requests for each version of an API.
    pub fn version_totals(&self) -> Vec<VersionTotal> {
        self.versions().iter().flat_map(|object| object.totals().collect::<Vec<_>>()).collect()
    }

    pub(super) fn add_versions(&self, version_use: &Arc<VersionUse>) {
        let mut versions = self.versions.lock();
        versions.retain(|known| known.strong_count() > 0 && known.as_ptr() != Arc::as_ptr(version_use));
        versions.push(Arc::downgrade(version_use));
    }

    fn versions(&self) -> Vec<Arc<VersionUse>> {
        let mut versions: Vec<Arc<VersionUse>> = self.versions.lock().iter().filter_map(Weak::upgrade).collect();
        versions.sort_by(|one, other| one.object().cmp(other.object()));
        versions
    }

    /// The requests of each plan: object, plan, outcome, number.
    pub fn totals(&self) -> Vec<(String, Box<str>, PlanOutcome, u64)> {
        let mut totals = Vec::new();
        for object in self.objects() {
            for plan in &object.plans {
                let numbers = PlanOutcome::ALL.map(|outcome| (outcome, plan.counter(outcome).load(Relaxed)));
                totals.extend(
                    numbers.map(|(outcome, number)| (object.object.clone(), plan.plan.clone(), outcome, number)),
                );
            }
        }
        totals
    }
}

impl PlanUse {
    /// The use of the object of `cx`, whose plans have these names. It outlives changes of the object that keep them.
    pub fn of<'n>(plans: impl Iterator<Item = &'n str>, cx: &BuildCx<'_>) -> Arc<PlanUse> {
        let plans: Vec<&str> = plans.collect();
        let name = format!("{} use of {}", cx.object, plans.join(" "));
        let reports = UsageReports::of(cx.state);
        let budget = EntryBudget::of(cx.state, DEFAULT_ENTRIES);
        let plan_use = cx.state.get_or_create(&name, || PlanUse {
            object: cx.object.to_owned(),
            plans: plans.iter().map(|plan| PlanTotals::new(plan)).collect(),
            rows: CounterTable::new(budget),
            _reports: Arc::clone(&reports),
        });
        let mut objects = reports.objects.lock();
        if !objects.iter().any(|known| known.as_ptr() == Arc::as_ptr(&plan_use)) {
            objects.push(Arc::downgrade(&plan_use));
        }
        drop(objects);
        plan_use
    }

    /// Records a request under the plan of this index.
    pub fn record(&self, plan: usize, request: &RequestUse<'_>, second: u64, outcome: PlanOutcome) {
        let totals = &self.plans[plan];
        totals.counter(outcome).fetch_add(1, Relaxed);
        let RequestUse { client, route, version } = *request;
        let identifier = LimitIdentifier::text(client);
        // No name of a version has a space.
        let scope = version.map_or(Cow::Borrowed(route), |version| Cow::Owned(format!("{version} {route}")));
        let create = |_| {
            let (client, route, version) = (client.into(), route.into(), version.unwrap_or_default().into());
            UseRow(Mutex::new(UseCounts { client, route, version, ..UseCounts::default() }))
        };
        self.rows.with_counters(identifier.table_key(&scope), second, create, |row| {
            let mut counts = row.0.lock();
            if counts.is_retired {
                return None;
            }
            if counts.plan != totals.plan {
                counts.plan = totals.plan.clone();
            }
            match outcome {
                PlanOutcome::Admitted => counts.admitted += 1,
                PlanOutcome::Warned => (counts.admitted, counts.warned) = (counts.admitted + 1, counts.warned + 1),
                PlanOutcome::Rejected => counts.rejected += 1,
            }
            counts.last_second = counts.last_second.max(second);
            Some(())
        });
    }

    fn to_json(&self) -> Value {
        let mut rows: Vec<UseCounts> = Vec::new();
        let mut is_complete = true;
        self.rows.for_each(|_, row| {
            if rows.len() < MAX_ROWS {
                rows.push(row.0.lock().clone());
            } else {
                is_complete = false;
            }
        });
        rows.sort_by(|one, other| {
            (&one.client, &one.route, &one.version).cmp(&(&other.client, &other.route, &other.version))
        });
        let rows = rows.into_iter().map(|counts| {
            let mut row = json!({
                "client": counts.client, "route": counts.route, "plan": counts.plan, "admitted": counts.admitted,
                "warned": counts.warned, "rejected": counts.rejected, "lastUsed": counts.last_second,
            });
            if !counts.version.is_empty() {
                row["version"] = json!(counts.version);
            }
            row
        });
        json!({"object": self.object, "isComplete": is_complete, "use": rows.collect::<Vec<_>>()})
    }
}

impl PlanTotals {
    fn new(plan: &str) -> Self {
        let [admitted, rejected, warned] = [(); 3].map(|()| AtomicU64::new(0));
        PlanTotals { plan: plan.into(), admitted, rejected, warned }
    }

    fn counter(&self, outcome: PlanOutcome) -> &AtomicU64 {
        match outcome {
            PlanOutcome::Admitted => &self.admitted,
            PlanOutcome::Warned => &self.warned,
            PlanOutcome::Rejected => &self.rejected,
        }
    }
}

impl TableCounters for UseRow {
    fn retire(&self, second: u64) -> bool {
        let mut counts = self.0.lock();
        counts.is_retired |= counts.last_second.saturating_add(KEPT_SECONDS) <= second;
        counts.is_retired
    }

    /// A row that several clients share for lack of room belongs to none of them.
    fn copy_from(&self, _: &Self) {}
}

/// A row is removed 32 days after its last request, if there is need for room.
const KEPT_SECONDS: u64 = 32 * 86_400;
/// The most rows of an object in the report.
const MAX_ROWS: usize = 10_000;
