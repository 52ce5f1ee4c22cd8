//! Ingresses whose annotations have other prefixes than those of ingress-nginx, as `--nginx-annotation-prefix` says:
//! all other files read the usual prefix.

use std::borrow::Cow;
use std::sync::Arc;

use crate::api::foreign_annotations::classify;
use crate::api::ingress_nginx::{PREFIX, has_other_prefixes, prefixes, written_key};
use crate::api::kong::annotations::list;
use crate::api::names::IGNORE_GUARDS_ANNOTATION;
use crate::api::networking::Ingress;
use crate::api::{Meta, Object};
use crate::compile::ingress_class::foreign_annotations;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::{Diagnostic, Topic};

/// The Ingress with the usual prefix in place of those of the flag, and without annotations that have the usual one
/// although the flag does not list it.
pub(in crate::compile::ingress) fn with_usual_prefix(ingress: &Object<Ingress>) -> Cow<'_, Object<Ingress>> {
    if !has_other_prefixes() {
        return Cow::Borrowed(ingress);
    }
    let mut changed = ingress.clone();
    changed.meta.annotations.retain(|key, _| !key.starts_with(PREFIX) && !prefixes().any(|own| key.starts_with(own)));
    for key in ingress.meta.annotations.keys() {
        let name = prefixes().find_map(|prefix| key.strip_prefix(prefix));
        let written = name.and_then(|name| Some((name, written_key(&ingress.meta.annotations, name)?)));
        let value = written.and_then(|(_, written)| ingress.meta.annotations.get(written));
        if let (Some(name), Some(value)) = (name, value) {
            changed.meta.annotations.insert(format!("{PREFIX}{name}").into(), Arc::clone(value));
        }
    }
    if let Some(list) = changed.meta.annotations.get_mut(IGNORE_GUARDS_ANNOTATION) {
        *list = ignored_with_usual_prefix(list);
    }
    Cow::Owned(changed)
}

/// The list of ignored guards, whose entries are keys as the Ingress has them.
fn ignored_with_usual_prefix(keys: &str) -> Arc<str> {
    let usual = |key: &str| match prefixes().find_map(|prefix| key.strip_prefix(prefix)) {
        Some(name) => format!("{PREFIX}{name}"),
        None => key.to_owned(),
    };
    list(keys).map(usual).collect::<Vec<_>>().join(",").into()
}

/// What is wrong with annotations that have the usual prefix although the flag does not list it. One that restricts
/// requests in ingress-nginx is an error, unless Ingresses with such ones are served.
pub(super) fn left_over(meta: &Meta, refuses_guards: bool) -> Vec<Diagnostic> {
    if prefixes().any(|prefix| prefix == PREFIX) {
        return Vec::new();
    }
    let of_usual = meta.annotations.iter().filter(|(key, value)| key.starts_with(PREFIX) && !value.is_empty());
    let problem = |(key, value): (&Arc<str>, &Arc<str>)| {
        let is_guard = classify(key, value).is_some_and(|annotation| annotation.is_guard());
        let refuses = is_guard && refuses_guards && !foreign_annotations::is_ignored(meta, key);
        let message = "its prefix is not in --nginx-annotation-prefix, so it has no effect";
        let remedy = "use a prefix of the flag, or add this one to the flag";
        match refuses {
            true => {
                let message = format!("it restricts requests, but {message}, and requests get status 503");
                Diagnostic::error(annotation_field(key), message, remedy)
            }
            false => Diagnostic::warning(annotation_field(key), message, remedy).with_topic(Topic::Annotation),
        }
    };
    of_usual.map(problem).collect()
}

/// Replaces the usual prefix in the fields of diagnostics by the one that the Ingress has.
pub(super) fn restore(ingress: &Meta, diagnostics: &mut [Diagnostic]) {
    if !has_other_prefixes() {
        return;
    }
    let start = format!("metadata.annotations[{PREFIX}");
    for diagnostic in diagnostics {
        let name = diagnostic.field.strip_prefix(&*start).and_then(|name| name.strip_suffix(']'));
        if let Some(key) = name.and_then(|name| written_key(&ingress.annotations, name)) {
            diagnostic.field = annotation_field(key);
        }
    }
}
