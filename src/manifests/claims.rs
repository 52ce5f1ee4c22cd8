//! Who holds which object: of several files that give the same one, the first in sort order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::record::Record;
use crate::api::names::NAMESPACE_NAME_LABEL;
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::store::{AnyObject, Batch};

pub(super) type Records = BTreeMap<Arc<Path>, Record>;

/// An object of a file: the file, and the index of the entry in its record.
pub(super) type Claim = (Arc<Path>, usize);

/// All claims, and what was told to the store.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Sorted: the first one holds the object.
    claims: BTreeMap<ObjectId, Vec<Claim>>,
    served: BTreeMap<ObjectId, Served>,
    /// Objects whose claims or content may have changed since the last `settle`.
    touched: BTreeSet<ObjectId>,
}

#[derive(Debug)]
struct Served {
    content: Content,
    generation: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// Of a file, by its hash.
    Given(u64),
    /// A Namespace that objects are in and no file gives.
    MadeUp,
}

impl Claims {
    /// Forgets what a file claimed, before its record changes.
    pub(super) fn withdraw(&mut self, file: &Path, record: &Record) {
        for entry in &record.entries {
            let id = entry.object.id();
            if let Some(claims) = self.claims.get_mut(&id) {
                claims.retain(|(claimant, _)| claimant.as_ref() != file);
                if claims.is_empty() {
                    self.claims.remove(&id);
                }
            }
            self.touched.insert(id);
        }
    }

    /// Takes in what a file claims now.
    pub(super) fn assert(&mut self, file: &Arc<Path>, record: &Record) {
        for (index, entry) in record.entries.iter().enumerate() {
            let id = entry.object.id();
            let claims = self.claims.entry(id.clone()).or_default();
            claims.push((Arc::clone(file), index));
            claims.sort();
            self.touched.insert(id);
        }
    }

    /// Says what changed for the store, and which objects were touched. The generation of an object is set where it is
    /// kept, so that the store and the record share it.
    pub(super) fn settle(&mut self, records: &mut Records) -> (Batch, BTreeSet<ObjectId>) {
        let mut batch = Batch::default();
        let touched = std::mem::take(&mut self.touched);
        for id in &touched {
            let Some((file, index)) = self.claims.get(id).and_then(|claims| claims.first()) else {
                // Namespaces may still be needed by what is in them; that is decided below.
                if id.kind != Kind::Namespace && self.served.remove(id).is_some() {
                    batch.removes.push(id.clone());
                }
                continue;
            };
            let Some(entry) = records.get_mut(file).and_then(|record| record.entries.get_mut(*index)) else { continue };
            let content = Content::Given(entry.hash);
            if let Some(generation) = self.next_generation(id, content) {
                entry.object.set_generation(generation);
                batch.upserts.push(entry.object.clone());
            }
        }
        if !touched.is_empty() {
            self.settle_namespaces(&mut batch);
        }
        batch.upserts.sort_by_cached_key(AnyObject::id);
        batch.removes.sort();
        (batch, touched)
    }

    /// Every file that gives an object, the one that holds it first.
    pub(super) fn of(&self, id: &ObjectId) -> &[Claim] {
        self.claims.get(id).map_or(&[], Vec::as_slice)
    }

    /// Objects that files give, each once.
    pub(super) fn held(&self) -> usize {
        self.claims.len()
    }

    fn settle_namespaces(&mut self, batch: &mut Batch) {
        let used: BTreeSet<&Arc<str>> =
            self.served.keys().filter(|id| id.kind.namespaced()).map(|id| &id.key.namespace).collect();
        let id_of = |name: &str| ObjectId::new(Kind::Namespace, ObjectKey::cluster(name));
        let missing: Vec<_> = used.iter().map(|name| id_of(name)).filter(|id| !self.claims.contains_key(id)).collect();
        let gone: Vec<_> = self
            .served
            .keys()
            .filter(|id| id.kind == Kind::Namespace && !self.claims.contains_key(id) && !used.contains(&id.key.name))
            .cloned()
            .collect();
        for id in gone {
            self.served.remove(&id);
            batch.removes.push(id);
        }
        for id in missing {
            if let Some(generation) = self.next_generation(&id, Content::MadeUp) {
                batch.upserts.push(made_up(&id.key.name, generation));
            }
        }
    }

    /// None if this content is served already.
    fn next_generation(&mut self, id: &ObjectId, content: Content) -> Option<i64> {
        if let Some(served) = self.served.get_mut(id) {
            if served.content == content {
                return None;
            }
            served.content = content;
            served.generation += 1;
            return Some(served.generation);
        }
        self.served.insert(id.clone(), Served { content, generation: 1 });
        Some(1)
    }
}

fn made_up(name: &str, generation: i64) -> AnyObject {
    let metadata = json!({"name": name, "generation": generation, "labels": {NAMESPACE_NAME_LABEL: name}});
    let value = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
    AnyObject::parse(Kind::Namespace, value).expect("a Namespace needs a name and labels only")
}
