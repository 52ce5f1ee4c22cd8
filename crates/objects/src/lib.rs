//! What objects are: their types, whether they are valid for their kind, and the diagnostics about them.
//!
//! A crate of its own, so that a change of the other code, which uses it as `crate::api`, `crate::schema` and
//! `crate::diagnostic`, does not compile it again. Its modules follow the same table of imports, in `tests/tidy.rs`.

pub mod api;
pub mod diagnostic;
pub mod schema;
