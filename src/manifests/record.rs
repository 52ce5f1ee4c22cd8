//! The state of one file: its last valid objects, and its current diagnostics.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hasher;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::diagnostic::ManifestDiagnostic;
use super::documents::{Document, split};
use super::outline::{CaretTarget, SECRET_BEARING_FIELDS};
use super::position::{FilePosition, LineIndex};
use super::read_object::{self, AcceptedObject, ReadOutcome};
use super::text::{FileReadError, FileStamp};
use super::yaml::{self, YamlError};
use crate::api::ObjectId;
use crate::diagnostic::{Diagnostic, Reason};
use crate::schema::Channel;
use crate::store::AnyObject;

/// A file without its text.
#[derive(Debug, Default)]
pub(super) struct FileRecord {
    pub(super) stamp: Option<FileStamp>,
    /// The hash of the text that was read last.
    pub(super) hash: Option<u64>,
    /// The hash of the text that the positions of the entries refer to.
    pub(super) valid_hash: Option<u64>,
    /// In file order.
    pub(super) entries: Vec<FileObject>,
    pub(super) diagnostics: Vec<ManifestDiagnostic>,
    pub(super) ignored: BTreeMap<String, usize>,
    /// Only for input that cannot be read twice: standard input and pipes.
    pub(super) text: Option<Arc<str>>,
}

/// One object of a file.
#[derive(Clone, Debug)]
pub(super) struct FileObject {
    pub(super) object: AnyObject,
    pub(super) hash: u64,
    /// Whether it has diagnostics, which must be repeated when the file is read again.
    has_diagnostics: bool,
    /// The hash of its document's text, if all objects of the document are in use without diagnostics: an unchanged
    /// document need not be parsed again.
    document_text: Option<u64>,
    pub(super) at: ObjectPosition,
}

/// The position of an object in its file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ObjectPosition {
    /// The index of the document, and its first line.
    pub(super) document: u32,
    pub(super) line: u32,
    /// Indexes into the `items` of lists, outermost first. Empty if the document itself is the object.
    pub(super) trail: Box<[u32]>,
}

/// A field to find with `locate`.
pub(super) struct FieldQuery<'a> {
    pub(super) trail: &'a [u32],
    pub(super) field: &'a str,
    pub(super) caret: CaretTarget,
}

impl FileObject {
    /// The last valid object, at the position of its invalid new version.
    fn kept_at(&self, at: ObjectPosition) -> FileObject {
        FileObject { object: self.object.clone(), hash: self.hash, has_diagnostics: true, document_text: None, at }
    }
}

pub(super) fn hash(text: &str) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

impl FileRecord {
    /// Updates the record from a new text. A text that does not parse changes only the diagnostics.
    pub(super) fn update(&mut self, file: &Arc<Path>, text: &str, channel: Channel) {
        let hash = hash(text);
        self.hash = Some(hash);
        if text.is_empty() && !self.entries.is_empty() {
            // `render > file` truncates the file first and fills it when the program ends.
            let message = "the file is now empty; it may be about to be written";
            let empty = Diagnostic::of_file("EmptyFile", message, "delete the file to remove its objects");
            let place = FilePosition::whole_file(Arc::clone(file));
            self.reject_file(vec![ManifestDiagnostic::for_file(place, empty.into_warning())]);
            return;
        }
        let documents = split(text);
        let before = PreviousObjects::index(&self.entries);
        let mut after = FileReading::default();
        let mut unparsable = Vec::new();
        for (index, document) in documents.iter().enumerate() {
            if let Err(error) = after.read_document(index as u32, document, file, channel, &before) {
                unparsable.push(yaml_diagnostic(file, document, error));
            }
        }
        if !unparsable.is_empty() {
            let (_, others) = after.finish(file, &documents, &before);
            self.reject_file(unparsable);
            self.diagnostics.extend(others);
            return;
        }
        self.valid_hash = Some(hash);
        self.ignored = std::mem::take(&mut after.ignored);
        (self.entries, self.diagnostics) = after.finish(file, &documents, &before);
    }

    /// Keeps the objects of a file that cannot be read.
    pub(super) fn keep_after_read_error(&mut self, file: &Arc<Path>, error: FileReadError) {
        self.hash = None;
        let position = match error.spot {
            Some(spot) => FilePosition::without_excerpt(Arc::clone(file), spot.line, spot.column),
            None => FilePosition::whole_file(Arc::clone(file)),
        };
        self.reject_file(vec![ManifestDiagnostic::for_file(position, error.diagnostic)]);
    }

    fn reject_file(&mut self, diagnostics: Vec<ManifestDiagnostic>) {
        let meanwhile = match self.entries.len() {
            0 => None,
            1 => Some("The last valid object of this file stays in use.".to_owned()),
            many => Some(format!("The last {many} valid objects of this file stay in use.")),
        };
        let rejected = diagnostics.into_iter();
        self.diagnostics =
            rejected.map(|diagnostic| ManifestDiagnostic { meanwhile: meanwhile.clone(), ..diagnostic }).collect();
    }
}

fn yaml_diagnostic(file: &Arc<Path>, document: &Document<'_>, mut error: YamlError) -> ManifestDiagnostic {
    let mut position = FilePosition::within(file, &LineIndex::build(document.text), document.line, error.spot);
    if may_hold_secrets(document.text) {
        position.excerpt = None;
        if error.diagnostic.reason == Reason::Named(yaml::UNREADABLE_VALUE) {
            error.diagnostic.message = "this value cannot be read".to_owned();
        }
    }
    ManifestDiagnostic::for_file(position, error.diagnostic)
}

/// The previous objects of the file.
struct PreviousObjects<'a> {
    entries: &'a [FileObject],
    by_id: HashMap<ObjectId, &'a FileObject>,
    by_document_text: HashMap<u64, Vec<&'a FileObject>>,
}

impl<'a> PreviousObjects<'a> {
    fn index(entries: &'a [FileObject]) -> Self {
        let by_id = entries.iter().map(|entry| (entry.object.id(), entry)).collect();
        let mut by_document_text: HashMap<_, Vec<&FileObject>> = HashMap::new();
        for entry in entries {
            let Some(hash) = entry.document_text else { continue };
            let same = by_document_text.entry(hash).or_default();
            // Two documents may have the same text; the objects of each are listed once.
            if same.first().is_none_or(|first| first.at.document == entry.at.document) {
                same.push(entry);
            }
        }
        PreviousObjects { entries, by_id, by_document_text }
    }
}

/// The objects and diagnostics of the new text of a file.
#[derive(Default)]
struct FileReading {
    entries: Vec<FileObject>,
    diagnostics: Vec<ObjectDiagnostics>,
    /// Objects that the text identifies, whether valid or not.
    present: HashSet<ObjectId>,
    /// Objects that cannot be identified, as indexes into `diagnostics`.
    unidentified: Vec<usize>,
    ignored: BTreeMap<String, usize>,
    /// The numbers of diagnostics that are shown, and that are only counted.
    shown: usize,
    hidden: usize,
}

/// Diagnostics about one object, before their positions are known.
struct ObjectDiagnostics {
    at: ObjectPosition,
    object: Option<String>,
    diagnostics: Vec<Diagnostic>,
    /// A note on what stays in use instead.
    meanwhile: Option<&'static str>,
}

impl FileReading {
    fn read_document(
        &mut self,
        index: u32,
        document: &Document<'_>,
        file: &Path,
        channel: Channel,
        before: &PreviousObjects<'_>,
    ) -> Result<(), YamlError> {
        let hash = hash(document.text);
        if let Some(entries) = before.by_document_text.get(&hash) {
            for entry in entries {
                let at = ObjectPosition { document: index, line: document.line, trail: entry.at.trail.clone() };
                self.present.insert(entry.object.id());
                self.entries.push(FileObject { at, ..(*entry).clone() });
            }
            return Ok(());
        }
        let mut values = Vec::new();
        match yaml::parse(document.text)? {
            Value::Null => {}
            value => flatten(index, document.line, value, &mut values),
        }
        let (count, first) = (values.len(), self.entries.len());
        for (at, value) in values {
            self.read_value(at, value, file, channel, before);
        }
        let entries = &mut self.entries[first..];
        if entries.len() == count && !entries.iter().any(|entry| entry.has_diagnostics) {
            for entry in entries {
                entry.document_text = Some(hash);
            }
        }
        Ok(())
    }

    fn read_value(
        &mut self,
        at: ObjectPosition,
        value: Value,
        file: &Path,
        channel: Channel,
        before: &PreviousObjects<'_>,
    ) {
        let known = |id: &ObjectId, hash| {
            let entry = before.by_id.get(id)?;
            (entry.hash == hash && !entry.has_diagnostics).then(|| entry.object.clone())
        };
        if is_kustomization(file, &value) {
            *self.ignored.entry("kustomize.config.k8s.io/Kustomization".to_owned()).or_default() += 1;
            return;
        }
        match read_object::read_object(value, channel, known) {
            ReadOutcome::Ignored(kind) => *self.ignored.entry(kind).or_default() += 1,
            ReadOutcome::Accepted(AcceptedObject { object, hash, warnings }) => {
                let id = object.id();
                let has_diagnostics = !warnings.is_empty();
                if has_diagnostics {
                    self.add_diagnostics(at.clone(), Some(id.to_string()), warnings, None);
                }
                self.present.insert(id);
                self.entries.push(FileObject { object, hash, has_diagnostics, document_text: None, at });
            }
            ReadOutcome::Rejected { id, name, findings } => {
                let mut meanwhile = None;
                match id {
                    Some(id) => {
                        if let Some(entry) = before.by_id.get(&id) {
                            // The last valid object stays in use, with the position of its new version.
                            self.entries.push(entry.kept_at(at.clone()));
                            meanwhile = Some(LAST_VALID_STAYS);
                        }
                        self.present.insert(id);
                    }
                    None => self.unidentified.push(self.diagnostics.len()),
                }
                self.add_diagnostics(at, name, findings, meanwhile);
            }
        }
    }

    fn add_diagnostics(
        &mut self,
        at: ObjectPosition,
        object: Option<String>,
        diagnostics: Vec<Diagnostic>,
        meanwhile: Option<&'static str>,
    ) {
        self.shown += diagnostics.len();
        let diagnostics = if self.shown <= MAX_SHOWN {
            diagnostics
        } else {
            self.hidden += diagnostics.len();
            Vec::new()
        };
        self.diagnostics.push(ObjectDiagnostics { at, object, diagnostics, meanwhile });
    }

    fn finish(
        mut self,
        file: &Arc<Path>,
        documents: &[Document<'_>],
        before: &PreviousObjects<'_>,
    ) -> (Vec<FileObject>, Vec<ManifestDiagnostic>) {
        // An unidentified object may be any of the missing ones, so none of them is removed.
        if let Some(first) = self.unidentified.first() {
            let at = self.diagnostics[*first].at.clone();
            let missing = before.entries.iter().filter(|entry| self.present.insert(entry.object.id()));
            let missing: Vec<_> = missing.map(|entry| entry.kept_at(at.clone())).collect();
            for index in self.unidentified.iter().filter(|_| !missing.is_empty()) {
                self.diagnostics[*index].meanwhile = Some(MISSING_STAYS);
            }
            self.entries.extend(missing);
        }
        self.entries.sort_by(|left, right| left.at.cmp(&right.at));
        let mut diagnostics = locate_diagnostics(file, documents, &self.diagnostics);
        if self.hidden > 0 {
            let message = format!("{} more problems in this file are not shown", self.hidden);
            let place = FilePosition::whole_file(Arc::clone(file));
            let more = Diagnostic::of_file("MoreProblems", message, "correct the others first");
            diagnostics.push(ManifestDiagnostic::for_file(place, more));
        }
        (self.entries, diagnostics)
    }
}

/// Adds positions to all diagnostics, one document after the other.
fn locate_diagnostics(
    file: &Arc<Path>,
    documents: &[Document<'_>],
    by_object: &[ObjectDiagnostics],
) -> Vec<ManifestDiagnostic> {
    let mut located = Vec::new();
    for objects in by_object.chunk_by(|left, right| left.at.document == right.at.document) {
        let document = &documents[objects[0].at.document as usize];
        let diagnostics: Vec<_> = objects
            .iter()
            .flat_map(|object| object.diagnostics.iter().map(move |diagnostic| (object, diagnostic)))
            .collect();
        let queries: Vec<_> = diagnostics
            .iter()
            .map(|(object, diagnostic)| FieldQuery {
                trail: &object.at.trail,
                field: &diagnostic.field,
                caret: CaretTarget::for_reason(&diagnostic.reason),
            })
            .collect();
        let positions = locate(file, document, &queries);
        located.extend(diagnostics.iter().zip(positions).map(|((object, diagnostic), position)| ManifestDiagnostic {
            position,
            object: object.object.clone(),
            diagnostic: (*diagnostic).clone(),
            meanwhile: object.meanwhile.map(str::to_owned),
        }));
    }
    located
}

/// Positions of fields within a document, in one pass over its text.
pub(super) fn locate(file: &Arc<Path>, document: &Document<'_>, queries: &[FieldQuery<'_>]) -> Vec<FilePosition> {
    let Some(outline) = yaml::outline(document.text) else {
        return queries.iter().map(|_| FilePosition::without_excerpt(Arc::clone(file), document.line, 1)).collect();
    };
    let lines = LineIndex::build(document.text);
    let secrets = outline.secret_lines();
    let positions = queries.iter().map(|query| {
        let spot = outline.locate(query.trail, query.field, query.caret);
        let mut position = FilePosition::within(file, &lines, document.line, spot);
        if secrets.iter().any(|lines| lines.contains(&spot.line)) {
            position.excerpt = None;
        }
        position
    });
    positions.collect()
}

/// Expands lists: `kind: List` and typed lists such as `kind: HTTPRouteList`, also nested ones.
fn flatten(document: u32, line: u32, value: Value, into: &mut Vec<(ObjectPosition, Value)>) {
    // A stack instead of recursion, filled in reverse so that the result is in document order.
    let mut stack = vec![(Vec::new(), value)];
    while let Some((trail, mut value)) = stack.pop() {
        let Some(ObjectList { items, item_type }) = list_of(&mut value) else {
            into.push((ObjectPosition { document, line, trail: trail.into_boxed_slice() }, value));
            continue;
        };
        for (index, mut item) in items.into_iter().enumerate().rev() {
            if let (Some((api_version, kind)), Some(item)) = (&item_type, item.as_object_mut()) {
                item.entry("apiVersion").or_insert_with(|| Value::from(api_version.as_str()));
                item.entry("kind").or_insert_with(|| Value::from(kind.as_str()));
            }
            let mut trail = trail.clone();
            trail.push(index as u32);
            stack.push((trail, item));
        }
    }
}

/// A list of objects.
struct ObjectList {
    items: Vec<Value>,
    /// `apiVersion` and `kind` of the items in a typed list, which the items may omit.
    item_type: Option<(String, String)>,
}

fn list_of(value: &mut Value) -> Option<ObjectList> {
    let object = value.as_object_mut()?;
    let item_kind = object.get("kind")?.as_str()?.strip_suffix("List")?.to_owned();
    let api_version = object.get("apiVersion").and_then(Value::as_str).map(str::to_owned);
    let items = match object.get_mut("items")? {
        Value::Array(items) => std::mem::take(items),
        Value::Null => Vec::new(),
        _ => return None,
    };
    let item_type = api_version.filter(|_| !item_kind.is_empty()).map(|api_version| (api_version, item_kind));
    Some(ObjectList { items, item_type })
}

/// Whether this is a configuration file of kustomize, which may have no `kind`.
fn is_kustomization(file: &Path, value: &Value) -> bool {
    file.file_stem().is_some_and(|stem| stem == "kustomization") && value.get("kind").is_none()
}

/// Whether text that does not parse may contain a Secret; true in case of doubt.
fn may_hold_secrets(text: &str) -> bool {
    let names =
        |line: &str| line.contains("Secret") || SECRET_BEARING_FIELDS.iter().any(|(holder, _)| line.contains(holder));
    text.lines().any(|line| line.contains("kind") && names(line))
}

/// The maximum number of diagnostics shown per file; generated files may have thousands.
const MAX_SHOWN: usize = 1000;
const LAST_VALID_STAYS: &str = "The last valid version of this object stays in use.";
const MISSING_STAYS: &str = "Objects that this file defined before and no longer names stay in use.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_expanded_in_order() {
        let value = yaml::parse(
            "{kind: List, apiVersion: v1, items: [{kind: A}, {kind: HTTPRouteList, apiVersion: g/v1, items: [{}, \
                {kind: B}]}, {kind: EmptyList, items: null}, {kind: AllowList, spec: {}}]}",
        );
        let mut values = Vec::new();
        flatten(3, 17, value.expect("it is YAML"), &mut values);
        let found: Vec<_> =
            values.iter().map(|(at, value)| (at.trail.as_ref(), value["kind"].as_str().unwrap())).collect();
        assert_eq!(found, [(&[0][..], "A"), (&[1, 0], "HTTPRoute"), (&[1, 1], "B"), (&[3], "AllowList")]);
        assert_eq!((values[1].0.document, values[1].0.line, &values[1].1["apiVersion"]), (3, 17, &Value::from("g/v1")));
    }
}
