//! Files and a cluster as sources at once: of an object that both give, the cluster's counts.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::ObjectId;
use crate::manifests::{Manifests, Refusal, Severity};
use crate::store::{AnyObject, Batch};

/// Who gives what. Only needed while there are two sources.
#[derive(Debug, Default)]
pub(super) struct Overlap {
    files: BTreeMap<ObjectId, AnyObject>,
    cluster: BTreeSet<ObjectId>,
}

impl Overlap {
    /// What of a batch of the files reaches the store.
    pub(super) fn of_files(&mut self, batch: Batch) -> Batch {
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

    /// What of a batch of the cluster reaches the store: where it takes an object back, that of a file comes in its place.
    pub(super) fn of_cluster(&mut self, batch: Batch) -> Batch {
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
            // Later than what may have been put in its place above.
            passed.upserts.push(object);
        }
        passed
    }

    /// A remark for each object of a file that is not used. What no file spells out, such as a namespace that is made up
    /// for its objects, is no news to anybody.
    pub(super) fn refusals(&self, manifests: &Manifests) -> Vec<Refusal> {
        let both: Vec<_> = self.files.keys().filter(|id| self.cluster.contains(*id)).collect();
        let fields: Vec<_> = both.iter().map(|id| (*id, "metadata.name")).collect();
        let places = manifests.places(&fields);
        let remarks = both.iter().zip(places).filter_map(|(id, place)| {
            Some(Refusal {
                place: place?,
                object: Some(id.to_string()),
                field: "metadata.name".to_owned(),
                reason: "InCluster",
                message: "the cluster has this object too".to_owned(),
                remedy: "delete one of the two, or give this one another name".to_owned(),
                meanwhile: Some("The cluster's is used.".to_owned()),
                severity: Severity::Warning,
            })
        });
        remarks.collect()
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

    fn from(store: &Store) -> Vec<String> {
        let tell = |object: &crate::api::Object<_>| format!("{} {}", object.meta.key, object.meta.labels["from"]);
        store.namespaces.values().map(|object| tell(object)).collect()
    }

    #[test]
    fn the_cluster_wins_while_it_has_the_object() {
        let (mut overlap, mut store) = (Overlap::default(), Store::default());
        let id = |name: &str| ObjectId::new(Kind::Namespace, ObjectKey::cluster(name));
        let put = |objects: Vec<AnyObject>| Batch { upserts: objects, removes: Vec::new() };
        let take = |ids: Vec<ObjectId>| Batch { upserts: Vec::new(), removes: ids };
        store.apply(overlap.of_files(put(vec![namespace("a", "file"), namespace("b", "file")])));
        store.apply(overlap.of_cluster(put(vec![namespace("a", "cluster"), namespace("c", "cluster")])));
        assert_eq!(from(&store), ["a cluster", "b file", "c cluster"]);
        store.apply(overlap.of_files(put(vec![namespace("a", "edited file"), namespace("c", "file")])));
        assert_eq!(from(&store), ["a cluster", "b file", "c cluster"]);
        store.apply(overlap.of_cluster(take(vec![id("a")])));
        assert_eq!(from(&store), ["a edited file", "b file", "c cluster"]);
        let again = Batch { upserts: vec![namespace("a", "newer cluster")], removes: vec![id("a")] };
        store.apply(overlap.of_cluster(again));
        assert_eq!(from(&store)[0], "a newer cluster");
        store.apply(overlap.of_files(take(vec![id("a"), id("b"), id("c")])));
        assert_eq!(from(&store), ["a newer cluster", "c cluster"]);
        store.apply(overlap.of_cluster(take(vec![id("a"), id("c")])));
        assert_eq!(from(&store), [""; 0]);
    }

    #[test]
    fn a_file_that_is_not_used_is_told_where_it_stands() {
        let folder = tempfile::tempdir().unwrap();
        let text =
            "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {ports: [{port: 80}]}\n";
        std::fs::write(folder.path().join("a.yaml"), text).unwrap();
        let mut manifests = Manifests::new(vec![folder.path().into()], Channel::Standard);
        let mut overlap = Overlap::default();
        overlap.of_files(manifests.read().batch);
        assert_eq!(overlap.refusals(&manifests), []);
        let cluster = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {}});
        let upserts = vec![AnyObject::parse(Kind::Service, cluster).unwrap(), namespace("shop", "cluster")];
        overlap.of_cluster(Batch { upserts, removes: Vec::new() });
        let refusals = overlap.refusals(&manifests);
        let told: Vec<_> = refusals.iter().map(|told| (told.object.as_deref().unwrap(), told.place.line)).collect();
        assert_eq!(told, [("Service shop/web", 3)]);
    }
}
