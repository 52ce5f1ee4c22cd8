//! Objects that several files define: the first definition is used, with the plugins that any of them attaches.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use portico::api::kong::annotations::{GLOBAL_LABEL, INGRESS_CLASS, PLUGINS};
use portico::api::{Kind, ObjectId, ObjectKey};
use portico::kong_config::{self, FORMAT, FileContext, TranslationSettings};
use portico::manifests::{FileTranslator, ManifestUpdate, Manifests};
use portico::store::AnyObject;

use super::manifests_at;

/// Manifests that read declarative files, too, which are recognized by their text.
fn manifests_with_kong(root: &Path) -> Manifests {
    let settings = TranslationSettings { namespace: "default".to_owned(), class: "portico".to_owned() };
    let translator = FileTranslator::new(FORMAT, move |file| {
        kong_config::translate(file, &settings, &FileContext { variable: &|_| None, read_at: None })
    });
    manifests_at(root, &["."]).with_translated(Vec::new(), translator)
}

fn service(annotations: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: shop, annotations: {annotations}}}\n\
         spec: {{ports: [{{port: 80}}]}}\n"
    )
}

fn kong_service(plugins: &str) -> String {
    format!("_format_version: \"3.0\"\nservices: [{{name: shop, url: \"http://10.0.0.1\", plugins: {plugins}}}]\n")
}

/// The object in the batch of the update; `None` if it has not changed.
fn changed(update: &ManifestUpdate, kind: Kind, key: &ObjectKey) -> Option<AnyObject> {
    let id = ObjectId::new(kind, key.clone());
    update.batch.upserts.iter().find(|object| object.id() == id).cloned()
}

/// The generation of the Service in the batch of the update, and the plugins that it names.
fn shop(update: &ManifestUpdate) -> Option<(i64, String)> {
    let object = changed(update, Kind::Service, &ObjectKey::new("default", "shop"))?;
    let meta = object.meta();
    Some((meta.generation, meta.annotations.get(PLUGINS).map(ToString::to_string).unwrap_or_default()))
}

/// What the diagnostics of duplicates say about the definition that is used, without the path.
fn notes(root: &Path, update: &ManifestUpdate) -> Vec<String> {
    let root = format!("{}/", root.display());
    let duplicates = update.diagnostics.iter().filter(|reported| reported.reason() == "Duplicate");
    duplicates.map(|reported| reported.meanwhile.clone().unwrap_or_default().replace(&root, "")).collect()
}

const WITH_PLUGINS: &str = "is used, with the plugins that either of them names.";

/// A request to a service with `key-auth` in `kong.yml` needed no key, because a manifest had a Service of its name.
#[test]
fn plugins_of_all_definitions_stay_attached() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    let put = |file: &str, text: String| fs::write(root.join(file), text).unwrap();
    put("a.yaml", service("{}"));
    let mut manifests = manifests_with_kong(root);
    assert_eq!(shop(&manifests.read()), Some((1, String::new())));

    put("b.yaml", kong_service("[{name: key-auth}]"));
    let update = manifests.read();
    assert_eq!(shop(&update), Some((2, "shop-key-auth".to_owned())));
    assert_eq!(notes(root, &update), [format!("The object in a.yaml {WITH_PLUGINS}")]);
    assert_eq!(shop(&manifests.read()), None, "nothing has changed");

    // An edit of the other definition is a change, too, and one of what it does not attach is none.
    put("b.yaml", kong_service("[{name: key-auth}, {name: acl, config: {allow: [a]}}]"));
    assert_eq!(shop(&manifests.read()), Some((3, "shop-key-auth,shop-acl".to_owned())));
    put("b.yaml", format!("{}# The end.\n", kong_service("[{name: key-auth}, {name: acl, config: {allow: [a]}}]")));
    assert_eq!(shop(&manifests.read()), None);
    put("a.yaml", service("{konghq.com/plugins: \"cors, shop-acl\"}"));
    assert_eq!(shop(&manifests.read()), Some((4, "cors,shop-acl,shop-key-auth".to_owned())));

    fs::remove_file(root.join("b.yaml")).unwrap();
    let update = manifests.read();
    assert_eq!(shop(&update), Some((5, "cors, shop-acl".to_owned())), "the object is as in its file");
    assert_eq!(notes(root, &update), Vec::<String>::new());
}

#[test]
fn plugins_of_the_second_declarative_file_stay_attached() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    fs::write(root.join("a.yaml"), kong_service("[]")).unwrap();
    fs::write(root.join("b.yaml"), kong_service("[{name: key-auth}]")).unwrap();
    let mut manifests = manifests_with_kong(root);
    let update = manifests.read();
    assert_eq!(shop(&update), Some((1, "shop-key-auth".to_owned())));
    fs::write(root.join("a.yaml"), kong_service("[{name: key-auth}]")).unwrap();
    let update = manifests.read();
    assert_eq!(shop(&update), Some((2, "shop-key-auth".to_owned())));
    let notes = notes(root, &update);
    let adds_nothing = |note: &String| note == "The object in a.yaml is used.";
    assert!(!notes.is_empty() && notes.iter().all(adds_nothing), "{notes:?}");
}

/// A global plugin of `kong.yml` was not global any more if a manifest had a KongClusterPlugin of its name.
#[test]
fn plugins_stay_global() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    let manifest = "apiVersion: configuration.konghq.com/v1\nkind: KongClusterPlugin\nmetadata: {name: key-auth}\n\
                    plugin: key-auth\n";
    fs::write(root.join("a.yaml"), manifest).unwrap();
    fs::write(root.join("kong.yml"), "_format_version: \"3.0\"\nplugins: [{name: key-auth}]\n").unwrap();
    let mut manifests = manifests_with_kong(root);
    let update = manifests.read();
    let plugin = |update: &ManifestUpdate| {
        let object = changed(update, Kind::KongClusterPlugin, &ObjectKey::cluster("key-auth"))?;
        let meta = object.meta();
        let text = |value: Option<&Arc<str>>| value.map(ToString::to_string);
        Some((meta.generation, text(meta.labels.get(GLOBAL_LABEL)), text(meta.annotations.get(INGRESS_CLASS))))
    };
    assert_eq!(plugin(&update), Some((1, Some("true".to_owned()), Some("portico".to_owned()))));
    let note = "The object in a.yaml is used, with the label `global` and the class of this one.";
    assert_eq!(notes(root, &update), [note]);

    fs::remove_file(root.join("kong.yml")).unwrap();
    assert_eq!(plugin(&manifests.read()), Some((2, None, None)));
}

/// A definition that is not valid protects, too, and one that may have moved to a file with an error.
#[test]
fn plugins_of_definitions_with_errors_stay_attached() {
    let route = |file: &str, annotations: &str, spec: &str| {
        let head = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n";
        fs::write(file, format!("{head}metadata: {{name: shop, annotations: {annotations}}}\nspec: {spec}\n")).unwrap();
    };
    let temp = tempfile::tempdir().unwrap();
    let path = |file: &str| temp.path().join(file).display().to_string();
    let plugins = |update: &ManifestUpdate| {
        let object = changed(update, Kind::HttpRoute, &ObjectKey::new("default", "shop"))?;
        Some(object.meta().annotations.get(PLUGINS).map(ToString::to_string).unwrap_or_default())
    };
    route(&path("a.yaml"), "{konghq.com/plugins: cors}", "{}");
    route(&path("b.yaml"), "{konghq.com/plugins: keys}", "{rules: 5}");
    let mut manifests = manifests_at(temp.path(), &["."]);
    assert_eq!(plugins(&manifests.read()).as_deref(), Some("cors,keys"));
    fs::write(path("c.yaml"), "a: b: c\n").unwrap();
    fs::remove_file(path("b.yaml")).unwrap();
    assert_eq!(plugins(&manifests.read()), None, "it may be in c.yaml now");
    route(&path("c.yaml"), "{konghq.com/plugins: keys}", "{rules: 5}");
    assert_eq!(plugins(&manifests.read()), None);
    fs::remove_file(path("c.yaml")).unwrap();
    assert_eq!(plugins(&manifests.read()).as_deref(), Some("cors"));
}
