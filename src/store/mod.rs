//! What the sources say: every object, typed and slimmed, by its key. One writer, the control loop.
//!
//! ```text
//!   manifests, API server ──Batch──▶ Store ──Changes──▶ compile
//!                                      └ refs.rs: who mentions whom
//! ```

mod object;

pub use object::{AnyObject, Malformed};

use crate::api::ObjectId;

/// What a source has to say at one moment; it is applied as a whole, so that a relist costs one compile.
#[derive(Debug, Default)]
pub struct Batch {
    pub upserts: Vec<AnyObject>,
    pub removes: Vec<ObjectId>,
}
