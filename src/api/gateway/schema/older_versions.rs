//! Schema differences of versions before v1. All versions are parsed as the v1 type, which accepts their objects.

use schemars::Schema;
use serde_json::{Value, json};

use super::rule::{VALIDATIONS, names_differ};
use crate::api::kind::Kind;

/// Converts the schema of v1 to that of an older version.
pub(super) fn adapt(kind: Kind, version: &str, schema: &mut Value) {
    let Some(spec) = schema.pointer_mut("/properties/spec") else { return };
    match (kind, version) {
        (Kind::TlsRoute, "v1alpha2") => {
            several_rules(spec);
            any_hostnames(spec);
        }
        (Kind::TcpRoute | Kind::UdpRoute, "v1alpha2") => several_rules(spec),
        _ => {}
    }
}

/// Allows up to sixteen rules where v1 requires exactly one.
fn several_rules(spec: &mut Value) {
    let rules = spec.pointer_mut("/properties/rules").and_then(|rules| <&mut Schema>::try_from(rules).ok());
    if let Some(rules) = rules {
        rules.insert("maxItems".to_owned(), json!(16));
        names_differ(rules);
    }
}

/// Makes hostnames optional and removes the rules for the list.
fn any_hostnames(spec: &mut Value) {
    if let Some(hostnames) = spec.pointer_mut("/properties/hostnames").and_then(Value::as_object_mut) {
        hostnames.remove("minItems");
        hostnames.remove(VALIDATIONS);
    }
    if let Some(required) = spec.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| name != "hostnames");
    }
}
