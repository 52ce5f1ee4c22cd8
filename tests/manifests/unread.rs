//! Files of which some part cannot be read and never could be, and objects of which only the name is known.

use std::fs;

use portico::api::ObjectKey;
use portico::store::Store;

use super::Edit::{Delete, Put, Rename};
use super::{broken, check, config, documents, manifests_at, step};

/// A file that was renamed with an error may have the objects that are missing.
#[test]
fn missing_objects_stay_until_new_files_can_be_read() {
    check(
        &["."],
        vec![
            step(
                vec![Put("a.yaml", config("a", "1")), Put("b.yaml", config("b", "1"))],
                &["ConfigMap default/a@1", "ConfigMap default/b@1", "Namespace default@1"],
                &[],
                &[],
            ),
            step(vec![Put("a.yaml", "a: b: c\n".to_owned())], &[], &[], &["NotYaml a.yaml:1:5 -"]),
            step(vec![Rename("a.yaml", "z.yaml")], &[], &[], &["NotYaml z.yaml:1:5 -"]),
            step(vec![Delete("b.yaml")], &[], &[], &["NotYaml z.yaml:1:5 -"]),
            step(vec![Put("b.yaml", config("b", "2"))], &["ConfigMap default/b@2"], &[], &["NotYaml z.yaml:1:5 -"]),
            step(vec![Put("z.yaml", config("c", "1"))], &["ConfigMap default/c@1"], &["ConfigMap default/a"], &[]),
        ],
    );
}

#[test]
fn files_with_parts_that_may_be_any_object_are_unread() {
    for (text, is_unread) in [
        (config("a", "1"), false),
        (broken("a"), false),
        (config("a", "1").replace("name: a", "nam: a"), false),
        ("just text\n".to_owned(), false),
        ("- just\n- a list\n".to_owned(), false),
        ("services: {web: {image: shop}}\n".to_owned(), false),
        (documents(&[config("a", "1"), "a: b: c\n".to_owned()]), true),
        (config("a", "1").replace("kind: ConfigMap\n", ""), true),
        ("- apiVersion: v1\n".to_owned(), false),
        ("- apiVersion: gateway.networking.k8s.io/v1\n".to_owned(), true),
        ("apiVersion: v2\nname: shop\nversion: 1.0.0\n".to_owned(), false),
        ("{apiVersion: v1, kind: list, items: [{kind: ConfigMap}]}\n".to_owned(), true),
        ("{apiVersion: configuration.konghq.com/v1, kind: Plugin, metadata: {name: a}}\n".to_owned(), true),
        (String::new(), false),
        ("{kind: List, items: {}}\n".to_owned(), true),
        ("\u{0}\n".to_owned(), true),
    ] {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a.yaml");
        fs::write(&path, &text).unwrap();
        let mut manifests = manifests_at(temp.path(), &["."]);
        let unread: Vec<_> = manifests.read().unread.iter().map(|found| found.position.file.to_path_buf()).collect();
        assert_eq!(unread, if is_unread { vec![path.clone()] } else { Vec::new() }, "{text}");
        // Its objects are known once it could be read.
        fs::write(&path, config("b", "1")).unwrap();
        assert!(manifests.read().unread.is_empty(), "{text}");
        fs::write(&path, &text).unwrap();
        assert!(manifests.read().unread.is_empty(), "{text}");
    }
}

/// Otherwise, selectors such as NotIn would match it.
#[test]
fn rejected_namespaces_do_not_exist() {
    let temp = tempfile::tempdir().unwrap();
    let mut store = Store::default();
    let mut manifests = manifests_at(temp.path(), &["."]);
    let mut team_after = |namespace: Option<&str>| {
        let path = temp.path().join("namespace.yaml");
        match namespace {
            Some(labels) => {
                let text = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: default, labels: {labels}}}\n");
                fs::write(path, text).unwrap();
            }
            None => fs::remove_file(path).unwrap(),
        }
        store.apply(manifests.read().batch);
        let namespace = store.namespaces.get(&ObjectKey::cluster("default"));
        namespace.map(|namespace| namespace.meta.labels.get("team").map(ToString::to_string))
    };
    fs::write(temp.path().join("a.yaml"), config("a", "1")).unwrap();
    assert_eq!(team_after(Some("{team: 5}")), None);
    assert_eq!(team_after(None), Some(None), "it is implied");
    assert_eq!(team_after(Some("{team: 5}")), None);
    assert_eq!(team_after(Some("{team: a}")), Some(Some("a".to_owned())));
    assert_eq!(team_after(Some("{team: 5}")), Some(Some("a".to_owned())), "the last valid version stays");
}
