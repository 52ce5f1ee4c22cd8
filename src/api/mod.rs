//! Types for the Kubernetes objects that Portico reads, and its stable names.
//!
//! ```text
//!   meta.rs      metadata: key, generation, labels, creation time
//!   kind.rs      the closed list of kinds, with group, versions and scope
//!   names.rs     controller names, annotation and label keys
//!   gateway/     Gateway API, both channels; enums are strings here and are validated in `compile`
//!   networking/  Ingress and IngressClass
//!   kong/        the kinds and annotations of Kong's ingress controller
//!   core/        Service, EndpointSlice, Secret, ConfigMap, Namespace: only the fields that are read
//! ```
//!
//! This module has no behavior: the types represent objects, `schema` validates them, and `compile` interprets them.

pub mod core;
pub mod gateway;
pub mod kind;
pub mod kong;
pub mod meta;
pub mod names;
pub mod networking;

pub use kind::{Kind, Resource};
pub use meta::{Meta, Object, ObjectId, ObjectKey};
