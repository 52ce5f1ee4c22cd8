//! Compiles the objects of the store into a snapshot and verdicts, without clock, I/O or randomness.
//!
//! ```text
//!   changes ─▶ affected.rs ─▶ compiler.rs, which calls in this order:
//!
//!   parents/planner.rs ─ gateways/     Gateway, ListenerSet ─▶ listeners, to which routes attach
//!   kong/plugins/                      KongPlugin ─▶ plugins that are built
//!   routes/planner.rs ┬ routes/        HTTPRoute, GRPCRoute, TCPRoute, TLSRoute, UDPRoute ─▶ rules
//!   ingress/ ─────────┴ backend/       Service, XBackend ─▶ upstreams ◀─ policies/
//!   routes/routers.rs                  rules by listener and host ─▶ Snapshot
//!   parents/verdict.rs, kong/, policies/, verdict_updates/ ─▶ verdicts/table.rs ─▶ Verdicts
//! ```
//!
//! Invalid input never fails the compilation: the verdict on its object reports it, and other objects are compiled. The
//! [`Compiler`] caches the plan of each object and recompiles only what a change can affect. The cache is an
//! optimization: a new compiler produces an equal snapshot and equal verdicts.
//!
//! Only compiler.rs sees all steps. A step gets what it reads as arguments, and returns what others need of it, so that
//! the files of two steps do not import each other.

pub mod addresses;
pub mod kong;
pub mod testing;

mod affected;
mod alternatives;
mod backend;
mod budgets;
mod certificates;
mod classes;
mod compiler;
mod context;
mod gateways;
mod ingress;
mod ingress_class;
mod objects;
mod parents;
mod paths;
mod policies;
mod policy_kinds;
mod routes;
mod run;
mod verdict_updates;
mod verdicts;

pub use backend::locality::ProcessLocation;
pub use backend::upstream_usage::upstream_object;
pub use budgets::{Budgets, OVER_BUDGET};
pub use classes::{Classes, LeftOutObjects, NginxClasses};
pub use compiler::{Compiled, Compiler};
pub use context::{CompileContext, CompileInputs};
pub use gateways::listener_set_ports::ListenerSetPorts;
pub use gateways::needed_references::is_needed;
pub use gateways::served_gateways::{
    ExposedGateway, addressable_gateways, exposed_gateways, foreign_gateways, routes_to_gateways,
};
pub use ingress::publish::PublishSource;
pub use ingress::settings::{HostOwnership, IngressListener, IngressSettings, StreamListener, StreamProtocol};
pub use ingress::{AnnotationSupport, annotation_support, config_map_problem};
pub use ingress_class::dialect::has_path_expressions;
pub use kong::plugins::with_degraded_plugins;
pub use objects::route_kind::RouteKind;
pub use policy_kinds::PolicySources;
