//! Manifests on disk as a source of objects: read, checked, watched, with positions kept for messages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::api::ObjectId;
use crate::schema::Channel;
use crate::store::Batch;

/// A place in a file. Lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub file: Arc<Path>,
    pub line: u32,
    pub column: u32,
}

/// Something in a file that was not taken over, or was only with a remark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub place: Place,
    /// The object, as far as it is known: `HTTPRoute default/web`.
    pub object: Option<String>,
    /// Path in the object, or empty.
    pub field: String,
    /// One word in upper camel case: `NotYaml`, `UnknownField`, `Duplicate` …
    pub reason: &'static str,
    pub message: String,
    pub remedy: String,
    /// What keeps being served meanwhile, if anything does: a sentence.
    pub meanwhile: Option<String>,
    pub severity: Severity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

/// What changed since the last reading.
#[derive(Debug, Default)]
pub struct Update {
    pub batch: Batch,
    /// Everything that is refused now, not only what became so.
    pub refusals: Vec<Refusal>,
    /// Objects of kinds that we do not read, by `apiVersion/kind`.
    pub ignored: BTreeMap<String, usize>,
    /// Files read in all.
    pub files: usize,
}

/// The files and folders given on the command line, and what was last good in them.
#[derive(Debug)]
pub struct Manifests {
    _paths: Vec<PathBuf>,
    _channel: Channel,
}

impl Manifests {
    /// `-` among the paths is standard input, read once.
    pub fn new(paths: Vec<PathBuf>, channel: Channel) -> Self {
        Manifests { _paths: paths, _channel: channel }
    }

    /// Reads what changed since the last call; the first call reads everything.
    pub fn read(&mut self) -> Update {
        Update::default()
    }

    /// Where a field of an object stands; the nearest enclosing field when it is not written out.
    pub fn place(&self, _object: &ObjectId, _field: &str) -> Option<Place> {
        None
    }
}
