//! The Kubernetes objects we read, as types of our own, and the names that people and tools hold on to.
//!
//! ```text
//!   meta.rs      what every object has: key, generation, labels, age
//!   kind.rs      the closed list of kinds, with group, versions and scope
//!   names.rs     controller names, annotation and label keys
//!   gateway/     Gateway API, both channels; strings stay open here and close in `compile`
//!   networking/  Ingress and IngressClass
//!   kong/        the kinds and annotations of Kong's ingress controller
//!   core/        Service, EndpointSlice, Secret, ConfigMap, Namespace: only what we read of them
//! ```
//!
//! No behavior lives here: these types are what an object says, `schema` decides whether it may say so, and `compile`
//! what it means.

pub mod core;
pub mod gateway;
pub mod kind;
pub mod kong;
pub mod meta;
pub mod names;
pub mod networking;

pub use kind::{Kind, Resource};
pub use meta::{Meta, Object, ObjectId, ObjectKey};
