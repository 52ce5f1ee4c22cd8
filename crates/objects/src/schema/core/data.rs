//! Secret and ConfigMap: keys, total size, and the required keys of each type of Secret.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::schema::path::ObjectPath;
use crate::schema::report::ViolationReport;
use crate::schema::syntax::DATA_KEY;

/// The maximum size of the data of one object.
const MAX_DATA_BYTES: usize = 1024 * 1024;

/// The keys that the API server requires for types of Secrets.
const REQUIRED_KEYS: &[(&str, &[&str])] = &[
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

/// Checks keys, size and required keys. The schema has already checked that the values of `data` are base64.
pub(super) fn check_secret(object: &Value, report: &mut ViolationReport) {
    let mut sizes = BTreeMap::new();
    for (field, is_base64) in [("data", true), ("stringData", false)] {
        let path = ObjectPath::Root.field(field);
        for (key, value) in object[field].as_object().into_iter().flatten() {
            check_key(key, &path, report);
            // `stringData` overrides `data`.
            sizes.insert(
                key.as_str(),
                value.as_str().map_or(0, |text| if is_base64 { decoded_bytes(text) } else { text.len() }),
            );
        }
    }
    check_size(sizes.values().sum(), report);
    let secret_type = object["type"].as_str().unwrap_or_default();
    let path = ObjectPath::Root.field("data");
    let required_keys = REQUIRED_KEYS.iter().find(|(known, _)| *known == secret_type).map_or(&[][..], |(_, keys)| keys);
    for key in required_keys.iter().filter(|key| !sizes.contains_key(**key)) {
        report.add(
            &path.key(key),
            "is missing",
            format!("a Secret of type {secret_type} needs `{key}` under `data` or `stringData`"),
        );
    }
    if secret_type == "kubernetes.io/basic-auth" && !sizes.contains_key("username") && !sizes.contains_key("password") {
        report.add(
            &path.key("username"),
            "is missing",
            format!("a Secret of type {secret_type} needs `username` or `password`"),
        );
    }
}

pub(super) fn check_config_map(object: &Value, report: &mut ViolationReport) {
    let mut bytes = 0;
    for (field, is_base64) in [("data", false), ("binaryData", true)] {
        let path = ObjectPath::Root.field(field);
        for (key, value) in object[field].as_object().into_iter().flatten() {
            check_key(key, &path, report);
            if is_base64 && object["data"].get(key).is_some() {
                report.add(&path.key(key), "is also a key of `data`", "remove one of the two");
            }
            bytes += value.as_str().map_or(0, |text| if is_base64 { decoded_bytes(text) } else { text.len() });
        }
    }
    check_size(bytes, report);
}

fn check_key(key: &str, path: &ObjectPath<'_>, report: &mut ViolationReport) {
    // A message may contain the key of a Secret: only values are secret.
    if !(DATA_KEY.accepts)(key) {
        report.add(&path.key(key), "is not a valid data key", DATA_KEY.remedy());
    }
}

/// The number of bytes that a base64 text decodes to.
fn decoded_bytes(text: &str) -> usize {
    text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n' | b'=')).count() * 3 / 4
}

fn check_size(bytes: usize, report: &mut ViolationReport) {
    if bytes > MAX_DATA_BYTES {
        report.add(
            &ObjectPath::Root.field("data"),
            format!("holds {bytes} bytes, at most {MAX_DATA_BYTES} are allowed"),
            "divide it among several objects",
        );
    }
}
