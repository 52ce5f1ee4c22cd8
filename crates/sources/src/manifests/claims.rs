//! Which file defines which object, and what changed for the store. If an object is defined several times, the first
//! definition is used, by the path of the file and the position in it, with the plugins of all. Namespaces that no file
//! defines are added.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::attachments::Attachments;
use super::record::{FileObject, FileRecord};
use crate::api::names::NAMESPACE_NAME_LABEL;
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::store::{AnyObject, Batch};

pub(super) type Records = BTreeMap<Arc<Path>, FileRecord>;

/// The definition of an object: the file, and the index of the entry in its record.
pub(super) type ObjectClaim = (Arc<Path>, usize);

/// All claims, and the objects last reported to the store.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// The claims of an object are sorted: the first one defines it.
    claims: BTreeMap<ObjectId, Vec<ObjectClaim>>,
    /// The same for definitions that are not valid, which are used for objects without a valid one.
    rejected: BTreeMap<ObjectId, Vec<ObjectClaim>>,
    reported: BTreeMap<ObjectId, ReportedObject>,
    /// Objects whose claims or content may have changed since the previous `take_changes`, and those that it kept
    /// although no file defines them.
    touched: BTreeSet<ObjectId>,
}

/// The state of an object that was last reported to the store.
#[derive(Debug)]
struct ReportedObject {
    content: ClaimedContent,
    /// Its plugins, and those that other definitions add.
    attached: Attachments,
    /// The files of its definitions, valid or not.
    files: BTreeSet<Arc<Path>>,
    generation: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClaimedContent {
    /// From a file; the hash of its content.
    FromFile(u64),
    /// What is left of an object that is not valid in any file. It counts no generation.
    Rejected(u64),
    /// A Namespace that contains objects but is not defined in any file.
    Implied,
}

impl Claims {
    /// Removes the claims of a file, before its record changes.
    pub(super) fn remove(&mut self, file: &Path, record: &FileRecord) {
        for entry in &record.entries {
            let id = entry.object.id();
            for all in [&mut self.claims, &mut self.rejected] {
                if let Some(claims) = all.get_mut(&id) {
                    claims.retain(|(claiming_file, _)| claiming_file.as_ref() != file);
                    if claims.is_empty() {
                        all.remove(&id);
                    }
                }
            }
            self.touched.insert(id);
        }
    }

    /// Adds the claims of a file.
    pub(super) fn add(&mut self, file: &Arc<Path>, record: &FileRecord) {
        for (index, entry) in record.entries.iter().enumerate() {
            let id = entry.object.id();
            let all = if entry.is_rejected() { &mut self.rejected } else { &mut self.claims };
            let claims = all.entry(id.clone()).or_default();
            claims.push((Arc::clone(file), index));
            claims.sort();
            self.touched.insert(id);
        }
    }

    /// Returns the changes for the store, and the touched objects. The generation is set on the object in the record,
    /// so that the store and the record share it, unless other definitions add plugins. `keeps_missing`: objects that
    /// no file defines any more are not removed before a later call, and neither are plugins of missing definitions.
    pub(super) fn take_changes(&mut self, records: &mut Records, keeps_missing: bool) -> (Batch, BTreeSet<ObjectId>) {
        let mut batch = Batch::default();
        let touched = std::mem::take(&mut self.touched);
        for id in &touched {
            let definitions = self.claims.get(id).or_else(|| self.rejected.get(id));
            let Some((file, index)) = definitions.and_then(|claims| claims.first()) else {
                // A Namespace may still be needed by the objects in it; that is decided below.
                if id.kind == Kind::Namespace || !self.reported.contains_key(id) {
                    continue;
                }
                if keeps_missing {
                    self.touched.insert(id.clone());
                } else {
                    self.reported.remove(id);
                    batch.removes.push(id.clone());
                }
                continue;
            };
            let (mut attached, mut files) = self.attachments(id, records);
            if let Some(reported) = self.reported.get(id)
                && keeps_missing
                && !reported.files.is_subset(&files)
            {
                let mut kept = attached.clone();
                kept.add(&reported.attached);
                if kept != attached {
                    attached = kept;
                    files.extend(reported.files.iter().cloned());
                    self.touched.insert(id.clone());
                }
            }
            let Some(entry) = records.get_mut(file).and_then(|record| record.entries.get_mut(*index)) else { continue };
            let content = match entry.is_rejected() {
                true => ClaimedContent::Rejected(entry.content_hash),
                false => ClaimedContent::FromFile(entry.content_hash),
            };
            let is_implied =
                |reported: &ReportedObject| entry.is_rejected() && reported.content == ClaimedContent::Implied;
            if self.reported.get(id).is_some_and(is_implied) {
                // The labels of the implied Namespace are not those of the rejected one.
                batch.removes.push(id.clone());
            }
            let added = (attached != Attachments::of(&entry.object)).then(|| attached.clone());
            if let Some(generation) = self.next_generation(id, content, attached, files) {
                entry.object.set_generation(generation);
                let mut object = entry.object.clone();
                if let Some(added) = added {
                    // Not in the record: the object loses them when the other definition does.
                    added.attach_to(&mut object);
                }
                batch.upserts.push(object);
            }
        }
        if !touched.is_empty() {
            self.update_implied_namespaces(&mut batch);
        }
        batch.upserts.sort_by_cached_key(AnyObject::id);
        batch.removes.sort();
        (batch, touched)
    }

    /// All valid definitions of an object; the one in use comes first.
    pub(super) fn claims_for(&self, id: &ObjectId) -> &[ObjectClaim] {
        self.claims.get(id).map_or(&[], Vec::as_slice)
    }

    /// The definition of an object to which its diagnostics refer.
    pub(super) fn definition(&self, id: &ObjectId) -> Option<&ObjectClaim> {
        self.claims.get(id).or_else(|| self.rejected.get(id))?.first()
    }

    /// What all definitions of an object attach, beginning with the one that is used, and their files. The plugins of
    /// one that is not valid count, too, as far as they can be read.
    fn attachments(&self, id: &ObjectId, records: &Records) -> (Attachments, BTreeSet<Arc<Path>>) {
        let all = [&self.claims, &self.rejected].into_iter().filter_map(|claims| claims.get(id)).flatten();
        let mut attached: Option<Attachments> = None;
        let mut files = BTreeSet::new();
        for claim in all {
            let Some(definition) = definition_at(records, claim) else { continue };
            let of_definition = Attachments::of(&definition.object);
            match &mut attached {
                Some(attached) => attached.add(&of_definition),
                None => attached = Some(of_definition),
            }
            files.insert(Arc::clone(&claim.0));
        }
        (attached.unwrap_or_default(), files)
    }

    /// Whether objects stay in use that no file defines any more.
    pub(super) fn keeps_missing(&self) -> bool {
        !self.touched.is_empty()
    }

    /// The number of distinct valid objects in the files.
    pub(super) fn object_count(&self) -> usize {
        self.claims.len()
    }

    /// Adds the Namespaces that objects are in but no file defines, and removes those without objects. A rejected
    /// Namespace is not added: its labels are unknown, so no selector may match it.
    fn update_implied_namespaces(&mut self, batch: &mut Batch) {
        let valid = self.reported.iter().filter(|(_, known)| !matches!(known.content, ClaimedContent::Rejected(_)));
        let used: BTreeSet<&Arc<str>> =
            valid.map(|(id, _)| id).filter(|id| id.kind.namespaced()).map(|id| &id.key.namespace).collect();
        let id_of = |name: &str| ObjectId::new(Kind::Namespace, ObjectKey::cluster(name));
        let is_defined = |id: &ObjectId| self.claims.contains_key(id) || self.rejected.contains_key(id);
        let undefined: Vec<_> = used.iter().map(|name| id_of(name)).filter(|id| !is_defined(id)).collect();
        let removed: Vec<_> = self
            .reported
            .keys()
            .filter(|id| id.kind == Kind::Namespace && !is_defined(id) && !used.contains(&id.key.name))
            .cloned()
            .collect();
        for id in removed {
            self.reported.remove(&id);
            batch.removes.push(id);
        }
        for id in undefined {
            if let Some(generation) =
                self.next_generation(&id, ClaimedContent::Implied, Attachments::default(), BTreeSet::new())
            {
                batch.upserts.push(implied_namespace(&id.key.name, generation));
            }
        }
    }

    /// The generation for new content or attachments; `None` if the store already has these.
    fn next_generation(
        &mut self,
        id: &ObjectId,
        content: ClaimedContent,
        attached: Attachments,
        files: BTreeSet<Arc<Path>>,
    ) -> Option<i64> {
        let is_counted = i64::from(!matches!(content, ClaimedContent::Rejected(_)));
        if let Some(reported) = self.reported.get_mut(id) {
            reported.files = files;
            if (reported.content, &reported.attached) == (content, &attached) {
                return None;
            }
            (reported.content, reported.attached) = (content, attached);
            reported.generation += is_counted;
            return Some(reported.generation);
        }
        self.reported.insert(id.clone(), ReportedObject { content, attached, files, generation: is_counted });
        Some(is_counted)
    }
}

fn definition_at<'r>(records: &'r Records, (file, index): &ObjectClaim) -> Option<&'r FileObject> {
    records.get(file)?.entries.get(*index)
}

fn implied_namespace(name: &str, generation: i64) -> AnyObject {
    let metadata = json!({"name": name, "generation": generation, "labels": {NAMESPACE_NAME_LABEL: name}});
    let value = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
    AnyObject::parse(Kind::Namespace, value).expect("a Namespace requires only a name and labels")
}
