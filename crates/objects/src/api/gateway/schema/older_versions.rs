//! Schema differences of versions before v1. Objects of all versions are parsed as the type of v1.

use schemars::Schema;
use serde_json::{Value, json};

use super::rule::{VALIDATIONS, unique_rule_names};
use crate::api::kind::Kind;

/// Converts the schema of v1 to that of an older version.
pub(super) fn adapt(kind: Kind, version: &str, schema: &mut Value) {
    let Some(spec) = schema.pointer_mut("/properties/spec") else { return };
    match (kind, version) {
        (Kind::TlsRoute, "v1alpha2") => {
            allow_several_rules(spec);
            allow_any_hostnames(spec);
        }
        (Kind::TcpRoute | Kind::UdpRoute, "v1alpha2") => allow_several_rules(spec),
        _ => {}
    }
}

/// Allows up to sixteen rules where v1 requires exactly one.
fn allow_several_rules(spec: &mut Value) {
    let rules = spec.pointer_mut("/properties/rules").and_then(|rules| <&mut Schema>::try_from(rules).ok());
    if let Some(rules) = rules {
        rules.insert("maxItems".to_owned(), json!(16));
        unique_rule_names(rules);
    }
}

/// Makes `hostnames` optional and removes the CEL rules for this list.
fn allow_any_hostnames(spec: &mut Value) {
    if let Some(hostnames) = spec.pointer_mut("/properties/hostnames").and_then(Value::as_object_mut) {
        hostnames.remove("minItems");
        hostnames.remove(VALIDATIONS);
    }
    if let Some(required) = spec.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| name != "hostnames");
    }
}
