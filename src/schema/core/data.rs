//! Secret and ConfigMap: their keys, their size, and what each type of Secret must hold.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::schema::path::Path;
use crate::schema::report::Report;
use crate::schema::syntax::DATA_KEY;

/// What an object of either kind may hold in all.
const MOST_BYTES: usize = 1024 * 1024;

/// Types of Secret and the keys without which the API server refuses them.
const NEEDED: &[(&str, &[&str])] = &[
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

/// `data` has been judged to be base64 by its format.
pub(super) fn check_secret(object: &Value, report: &mut Report) {
    let mut sizes = BTreeMap::new();
    for (field, decoded) in [("data", true), ("stringData", false)] {
        let path = Path::Root.field(field);
        for (key, value) in object[field].as_object().into_iter().flatten() {
            check_key(key, &path, report);
            // What stands in both is taken from stringData.
            sizes.insert(
                key.as_str(),
                value.as_str().map_or(0, |text| if decoded { decoded_bytes(text) } else { text.len() }),
            );
        }
    }
    check_size(sizes.values().sum(), report);
    let kind = object["type"].as_str().unwrap_or_default();
    let path = Path::Root.field("data");
    let needed = NEEDED.iter().find(|(known, _)| *known == kind).map_or(&[][..], |(_, keys)| keys);
    for key in needed.iter().filter(|key| !sizes.contains_key(**key)) {
        report.add(
            &path.key(key),
            "is missing",
            format!("a Secret of type {kind} needs `{key}` under `data` or `stringData`"),
        );
    }
    if kind == "kubernetes.io/basic-auth" && !sizes.contains_key("username") && !sizes.contains_key("password") {
        report.add(
            &path.key("username"),
            "is missing",
            format!("a Secret of type {kind} needs `username` or `password`"),
        );
    }
}

pub(super) fn check_config_map(object: &Value, report: &mut Report) {
    let mut bytes = 0;
    for (field, decoded) in [("data", false), ("binaryData", true)] {
        let path = Path::Root.field(field);
        for (key, value) in object[field].as_object().into_iter().flatten() {
            check_key(key, &path, report);
            if decoded && object["data"].get(key).is_some() {
                report.add(&path.key(key), "is also a key of `data`", "remove one of the two");
            }
            bytes += value.as_str().map_or(0, |text| if decoded { decoded_bytes(text) } else { text.len() });
        }
    }
    check_size(bytes, report);
}

fn check_key(key: &str, path: &Path<'_>, report: &mut Report) {
    // Keys are no secret.
    if !(DATA_KEY.accepts)(key) {
        report.add(&path.key(key), "is not a key of data", DATA_KEY.remedy());
    }
}

/// How many bytes a text of base64 stands for.
fn decoded_bytes(text: &str) -> usize {
    text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n' | b'=')).count() * 3 / 4
}

fn check_size(bytes: usize, report: &mut Report) {
    if bytes > MOST_BYTES {
        report.add(
            &Path::Root.field("data"),
            format!("holds {bytes} bytes, at most {MOST_BYTES} are allowed"),
            "divide it among several objects",
        );
    }
}
