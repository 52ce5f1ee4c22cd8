//! Kong's kinds and annotations, as far as they apply to all routes: plugins, consumers, policies, and the annotations
//! of routes and Services. `../ingress/dialects/kong` has what applies to Ingresses only.
//!
//! ```text
//!   known_annotations.rs ─┬ route_annotations.rs ───── of an Ingress or HTTPRoute
//!                         ├ service_annotations.rs ─── of a Service or facade ─▶ service_notes.rs
//!                         └ request_route_annotations.rs: both, for the rules of HTTPRoutes and GRPCRoutes
//!   plugins/            KongPlugins ─▶ the chain of each rule
//!   consumers/          KongConsumers and credentials ─▶ ConsumerDirectory
//!   upstream_policy/    KongUpstreamPolicy and KongIngress ─ policy_conflicts.rs
//!   rule_options.rs     the options of rules that are served as Kong serves them
//!   vaults.rs           KongVaults ─▶ values in the configurations of plugins
//!   service_facade.rs   KongServiceFacades ─ verdict_updates.rs ─ unserved_kinds.rs: kinds that are validated only
//! ```

pub(super) mod consumers;
pub(super) mod known_annotations;
pub(super) mod plugins;
pub(super) mod policy_conflicts;
pub(super) mod request_route_annotations;
pub(super) mod route_annotations;
pub mod rule_options;
pub(super) mod service_annotations;
pub(super) mod service_facade;
pub(super) mod service_notes;
mod unserved_kinds;
pub(super) mod upstream_policy;
pub(super) mod vaults;
pub(super) mod verdict_updates;
