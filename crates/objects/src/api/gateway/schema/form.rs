//! Formats of strings and numbers that the Gateway API uses repeatedly, each as a named schema transform.

use schemars::Schema;
use schemars::transform::Transform;
use serde_json::{Value, json};

use super::transforms::in_experimental;

/// Pattern of a lowercase DNS name, without anchors.
macro_rules! dns_name {
    () => {
        r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
    };
}
pub(crate) use dns_name;

const DNS_SUBDOMAIN: &str = concat!("^", dns_name!(), "$");
pub(crate) const WILDCARD_HOSTNAME: &str = concat!(r"^(\*\.)?", dns_name!(), "$");
/// A name with an optional domain prefix, as in keys of labels and annotations.
pub(crate) const QUALIFIED_NAME: &str = concat!("^(", dns_name!(), "/)?([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]$");
/// A `token` of HTTP (RFC 9110).
const TOKEN: &str = r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$";
/// Visible ASCII characters, with single spaces or tabs between them.
const FIELD_VALUE: &str = r"^[!-~]+([\t ]?[!-~]+)*$";

/// Name of any Kubernetes object.
pub(crate) fn object_name(schema: &mut Schema) {
    length(schema, 1, 253);
}

pub(crate) fn namespace(schema: &mut Schema) {
    length(schema, 1, 63);
    pattern(schema, "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$");
}

/// API group; the core group is the empty string.
pub(crate) fn group(schema: &mut Schema) {
    schema.insert("maxLength".to_owned(), json!(253));
    pattern(schema, concat!("^$|^", dns_name!(), "$"));
}

pub(crate) fn kind(schema: &mut Schema) {
    length(schema, 1, 63);
    pattern(schema, "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$");
}

/// Name of a listener, of a route rule or of a Service port.
pub(crate) fn section_name(schema: &mut Schema) {
    length(schema, 1, 253);
    pattern(schema, DNS_SUBDOMAIN);
}

/// Hostname whose first label may be `*`.
pub(crate) fn hostname(schema: &mut Schema) {
    length(schema, 1, 253);
    pattern(schema, WILDCARD_HOSTNAME);
}

/// Hostname without a wildcard.
pub(crate) fn precise_hostname(schema: &mut Schema) {
    length(schema, 1, 253);
    pattern(schema, DNS_SUBDOMAIN);
}

/// Name of a controller, such as `example.com/controller`.
pub(crate) fn controller_name(schema: &mut Schema) {
    length(schema, 1, 253);
    pattern(schema, concat!("^", dns_name!(), r"\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$"));
}

pub(crate) fn port(schema: &mut Schema) {
    schema.insert("minimum".to_owned(), json!(1));
    schema.insert("maximum".to_owned(), json!(65535));
}

/// Up to four numbers with units: `1h30m`, `500ms`.
pub(crate) fn duration(schema: &mut Schema) {
    pattern(schema, "^([0-9]{1,5}(h|m|s|ms)){1,4}$");
}

/// Name of a header field, a cookie or a query parameter.
pub(crate) fn token(schema: &mut Schema) {
    length(schema, 1, 256);
    pattern(schema, TOKEN);
}

/// Value of a header field. The standard channel does not restrict it.
pub(crate) fn header_value(schema: &mut Schema) {
    length(schema, 1, 4096);
    in_experimental(json!({ "pattern": FIELD_VALUE })).transform(schema);
}

/// Value of a label.
pub(crate) fn label_value(schema: &mut Schema) {
    length(schema, 0, 63);
    pattern(schema, "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$");
}

/// URL path with percent-encoding.
pub(crate) fn url_path(schema: &mut Schema) {
    schema.insert("maxLength".to_owned(), json!(1024));
    pattern(schema, "^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$");
}

/// One of a list of values. The Rust type of the field stays a string or number.
pub(crate) fn one_of<T: Into<Value> + Clone, const N: usize>(values: [T; N]) -> impl FnMut(&mut Schema) {
    move |schema| {
        schema.insert("enum".to_owned(), values.iter().cloned().map(Into::into).collect());
    }
}

/// A string with its own length limits and pattern, for a format that has no function in this module.
pub(crate) fn text(min_length: u32, max_length: u32, regex: &'static str) -> impl FnMut(&mut Schema) {
    move |schema| {
        length(schema, min_length, max_length);
        pattern(schema, regex);
    }
}

fn length(schema: &mut Schema, min: u32, max: u32) {
    schema.insert("minLength".to_owned(), json!(min));
    schema.insert("maxLength".to_owned(), json!(max));
}

fn pattern(schema: &mut Schema, regex: &str) {
    schema.insert("pattern".to_owned(), json!(regex));
}
