//! What versions before v1 say differently. All are read as the type of v1, which takes what they allow.

use schemars::Schema;
use serde_json::{Value, json};

use super::rule::{VALIDATIONS, names_differ};
use crate::api::kind::Kind;

/// Changes the schema of v1 into that of an older version.
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

/// Up to sixteen rules where v1 has exactly one.
fn several_rules(spec: &mut Value) {
    let rules = spec.pointer_mut("/properties/rules").and_then(|rules| <&mut Schema>::try_from(rules).ok());
    if let Some(rules) = rules {
        rules.insert("maxItems".to_owned(), json!(16));
        names_differ(rules);
    }
}

/// Hostnames may be left out, and a list of them has no rules.
fn any_hostnames(spec: &mut Value) {
    if let Some(hostnames) = spec.pointer_mut("/properties/hostnames").and_then(Value::as_object_mut) {
        hostnames.remove("minItems");
        hostnames.remove(VALIDATIONS);
    }
    if let Some(required) = spec.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| name != "hostnames");
    }
}
