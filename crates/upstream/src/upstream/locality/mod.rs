//! Levels of endpoints: those that are nearest get the requests, as long as enough of them are available.
//!
//! ```text
//!   zones, nodes, hints ─ compile ─▶ level of each endpoint ─▶ levels.rs: the endpoints of each level
//!                                                                 │ loads, recomputed when health changes
//!   request, or its hash ─▶ a level by the loads ─▶ load balancing among the endpoints of the level
//! ```
//!
//! A level whose endpoints are partly ejected shares its requests with the next ones, before the rest of its endpoints
//! is overloaded.

mod levels;
mod loads;

pub use levels::LevelReport;
pub(super) use levels::{PriorityLevels, draw};
pub use loads::MAX_LEVELS;
