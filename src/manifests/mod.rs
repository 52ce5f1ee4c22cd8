//! Manifests on disk as a source of objects: read, checked, watched, with positions kept for messages.
//!
//! ```text
//!   paths ─walk─▶ files ─text─▶ content ─documents─▶ documents ─yaml─▶ values ─admission─▶ objects
//!                   │                                                                        │
//!                 record.rs: what one file holds, and what was last good in it ◀─────────────┘
//!                   │
//!                 source.rs + claims.rs: who holds which object, what changed ──▶ Update
//! ```
//!
//! `outline.rs` finds the line and column of a field, but only when a message needs it: of five thousand objects we keep
//! where each stands and a hash of its content, never its text. `watcher.rs` says when to read again.

mod admission;
mod claims;
mod documents;
mod mounts;
mod outline;
mod place;
mod record;
mod refusal;
mod source;
mod text;
mod walk;
mod watcher;
mod yaml;

pub use place::{Excerpt, Place};
pub use refusal::{Refusal, Severity};
pub use source::{Manifests, Update};

pub use watcher::Watcher;
