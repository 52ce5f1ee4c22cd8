//! Manifests on disk under edits by users, editors and kubelets: the resulting objects and diagnostics.

mod duplicates;
mod unread;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use portico::api::{Kind, ObjectId, ObjectKey};
use portico::diagnostic::Severity;
use portico::manifests::{ChangedPaths, ManifestUpdate, ManifestWatcher, Manifests};
use portico::report;
use portico::schema::Channel;
use portico::store::AnyObject;

/// A change of files below the root of a test.
enum Edit {
    Put(&'static str, String),
    /// Saves like an editor: writes a temporary file and renames it.
    Save(&'static str, String),
    Delete(&'static str),
    Rename(&'static str, &'static str),
    Folder(&'static str),
    Link {
        target: &'static str,
        path: &'static str,
    },
    /// Replaces a link atomically, like the kubelet does with `..data`.
    SwapLink {
        target: &'static str,
        path: &'static str,
    },
}

use Edit::{Delete, Folder, Link, Put, Rename, Save, SwapLink};

/// Edits, and the update expected from reading the manifests after them. Objects are written `Kind key@generation`,
/// diagnostics `Reason position object`.
struct Step {
    edits: Vec<Edit>,
    upserts: &'static [&'static str],
    removes: &'static [&'static str],
    diagnostics: &'static [&'static str],
}

fn step(
    edits: Vec<Edit>,
    upserts: &'static [&'static str],
    removes: &'static [&'static str],
    diagnostics: &'static [&'static str],
) -> Step {
    Step { edits, upserts, removes, diagnostics }
}

/// Runs the steps in a temporary folder. Paths of the command line and in messages are relative to it.
fn check(paths: &[&str], steps: Vec<Step>) {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    let mut manifests = None;
    // Objects of which the store only knows that they were rejected.
    let mut rejected = BTreeSet::new();
    for (number, step) in steps.into_iter().enumerate() {
        let changed = step.edits.into_iter().flat_map(|edit| apply(root, edit)).collect();
        // Later reads use only the paths that a watcher would report. The complete read `again` shows that they
        // suffice.
        let update = match &mut manifests {
            None => manifests.insert(manifests_at(root, paths)).read(),
            Some(manifests) => manifests.read_changed(&ChangedPaths::Paths(changed)),
        };
        let manifests = manifests.as_mut().unwrap();
        let removes = update.batch.removes.iter().filter(|id| !rejected.remove(*id)).map(ToString::to_string);
        assert_eq!(removes.collect::<Vec<_>>(), step.removes, "removes of step {number}");
        let (of_rejected, valid): (Vec<_>, Vec<_>) =
            update.batch.upserts.iter().partition(|object| matches!(object, AnyObject::Unparseable(_)));
        let upserts = valid.iter().map(|object| format!("{}@{}", object.id(), object.meta().generation));
        assert_eq!(upserts.collect::<Vec<_>>(), step.upserts, "upserts of step {number}");
        for object in &valid {
            rejected.remove(&object.id());
        }
        rejected.extend(of_rejected.iter().map(|object| object.id()));
        assert_eq!(described(root, &update), step.diagnostics, "diagnostics of step {number}");
        let again = manifests.read();
        assert!(
            again.batch.upserts.is_empty() && again.batch.removes.is_empty(),
            "step {number}: reading everything again changes objects"
        );
        assert_eq!(
            again.diagnostics, update.diagnostics,
            "step {number}: reading everything again changes diagnostics"
        );
    }
}

fn manifests_at(root: &Path, paths: &[&str]) -> Manifests {
    let paths = paths.iter().map(|path| if *path == "." { root.to_owned() } else { root.join(path) }).collect();
    Manifests::with_input(paths, Channel::Standard, io::empty())
}

/// The diagnostics of an update as in `Step`, with paths relative to the root.
fn described(root: &Path, update: &ManifestUpdate) -> Vec<String> {
    let root = root.display().to_string();
    let relative = |position: String| position.replace(&format!("{root}/"), "").replace(&root, ".");
    let described = update.diagnostics.iter().map(|reported| {
        let object = reported.object.as_deref().unwrap_or("-");
        if reported.reason() == "Invalid" {
            // Which field the schema reports first does not matter here.
            return format!("Invalid {} {object}", relative(reported.position.file.display().to_string()));
        }
        format!("{} {} {object}", reported.reason(), relative(reported.position.to_string()))
    });
    described.collect()
}

/// Applies an edit and returns the paths that a watcher would report.
fn apply(root: &Path, edit: Edit) -> Vec<PathBuf> {
    let absolute = |path: &str| root.join(path);
    let touched = match &edit {
        Put(path, _) | Delete(path) | Folder(path) | Link { path, .. } => vec![absolute(path)],
        Save(path, _) => vec![absolute(&format!("{path}~")), absolute(path)],
        Rename(from, to) => vec![absolute(from), absolute(to)],
        SwapLink { path, .. } => vec![absolute(&format!("{path}_tmp")), absolute(path)],
    };
    match edit {
        Put(path, text) => fs::write(absolute(path), text).unwrap(),
        Save(path, text) => {
            let temporary = absolute(&format!("{path}~"));
            fs::write(&temporary, text).unwrap();
            fs::rename(temporary, absolute(path)).unwrap();
        }
        Delete(path) if absolute(path).is_dir() => fs::remove_dir_all(absolute(path)).unwrap(),
        Delete(path) => fs::remove_file(absolute(path)).unwrap(),
        Rename(from, to) => fs::rename(absolute(from), absolute(to)).unwrap(),
        Folder(path) => fs::create_dir_all(absolute(path)).unwrap(),
        Link { target, path } => symlink(target, absolute(path)).unwrap(),
        SwapLink { target, path } => {
            let temporary = absolute(&format!("{path}_tmp"));
            symlink(target, &temporary).unwrap();
            fs::rename(temporary, absolute(path)).unwrap();
        }
    }
    // Events name the watched folder, which is the target of any links.
    let canonical = |path: PathBuf| {
        let folder = path.parent().and_then(|folder| fs::canonicalize(folder).ok());
        folder.and_then(|folder| Some(folder.join(path.file_name()?))).unwrap_or(path)
    };
    touched.into_iter().map(canonical).collect()
}

fn config(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  key: v{value}\n")
}

/// Valid YAML, but not a valid ConfigMap.
fn broken(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata: 7\n")
}

fn documents(texts: &[String]) -> String {
    texts.join("---\n")
}

#[test]
fn updates_contain_only_differences() {
    check(
        &["."],
        vec![
            step(
                vec![Put("a.yaml", config("a", "1")), Put("b.yml", documents(&[config("b", "1"), config("c", "1")]))],
                &["ConfigMap default/a@1", "ConfigMap default/b@1", "ConfigMap default/c@1", "Namespace default@1"],
                &[],
                &[],
            ),
            step(vec![Put("a.yaml", config("a", "1"))], &[], &[], &[]),
            step(vec![Put("a.yaml", format!("# a comment\n{}", config("a", "1")))], &[], &[], &[]),
            step(vec![Put("a.yaml", config("a", "2"))], &["ConfigMap default/a@2"], &[], &[]),
            step(vec![Put("b.yml", config("c", "1"))], &[], &["ConfigMap default/b"], &[]),
            step(vec![Rename("b.yml", "z.yaml")], &[], &[], &[]),
            step(vec![Delete("z.yaml")], &[], &["ConfigMap default/c"], &[]),
            step(vec![Put("empty.yaml", "---\n# nothing\n---\n".to_owned())], &[], &[], &[]),
            step(
                vec![Delete("a.yaml"), Delete("empty.yaml")],
                &[],
                &["ConfigMap default/a", "Namespace default"],
                &["EmptyFolder . -"],
            ),
        ],
    );
}

#[test]
fn broken_objects_keep_their_last_valid_version() {
    let good = || documents(&[config("a", "1"), config("b", "1"), config("c", "1")]);
    check(
        &["all.yaml"],
        vec![
            step(
                vec![Put("all.yaml", good())],
                &["ConfigMap default/a@1", "ConfigMap default/b@1", "ConfigMap default/c@1", "Namespace default@1"],
                &[],
                &[],
            ),
            // Object `b` is invalid: its last valid version is kept. Objects `a` and `c` are updated, and `d` is new.
            step(
                vec![Save("all.yaml", documents(&[config("a", "2"), broken("b"), config("c", "2"), config("d", "1")]))],
                &["ConfigMap default/a@2", "ConfigMap default/c@2", "ConfigMap default/d@1"],
                &[],
                &["Invalid all.yaml ConfigMap default/b"],
            ),
            // The file is not YAML: all of its objects are kept.
            step(vec![Put("all.yaml", "a: b: c\n".to_owned())], &[], &[], &["NotYaml all.yaml:1:5 -"]),
            // The errors of all documents are reported.
            step(
                vec![Put("all.yaml", documents(&["a: b: c\n".to_owned(), broken("b"), "a: [\n".to_owned()]))],
                &[],
                &[],
                &["NotYaml all.yaml:1:5 -", "Invalid all.yaml ConfigMap default/b", "NotYaml all.yaml:9:4 -"],
            ),
            // Truncated, as by `render > all.yaml` before its first output.
            step(vec![Put("all.yaml", String::new())], &[], &[], &["EmptyFile all.yaml -"]),
            // The file is fixed. Object `b` is the same as its kept version, so it is no upsert.
            step(
                vec![Put("all.yaml", good())],
                &["ConfigMap default/a@3", "ConfigMap default/c@3"],
                &["ConfigMap default/d"],
                &[],
            ),
            // An object without a name does not count as deleted.
            step(
                vec![Put("all.yaml", good().replace("name: b", "nam: b"))],
                &[],
                &[],
                &["NoName all.yaml:10:1 ConfigMap", "UnknownField all.yaml:11:3 ConfigMap"],
            ),
            step(
                vec![Put("all.yaml", good().replacen("kind: ConfigMap", "kind: ConfigMpa", 1))],
                &[],
                &[],
                &["UnknownKind all.yaml:2:7 ConfigMpa default/a"],
            ),
            // Object `x` is new and invalid, so there is no version to keep.
            step(
                vec![Put("all.yaml", documents(&[broken("x"), config("a", "1")]))],
                &[],
                &["ConfigMap default/b", "ConfigMap default/c"],
                &["Invalid all.yaml ConfigMap default/x"],
            ),
        ],
    );
}

#[test]
fn first_duplicate_wins() {
    check(
        &["."],
        vec![
            step(vec![Put("b.yaml", config("x", "b"))], &["ConfigMap default/x@1", "Namespace default@1"], &[], &[]),
            step(
                vec![Put("a.yaml", config("x", "a"))],
                &["ConfigMap default/x@2"],
                &[],
                &["Duplicate b.yaml:4:9 ConfigMap default/x"],
            ),
            step(
                vec![Put("c.yaml", documents(&[config("x", "c"), config("x", "d")]))],
                &[],
                &[],
                &[
                    "Duplicate b.yaml:4:9 ConfigMap default/x",
                    "Duplicate c.yaml:4:9 ConfigMap default/x",
                    "Duplicate c.yaml:11:9 ConfigMap default/x",
                ],
            ),
            step(vec![Delete("a.yaml"), Delete("c.yaml")], &["ConfigMap default/x@3"], &[], &[]),
            // The duplicate has the same content: no object changes, but the duplicate is reported.
            step(vec![Put("c.yaml", config("x", "b"))], &[], &[], &["Duplicate c.yaml:4:9 ConfigMap default/x"]),
            step(vec![Delete("b.yaml")], &[], &[], &[]),
        ],
    );
}

#[test]
fn config_map_volumes_are_swapped_atomically() {
    check(
        &["volume"],
        vec![
            step(
                vec![
                    Folder("volume/..2026_1"),
                    Put("volume/..2026_1/one.yaml", config("one", "1")),
                    Put("volume/..2026_1/two.yaml", config("two", "1")),
                    Link { target: "..2026_1", path: "volume/..data" },
                    Link { target: "..data/one.yaml", path: "volume/one.yaml" },
                    Link { target: "..data/two.yaml", path: "volume/two.yaml" },
                ],
                &["ConfigMap default/one@1", "ConfigMap default/two@1", "Namespace default@1"],
                &[],
                &[],
            ),
            step(
                vec![
                    Folder("volume/..2026_2"),
                    Put("volume/..2026_2/one.yaml", config("one", "2")),
                    Put("volume/..2026_2/two.yaml", config("two", "1")),
                ],
                &[],
                &[],
                &[],
            ),
            step(
                vec![SwapLink { target: "..2026_2", path: "volume/..data" }, Delete("volume/..2026_1")],
                &["ConfigMap default/one@2"],
                &[],
                &[],
            ),
            // A key is removed: until the kubelet deletes its link, the link has no target.
            step(
                vec![
                    Folder("volume/..2026_3"),
                    Put("volume/..2026_3/one.yaml", config("one", "2")),
                    SwapLink { target: "..2026_3", path: "volume/..data" },
                ],
                &[],
                &[],
                &["NotFound volume/two.yaml -"],
            ),
            step(vec![Delete("volume/two.yaml")], &[], &["ConfigMap default/two"], &[]),
        ],
    );
}

#[test]
fn objects_of_a_vanished_folder_are_kept() {
    check(
        &["shop", "one.yaml"],
        vec![
            step(
                vec![
                    Folder("shop/deep"),
                    Put("shop/deep/a.yaml", config("a", "1")),
                    Put("one.yaml", config("one", "1")),
                ],
                &["ConfigMap default/a@1", "ConfigMap default/one@1", "Namespace default@1"],
                &[],
                &[],
            ),
            step(vec![Rename("shop", "elsewhere")], &[], &[], &["Vanished shop -"]),
            step(
                vec![Rename("elsewhere", "shop"), Put("shop/deep/a.yaml", config("a", "2"))],
                &["ConfigMap default/a@2"],
                &[],
                &[],
            ),
            // A subfolder and a file are deleted on purpose.
            step(
                vec![Delete("shop/deep"), Put("shop/b.yaml", config("b", "1"))],
                &["ConfigMap default/b@1"],
                &["ConfigMap default/a"],
                &[],
            ),
            step(vec![Delete("one.yaml")], &[], &["ConfigMap default/one"], &["NotFound one.yaml -"]),
        ],
    );
}

#[test]
fn lists_json_and_windows_files_are_read() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: a}\n\
        - apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: b, namespace: x}\n  data: 7\n";
    let typed_list = r#"{"apiVersion": "v1", "kind": "ConfigMapList", "items": [{"metadata": {"name": "c"}}]}"#;
    let windows = format!("\u{feff}{}", config("d", "1").replace('\n', "\r\n"));
    check(
        &["."],
        vec![
            step(
                vec![
                    Put("list.yaml", list.to_owned()),
                    Put("typed.json", typed_list.to_owned()),
                    Put("windows.yaml", windows),
                    Put("kustomization.yaml", "resources: [list.yaml]\n".to_owned()),
                    Put("deployment.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n".to_owned()),
                    Put("notes.txt", "not: [yaml".to_owned()),
                    Put("text.yaml", "just text\n".to_owned()),
                ],
                &["ConfigMap default/a@1", "ConfigMap default/c@1", "ConfigMap default/d@1", "Namespace default@1"],
                &[],
                &["Invalid list.yaml ConfigMap x/b", "NotAnObject text.yaml:1:1 -"],
            ),
            step(
                vec![Delete("text.yaml"), Put("list.yaml", list.replace("data: 7", "data: {k: v}"))],
                &["ConfigMap x/b@1", "Namespace x@1"],
                &[],
                &[],
            ),
        ],
    );
}

#[test]
fn undefined_namespaces_are_implied() {
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: default\n  labels: {team: a}\n";
    let temp = tempfile::tempdir().unwrap();
    let labels = |update: &ManifestUpdate| {
        let namespaces = update.batch.upserts.iter().filter(|object| object.kind() == Kind::Namespace);
        let labels =
            namespaces.flat_map(|object| object.meta().labels.iter().map(|(key, value)| format!("{key}={value}")));
        labels.collect::<Vec<_>>()
    };
    fs::write(temp.path().join("a.yaml"), config("a", "1")).unwrap();
    let mut manifests = manifests_at(temp.path(), &["."]);
    assert_eq!(labels(&manifests.read()), ["kubernetes.io/metadata.name=default"]);
    fs::write(temp.path().join("b.yaml"), namespace).unwrap();
    let update = manifests.read();
    assert_eq!(labels(&update), ["kubernetes.io/metadata.name=default", "team=a"]);
    assert_eq!(update.batch.upserts[0].meta().generation, 2);
    fs::remove_file(temp.path().join("b.yaml")).unwrap();
    let update = manifests.read();
    assert_eq!(labels(&update), ["kubernetes.io/metadata.name=default"]);
    assert_eq!((update.batch.upserts[0].meta().generation, update.batch.removes.len()), (3, 0));
}

#[test]
fn objects_of_unreadable_files_and_folders_are_kept() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    fs::create_dir(root.join("closed")).unwrap();
    fs::write(root.join("closed/a.yaml"), config("a", "1")).unwrap();
    fs::write(root.join("b.yaml"), config("b", "1")).unwrap();
    let mut manifests = manifests_at(root, &["."]);
    assert_eq!(manifests.read().batch.upserts.len(), 3);
    let set_mode = |path: &str, mode| fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    set_mode("closed", 0o000);
    set_mode("b.yaml", 0o000);
    fs::write(root.join("c.yaml"), b"a: \xff").unwrap();
    let update = manifests.read();
    assert!(update.batch.upserts.is_empty() && update.batch.removes.is_empty());
    // Root can read everything, so only the file that is not UTF-8 is reported then.
    let found = described(root, &update);
    let as_root = ["NotUtf8 c.yaml:1:4 -"];
    let as_user = ["Unreadable b.yaml -", "NotUtf8 c.yaml:1:4 -", "Unreadable closed -"];
    assert!(found == as_root || found == as_user, "{found:?}");
    set_mode("closed", 0o755);
    set_mode("b.yaml", 0o644);
    fs::remove_file(root.join("c.yaml")).unwrap();
    let update = manifests.read();
    assert!(update.batch.upserts.is_empty() && update.batch.removes.is_empty() && update.diagnostics.is_empty());
}

#[test]
fn standard_input_is_read_once() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("a.yaml"), config("a", "1")).unwrap();
    let input = documents(&[config("a", "2"), config("b", "1")]);
    let paths = vec![PathBuf::from("-"), temp.path().join("a.yaml"), PathBuf::from("-")];
    let mut manifests = Manifests::with_input(paths, Channel::Standard, io::Cursor::new(input));
    let update = manifests.read();
    let objects: Vec<_> = update.batch.upserts.iter().map(|object| object.id().to_string()).collect();
    assert_eq!(objects, ["ConfigMap default/a", "ConfigMap default/b", "Namespace default"]);
    assert_eq!((update.files, update.objects), (2, 2));
    assert_eq!(update.diagnostics[0].reason(), "Duplicate");
    let id = ObjectId::new(Kind::ConfigMap, ObjectKey::new("default", "b"));
    let position = manifests.position(&id, "data.key").expect("it is in the input");
    assert_eq!(
        (position.to_string(), position.excerpt.map(|excerpt| excerpt.text.clone())),
        ("<stdin>:13:8".to_owned(), Some("  key: v1".to_owned()))
    );
    assert!(manifests.read().batch.upserts.is_empty());
}

#[test]
fn pipes_are_read_once_by_name_and_never_in_folders() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("folder")).unwrap();
    let (by_name, in_folder) = (temp.path().join("by-name"), temp.path().join("folder/a.yaml"));
    for pipe in [&by_name, &in_folder] {
        assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
    }
    let writer = std::thread::spawn(move || fs::write(by_name, config("a", "1")).unwrap());
    let mut manifests = manifests_at(temp.path(), &["by-name", "folder"]);
    let update = manifests.read();
    writer.join().unwrap();
    assert_eq!(update.objects, 1);
    assert_eq!(described(temp.path(), &update), ["NotAFile folder/a.yaml -"]);
    assert!(manifests.read().batch.removes.is_empty(), "its objects are kept");
    let id = ObjectId::new(Kind::ConfigMap, ObjectKey::new("default", "a"));
    assert_eq!(manifests.position(&id, "kind").map(|position| position.line), Some(2));
}

#[test]
fn schema_violations_have_positions() {
    let route = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: web
  annotations:
    example.com/a b: x
spec:
  rules:
  - matches:
    - path: {type: Prefix, value: shop}
      methd: GET
    backendRef:
    - name: web
      port: 80000
  - backendRefs:
    - port: 80
";
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("a.yaml"), format!("# Shop\n---\n{route}")).unwrap();
    let update = manifests_at(temp.path(), &["."]).read();
    assert!(update.batch.upserts.iter().all(|object| matches!(object, AnyObject::Unparseable(_))));
    let found: Vec<_> = update
        .diagnostics
        .iter()
        .map(|reported| {
            let excerpt = reported.position.excerpt.as_deref().expect("there is an excerpt");
            let marked: String =
                excerpt.text.chars().skip(reported.position.column as usize - 1).take(excerpt.width as usize).collect();
            format!("{} {}: {} `{marked}`", reported.position.line, reported.diagnostic.field, reported.reason())
        })
        .collect();
    for expected in [
        "12 spec.rules[0].matches[0].path.type: Invalid `Prefix`",
        "13 spec.rules[0].matches[0].methd: UnknownField `methd`",
        "14 spec.rules[0].backendRef: UnknownField `backendRef`",
        "18 spec.rules[1].backendRefs[0].name: Invalid `port`",
    ] {
        assert!(found.iter().any(|found| found == expected), "{expected} in {found:#?}");
    }
}

#[test]
fn positions_fall_back_to_the_document() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a.yaml");
    let route = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: web
spec:
  parentRefs:
  - name: gateway
  rules:
  - backendRefs:
    - {name: web, port: 80}
";
    fs::write(&path, format!("{}---\n{route}", config("a", "1"))).unwrap();
    let mut manifests = manifests_at(temp.path(), &["."]);
    manifests.read();
    let id = ObjectId::new(Kind::HttpRoute, ObjectKey::new("default", "web"));
    let position = |manifests: &Manifests, field: &str| {
        manifests.position(&id, field).map(|position| (position.line, position.column, position.excerpt.is_some()))
    };
    for (field, line, column) in [
        ("", 11, 9),
        ("spec.rules[0].backendRefs[0].name", 17, 14),
        ("spec.rules[0].backendRefs[0].weight", 17, 8),
        ("spec.rules[0].matches", 16, 5),
        ("spec.hostnames", 12, 1),
    ] {
        assert_eq!(position(&manifests, field), Some((line, column, true)), "{field}");
    }
    let missing = ObjectId::new(Kind::HttpRoute, ObjectKey::new("default", "other"));
    let namespace = ObjectId::new(Kind::Namespace, ObjectKey::cluster("default"));
    let map = ObjectId::new(Kind::ConfigMap, ObjectKey::new("default", "a"));
    let positions =
        manifests.positions(&[(&id, "kind"), (&missing, "kind"), (&namespace, ""), (&map, "data"), (&id, "metadata")]);
    let lines: Vec<_> = positions.iter().map(|position| position.as_ref().map(|position| position.line)).collect();
    assert_eq!(lines, [Some(9), None, None, Some(5), Some(10)]);

    fs::write(&path, "broken: [").unwrap();
    assert_eq!(position(&manifests, "spec.rules"), Some((7, 1, false)), "the file changed since it was read");
    manifests.read();
    assert_eq!(position(&manifests, "spec.rules"), Some((7, 1, false)), "the objects in use differ from the file");
    fs::remove_file(&path).unwrap();
    assert_eq!(position(&manifests, "spec.rules"), Some((7, 1, false)));
}

#[test]
fn secret_values_are_in_no_message() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: login\nstringData:\n  password: [hunter2]\n";
    let json = concat!(
        r#"{"apiVersion":"v1","kind":"List","items":["#,
        r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"},"stringData":{"p":"hunter2"}},"#,
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"y"},"data":7}]}"#,
    );
    let numeric_value = secret.replace("[hunter2]", "8125550");
    for text in [
        secret.to_owned(),
        numeric_value,
        secret.replace("[hunter2]", "a: hunter2"),
        secret.replace("[hunter2]", "!x hunter2"),
        secret.replace("[hunter2]", "\"hunter2"),
        json.to_owned(),
    ] {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("a.yaml"), &text).unwrap();
        let update = manifests_at(temp.path(), &["."]).read();
        assert!(!update.diagnostics.is_empty(), "{text}");
        let diagnostics: Vec<_> = update.diagnostics.iter().map(report::from_manifest).collect();
        let output = report::terminal(&diagnostics, false) + &report::json(&diagnostics) + &format!("{update:?}");
        assert!(!output.contains("hunter2") && !output.contains("8125550"), "{output}");
    }
}

#[test]
fn ten_megabytes_are_read_except_as_one_object() {
    let mut separate = String::new();
    let mut list = "apiVersion: v1\nkind: List\nitems:\n".to_owned();
    for number in 0..10_000 {
        let value = format!("{number}{}", "x".repeat(900));
        write!(separate, "---\n{}", config(&format!("c{number}"), &value)).unwrap();
        writeln!(list, "- {{apiVersion: v1, kind: ConfigMap, metadata: {{name: c{number}}}, data: {{key: {value}}}}}")
            .unwrap();
    }
    let huge = config("huge", &"x".repeat(10 << 20));
    for (text, objects, diagnostic) in
        [(separate, 10_000, None), (list, 10_000, None), (huge, 0, Some("TooLarge a.yaml:4:9 ConfigMap default/huge"))]
    {
        assert!(text.len() > 9 << 20);
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("a.yaml"), text).unwrap();
        let mut manifests = manifests_at(temp.path(), &["."]);
        let update = manifests.read();
        assert_eq!(update.objects, objects);
        assert_eq!(described(temp.path(), &update).first().map(String::as_str), diagnostic);
    }
}

#[test]
fn number_of_diagnostics_is_limited() {
    let temp = tempfile::tempdir().unwrap();
    let objects: Vec<_> = (0..1100).map(|number| broken(&format!("c{number}"))).collect();
    fs::write(temp.path().join("a.yaml"), documents(&objects)).unwrap();
    let update = manifests_at(temp.path(), &["."]).read();
    assert_eq!(update.diagnostics.len(), 1001);
    let last =
        update.diagnostics.iter().find(|reported| reported.reason() == "MoreProblems").expect("the rest is counted");
    assert_eq!(last.diagnostic.message, "100 more problems in this file are not shown");
}

#[test]
fn non_yaml_files_are_rejected() {
    for (bytes, reason) in [
        (&b"\x89PNG\r\n\x1a\n\0\0"[..], "NotUtf8"),
        (b"\0\0\0\0", "NotYaml"),
        (b"<html><body>404: not found</body></html>", "NoKind"),
        (b"#!/bin/sh\nset -e\necho: [", "NotYaml"),
        (b"<html>", "NotAnObject"),
        (b"- a\n- b\n", "NotAnObject"),
        (b"a: b\n", "NoKind"),
        (b"{\"apiVersion\": \"v1\",\n \"kind\": \"ConfigMap\",,}\n", "NotYaml"),
    ] {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("a.yaml"), bytes).unwrap();
        let update = manifests_at(temp.path(), &["."]).read();
        let found: Vec<_> =
            update.diagnostics.iter().map(|reported| (reported.reason(), reported.diagnostic.severity)).collect();
        assert_eq!(found, [(reason, Severity::Error)], "{}", String::from_utf8_lossy(bytes));
    }
}

#[tokio::test]
async fn watcher_ticks_for_every_kind_of_edit() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    fs::create_dir(root.join("shop")).unwrap();
    fs::write(root.join("one.yaml"), config("one", "0")).unwrap();
    for (tree, version) in [("trees/v1", "1"), ("trees/v2", "2")] {
        fs::create_dir_all(root.join(tree)).unwrap();
        fs::write(root.join(tree).join("tree.yaml"), config("tree", version)).unwrap();
    }
    symlink("trees/v1", root.join("current")).unwrap();
    let mut manifests = manifests_at(root, &["shop", "one.yaml", "current"]);
    let (mut watcher, mut ticks) = ManifestWatcher::start();
    let edits: Vec<(Vec<Edit>, &[&str])> = vec![
        (vec![Put("shop/a.yaml", config("a", "1"))], &["ConfigMap default/a@1"]),
        (vec![Save("one.yaml", config("one", "2"))], &["ConfigMap default/one@2"]),
        (vec![Folder("shop/deep"), Put("shop/deep/b.yaml", config("b", "1"))], &["ConfigMap default/b@1"]),
        (vec![Put("shop/deep/b.yaml", config("b", "2"))], &["ConfigMap default/b@2"]),
        (vec![Delete("shop")], &[]),
        (
            vec![Folder("shop/deep"), Put("shop/deep/b.yaml", config("b", "3")), Put("shop/a.yaml", config("a", "2"))],
            &["ConfigMap default/a@2", "ConfigMap default/b@3"],
        ),
        (vec![Put("shop/deep/b.yaml", config("b", "4"))], &["ConfigMap default/b@4"]),
        (vec![SwapLink { target: "trees/v2", path: "current" }], &["ConfigMap default/tree@2"]),
        (vec![Put("trees/v2/tree.yaml", config("tree", "3"))], &["ConfigMap default/tree@3"]),
    ];
    manifests.read();
    watcher.watch_only(manifests.folders());
    for (edits, expected) in edits {
        let is_folder_deleted = expected.is_empty();
        for edit in edits {
            apply(root, edit);
        }
        let mut seen = Vec::new();
        loop {
            let tick = tokio::time::timeout(Duration::from_secs(20), ticks.recv()).await;
            tick.expect("a tick within 20 seconds").expect("the watcher runs");
            let update = manifests.read();
            watcher.watch_only(manifests.folders());
            seen.extend(
                update.batch.upserts.iter().map(|object| format!("{}@{}", object.id(), object.meta().generation)),
            );
            let vanished = update.diagnostics.iter().any(|reported| reported.reason() == "Vanished");
            let all_seen = expected.iter().all(|object| seen.iter().any(|seen| seen == object));
            if if is_folder_deleted { vanished } else { all_seen } {
                break;
            }
        }
    }
}
