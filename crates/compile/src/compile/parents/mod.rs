//! The objects that routes attach to: plans of Gateways and ListenerSets, and how routes get to their listeners.
//!
//! ```text
//!   planner.rs ─ ../gateways/ ─▶ plans.rs ◀─ references.rs      which parents a route names, and which are served
//!   verdict.rs                           ◀─ attachment.rs       the listeners of a parent that accept a route
//!                                              └ served_parents.rs  all parents of a route, and what they report
//! ```

pub(super) mod attachment;
pub(super) mod planner;
pub(super) mod plans;
pub(super) mod references;
pub(super) mod served_parents;
pub(super) mod verdict;
