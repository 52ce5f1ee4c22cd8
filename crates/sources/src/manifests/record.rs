//! The state of one file: its last valid objects, and its current diagnostics.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hasher;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::diagnostic::ManifestDiagnostic;
use super::documents::{Document, split};
use super::foreign::{self, ForeignPolicy};
use super::location::{FieldQuery, ObjectPosition, locate};
use super::outline::{CaretTarget, SECRET_BEARING_FIELDS};
use super::position::{FilePosition, LineIndex};
use super::read_object::{self, AcceptedObject, ReadOutcome, ReadSettings, RejectedRest};
use super::text::{FileReadError, FileStamp};
use super::translated::{FileTranslator, ObjectSource, TranslatedObject, Translation};
use super::yaml::{self, YamlError};
use crate::api::ObjectId;
use crate::diagnostic::{Diagnostic, Reason};
use crate::store::AnyObject;

/// What is known of a file. Its text is kept only if it cannot be read again.
#[derive(Debug, Default)]
pub(super) struct FileRecord {
    /// `None` if an equal stamp would not prove that the file is unchanged.
    pub(super) stamp: Option<FileStamp>,
    /// The hash of the text that was read last.
    pub(super) text_hash: Option<u64>,
    /// The hash of the text that the positions of the entries refer to.
    pub(super) valid_text_hash: Option<u64>,
    /// Whether there was a text of which every part could be read as an object, valid or not. Otherwise, the file may
    /// have an object that protects, and that no other object takes the place of.
    has_been_read: bool,
    /// The diagnostic of the first part of the text that may be any object, as an index into `diagnostics`.
    first_unknown: Option<usize>,
    /// The objects of the last valid text, in file order.
    pub(super) entries: Vec<FileObject>,
    pub(super) diagnostics: Vec<ManifestDiagnostic>,
    /// Objects of kinds that Portico does not read, counted by `apiVersion/kind`.
    pub(super) ignored: BTreeMap<String, usize>,
    /// Policies of other gateways, with their positions.
    pub(super) foreign_policies: Vec<(ForeignPolicy, FilePosition)>,
    /// The names of ValidatingWebhookConfigurations.
    pub(super) webhooks: BTreeSet<String>,
    /// What controllers write because of objects in the text that was read last, except for unchanged documents.
    pub(super) written_later: BTreeSet<ObjectId>,
    /// Only for input that cannot be read twice: standard input and pipes.
    pub(super) text: Option<Arc<str>>,
}

/// One object of a file.
#[derive(Clone, Debug)]
pub(super) struct FileObject {
    pub(super) object: AnyObject,
    pub(super) content_hash: u64,
    /// Whether it has diagnostics, which must be repeated when the file is read again.
    has_diagnostics: bool,
    /// Whether its kind and name are valid, or its author may have meant another object.
    is_identified: bool,
    /// The hash of its document's text, so that an unchanged document is not parsed again. `None` unless all objects of
    /// the document are in use without diagnostics.
    document_hash: Option<u64>,
    pub(super) position: ObjectPosition,
}

impl FileObject {
    /// Whether it is what is left of an object that is not valid.
    pub(super) fn is_rejected(&self) -> bool {
        matches!(self.object, AnyObject::Unparseable(_))
    }

    /// The last valid version of an object, at the position of its invalid new version.
    fn kept_at(&self, at: ObjectPosition) -> FileObject {
        FileObject {
            object: self.object.clone(),
            content_hash: self.content_hash,
            has_diagnostics: true,
            is_identified: self.is_identified,
            document_hash: None,
            position: at,
        }
    }
}

pub(super) fn hash(text: &str) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

impl FileRecord {
    /// Updates the record from a new text. A text that does not parse changes only the diagnostics.
    pub(super) fn update(&mut self, file: &Arc<Path>, text: &str, settings: ReadSettings) {
        let hash = hash(text);
        self.text_hash = Some(hash);
        if text.is_empty() && !self.entries.is_empty() {
            // `render > file` truncates the file first and fills it when the program ends.
            let message = "the file is now empty; it may be about to be written";
            let empty = Diagnostic::of_file("EmptyFile", message, "delete the file to remove its objects");
            let position = FilePosition::whole_file(Arc::clone(file));
            self.reject_file(vec![ManifestDiagnostic::for_file(position, empty.into_warning())]);
            return;
        }
        let documents = split(text);
        let previous = PreviousObjects::index(&self.entries);
        let mut reading = FileReading::default();
        let mut unparsable = Vec::new();
        for (index, document) in documents.iter().enumerate() {
            if let Err(error) = reading.read_document(index as u32, document, file, settings, &previous) {
                unparsable.push(yaml_diagnostic(file, document, error));
            }
        }
        if !unparsable.is_empty() {
            let (_, object_diagnostics) = reading.finish(file, &documents, &previous);
            self.reject_file(unparsable);
            self.diagnostics.extend(object_diagnostics);
            return;
        }
        self.valid_text_hash = Some(hash);
        self.has_been_read |= reading.first_unknown.is_none();
        self.first_unknown = reading.first_unknown;
        self.ignored = std::mem::take(&mut reading.ignored);
        self.written_later = std::mem::take(&mut reading.written_later);
        self.webhooks = std::mem::take(&mut reading.webhooks);
        self.foreign_policies = locate_policies(file, &documents, std::mem::take(&mut reading.foreign_policies));
        (self.entries, self.diagnostics) = reading.finish(file, &documents, &previous);
    }

    /// Like `update`, for a file of another format, which is valid as a whole or not at all.
    pub(super) fn update_translated(
        &mut self,
        file: &Arc<Path>,
        text: &str,
        settings: ReadSettings,
        translator: &FileTranslator,
    ) {
        self.text_hash = Some(hash(text));
        let text = &*translator.prepare(text);
        let TranslatedFile { objects, diagnostics } = translated(file, text, translator);
        self.set_translated(file, text, settings, objects, diagnostics);
    }

    /// Reads the objects of a translated file, none if the file is invalid. The positions of entities are those in
    /// `text`.
    pub(super) fn set_translated(
        &mut self,
        file: &Arc<Path>,
        text: &str,
        settings: ReadSettings,
        objects: Option<Vec<TranslatedObject>>,
        notes: Vec<ManifestDiagnostic>,
    ) {
        let Some(objects) = objects else {
            self.reject_file(notes);
            return;
        };
        let documents = split(text);
        let line = documents.first().map_or(1, |document| document.line);
        let previous = PreviousObjects::index(&self.entries);
        let mut reading = FileReading::default();
        for TranslatedObject { value, source } in objects {
            let at = ObjectPosition { document: 0, line, trail: Box::default(), source: Some(source) };
            reading.read_value(at, value, file, settings, &previous);
        }
        self.valid_text_hash = self.text_hash;
        self.has_been_read |= reading.first_unknown.is_none();
        self.first_unknown = reading.first_unknown;
        self.ignored = std::mem::take(&mut reading.ignored);
        let (entries, mut diagnostics) = reading.finish(file, &documents, &previous);
        diagnostics.extend(notes);
        (self.entries, self.diagnostics) = (entries, diagnostics);
    }

    /// Why the objects of the file are not known, if they never were.
    pub(super) fn unread(&self) -> Option<&ManifestDiagnostic> {
        if self.has_been_read {
            return None;
        }
        let unknown = self.first_unknown.and_then(|index| self.diagnostics.get(index));
        unknown.or_else(|| self.diagnostics.iter().find(|found| found.diagnostic.is_error()))
    }

    /// Keeps the objects of a file that cannot be read, and reports the error.
    pub(super) fn keep_after_read_error(&mut self, file: &Arc<Path>, error: FileReadError) {
        self.text_hash = None;
        let position = match error.span {
            Some(span) => FilePosition::without_excerpt(Arc::clone(file), span.line, span.column),
            None => FilePosition::whole_file(Arc::clone(file)),
        };
        self.reject_file(vec![ManifestDiagnostic::for_file(position, error.diagnostic)]);
    }

    /// Replaces the diagnostics, and adds to each that the objects stay in use.
    fn reject_file(&mut self, diagnostics: Vec<ManifestDiagnostic>) {
        let meanwhile = match self.entries.iter().filter(|entry| !entry.is_rejected()).count() {
            0 => None,
            1 => Some("The last valid object of this file stays in use.".to_owned()),
            count => Some(format!("The last {count} valid objects of this file stay in use.")),
        };
        self.first_unknown = None;
        let rejected = diagnostics.into_iter();
        self.diagnostics =
            rejected.map(|diagnostic| ManifestDiagnostic { meanwhile: meanwhile.clone(), ..diagnostic }).collect();
    }
}

fn yaml_diagnostic(file: &Arc<Path>, document: &Document<'_>, mut error: YamlError) -> ManifestDiagnostic {
    let mut position = FilePosition::within(file, &LineIndex::build(document.text), document.line, error.span);
    if may_hold_secrets(document.text) {
        position.excerpt = None;
        if error.diagnostic.reason == Reason::Named(yaml::UNREADABLE_VALUE) {
            error.diagnostic.message = "this value cannot be read".to_owned();
        }
    }
    ManifestDiagnostic::for_file(position, error.diagnostic)
}

/// The objects of a file of another format, without reading them as objects.
#[derive(Clone, Debug)]
pub struct TranslatedFile {
    /// `None` if the file is invalid.
    pub objects: Option<Vec<TranslatedObject>>,
    pub diagnostics: Vec<ManifestDiagnostic>,
}

/// Translates a prepared text. The diagnostics are about what is left out or differs, or why the file cannot be used.
fn translated(file: &Arc<Path>, text: &str, translator: &FileTranslator) -> TranslatedFile {
    let rejected = |diagnostics| TranslatedFile { objects: None, diagnostics };
    let documents = split(text);
    let [document] = &documents[..] else {
        let message = format!("the file has {} documents, and this format has one", documents.len());
        let problem = Diagnostic::of_file("Documents", message, "write one document, without --- between parts");
        let position = FilePosition::whole_file(Arc::clone(file));
        return rejected(vec![ManifestDiagnostic::for_file(position, problem)]);
    };
    let value = match yaml::parse(document.text) {
        Ok(value) => value,
        Err(error) => {
            let mut problem = yaml_diagnostic(file, document, error);
            problem.position.excerpt = None;
            return rejected(vec![problem]);
        }
    };
    match translator.translate(value) {
        Translation::Objects(objects, notes) => {
            TranslatedFile { objects: Some(objects), diagnostics: located_in_source(file, document, notes) }
        }
        Translation::Rejected(problems) => rejected(located_in_source(file, document, problems)),
    }
}

/// Positions of diagnostics whose fields are paths in a translated file. Lines are not shown, because any of them may
/// have a secret.
fn located_in_source(
    file: &Arc<Path>,
    document: &Document<'_>,
    diagnostics: Vec<Diagnostic>,
) -> Vec<ManifestDiagnostic> {
    let sources: Vec<_> =
        diagnostics.iter().map(|diagnostic| ObjectSource::Entity(Arc::from(&*diagnostic.field))).collect();
    let queries: Vec<_> = diagnostics
        .iter()
        .zip(&sources)
        .map(|(diagnostic, source)| FieldQuery {
            trail: &[],
            field: "",
            caret: CaretTarget::for_reason(&diagnostic.reason),
            source: Some(source),
        })
        .collect();
    let positions = locate(file, document, &queries);
    let located = positions.into_iter().zip(&diagnostics);
    located.map(|(position, diagnostic)| ManifestDiagnostic::for_file(position, diagnostic.clone())).collect()
}

/// The previous objects of the file.
struct PreviousObjects<'a> {
    entries: &'a [FileObject],
    by_id: HashMap<ObjectId, &'a FileObject>,
    by_document_hash: HashMap<u64, Vec<&'a FileObject>>,
}

impl<'a> PreviousObjects<'a> {
    fn index(entries: &'a [FileObject]) -> Self {
        let by_id = entries.iter().map(|entry| (entry.object.id(), entry)).collect();
        let mut by_document_hash: HashMap<_, Vec<&FileObject>> = HashMap::new();
        for entry in entries {
            let Some(hash) = entry.document_hash else { continue };
            let objects = by_document_hash.entry(hash).or_default();
            // Several documents may have the same text; the objects of only the first of them are listed.
            if objects.first().is_none_or(|first| first.position.document == entry.position.document) {
                objects.push(entry);
            }
        }
        PreviousObjects { entries, by_id, by_document_hash }
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
    /// The first diagnostic of the first part of the text that may be any object that protects, as the number of shown
    /// diagnostics before it.
    first_unknown: Option<usize>,
    ignored: BTreeMap<String, usize>,
    foreign_policies: Vec<(ForeignPolicy, ObjectPosition)>,
    webhooks: BTreeSet<String>,
    written_later: BTreeSet<ObjectId>,
    /// The number of diagnostics of all objects.
    total: usize,
    /// How many of them are only counted.
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
        settings: ReadSettings,
        previous: &PreviousObjects<'_>,
    ) -> Result<(), YamlError> {
        let hash = hash(document.text);
        if let Some(entries) = previous.by_document_hash.get(&hash) {
            for entry in entries {
                let trail = entry.position.trail.clone();
                let at = ObjectPosition { document: index, line: document.line, trail, source: None };
                self.present.insert(entry.object.id());
                self.entries.push(FileObject { position: at, ..(*entry).clone() });
            }
            return Ok(());
        }
        let mut values = Vec::new();
        match yaml::parse(document.text)? {
            Value::Null => {}
            value => flatten(index, document.line, value, &mut values),
        }
        let (value_count, first_index) = (values.len(), self.entries.len());
        for (at, value) in values {
            self.read_value(at, value, file, settings, previous);
        }
        let entries = &mut self.entries[first_index..];
        if entries.len() == value_count && !entries.iter().any(|entry| entry.has_diagnostics) {
            for entry in entries {
                entry.document_hash = Some(hash);
            }
        }
        Ok(())
    }

    fn read_value(
        &mut self,
        at: ObjectPosition,
        value: Value,
        file: &Path,
        settings: ReadSettings,
        previous: &PreviousObjects<'_>,
    ) {
        let accepted_before = |id: &ObjectId, hash| {
            let entry = previous.by_id.get(id)?;
            (entry.content_hash == hash && !entry.has_diagnostics).then(|| entry.object.clone())
        };
        if is_kustomization(file, &value) {
            *self.ignored.entry("kustomize.config.k8s.io/Kustomization".to_owned()).or_default() += 1;
            return;
        }
        foreign::add_written_later(&value, &mut self.written_later);
        let policy = ForeignPolicy::read(&value);
        self.webhooks.extend(foreign::validating_webhook(&value).map(str::to_owned));
        match read_object::read_object(value, settings, accepted_before) {
            ReadOutcome::Ignored(kind) => {
                *self.ignored.entry(kind).or_default() += 1;
                self.foreign_policies.extend(policy.map(|policy| (policy, at)));
            }
            ReadOutcome::Accepted(AcceptedObject { object, hash, warnings }) => {
                let id = object.id();
                let has_diagnostics = !warnings.is_empty();
                if has_diagnostics {
                    self.add_diagnostics(at.clone(), Some(id.to_string()), warnings, None);
                }
                self.present.insert(id);
                self.entries.push(FileObject {
                    object,
                    content_hash: hash,
                    has_diagnostics,
                    is_identified: true,
                    document_hash: None,
                    position: at,
                });
            }
            ReadOutcome::Rejected { rest, is_unknown, name, findings } => {
                let mut meanwhile = None;
                if is_unknown {
                    self.first_unknown.get_or_insert(self.total - self.hidden);
                }
                if rest.as_ref().is_none_or(|rest| !rest.is_identified) {
                    self.unidentified.push(self.diagnostics.len());
                }
                if let Some(RejectedRest { id, is_identified, object, hash }) = rest {
                    if let Some(entry) = previous.by_id.get(&id).filter(|entry| !entry.is_rejected()) {
                        // The last valid object stays in use, with the position of its new version.
                        self.entries.push(entry.kept_at(at.clone()));
                        meanwhile = Some(LAST_VALID_STAYS);
                    } else {
                        self.entries.push(FileObject {
                            object,
                            content_hash: hash,
                            has_diagnostics: true,
                            is_identified,
                            document_hash: None,
                            position: at.clone(),
                        });
                    }
                    self.present.insert(id);
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
        self.total += diagnostics.len();
        let diagnostics = if self.total <= MAX_SHOWN {
            diagnostics
        } else {
            self.hidden += diagnostics.len();
            Vec::new()
        };
        self.diagnostics.push(ObjectDiagnostics { at, object, diagnostics, meanwhile });
    }

    /// The new entries of the record and the located diagnostics; `previous` objects that may still be there are kept.
    fn finish(
        mut self,
        file: &Arc<Path>,
        documents: &[Document<'_>],
        previous: &PreviousObjects<'_>,
    ) -> (Vec<FileObject>, Vec<ManifestDiagnostic>) {
        // An unidentified object may be any of the previous objects that are missing, so none of them is removed. It
        // takes the place of previous ones that were not identified either.
        if let Some(first) = self.unidentified.first() {
            let at = self.diagnostics[*first].at.clone();
            let identified = previous.entries.iter().filter(|entry| entry.is_identified);
            let missing = identified.filter(|entry| self.present.insert(entry.object.id()));
            let missing: Vec<_> = missing.map(|entry| entry.kept_at(at.clone())).collect();
            for index in self.unidentified.iter().filter(|_| !missing.is_empty()) {
                self.diagnostics[*index].meanwhile = Some(MISSING_STAYS);
            }
            self.entries.extend(missing);
        }
        self.entries.sort_by(|left, right| left.position.cmp(&right.position));
        let mut diagnostics = locate_diagnostics(file, documents, &self.diagnostics);
        if self.hidden > 0 {
            let message = format!("{} more problems in this file are not shown", self.hidden);
            let position = FilePosition::whole_file(Arc::clone(file));
            let hidden = Diagnostic::of_file("MoreProblems", message, "correct the shown ones first");
            diagnostics.push(ManifestDiagnostic::for_file(position, hidden));
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
                source: object.at.source.as_ref(),
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

/// The positions of policies.
fn locate_policies(
    file: &Arc<Path>,
    documents: &[Document<'_>],
    policies: Vec<(ForeignPolicy, ObjectPosition)>,
) -> Vec<(ForeignPolicy, FilePosition)> {
    let located = policies.into_iter().filter_map(|(policy, at)| {
        let query = FieldQuery { trail: &at.trail, field: "kind", caret: CaretTarget::Value, source: None };
        let position = locate(file, documents.get(at.document as usize)?, &[query]).pop()?;
        Some((policy, position))
    });
    located.collect()
}

/// Expands lists: `kind: List` and typed lists such as `kind: HTTPRouteList`, also nested ones.
fn flatten(document: u32, line: u32, value: Value, values: &mut Vec<(ObjectPosition, Value)>) {
    // A stack instead of recursion, filled in reverse so that the result is in document order.
    let mut stack = vec![(Vec::new(), value)];
    while let Some((trail, mut value)) = stack.pop() {
        let Some(ObjectList { items, item_type }) = take_list(&mut value) else {
            let at = ObjectPosition { document, line, trail: trail.into_boxed_slice(), source: None };
            values.push((at, value));
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

/// The content of a list, which is taken out of the value; `None` if it is another kind of object.
fn take_list(value: &mut Value) -> Option<ObjectList> {
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

/// Whether text that does not parse may contain a Secret or another kind with secrets; true in case of doubt.
fn may_hold_secrets(text: &str) -> bool {
    let names_secret_kind =
        |line: &str| line.contains("Secret") || SECRET_BEARING_FIELDS.iter().any(|(kind, _)| line.contains(kind));
    text.lines().any(|line| line.contains("kind") && names_secret_kind(line))
}

/// The maximum number of diagnostics shown per file; generated files may have thousands.
const MAX_SHOWN: usize = 1000;
const LAST_VALID_STAYS: &str = "The last valid version of this object stays in use.";
const MISSING_STAYS: &str = "Objects that this file defined before and no longer names stay in use.";

#[cfg(test)]
mod tests;
