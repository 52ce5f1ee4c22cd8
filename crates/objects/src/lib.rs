//! What objects are: their types, whether they are valid for their kind, and the diagnostics about them.
//!
//! `tests/tidy.rs` has the table of what these modules may import of each other.

pub mod api;
pub mod diagnostic;
pub mod schema;
