//! `OpenAPI` documents: parsed once, with their operations found by method and path.
//!
//! ```text
//!   text ──document.rs──▶ ApiDocument ──operations()──▶ Operation: parameters, bodies, responses
//!                                      └─ ApiPathIndex ──find(path)──▶ paths with the values of their parameters
//!   request ──parameter.rs──▶ values of parameters, as their style and their schema say
//! ```

mod base_path;
mod document;
mod operation;
pub mod parameter;
mod path_index;
pub mod shape;
#[cfg(test)]
mod tests;

pub use base_path::{BasePaths, base_paths};
pub use document::{ApiDocument, OpenApiVersion};
pub use operation::{Operation, media_type_content, operations, pointer_token};
pub use path_index::{ApiPathIndex, ApiPathMatch, MAX_CANDIDATES};
