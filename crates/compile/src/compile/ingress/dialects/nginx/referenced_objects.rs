//! The objects that annotations name.

use std::sync::Arc;

use super::config_map::NginxConfig;
use super::value_reader::ValueReader;
use crate::api::ingress_nginx::PREFIX;
use crate::api::{Kind, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::compile::objects::missing_object::missing_object;

/// The object that an annotation names. It must be in the namespace of the Ingress, unless the ConfigMap permits
/// others.
pub(super) fn object_key(
    reader: &mut ValueReader<'_>,
    annotation: &'static str,
    name: &str,
    config: &NginxConfig,
) -> Option<ObjectKey> {
    let own = Arc::clone(&reader.meta.key.namespace);
    let name = name.replace(' ', "");
    let key = match name.split_once('/') {
        Some((namespace, name)) => ObjectKey::new(namespace, name),
        None => ObjectKey::new(&own, &name),
    };
    if key.namespace == own || config.allows_other_namespaces {
        return Some(key);
    }
    let remedy = format!("name an object in namespace {own}, or set allow-cross-namespace-resources in the ConfigMap");
    reader.refuse(annotation, &format!("{key} is in another namespace"), &remedy);
    None
}

/// Reports that an object is missing, so that no request may be forwarded.
pub(super) fn report_missing(
    cx: CompileContext<'_>,
    reader: &mut ValueReader<'_>,
    annotation: &str,
    kind: Kind,
    key: &ObjectKey,
) {
    let field = annotation_field(&format!("{PREFIX}{annotation}"));
    let mut problem = missing_object(cx.store, field, kind, key);
    problem.message.push_str(", so requests get status 503");
    reader.errors.push(problem);
}
