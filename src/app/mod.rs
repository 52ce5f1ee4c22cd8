//! Wiring: the only place that knows every module. It decides nothing; it hands things from one module to the next.
//!
//! ```text
//!   manifests ─▶ control.rs: store ─▶ compile ─▶ swap ─▶ proxy binds ─▶ status joins ─▶ announce.rs
//!   cluster.rs ─┘                                  └▶ views.rs: status and admin listeners
//! ```

mod addressing;
mod announce;
mod certificates;
mod check;
mod cluster;
mod control;
mod control_loop;
mod crds;
mod descriptors;
mod fingerprints;
mod fronts;
mod host_addresses;
mod ingress;
mod kong_metrics;
mod meters;
mod overlap;
mod problem_meters;
mod run;
mod servers;
mod state_meters;
mod tell;
mod views;
mod watch_meters;

pub use check::check;
pub use crds::crds;
pub use run::run;
