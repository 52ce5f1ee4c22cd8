//! What one file holds: its objects as they were last good, and what is wrong in it now.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hasher;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::admission::{self, Finding, Outcome, Taken};
use super::documents::{Document, split};
use super::outline::{Aim, HOLDERS};
use super::place::{Lines, Place};
use super::refusal::Refusal;
use super::text::{Stamp, Unread};
use super::yaml::{self, Fault};
use crate::api::ObjectId;
use crate::schema::Channel;
use crate::store::AnyObject;

/// A file, as far as it is remembered. Its text is not.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) stamp: Option<Stamp>,
    /// Of the text that was read last.
    pub(super) hash: Option<u64>,
    /// Of the text that the positions of the entries refer to.
    pub(super) good: Option<u64>,
    /// In the order of the file.
    pub(super) entries: Vec<Entry>,
    pub(super) refusals: Vec<Refusal>,
    pub(super) ignored: BTreeMap<String, usize>,
    /// Only of what cannot be read a second time: standard input and pipes.
    pub(super) text: Option<Arc<str>>,
}

/// One object of a file.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) object: AnyObject,
    pub(super) hash: u64,
    /// Something was said about it, which must be said again.
    remarked: bool,
    /// Hash of the text of its document, if all that the document gave is in use and nothing was said about it: the same
    /// text need not be parsed again.
    document_text: Option<u64>,
    pub(super) at: At,
}

/// Where an object stands in its file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    /// Index of the document, and the line it begins at.
    pub(super) document: u32,
    pub(super) line: u32,
    /// Indexes into the `items` of lists, from the outside in. Empty for a document that is the object.
    pub(super) trail: Box<[u32]>,
}

/// One question for `locate`.
pub(super) struct Question<'a> {
    pub(super) trail: &'a [u32],
    pub(super) field: &'a str,
    pub(super) aim: Aim,
}

impl Entry {
    /// The same object, although the text at this place says something else.
    fn kept_at(&self, at: At) -> Entry {
        Entry { object: self.object.clone(), hash: self.hash, remarked: true, document_text: None, at }
    }
}

pub(super) fn hash(text: &str) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

impl Record {
    /// Takes over a new text. A text that does not parse changes nothing but the refusals.
    pub(super) fn take(&mut self, file: &Arc<Path>, text: &str, channel: Channel) {
        let hash = hash(text);
        self.hash = Some(hash);
        if text.is_empty() && !self.entries.is_empty() {
            // `render > file` empties the file first and fills it when the program is done.
            let message = "the file is empty now; it may be about to be written".to_owned();
            let remedy = "delete the file if its objects are to go";
            self.refuse_whole(
                Refusal::of_file(Place::whole(Arc::clone(file)), "EmptyFile", message, remedy).into_warning(),
            );
            return;
        }
        let documents = split(text);
        let before = Before::of(&self.entries);
        let mut after = After::default();
        for (index, document) in documents.iter().enumerate() {
            if let Err(fault) = after.take(index as u32, document, file, channel, &before) {
                self.refuse_whole(of_fault(file, document, fault));
                return;
            }
        }
        self.good = Some(hash);
        self.ignored = std::mem::take(&mut after.ignored);
        (self.entries, self.refusals) = after.finish(file, &documents, &before);
    }

    /// Keeps the objects of a file that cannot be read.
    pub(super) fn fail(&mut self, file: &Arc<Path>, unread: Unread) {
        self.hash = None;
        let place = match unread.spot {
            Some(spot) => Place::bare(Arc::clone(file), spot.line, spot.column),
            None => Place::whole(Arc::clone(file)),
        };
        self.refuse_whole(Refusal::of_file(place, unread.reason, unread.message, unread.remedy));
    }

    fn refuse_whole(&mut self, mut refusal: Refusal) {
        refusal.meanwhile = match self.entries.len() {
            0 => None,
            1 => Some("The object of this file stays as it last was.".to_owned()),
            many => Some(format!("All {many} objects of this file stay as they last were.")),
        };
        self.refusals = vec![refusal];
    }
}

fn of_fault(file: &Arc<Path>, document: &Document<'_>, mut fault: Fault) -> Refusal {
    let mut place = Place::within(file, &Lines::of(document.text), document.line, fault.spot);
    if may_hold_secrets(document.text) {
        place.excerpt = None;
        if fault.reason == yaml::UNREADABLE_VALUE {
            fault.message = "this value cannot be read".to_owned();
        }
    }
    Refusal::of_file(place, fault.reason, fault.message, fault.remedy)
}

/// The objects of the file until now.
struct Before<'a> {
    entries: &'a [Entry],
    by_id: HashMap<ObjectId, &'a Entry>,
    by_document_text: HashMap<u64, Vec<&'a Entry>>,
}

impl<'a> Before<'a> {
    fn of(entries: &'a [Entry]) -> Self {
        let by_id = entries.iter().map(|entry| (entry.object.id(), entry)).collect();
        let mut by_document_text: HashMap<_, Vec<&Entry>> = HashMap::new();
        for entry in entries {
            let Some(hash) = entry.document_text else { continue };
            let same = by_document_text.entry(hash).or_default();
            // Two documents may be the same, letter by letter; each gives its objects once.
            if same.first().is_none_or(|first| first.at.document == entry.at.document) {
                same.push(entry);
            }
        }
        Before { entries, by_id, by_document_text }
    }
}

/// What the new text of a file comes to.
#[derive(Default)]
struct After {
    entries: Vec<Entry>,
    remarks: Vec<Remark>,
    /// Objects that say who they are, well or badly.
    present: HashSet<ObjectId>,
    /// Where something stands that does not even say which object it is, by index into `remarks`.
    unnamed: Vec<usize>,
    ignored: BTreeMap<String, usize>,
    /// Findings that are told, and those that are only counted.
    told: usize,
    untold: usize,
}

/// Findings about one object that are still without a place.
struct Remark {
    at: At,
    object: Option<String>,
    findings: Vec<Finding>,
    /// What stays in use instead.
    meanwhile: Option<&'static str>,
}

impl After {
    fn take(
        &mut self,
        index: u32,
        document: &Document<'_>,
        file: &Path,
        channel: Channel,
        before: &Before<'_>,
    ) -> Result<(), Fault> {
        let hash = hash(document.text);
        if let Some(entries) = before.by_document_text.get(&hash) {
            for entry in entries {
                let at = At { document: index, line: document.line, trail: entry.at.trail.clone() };
                self.present.insert(entry.object.id());
                self.entries.push(Entry { at, ..(*entry).clone() });
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
            self.admit(at, value, file, channel, before);
        }
        let entries = &mut self.entries[first..];
        if entries.len() == count && !entries.iter().any(|entry| entry.remarked) {
            for entry in entries {
                entry.document_text = Some(hash);
            }
        }
        Ok(())
    }

    fn admit(&mut self, at: At, value: Value, file: &Path, channel: Channel, before: &Before<'_>) {
        let known = |id: &ObjectId, hash| {
            let entry = before.by_id.get(id)?;
            (entry.hash == hash && !entry.remarked).then(|| entry.object.clone())
        };
        if is_kustomization(file, &value) {
            *self.ignored.entry("kustomize.config.k8s.io/Kustomization".to_owned()).or_default() += 1;
            return;
        }
        match admission::admit(value, channel, known) {
            Outcome::Ignored(kind) => *self.ignored.entry(kind).or_default() += 1,
            Outcome::Taken(Taken { object, hash, findings }) => {
                let id = object.id();
                let remarked = !findings.is_empty();
                if remarked {
                    self.remark(at.clone(), Some(id.to_string()), findings, None);
                }
                self.present.insert(id);
                self.entries.push(Entry { object, hash, remarked, document_text: None, at });
            }
            Outcome::Refused { id, name, findings } => {
                let mut meanwhile = None;
                match id {
                    Some(id) => {
                        if let Some(entry) = before.by_id.get(&id) {
                            // Its place is where it is written now, although it is served as it was.
                            self.entries.push(entry.kept_at(at.clone()));
                            meanwhile = Some(LAST_GOOD_STAYS);
                        }
                        self.present.insert(id);
                    }
                    None => self.unnamed.push(self.remarks.len()),
                }
                self.remark(at, name, findings, meanwhile);
            }
        }
    }

    fn remark(&mut self, at: At, object: Option<String>, findings: Vec<Finding>, meanwhile: Option<&'static str>) {
        self.told += findings.len();
        let findings = if self.told <= MAX_TOLD {
            findings
        } else {
            self.untold += findings.len();
            Vec::new()
        };
        self.remarks.push(Remark { at, object, findings, meanwhile });
    }

    fn finish(
        mut self,
        file: &Arc<Path>,
        documents: &[Document<'_>],
        before: &Before<'_>,
    ) -> (Vec<Entry>, Vec<Refusal>) {
        // Something that does not say which object it is may be any that was here and is not now: none of them goes.
        if let Some(first) = self.unnamed.first() {
            let at = self.remarks[*first].at.clone();
            let missing = before.entries.iter().filter(|entry| self.present.insert(entry.object.id()));
            let missing: Vec<_> = missing.map(|entry| entry.kept_at(at.clone())).collect();
            for index in self.unnamed.iter().filter(|_| !missing.is_empty()) {
                self.remarks[*index].meanwhile = Some(MISSING_STAYS);
            }
            self.entries.extend(missing);
        }
        self.entries.sort_by(|left, right| left.at.cmp(&right.at));
        let mut refusals = refusals(file, documents, &self.remarks);
        if self.untold > 0 {
            let message = format!("{} more problems in this file are not shown", self.untold);
            let place = Place::whole(Arc::clone(file));
            refusals.push(Refusal::of_file(place, "MoreProblems", message, "correct the others first"));
        }
        (self.entries, refusals)
    }
}

/// Gives every finding its place, one document after the other.
fn refusals(file: &Arc<Path>, documents: &[Document<'_>], remarks: &[Remark]) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for remarks in remarks.chunk_by(|left, right| left.at.document == right.at.document) {
        let document = &documents[remarks[0].at.document as usize];
        let findings: Vec<_> =
            remarks.iter().flat_map(|remark| remark.findings.iter().map(move |finding| (remark, finding))).collect();
        let questions: Vec<_> = findings
            .iter()
            .map(|(remark, finding)| Question { trail: &remark.at.trail, field: &finding.field, aim: finding.aim })
            .collect();
        let places = locate(file, document, &questions);
        refusals.extend(findings.iter().zip(places).map(|((remark, finding), place)| Refusal {
            place,
            object: remark.object.clone(),
            field: finding.field.clone(),
            reason: finding.reason,
            message: finding.message.clone(),
            remedy: finding.remedy.clone(),
            meanwhile: remark.meanwhile.map(str::to_owned),
            severity: finding.severity,
        }));
    }
    refusals
}

/// Places of fields within a document, in one pass over its text.
pub(super) fn locate(file: &Arc<Path>, document: &Document<'_>, questions: &[Question<'_>]) -> Vec<Place> {
    let Some(outline) = yaml::outline(document.text) else {
        return questions.iter().map(|_| Place::bare(Arc::clone(file), document.line, 1)).collect();
    };
    let lines = Lines::of(document.text);
    let secrets = outline.secrets();
    let places = questions.iter().map(|question| {
        let spot = outline.spot(question.trail, question.field, question.aim);
        let mut place = Place::within(file, &lines, document.line, spot);
        if secrets.iter().any(|lines| lines.contains(&spot.line)) {
            place.excerpt = None;
        }
        place
    });
    places.collect()
}

/// Takes lists apart: `kind: List` and `kind: HTTPRouteList`, also within each other.
fn flatten(document: u32, line: u32, value: Value, into: &mut Vec<(At, Value)>) {
    // A stack instead of recursion, and in reverse so that the order of the text comes out.
    let mut waiting = vec![(Vec::new(), value)];
    while let Some((trail, mut value)) = waiting.pop() {
        let Some(List { items, item_type }) = list_of(&mut value) else {
            into.push((At { document, line, trail: trail.into_boxed_slice() }, value));
            continue;
        };
        for (index, mut item) in items.into_iter().enumerate().rev() {
            if let (Some((api_version, kind)), Some(item)) = (&item_type, item.as_object_mut()) {
                item.entry("apiVersion").or_insert_with(|| Value::from(api_version.as_str()));
                item.entry("kind").or_insert_with(|| Value::from(kind.as_str()));
            }
            let mut trail = trail.clone();
            trail.push(index as u32);
            waiting.push((trail, item));
        }
    }
}

/// A list of objects.
struct List {
    items: Vec<Value>,
    /// `apiVersion` and `kind` that the items of a typed list may leave out.
    item_type: Option<(String, String)>,
}

fn list_of(value: &mut Value) -> Option<List> {
    let object = value.as_object_mut()?;
    let item_kind = object.get("kind")?.as_str()?.strip_suffix("List")?.to_owned();
    let api_version = object.get("apiVersion").and_then(Value::as_str).map(str::to_owned);
    let items = match object.get_mut("items")? {
        Value::Array(items) => std::mem::take(items),
        Value::Null => Vec::new(),
        _ => return None,
    };
    let item_type = api_version.filter(|_| !item_kind.is_empty()).map(|api_version| (api_version, item_kind));
    Some(List { items, item_type })
}

/// The file that tells kustomize what else is in the folder needs no type of its own.
fn is_kustomization(file: &Path, value: &Value) -> bool {
    file.file_stem().is_some_and(|stem| stem == "kustomization") && value.get("kind").is_none()
}

/// A guess for text that does not parse, on the safe side.
fn may_hold_secrets(text: &str) -> bool {
    let names = |line: &str| line.contains("Secret") || HOLDERS.iter().any(|(holder, _)| line.contains(holder));
    text.lines().any(|line| line.contains("kind") && names(line))
}

/// Problems of one file that are told. A generator that errs does so thousands of times.
const MAX_TOLD: usize = 1000;
const LAST_GOOD_STAYS: &str = "The last good version of this object stays in use.";
const MISSING_STAYS: &str = "Objects that this file gave before and does not name now stay in use.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_taken_apart_in_order() {
        let value = yaml::parse(
            "{kind: List, apiVersion: v1, items: [{kind: A}, {kind: HTTPRouteList, apiVersion: g/v1, items: [{}, {kind: B}]}, {kind: EmptyList, items: null}, {kind: AllowList, spec: {}}]}",
        );
        let mut values = Vec::new();
        flatten(3, 17, value.expect("it is YAML"), &mut values);
        let found: Vec<_> =
            values.iter().map(|(at, value)| (at.trail.as_ref(), value["kind"].as_str().unwrap())).collect();
        assert_eq!(found, [(&[0][..], "A"), (&[1, 0], "HTTPRoute"), (&[1, 1], "B"), (&[3], "AllowList")]);
        assert_eq!((values[1].0.document, values[1].0.line, &values[1].1["apiVersion"]), (3, 17, &Value::from("g/v1")));
    }
}
