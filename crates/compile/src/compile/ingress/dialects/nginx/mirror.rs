//! The server that gets copies of requests, as annotations describe it.

use serde_json::{Value, json};

use super::value_reader::ValueReader;
use crate::api::ingress_nginx::PREFIX;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::{Diagnostic, Topic};

/// The kind of plugin.
pub(super) const KIND: &str = "location-mirror";

/// The mirror of an Ingress; `None` if it has none.
pub(super) fn read(reader: &mut ValueReader<'_>) -> Option<Value> {
    let target = reader.text("mirror-target").map(str::trim);
    let host = reader.text("mirror-host").map(str::trim);
    let body = reader.text("mirror-request-body").map(str::trim) != Some("off");
    if target.is_none() {
        reader.note_without(&["mirror-host", "mirror-request-body"], "mirror-target");
    }
    Some(json!({"url": target?, "host": host, "body": body}))
}

/// A problem of the configuration as one of the annotation. Requests are served without copies.
pub(super) fn without_effect(problem: Diagnostic) -> Diagnostic {
    let annotation = if problem.field.starts_with("config.host") { "mirror-host" } else { "mirror-target" };
    let mut problem = problem.at(annotation_field(&format!("{PREFIX}{annotation}"))).into_warning();
    problem.message.push_str(", so requests have no copies");
    problem.with_topic(Topic::Annotation)
}
