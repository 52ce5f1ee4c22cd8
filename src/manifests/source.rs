//! The files and folders of the command line as one source: each reading says what changed since the last.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::changed::Changed;
use super::claims::{Claim, Claims, Records};
use super::documents::split;
use super::outline::Aim;
use super::place::Place;
use super::record::{self, Entry, Question, Record, locate};
use super::refusal::{Refusal, Severity};
use super::text::{self, Stamp, Unread};
use super::walk::{self, Found, Listing, Root};
use crate::api::ObjectId;
use crate::schema::Channel;
use crate::store::Batch;

/// What changed since the last reading.
#[derive(Debug, Default)]
pub struct Update {
    /// Only differences: applied one after the other, all batches make up the files.
    pub batch: Batch,
    /// Everything that is refused now, not only what became so, by place.
    pub refusals: Vec<Refusal>,
    /// Objects of kinds that we do not read, by `apiVersion/kind`.
    pub ignored: BTreeMap<String, usize>,
    /// Objects in use.
    pub objects: usize,
    /// Files there are, standard input included.
    pub files: usize,
}

/// The files and folders given on the command line, and what was last good in them.
#[derive(Debug)]
pub struct Manifests {
    roots: Vec<Root>,
    channel: Channel,
    /// Standard input, until it was read.
    input: Option<Input>,
    records: Records,
    claims: Claims,
    /// Of objects that several files give.
    duplicates: BTreeMap<ObjectId, Vec<Refusal>>,
    folders: BTreeSet<PathBuf>,
    /// What was wrong with folders and files as such when all of them were last looked at.
    listed: Vec<Refusal>,
}

impl Manifests {
    /// `-` among the paths is standard input, read once.
    pub fn new(paths: Vec<PathBuf>, channel: Channel) -> Self {
        Manifests::with_input(paths, channel, io::stdin())
    }

    /// As `new`, with something else as standard input.
    pub fn with_input(paths: Vec<PathBuf>, channel: Channel, input: impl Read + Send + 'static) -> Self {
        let (inputs, paths): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| path.as_os_str() == "-");
        Manifests {
            roots: paths.into_iter().map(Root::new).collect(),
            channel,
            input: (!inputs.is_empty()).then(|| Input(Box::new(input))),
            records: Records::new(),
            claims: Claims::default(),
            duplicates: BTreeMap::new(),
            folders: BTreeSet::new(),
            listed: Vec::new(),
        }
    }

    /// As `read`, looking only where something changed if that is all there can be to see.
    pub fn read_changed(&mut self, changed: &Changed) -> Update {
        let now = SystemTime::now();
        let Some(files) = self.edited_files(changed) else { return self.read() };
        for found in &files {
            self.read_file(found, now);
        }
        self.settle()
    }

    /// Reads what changed since the last call; the first call reads everything.
    pub fn read(&mut self) -> Update {
        // A stamp is compared with the time before its file was read.
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
        self.listed = listing.refusals;
        self.settle()
    }

    /// The files to read if nothing came, went or moved; None if all folders have to be looked through.
    fn edited_files(&self, changed: &Changed) -> Option<Vec<Found>> {
        let Changed::Paths(paths) = changed else { return None };
        // Events give absolute paths, while files are called as the command line calls them.
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
                    files.push(Found { path: Arc::clone(path), stamp: Stamp::of(&metadata), pipe: false });
                }
                // An editor's own files, hidden or by another ending; unless it was, or is, a folder that matters.
                (None, metadata)
                    if (is_file || metadata.is_none())
                        && !walk::is_listed(path)
                        && !folders.iter().any(|folder| folder.starts_with(path)) => {}
                _ => return None,
            }
        }
        Some(files)
    }

    fn settle(&mut self) -> Update {
        let (batch, touched) = self.claims.settle(&mut self.records);
        self.compare_duplicates(touched);

        let mut refusals = self.listed.clone();
        refusals.extend(self.records.values().flat_map(|record| record.refusals.iter().cloned()));
        refusals.extend(self.duplicates.values().flatten().cloned());
        refusals.sort_by(|left, right| left.place.cmp(&right.place));
        let mut ignored = BTreeMap::new();
        for (kind, count) in self.records.values().flat_map(|record| &record.ignored) {
            *ignored.entry(kind.clone()).or_default() += count;
        }
        Update { batch, refusals, ignored, objects: self.claims.held(), files: self.records.len() }
    }

    /// Folders whose events matter, as of the last reading: those of the files, those that links lead to, and where
    /// something that is missing would appear.
    pub fn folders(&self) -> &BTreeSet<PathBuf> {
        &self.folders
    }

    /// Where a field of an object stands; the nearest enclosing field when it is not written out. None for an object that
    /// no file gives.
    pub fn place(&self, object: &ObjectId, field: &str) -> Option<Place> {
        self.places(&[(object, field)]).pop().flatten()
    }

    /// As `place` for many fields, reading each file once.
    pub fn places(&self, fields: &[(&ObjectId, &str)]) -> Vec<Option<Place>> {
        let claims: Vec<_> =
            fields.iter().map(|(object, field)| Some((self.claims.of(object).first()?, *field))).collect();
        let mut found = self.locate(claims.iter().flatten().copied()).into_iter();
        claims.iter().map(|claim| claim.as_ref().and_then(|_| found.next())).collect()
    }

    fn read_input(&mut self, input: Input) {
        let file: Arc<Path> = Arc::from(Path::new(INPUT));
        let mut record = Record::default();
        match text::read(input.0) {
            Ok(text) => {
                record.take(&file, &text, self.channel);
                record.text = Some(Arc::from(text));
            }
            Err(unread) => record.fail(&file, unread),
        }
        self.claims.assert(&file, &record);
        self.records.insert(file, record);
    }

    fn read_file(&mut self, found: &Found, now: SystemTime) {
        if let Some(record) = self.records.get(&found.path) {
            // A pipe that was read is empty, and would be waited for.
            if found.pipe || (record.stamp == Some(found.stamp) && record.hash.is_some()) {
                return;
            }
        }
        let text = if found.pipe {
            File::open(&found.path).map_err(|error| Unread::of(&error)).and_then(text::read)
        } else {
            text::read_file(&found.path)
        };
        let record = self.records.entry(Arc::clone(&found.path)).or_default();
        record.stamp = found.stamp.is_settled(now).then_some(found.stamp);
        match text {
            Ok(text) if record.hash == Some(record::hash(&text)) => {}
            Ok(text) => {
                self.claims.withdraw(&found.path, record);
                record.take(&found.path, &text, self.channel);
                record.text = found.pipe.then(|| Arc::from(text));
                self.claims.assert(&found.path, record);
            }
            Err(unread) => record.fail(&found.path, unread),
        }
    }

    /// Files that are no longer there, except below folders that could not be read.
    fn forget_deleted(&mut self, listing: &Listing) {
        let present: BTreeSet<&Path> = listing.files.iter().map(|found| found.path.as_ref()).collect();
        let gone: Vec<_> = self
            .records
            .keys()
            .filter(|file| file.as_os_str() != INPUT && !present.contains(file.as_ref()))
            .filter(|file| !listing.kept.iter().any(|kept| file.starts_with(kept)))
            .cloned()
            .collect();
        for file in gone {
            if let Some(record) = self.records.remove(&file) {
                self.claims.withdraw(&file, &record);
            }
        }
    }

    fn compare_duplicates(&mut self, touched: BTreeSet<ObjectId>) {
        if touched.is_empty() {
            return;
        }
        // Objects that share a file with a duplicate may have moved in it, so all of them are looked at again.
        let objects: BTreeSet<_> = touched.into_iter().chain(self.duplicates.keys().cloned()).collect();
        let twice: Vec<_> = objects.into_iter().filter(|id| self.claims.of(id).len() > 1).collect();
        let claims = twice.iter().flat_map(|id| self.claims.of(id)).map(|claim| (claim, "metadata.name"));
        let mut places = self.locate(claims).into_iter();
        self.duplicates.clear();
        for id in twice {
            let mut places = places.by_ref().take(self.claims.of(&id).len());
            let Some(first) = places.next() else { continue };
            let refusals = places.map(|place| Refusal {
                place,
                object: Some(id.to_string()),
                field: "metadata.name".to_owned(),
                reason: "Duplicate",
                message: format!("this object is given at {first} too"),
                remedy: "rename or delete one of the two".to_owned(),
                meanwhile: Some(format!("The one in {} is used.", first.file.display())),
                severity: Severity::Error,
            });
            self.duplicates.insert(id.clone(), refusals.collect());
        }
    }

    /// Places of fields, in the order asked, reading each file once.
    fn locate<'a>(&'a self, fields: impl Iterator<Item = (&'a Claim, &'a str)>) -> Vec<Place> {
        struct Asked<'a> {
            order: usize,
            entry: &'a Entry,
            field: &'a str,
        }
        let mut by_file: BTreeMap<&Arc<Path>, BTreeMap<u32, Vec<Asked<'_>>>> = BTreeMap::new();
        let mut count = 0;
        for (order, ((file, index), field)) in fields.enumerate() {
            let entry = &self.records[file].entries[*index];
            let by_document = by_file.entry(file).or_default();
            by_document.entry(entry.at.document).or_default().push(Asked { order, entry, field });
            count = order + 1;
        }
        let mut places = vec![None; count];
        for (file, by_document) in by_file {
            let text = self.records[file].current_text(file);
            let documents = text.as_deref().map(split).unwrap_or_default();
            for (index, asked) in by_document {
                let line = asked[0].entry.at.line;
                let document = documents.get(index as usize).filter(|document| document.line == line);
                let questions: Vec<_> = asked
                    .iter()
                    .map(|asked| Question { trail: &asked.entry.at.trail, field: asked.field, aim: Aim::Value })
                    .collect();
                let found = match document {
                    Some(document) => locate(file, document, &questions),
                    None => questions.iter().map(|_| Place::bare(Arc::clone(file), line, 1)).collect(),
                };
                for (asked, place) in asked.iter().zip(found) {
                    places[asked.order] = Some(place);
                }
            }
        }
        places.into_iter().flatten().collect()
    }
}

impl Record {
    /// The text that the entries were read from. None if the file says something else by now.
    fn current_text(&self, file: &Path) -> Option<Arc<str>> {
        if self.text.is_some() {
            return self.text.clone();
        }
        let text = text::read_file(file).ok()?;
        (Some(record::hash(&text)) == self.good).then(|| Arc::from(text))
    }
}

/// Standard input, or what stands in for it.
struct Input(Box<dyn Read + Send>);

impl fmt::Debug for Input {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Input")
    }
}

/// What messages call standard input.
const INPUT: &str = "<stdin>";
