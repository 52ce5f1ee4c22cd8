//! What consumers have used of their plans, and how often versions of APIs were used, for the report of the admin
//! listener and for metrics.

use std::borrow::Cow;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::entry_budget::EntryBudget;
use super::identifier::LimitIdentifier;
use super::table::{CounterTable, TableCounters};
use super::version_use::{VersionTotal, VersionTotals, VersionUse};
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::state::PluginState;
use crate::plugin_kit::default_limits::DEFAULT_ENTRIES;

/// The use of all plugin objects.
#[derive(Default)]
pub struct UsageReports {
    objects: Mutex<Vec<Weak<PlanUse>>>,
    versions: Mutex<Vec<Weak<VersionUse>>>,
}

/// The use of the plans of one plugin object, as it is configured.
pub struct PlanUse {
    object: String,
    plans: Box<[Arc<PlanTotals>]>,
    rows: Arc<CounterTable<UseRow>>,
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

    /// Sorted by object. An object is there twice while requests still use it as it was before a change.
    fn objects(&self) -> Vec<Arc<PlanUse>> {
        let mut objects = live(&self.objects);
        objects.sort_by(|one, other| one.object.cmp(&other.object));
        objects
    }

    /// The report of all objects.
    pub fn to_json(&self) -> Value {
        let mut objects = self.objects();
        objects.dedup_by(|one, other| one.object == other.object);
        let objects: Vec<Value> = objects.iter().map(|object| object.to_json()).collect();
        let of_object = |(object, versions): (String, Vec<Arc<VersionTotals>>)| {
            let versions: Vec<Value> = versions.iter().map(|version| version.to_json()).collect();
            json!({"object": object, "versions": versions})
        };
        let versions: Vec<Value> = self.versions().into_iter().map(of_object).collect();
        json!({"objects": objects, "versions": versions})
    }

    /// The requests for each version of an API.
    pub fn version_totals(&self) -> Vec<VersionTotal> {
        let of_object = |(object, versions): (String, Vec<Arc<VersionTotals>>)| {
            versions.into_iter().flat_map(move |version| version.totals(&object))
        };
        self.versions().into_iter().flat_map(of_object).collect()
    }

    pub(super) fn add_versions(&self, version_use: &Arc<VersionUse>) {
        add(&self.versions, version_use);
    }

    /// The versions of each object, sorted by object.
    fn versions(&self) -> Vec<(String, Vec<Arc<VersionTotals>>)> {
        let mut uses = live(&self.versions);
        uses.sort_by(|one, other| one.object.cmp(&other.object));
        let mut objects: Vec<(String, Vec<Arc<VersionTotals>>)> = Vec::new();
        for version_use in uses {
            if objects.last().is_none_or(|(object, _)| *object != version_use.object) {
                objects.push((version_use.object.clone(), Vec::new()));
            }
            let Some((_, known)) = objects.last_mut() else { continue };
            for version in &version_use.versions {
                if !known.iter().any(|other| Arc::ptr_eq(other, version)) {
                    known.push(Arc::clone(version));
                }
            }
        }
        objects
    }

    /// The requests of each plan: object, plan, outcome, number.
    pub fn totals(&self) -> Vec<(String, Box<str>, PlanOutcome, u64)> {
        let mut totals = Vec::new();
        for same in self.objects().chunk_by(|one, other| one.object == other.object) {
            // No other object has the same plans.
            let mut known: Vec<&Arc<PlanTotals>> = Vec::new();
            for plan in same.iter().flat_map(|object| object.plans.iter()) {
                if known.iter().any(|other| Arc::ptr_eq(other, plan)) {
                    continue;
                }
                known.push(plan);
                let object = &same[0].object;
                let numbers = PlanOutcome::ALL.map(|outcome| (outcome, plan.counter(outcome).load(Relaxed)));
                totals.extend(numbers.map(|(outcome, number)| (object.clone(), plan.plan.clone(), outcome, number)));
            }
        }
        totals
    }
}

impl PlanUse {
    /// The use of the object of `cx`, whose plans have these names. It outlives changes of the object; the totals of a
    /// plan, those that keep the plan.
    pub fn of<'n>(plans: impl Iterator<Item = &'n str>, cx: &BuildCx<'_>) -> Arc<PlanUse> {
        let reports = UsageReports::of(cx.state);
        let budget = EntryBudget::of(cx.state, DEFAULT_ENTRIES);
        let totals =
            |plan: &str| cx.state.get_or_create(&format!("{} plan {plan}", cx.object), || PlanTotals::new(plan));
        let rows = || CounterTable::<UseRow>::new(budget, cx.namespace().unwrap_or_default());
        let plan_use = Arc::new(PlanUse {
            object: cx.object.to_owned(),
            plans: plans.map(totals).collect(),
            rows: cx.state.get_or_create(&format!("{} use", cx.object), rows),
            _reports: Arc::clone(&reports),
        });
        add(&reports.objects, &plan_use);
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

/// What still exists.
fn live<T>(known: &Mutex<Vec<Weak<T>>>) -> Vec<Arc<T>> {
    known.lock().iter().filter_map(Weak::upgrade).collect()
}

fn add<T>(known: &Mutex<Vec<Weak<T>>>, value: &Arc<T>) {
    let mut known = known.lock();
    known.retain(|other| other.strong_count() > 0);
    known.push(Arc::downgrade(value));
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
