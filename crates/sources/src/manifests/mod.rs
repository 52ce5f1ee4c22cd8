//! Manifest files as a source of objects: read, validated and watched, with positions for diagnostics.
//!
//! ```text
//!   paths ─walk─▶ files ─text─▶ content ─documents─▶ documents ─yaml─▶ values ─read_object─▶ objects
//!                   │                                                                        │
//!                 record.rs: the objects of one file, and its last valid state ◀─────────────┘
//!                   │
//!                 source.rs + claims.rs: which file defines which object, what changed ──▶ ManifestUpdate
//! ```
//!
//! Files of another format have a translator (`translated.rs`), whose objects are read like those of manifests.
//!
//! `outline.rs` finds the line and column of a field, but only when a diagnostic needs it: between readings, only the
//! position of each object in its file is kept, and the text only of input that cannot be read again. `watcher.rs`
//! triggers the next reading.

mod attachments;
mod changed;
mod claims;
mod diagnostic;
mod documents;
mod foreign;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod location;
mod mounts;
mod object_kind;
mod outline;
mod position;
mod read_object;
mod record;
mod source;
mod text;
mod translated;
mod unserved_kinds;
mod walk;
mod watcher;
mod yaml;

pub use changed::ChangedPaths;
pub use diagnostic::ManifestDiagnostic;
pub use foreign::ForeignPolicy;
pub use position::{Excerpt, FilePosition};
pub use record::TranslatedFile;
pub use source::{ManifestUpdate, Manifests};
pub use translated::{FileTranslator, LEFT_OUT, ObjectSource, TranslatedFormat, TranslatedObject, Translation};
pub use watcher::ManifestWatcher;
