//! Wiring: the only place that knows every module. It decides nothing; it hands things from one module to the next.
//!
//! ```text
//!   manifests ─▶ control.rs: store ─▶ compile ─▶ swap ─▶ proxy binds ─▶ status joins ─▶ announce.rs
//!                                                  └▶ views.rs: status and admin listeners
//! ```

mod addressing;
mod announce;
mod certificates;
mod check;
mod control;
mod descriptors;
mod host_addresses;
mod meters;
mod run;
mod views;

pub use check::check;
pub use run::run;
