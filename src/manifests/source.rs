//! The files and folders of the command line as one source; each reading reports what changed since the previous one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::changed::ChangedPaths;
use super::claims::{Claims, ObjectClaim, Records};
use super::diagnostic::ManifestDiagnostic;
use super::documents::split;
use super::outline::CaretTarget;
use super::position::FilePosition;
use super::record::{self, FieldQuery, FileObject, FileRecord, locate};
use super::text::{self, FileReadError, FileStamp};
use super::walk::{self, FileListing, FoundFile, ManifestRoot};
use crate::api::ObjectId;
use crate::diagnostic::{Diagnostic, Reason};
use crate::schema::Channel;
use crate::store::Batch;

/// What changed since the previous reading.
#[derive(Debug, Default)]
pub struct ManifestUpdate {
    /// Differences only: applying all batches in order gives the objects of the files.
    pub batch: Batch,
    /// All current diagnostics, not only new ones, by position.
    pub diagnostics: Vec<ManifestDiagnostic>,
    /// Objects of kinds that Portico does not read, counted by `apiVersion/kind`.
    pub ignored: BTreeMap<String, usize>,
    /// The number of objects in use.
    pub objects: usize,
    /// The number of files, including standard input.
    pub files: usize,
}

/// The files and folders given on the command line, and their last valid content.
#[derive(Debug)]
pub struct Manifests {
    roots: Vec<ManifestRoot>,
    channel: Channel,
    /// Standard input, until it has been read.
    input: Option<StandardInput>,
    records: Records,
    claims: Claims,
    /// Diagnostics of objects that several files define.
    duplicates: BTreeMap<ObjectId, Vec<ManifestDiagnostic>>,
    folders: BTreeSet<PathBuf>,
    /// Diagnostics about folders and files themselves, from the last complete listing.
    listing_diagnostics: Vec<ManifestDiagnostic>,
}

impl Manifests {
    /// `-` among the paths is standard input, which is read once.
    pub fn new(paths: Vec<PathBuf>, channel: Channel) -> Self {
        Manifests::with_input(paths, channel, io::stdin())
    }

    /// Like `new`, with `input` instead of standard input.
    pub fn with_input(paths: Vec<PathBuf>, channel: Channel, input: impl Read + Send + 'static) -> Self {
        let (inputs, paths): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| path.as_os_str() == "-");
        Manifests {
            roots: paths.into_iter().map(ManifestRoot::new).collect(),
            channel,
            input: (!inputs.is_empty()).then(|| StandardInput(Box::new(input))),
            records: Records::new(),
            claims: Claims::default(),
            duplicates: BTreeMap::new(),
            folders: BTreeSet::new(),
            listing_diagnostics: Vec::new(),
        }
    }

    /// Like `read`, but reads only the changed files if nothing else can have changed.
    pub fn read_changed(&mut self, changed: &ChangedPaths) -> ManifestUpdate {
        let now = SystemTime::now();
        let Some(files) = self.edited_files(changed) else { return self.read() };
        for found in &files {
            self.read_file(found, now);
        }
        self.finish_reading()
    }

    /// Reads the changes since the previous call; the first call reads everything.
    pub fn read(&mut self) -> ManifestUpdate {
        // File stamps are compared with the time before the file was read.
        let now = SystemTime::now();
        let mut listing = walk::list(&mut self.roots);
        if let Some(input) = self.input.take() {
            self.read_input(input);
        }
        for found in &listing.files {
            self.read_file(found, now);
        }
        self.forget_deleted(&listing);
        self.folders = std::mem::take(&mut listing.folders);
        self.listing_diagnostics = listing.diagnostics;
        self.finish_reading()
    }

    /// The files to read if files were only edited; `None` if all folders have to be listed again.
    fn edited_files(&self, changed: &ChangedPaths) -> Option<Vec<FoundFile>> {
        let ChangedPaths::Paths(paths) = changed else { return None };
        // Events have absolute paths; records have paths as given on the command line.
        let here = std::env::current_dir().unwrap_or_default();
        let folders: Vec<_> = self.folders.iter().filter_map(|folder| std::path::absolute(folder).ok()).collect();
        let mut files = Vec::new();
        for path in paths {
            let known = [path.as_path(), path.strip_prefix(&here).unwrap_or(path)];
            let known = known.into_iter().find_map(|path| self.records.get_key_value(path));
            let metadata = fs::symlink_metadata(path).ok();
            let is_file = metadata.as_ref().is_some_and(Metadata::is_file);
            match (known, metadata) {
                (Some((path, _)), Some(metadata)) if is_file => {
                    files.push(FoundFile {
                        path: Arc::clone(path),
                        stamp: FileStamp::from_metadata(&metadata),
                        pipe: false,
                    });
                }
                // Other files of an editor, hidden or with another extension, unless the path is or was a watched
                // folder.
                (None, metadata)
                    if (is_file || metadata.is_none())
                        && !walk::is_listed(path)
                        && !folders.iter().any(|folder| folder.starts_with(path)) => {}
                _ => return None,
            }
        }
        Some(files)
    }

    fn finish_reading(&mut self) -> ManifestUpdate {
        let (batch, touched) = self.claims.take_changes(&mut self.records);
        self.compare_duplicates(touched);

        let mut collected = self.listing_diagnostics.clone();
        collected.extend(self.records.values().flat_map(|record| record.diagnostics.iter().cloned()));
        collected.extend(self.duplicates.values().flatten().cloned());
        collected.sort_by(|left, right| left.position.cmp(&right.position));
        let mut ignored = BTreeMap::new();
        for (kind, count) in self.records.values().flat_map(|record| &record.ignored) {
            *ignored.entry(kind.clone()).or_default() += count;
        }
        ManifestUpdate {
            batch,
            diagnostics: collected,
            ignored,
            objects: self.claims.object_count(),
            files: self.records.len(),
        }
    }

    /// The folders to watch, as of the last reading: those of the files, those of link targets, and the nearest
    /// existing parents of missing paths.
    pub fn folders(&self) -> &BTreeSet<PathBuf> {
        &self.folders
    }

    /// The position of a field of an object, or of the nearest enclosing field that exists. `None` if no file defines
    /// the object.
    pub fn position(&self, object: &ObjectId, field: &str) -> Option<FilePosition> {
        self.positions(&[(object, field)]).pop().flatten()
    }

    /// Like `position` for many fields; reads each file once.
    pub fn positions(&self, fields: &[(&ObjectId, &str)]) -> Vec<Option<FilePosition>> {
        let claims: Vec<_> =
            fields.iter().map(|(object, field)| Some((self.claims.claims_for(object).first()?, *field))).collect();
        let mut found = self.locate(claims.iter().flatten().copied()).into_iter();
        claims.iter().map(|claim| claim.as_ref().and_then(|_| found.next())).collect()
    }

    fn read_input(&mut self, input: StandardInput) {
        let file: Arc<Path> = Arc::from(Path::new(STANDARD_INPUT_NAME));
        let mut record = FileRecord::default();
        match text::read(input.0) {
            Ok(text) => {
                record.update(&file, &text, self.channel);
                record.text = Some(Arc::from(text));
            }
            Err(unread) => record.keep_after_read_error(&file, unread),
        }
        self.claims.add(&file, &record);
        self.records.insert(file, record);
    }

    fn read_file(&mut self, found: &FoundFile, now: SystemTime) {
        if let Some(record) = self.records.get(&found.path) {
            // A pipe can be read only once; a second read would block.
            if found.pipe || (record.stamp == Some(found.stamp) && record.hash.is_some()) {
                return;
            }
        }
        let text = if found.pipe {
            File::open(&found.path).map_err(|error| FileReadError::from_io(&error)).and_then(text::read)
        } else {
            text::read_file(&found.path)
        };
        let record = self.records.entry(Arc::clone(&found.path)).or_default();
        record.stamp = found.stamp.is_settled(now).then_some(found.stamp);
        match text {
            Ok(text) if record.hash == Some(record::hash(&text)) => {}
            Ok(text) => {
                self.claims.remove(&found.path, record);
                record.update(&found.path, &text, self.channel);
                record.text = found.pipe.then(|| Arc::from(text));
                self.claims.add(&found.path, record);
            }
            Err(unread) => record.keep_after_read_error(&found.path, unread),
        }
    }

    /// Removes records of deleted files, except below folders that could not be read.
    fn forget_deleted(&mut self, listing: &FileListing) {
        let present: BTreeSet<&Path> = listing.files.iter().map(|found| found.path.as_ref()).collect();
        let removed: Vec<_> = self
            .records
            .keys()
            .filter(|file| file.as_os_str() != STANDARD_INPUT_NAME && !present.contains(file.as_ref()))
            .filter(|file| !listing.incomplete.iter().any(|kept| file.starts_with(kept)))
            .cloned()
            .collect();
        for file in removed {
            if let Some(record) = self.records.remove(&file) {
                self.claims.remove(&file, &record);
            }
        }
    }

    fn compare_duplicates(&mut self, touched: BTreeSet<ObjectId>) {
        if touched.is_empty() {
            return;
        }
        // Objects in the same file as a duplicate may have moved, so all duplicates are located again.
        let objects: BTreeSet<_> = touched.into_iter().chain(self.duplicates.keys().cloned()).collect();
        let twice: Vec<_> = objects.into_iter().filter(|id| self.claims.claims_for(id).len() > 1).collect();
        let claims = twice.iter().flat_map(|id| self.claims.claims_for(id)).map(|claim| (claim, "metadata.name"));
        let mut places = self.locate(claims).into_iter();
        self.duplicates.clear();
        for id in twice {
            let mut places = places.by_ref().take(self.claims.claims_for(&id).len());
            let Some(first) = places.next() else { continue };
            let diagnostics = places.map(|place| ManifestDiagnostic {
                position: place,
                object: Some(id.to_string()),
                diagnostic: Diagnostic::error(
                    "metadata.name",
                    format!("this object is also defined at {first}"),
                    "rename or delete one of the two",
                )
                .with_reason(Reason::Named("Duplicate")),
                meanwhile: Some(format!("The object in {} is used.", first.file.display())),
            });
            self.duplicates.insert(id.clone(), diagnostics.collect());
        }
    }

    /// Positions of fields, in the given order; reads each file once.
    fn locate<'a>(&'a self, fields: impl Iterator<Item = (&'a ObjectClaim, &'a str)>) -> Vec<FilePosition> {
        struct RequestedField<'a> {
            order: usize,
            entry: &'a FileObject,
            field: &'a str,
        }
        let mut by_file: BTreeMap<&Arc<Path>, BTreeMap<u32, Vec<RequestedField<'_>>>> = BTreeMap::new();
        let mut count = 0;
        for (order, ((file, index), field)) in fields.enumerate() {
            let entry = &self.records[file].entries[*index];
            let by_document = by_file.entry(file).or_default();
            by_document.entry(entry.at.document).or_default().push(RequestedField { order, entry, field });
            count = order + 1;
        }
        let mut places = vec![None; count];
        for (file, by_document) in by_file {
            let text = self.records[file].current_text(file);
            let documents = text.as_deref().map(split).unwrap_or_default();
            for (index, queried) in by_document {
                let line = queried[0].entry.at.line;
                let document = documents.get(index as usize).filter(|document| document.line == line);
                let queries: Vec<_> = queried
                    .iter()
                    .map(|query| FieldQuery {
                        trail: &query.entry.at.trail,
                        field: query.field,
                        caret: CaretTarget::Value,
                    })
                    .collect();
                let found = match document {
                    Some(document) => locate(file, document, &queries),
                    None => queries.iter().map(|_| FilePosition::without_excerpt(Arc::clone(file), line, 1)).collect(),
                };
                for (query, place) in queried.iter().zip(found) {
                    places[query.order] = Some(place);
                }
            }
        }
        places.into_iter().flatten().collect()
    }
}

impl FileRecord {
    /// The text that the entries were read from. `None` if the file has changed since.
    fn current_text(&self, file: &Path) -> Option<Arc<str>> {
        if self.text.is_some() {
            return self.text.clone();
        }
        let text = text::read_file(file).ok()?;
        (Some(record::hash(&text)) == self.valid_hash).then(|| Arc::from(text))
    }
}

/// Standard input, or its replacement.
struct StandardInput(Box<dyn Read + Send>);

impl fmt::Debug for StandardInput {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Input")
    }
}

/// The name of standard input in diagnostics.
const STANDARD_INPUT_NAME: &str = "<stdin>";
