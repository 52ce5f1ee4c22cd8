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
mod period;
mod sync;
mod table;

pub use entry_budget::{DEFAULT_ENTRIES, EntryBudget};
pub use identifier::{LimitBy, LimitIdentifier};
pub use period::{Period, Window, unix_second};
pub use sync::{CounterSync, SyncedCounters};
pub use table::{CounterKey, CounterOwner, CounterTable, TableCounters};
