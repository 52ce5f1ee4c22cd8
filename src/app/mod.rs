//! Wiring: the only module that may import all others. It connects them and contains no policy.
//!
//! ```text
//!   manifests ─┬▶ control_loop.rs ─▶ control.rs: store ─▶ compile ─▶ snapshot ─▶ proxy ─▶ bind results
//!   cluster.rs ┘                                             │                               │
//!   views.rs: status and admin listeners                    └─────────▶ verdicts ◀──────────┘
//!                                                                          ├▶ announce.rs: terminal, log
//!                                                                          └▶ status_publisher.rs: cluster
//! ```

mod addressing;
mod announce;
mod cache_meters;
mod certificate_metrics;
mod change_meters;
mod check;
mod cluster;
mod control;
mod control_loop;
mod convert;
mod crds;
mod data_plane;
mod diagnostic_meters;
mod endpoint_names;
mod exports;
mod file_descriptors;
mod fingerprint_cache;
mod foreign_policies;
mod gateway_services;
mod health_meters;
mod host_addresses;
mod ingress;
mod kong_config;
mod kong_metrics;
mod nginx_meters;
mod offline;
mod overload_meters;
mod own_listeners;
mod plugin_runtime;
mod problem_counts;
mod progress;
mod queue_meters;
mod rate_limit_meters;
mod request_tracer;
mod run;
mod settings_json;
mod shutdown;
mod source_overlap;
mod state_meters;
mod status_publisher;
mod stdout;
mod upstream_events;
mod upstream_views;
mod usage_meters;
mod verify;
mod views;
mod watch_meters;

pub use check::check;
pub use convert::convert;
pub use crds::crds;
pub use run::run;
pub use stdout::print;
pub use verify::verify;
