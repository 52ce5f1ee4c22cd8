//! XML without document type definitions: checked within limits, and converted to and from JSON.

pub mod scanner;
pub mod text;
pub mod to_json;
pub mod tree;
pub mod write;
