//! The files and folders of the command line as one source; each reading reports what changed since the previous one.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::attachments::Attachments;
use super::changed::ChangedPaths;
use super::claims::{Claims, ObjectClaim, Records};
use super::diagnostic::ManifestDiagnostic;
use super::documents::split;
use super::foreign::ForeignPolicy;
use super::location::{FieldQuery, locate};
use super::outline::CaretTarget;
use super::position::FilePosition;
use super::read_object::ReadSettings;
use super::record::{self, FileObject, FileRecord, TranslatedFile};
use super::text::{self, FileReadError, FileStamp};
use super::translated::FileTranslator;
use super::walk::{self, FileListing, FoundFile, LOOP, ManifestRoot};
use crate::api::ObjectId;
use crate::diagnostic::{Diagnostic, Reason};
use crate::schema::Channel;
use crate::store::{Batch, LargeObjects};

/// What changed since the previous reading.
#[derive(Debug, Default)]
pub struct ManifestUpdate {
    /// Differences only: applying all batches in order gives the objects of the files.
    pub batch: Batch,
    /// All current diagnostics, not only new ones, sorted by position.
    pub diagnostics: Vec<ManifestDiagnostic>,
    /// The first error of each file and folder of which some objects are not known and never were. They may restrict
    /// requests to what the other files have.
    pub unread: Vec<ManifestDiagnostic>,
    /// Objects of kinds that Portico does not read, counted by `apiVersion/kind`.
    pub ignored: BTreeMap<String, usize>,
    /// Policies of other gateways, with their positions.
    pub foreign_policies: Vec<(ForeignPolicy, FilePosition)>,
    /// The names of ValidatingWebhookConfigurations, which Portico does not read.
    pub webhooks: BTreeSet<String>,
    /// What controllers of a cluster write because of the objects: Secrets, and Services whose endpoints they write.
    /// Complete after the first reading.
    pub written_later: BTreeSet<ObjectId>,
    /// The number of objects in use.
    pub objects: usize,
    /// The number of files, including standard input.
    pub files: usize,
}

impl ManifestUpdate {
    /// Whether one of these paths, which are those of the command line, does not exist.
    pub fn lacks_one_of(&self, paths: &[PathBuf]) -> bool {
        let is_argument = |problem: &ManifestDiagnostic| paths.iter().any(|path| **path == *problem.position.file);
        self.diagnostics.iter().any(|problem| problem.reason() == "NotFound" && is_argument(problem))
    }
}

/// The files and folders given on the command line, and their last valid content.
#[derive(Debug)]
pub struct Manifests {
    roots: Vec<ManifestRoot>,
    settings: ReadSettings,
    /// The other format that files may have.
    translated: Option<TranslatedFiles>,
    /// Standard input, until it has been read.
    input: Option<StandardInput>,
    records: Records,
    claims: Claims,
    /// Diagnostics of objects that are defined several times.
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
        let (dashes, paths): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| path.as_os_str() == "-");
        Manifests {
            roots: paths.into_iter().map(ManifestRoot::new).collect(),
            settings: ReadSettings { channel, large_objects: LargeObjects::Reduce },
            translated: None,
            input: (!dashes.is_empty()).then(|| StandardInput(Box::new(input))),
            records: Records::new(),
            claims: Claims::default(),
            duplicates: BTreeMap::new(),
            folders: BTreeSet::new(),
            listing_diagnostics: Vec::new(),
        }
    }

    /// Sets what happens to objects that are larger than an object may be. They are reduced by default.
    #[must_use]
    pub fn with_large_objects(mut self, large_objects: LargeObjects) -> Self {
        self.settings.large_objects = large_objects;
        self
    }

    /// Reads files of another format too: those that are meant to have it, and further ones that have to have it.
    #[must_use]
    pub fn with_translated(mut self, files: Vec<PathBuf>, translator: FileTranslator) -> Self {
        self.roots.extend(files.iter().cloned().map(ManifestRoot::new));
        self.translated = Some(TranslatedFiles { files: files.into_iter().collect(), translator });
        self
    }

    /// The objects of one file that was translated already, and what is wrong with them.
    pub fn of_translated(
        file: &Path,
        text: &str,
        TranslatedFile { objects, diagnostics }: TranslatedFile,
    ) -> (Self, ManifestUpdate) {
        let mut manifests = Manifests::with_input(Vec::new(), Channel::Experimental, io::empty());
        let (file, mut record) = (Arc::<Path>::from(file), FileRecord::default());
        record.set_translated(&file, text, manifests.settings, objects, diagnostics);
        record.text = Some(Arc::from(text));
        manifests.claims.add(&file, &record);
        manifests.records.insert(file, record);
        let update = manifests.finish_reading();
        (manifests, update)
    }

    /// Like `read`, but reads only the given files if nothing but their content can have changed.
    pub fn read_changed(&mut self, changed: &ChangedPaths) -> ManifestUpdate {
        let now = SystemTime::now();
        let Some(files) = self.edited_files(changed) else { return self.read() };
        for file in &files {
            self.read_file(file, now);
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
        for file in &listing.files {
            self.read_file(file, now);
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
        let current_folder = std::env::current_dir().unwrap_or_default();
        let folders: Vec<_> = self.folders.iter().filter_map(|folder| std::path::absolute(folder).ok()).collect();
        let mut files = Vec::new();
        for path in paths {
            let spellings = [path.as_path(), path.strip_prefix(&current_folder).unwrap_or(path)];
            let known = spellings.into_iter().find_map(|path| self.records.get_key_value(path));
            let metadata = fs::symlink_metadata(path).ok();
            let is_file = metadata.as_ref().is_some_and(Metadata::is_file);
            match (known, metadata) {
                (Some((path, _)), Some(metadata)) if is_file => {
                    files.push(FoundFile {
                        path: Arc::clone(path),
                        stamp: FileStamp::from_metadata(&metadata),
                        is_pipe: false,
                    });
                }
                // Not a manifest, such as an editor's backup file: ignored, unless the path is or was a watched folder
                // or one above it.
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
        let is_unread = |found: &&ManifestDiagnostic| found.diagnostic.is_error() && found.reason() != LOOP;
        let mut unread: Vec<_> = self.listing_diagnostics.iter().filter(is_unread).cloned().collect();
        unread.extend(self.records.values().filter_map(FileRecord::unread).cloned());
        // What cannot be read may have objects that a file had before, unless it is a path that was removed.
        let is_there = |found: &ManifestDiagnostic| {
            found.reason() != "NotFound" || fs::symlink_metadata(&*found.position.file).is_ok()
        };
        let may_have_moved = unread.iter().any(is_there);
        let (batch, touched) = self.claims.take_changes(&mut self.records, may_have_moved);
        self.compare_duplicates(touched);

        let mut collected = self.listing_diagnostics.clone();
        collected.extend(self.records.values().flat_map(|record| record.diagnostics.iter().cloned()));
        if self.claims.keeps_missing() {
            for diagnostic in collected.iter_mut().filter(|diagnostic| unread.contains(diagnostic)) {
                diagnostic.meanwhile = Some(MOVED_STAYS.to_owned());
            }
        }
        collected.extend(self.duplicates.values().flatten().cloned());
        collected.sort_by(|left, right| left.position.cmp(&right.position));
        let mut ignored = BTreeMap::new();
        for (kind, count) in self.records.values().flat_map(|record| &record.ignored) {
            *ignored.entry(kind.clone()).or_default() += count;
        }
        ManifestUpdate {
            batch,
            diagnostics: collected,
            unread,
            ignored,
            foreign_policies: self.records.values().flat_map(|record| record.foreign_policies.clone()).collect(),
            webhooks: self.records.values().flat_map(|record| record.webhooks.clone()).collect(),
            written_later: self.records.values().flat_map(|record| record.written_later.clone()).collect(),
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
            fields.iter().map(|(object, field)| Some((self.claims.definition(object)?, *field))).collect();
        let mut found = self.locate(claims.iter().flatten().copied()).into_iter();
        claims.iter().map(|claim| claim.as_ref().and_then(|_| found.next())).collect()
    }

    fn read_input(&mut self, input: StandardInput) {
        let file: Arc<Path> = Arc::from(Path::new(STANDARD_INPUT_NAME));
        let mut record = FileRecord::default();
        match text::read(input.0) {
            Ok(text) => {
                self.update_record(&mut record, &file, &text);
                record.text = Some(Arc::from(text));
            }
            Err(error) => record.keep_after_read_error(&file, error),
        }
        self.claims.add(&file, &record);
        self.records.insert(file, record);
    }

    fn read_file(&mut self, file: &FoundFile, now: SystemTime) {
        if let Some(record) = self.records.get(&file.path) {
            // A pipe can be read only once; a second read would block.
            if file.is_pipe || (record.stamp == Some(file.stamp) && record.text_hash.is_some()) {
                return;
            }
        }
        let text = if file.is_pipe {
            File::open(&file.path).map_err(|error| FileReadError::from_io(&error)).and_then(text::read)
        } else {
            text::read_file(&file.path)
        };
        // Deleted or moved since the folder was listed: the next reading, which the event triggers, decides.
        if text.is_err() && !file.path.exists() {
            return;
        }
        let mut record = self.records.remove(&file.path).unwrap_or_default();
        record.stamp = file.stamp.is_settled(now).then_some(file.stamp);
        match text {
            Ok(text) if record.text_hash == Some(record::hash(&text)) => {}
            Ok(text) => {
                self.claims.remove(&file.path, &record);
                self.update_record(&mut record, &file.path, &text);
                record.text = file.is_pipe.then(|| Arc::from(text));
                self.claims.add(&file.path, &record);
            }
            Err(error) => record.keep_after_read_error(&file.path, error),
        }
        self.records.insert(Arc::clone(&file.path), record);
    }

    fn update_record(&self, record: &mut FileRecord, file: &Arc<Path>, text: &str) {
        match &self.translated {
            Some(TranslatedFiles { files, translator }) if files.contains(&**file) || translator.is_meant(text) => {
                record.update_translated(file, text, self.settings, translator);
            }
            _ => record.update(file, text, self.settings),
        }
    }

    /// Removes records of deleted files, except below folders that could not be read.
    fn forget_deleted(&mut self, listing: &FileListing) {
        let present: BTreeSet<&Path> = listing.files.iter().map(|file| file.path.as_ref()).collect();
        let removed: Vec<_> = self
            .records
            .keys()
            .filter(|file| file.as_os_str() != STANDARD_INPUT_NAME && !present.contains(file.as_ref()))
            .filter(|file| !listing.incomplete.iter().any(|path| file.starts_with(path)))
            .cloned()
            .collect();
        for file in removed {
            if let Some(record) = self.records.remove(&file) {
                self.claims.remove(&file, &record);
            }
        }
    }

    /// Finds the objects that are defined several times, and reports each definition that is not used.
    fn compare_duplicates(&mut self, touched: BTreeSet<ObjectId>) {
        if touched.is_empty() {
            return;
        }
        // Objects in the same file as a duplicate may have moved, so all duplicates are located again.
        let objects: BTreeSet<_> = touched.into_iter().chain(self.duplicates.keys().cloned()).collect();
        let duplicated: Vec<_> = objects.into_iter().filter(|id| self.claims.claims_for(id).len() > 1).collect();
        let claims = duplicated.iter().flat_map(|id| self.claims.claims_for(id)).map(|claim| (claim, "metadata.name"));
        let mut all_positions = self.locate(claims).into_iter();
        self.duplicates.clear();
        for id in duplicated {
            let claims = self.claims.claims_for(&id);
            let mut definitions = claims.iter().map(|claim| self.attachments(claim)).zip(all_positions.by_ref());
            let Some((used, first)) = definitions.next() else { continue };
            let diagnostics = definitions.map(|(other, position)| ManifestDiagnostic {
                position,
                object: Some(id.to_string()),
                diagnostic: Diagnostic::error(
                    "metadata.name",
                    format!("this object is also defined at {first}"),
                    "rename or delete one of the two",
                )
                .with_reason(Reason::Named("Duplicate")),
                meanwhile: Some(format!(
                    "The object in {} is used{}.",
                    first.file.display(),
                    used.note_of_added(&other)
                )),
            });
            let diagnostics = diagnostics.collect();
            self.duplicates.insert(id, diagnostics);
        }
    }

    fn attachments(&self, (file, index): &ObjectClaim) -> Attachments {
        Attachments::of(&self.records[file].entries[*index].object)
    }

    /// The positions of fields, in the order of `fields`; reads each file once.
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
            by_document.entry(entry.position.document).or_default().push(RequestedField { order, entry, field });
            count = order + 1;
        }
        let mut positions = vec![None; count];
        for (file, by_document) in by_file {
            let text = self.records[file].current_text(file);
            let is_translated = by_document.values().flatten().any(|request| request.entry.position.source.is_some());
            let translator = self.translated.as_ref().filter(|_| is_translated).map(|other| &other.translator);
            let text = text.as_deref().map(|text| match translator {
                Some(translator) => translator.prepare(text),
                None => Cow::Borrowed(text),
            });
            let documents = text.as_deref().map(split).unwrap_or_default();
            for (document_index, requests) in by_document {
                let line = requests[0].entry.position.line;
                let document = documents.get(document_index as usize).filter(|document| document.line == line);
                let queries: Vec<_> = requests
                    .iter()
                    .map(|request| FieldQuery {
                        trail: &request.entry.position.trail,
                        field: request.field,
                        caret: CaretTarget::Value,
                        source: request.entry.position.source.as_ref(),
                    })
                    .collect();
                let found = match document {
                    Some(document) => locate(file, document, &queries),
                    None => queries.iter().map(|_| FilePosition::without_excerpt(Arc::clone(file), line, 1)).collect(),
                };
                for (request, position) in requests.iter().zip(found) {
                    positions[request.order] = Some(position);
                }
            }
        }
        positions.into_iter().flatten().collect()
    }
}

impl FileRecord {
    /// The text that the entries were read from. `None` if the file has changed since, or cannot be read.
    fn current_text(&self, file: &Path) -> Option<Arc<str>> {
        if self.text.is_some() {
            return self.text.clone();
        }
        let text = text::read_file(file).ok()?;
        (Some(record::hash(&text)) == self.valid_text_hash).then(|| Arc::from(text))
    }
}

/// The files of another format.
#[derive(Debug)]
struct TranslatedFiles {
    /// Those that have to have it, whatever their text is.
    files: BTreeSet<PathBuf>,
    translator: FileTranslator,
}

/// Standard input, or its replacement.
struct StandardInput(Box<dyn Read + Send>);

impl fmt::Debug for StandardInput {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Input")
    }
}

const MOVED_STAYS: &str = "Objects that no file defines any more stay in use until this file can be read.";

/// The name of standard input in diagnostics.
const STANDARD_INPUT_NAME: &str = "<stdin>";
