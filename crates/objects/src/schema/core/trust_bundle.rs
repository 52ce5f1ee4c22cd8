//! ClusterTrustBundle: its size, and its name, which begins with that of its signer.

use serde_json::Value;

use crate::schema::path::ObjectPath;
use crate::schema::quote::printable;
use crate::schema::report::ViolationReport;

/// The maximum size of the certificates.
const MAX_BUNDLE_BYTES: usize = 1024 * 1024;

pub(super) fn check(object: &Value, report: &mut ViolationReport) {
    let spec = &object["spec"];
    let bytes = spec["trustBundle"].as_str().map_or(0, str::len);
    if bytes > MAX_BUNDLE_BYTES {
        let message = format!("holds {bytes} bytes, at most {MAX_BUNDLE_BYTES} are allowed");
        let path = ObjectPath::Root.field("spec");
        report.add(&path.field("trustBundle"), message, "divide it among several objects");
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let signer = spec["signerName"].as_str().unwrap_or_default();
    // The prefix makes permissions for a signer apply to the names of its bundles.
    let prefix = if signer.is_empty() { String::new() } else { format!("{}:", signer.replace('/', ":")) };
    let has_valid_name = name.strip_prefix(&prefix).is_some_and(|rest| !rest.contains(':'));
    if name.is_empty() || has_valid_name {
        return;
    }
    let (message, remedy) = if signer.is_empty() {
        ("has the prefix of a signer", "remove the prefix, or write the signer under `spec.signerName`".to_owned())
    } else {
        ("lacks the prefix of its signer", format!("use `{}NAME`", printable(&prefix)))
    };
    let path = ObjectPath::Root.field("metadata");
    report.add(&path.field("name"), message, remedy);
}
