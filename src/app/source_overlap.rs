//! Precedence between files and a cluster: if both contain an object, the cluster's is used.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::ObjectId;
use crate::diagnostic::{Diagnostic, Reason};
use crate::manifests::{ManifestDiagnostic, Manifests};
use crate::store::{AnyObject, Batch};

/// The objects of both sources. Needed only if there are two sources.
#[derive(Debug, Default)]
pub(super) struct SourceOverlap {
    files: BTreeMap<ObjectId, AnyObject>,
    cluster: BTreeSet<ObjectId>,
}

impl SourceOverlap {
    /// Filters a batch of the files: objects that the cluster has are left out.
    pub(super) fn filter_files(&mut self, batch: Batch) -> Batch {
        let mut passed = Batch::default();
        for id in batch.removes {
            self.files.remove(&id);
            if !self.cluster.contains(&id) {
                passed.removes.push(id);
            }
        }
        for object in batch.upserts {
            let id = object.id();
            self.files.insert(id.clone(), object.clone());
            if !self.cluster.contains(&id) {
                passed.upserts.push(object);
            }
        }
        passed
    }

    /// Filters a batch of the cluster: an object that the batch removes is replaced by that of a file, if any.
    pub(super) fn filter_cluster(&mut self, batch: Batch) -> Batch {
        let mut passed = Batch::default();
        for id in batch.removes {
            self.cluster.remove(&id);
            match self.files.get(&id) {
                Some(object) => passed.upserts.push(object.clone()),
                None => passed.removes.push(id),
            }
        }
        for object in batch.upserts {
            self.cluster.insert(object.id());
            // The store replaces the object of a file by that of the cluster.
            passed.upserts.push(object);
        }
        passed
    }

    /// A warning for each object in a file that is not used. Objects without a position in a file, such as implied
    /// namespaces, are skipped.
    pub(super) fn warnings(&self, manifests: &Manifests) -> Vec<ManifestDiagnostic> {
        let both: Vec<_> = self.files.keys().filter(|id| self.cluster.contains(*id)).collect();
        let fields: Vec<_> = both.iter().map(|id| (*id, "metadata.name")).collect();
        let positions = manifests.positions(&fields);
        let warnings = both.iter().zip(positions).filter_map(|(id, position)| {
            Some(ManifestDiagnostic {
                position: position?,
                object: Some(id.to_string()),
                diagnostic: Diagnostic::warning(
                    "metadata.name",
                    "the cluster contains this object too",
                    "delete one of them, or rename this one",
                )
                .with_reason(Reason::Named("InCluster")),
                meanwhile: Some("The object of the cluster is used.".to_owned()),
            })
        });
        warnings.collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::{Kind, ObjectKey};
    use crate::schema::Channel;
    use crate::store::Store;

    fn namespace(name: &str, from: &str) -> AnyObject {
        AnyObject::parse(Kind::Namespace, json!({"metadata": {"name": name, "labels": {"from": from}}})).unwrap()
    }

    fn names_and_sources(store: &Store) -> Vec<String> {
        let describe = |object: &crate::api::Object<_>| format!("{} {}", object.meta.key, object.meta.labels["from"]);
        store.namespaces.values().map(|object| describe(object)).collect()
    }

    #[test]
    fn cluster_objects_take_precedence() {
        let (mut overlap, mut store) = (SourceOverlap::default(), Store::default());
        let id = |name: &str| ObjectId::new(Kind::Namespace, ObjectKey::cluster(name));
        let upsert = |objects: Vec<AnyObject>| Batch { upserts: objects, removes: Vec::new() };
        let remove = |ids: Vec<ObjectId>| Batch { upserts: Vec::new(), removes: ids };
        store.apply(overlap.filter_files(upsert(vec![namespace("a", "file"), namespace("b", "file")])));
        store.apply(overlap.filter_cluster(upsert(vec![namespace("a", "cluster"), namespace("c", "cluster")])));
        assert_eq!(names_and_sources(&store), ["a cluster", "b file", "c cluster"]);
        store.apply(overlap.filter_files(upsert(vec![namespace("a", "edited file"), namespace("c", "file")])));
        assert_eq!(names_and_sources(&store), ["a cluster", "b file", "c cluster"]);
        store.apply(overlap.filter_cluster(remove(vec![id("a")])));
        assert_eq!(names_and_sources(&store), ["a edited file", "b file", "c cluster"]);
        let replacement = Batch { upserts: vec![namespace("a", "newer cluster")], removes: vec![id("a")] };
        store.apply(overlap.filter_cluster(replacement));
        assert_eq!(names_and_sources(&store)[0], "a newer cluster");
        store.apply(overlap.filter_files(remove(vec![id("a"), id("b"), id("c")])));
        assert_eq!(names_and_sources(&store), ["a newer cluster", "c cluster"]);
        store.apply(overlap.filter_cluster(remove(vec![id("a"), id("c")])));
        assert_eq!(names_and_sources(&store), [""; 0]);
    }

    #[test]
    fn unused_file_object_is_reported_with_its_position() {
        let folder = tempfile::tempdir().unwrap();
        let text =
            "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {ports: [{port: 80}]}\n";
        std::fs::write(folder.path().join("a.yaml"), text).unwrap();
        let mut manifests = Manifests::new(vec![folder.path().into()], Channel::Standard);
        let mut overlap = SourceOverlap::default();
        overlap.filter_files(manifests.read().batch);
        assert_eq!(overlap.warnings(&manifests), []);
        let cluster = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {}});
        let upserts = vec![AnyObject::parse(Kind::Service, cluster).unwrap(), namespace("shop", "cluster")];
        overlap.filter_cluster(Batch { upserts, removes: Vec::new() });
        let warnings = overlap.warnings(&manifests);
        let texts: Vec<_> =
            warnings.iter().map(|warning| (warning.object.as_deref().unwrap(), warning.position.line)).collect();
        assert_eq!(texts, [("Service shop/web", 3)]);
    }
}
