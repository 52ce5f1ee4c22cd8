//! Types for the Kubernetes objects that Portico reads, and the names that manifests of users contain.
//!
//! ```text
//!   meta.rs      metadata: key, generation, labels, creation time
//!   kind.rs      the closed list of kinds, with group, versions and scope
//!   names.rs     controller and class names, annotation and label keys
//!   foreign_annotations.rs
//!                annotations of other ingress controllers, and which of them restrict requests
//!   gateway/     Gateway API, both channels, and its schemas; enums of the API are strings
//!   networking/  Ingress and IngressClass
//!   kong/        the kinds and annotations of Kong's ingress controller
//!   portico/     Portico's own kinds
//!   crd.rs, definitions.rs
//!                the CustomResourceDefinitions of the kinds in kong/ and portico/
//!   core/        Service, EndpointSlice, Secret, ConfigMap, Namespace: only the fields that are read
//! ```
//!
//! The types only represent objects: `crate::schema` validates objects, and `crate::compile` interprets them.

pub mod core;
mod crd;
pub mod definitions;
pub mod foreign_annotations;
pub mod gateway;
pub mod ingress_nginx;
pub mod kind;
pub mod kong;
pub mod meta;
pub mod names;
pub mod networking;
pub mod portico;

pub use kind::{Kind, Resource};
pub use meta::{Meta, Object, ObjectId, ObjectKey};
