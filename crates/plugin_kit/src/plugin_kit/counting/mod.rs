//! What plugins with limits share: counters by identifier, windows, and the synchronization of replicas.
//!
//! ```text
//!   request ──LimitBy──▶ LimitIdentifier ──▶ CounterTable ──▶ counters of the identifier
//!                                                                │ CounterSync, once per interval
//!                                                                ▼
//!                                                          Redis, for all replicas
//! ```

mod entry_budget;
mod identifier;
mod kept_tables;
mod limit_rule;
mod limit_store;
mod period;
mod rate_headers;
mod rate_store;
mod rate_windows;
mod rule_table;
mod server_limits;
mod sync;
mod table;
mod usage_report;
mod version_use;
mod window_counters;

pub use entry_budget::EntryBudget;
pub use identifier::{LimitBy, LimitIdentifier, counted_value};
pub use limit_rule::{ActiveLimit, LimitDecision, LimitKind, LimitRule, LimitUse, WindowLength};
pub use limit_store::LimitStore;
pub use period::{Period, Window, unix_second};
pub use rate_headers::{RateHeaders, retry_seconds};
pub use rate_store::{CountStrategy, RateStore};
pub use rate_windows::{
    CountStrategyName, MAX_WINDOW_SECONDS, NEVER_SYNCED, WindowType, check_counter_namespace, read_windows,
};
pub use server_limits::count_at_server;
pub use sync::{CounterSync, SyncedCounters};
pub use table::{CounterKey, CounterOwner, CounterTable, TableCounters};
pub use usage_report::{PlanOutcome, PlanUse, RequestUse, UsageReports};
pub use version_use::{VersionTotal, VersionUse};
