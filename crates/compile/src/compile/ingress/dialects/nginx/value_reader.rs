//! Reads the values of single annotations, and reports the bad ones with what they do.

use crate::api::ingress_nginx::{self, OnBadValue, PREFIX};
use crate::api::networking::Ingress;
use crate::api::{Meta, Object};
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::{Diagnostic, Topic};

/// Reads the annotations of one object.
pub(super) struct ValueReader<'a> {
    pub meta: &'a Meta,
    /// Errors for values because of which no request may be forwarded.
    pub errors: Vec<Diagnostic>,
    pub notes: Vec<Diagnostic>,
}

impl<'a> ValueReader<'a> {
    pub(super) fn new(meta: &'a Meta) -> Self {
        ValueReader { meta, errors: Vec::new(), notes: Vec::new() }
    }

    /// The value of an annotation. `None` if it is missing, empty, or counts as unset because its value is bad.
    pub(super) fn text(&mut self, name: &'static str) -> Option<&'a str> {
        let value = written(self.meta, name)?;
        let annotation = ingress_nginx::find(name)?;
        let Some(consequence) = annotation.consequence(value) else { return Some(value) };
        let remedy = annotation.value.check(value).err().unwrap_or_default();
        let field = annotation_field(&format!("{PREFIX}{name}"));
        match consequence {
            OnBadValue::Default | OnBadValue::DropGroup => {
                let effect = match name {
                    // Its default restricts requests.
                    "auth-tls-verify-client" => format!("so {} applies", annotation.default),
                    _ => "so it has no effect".to_owned(),
                };
                let message = format!("{value:?} is not a valid value, {effect}, as in ingress-nginx");
                self.notes.push(Diagnostic::warning(field, message, remedy).with_topic(Topic::Annotation));
            }
            OnBadValue::Reject | OnBadValue::Deny503 => {
                let message = format!("{value:?} is not a valid value, so requests get status 503");
                self.errors.push(Diagnostic::error(field, message, remedy));
            }
        }
        None
    }

    pub(super) fn flag(&mut self, name: &'static str, default: bool) -> bool {
        self.text(name).and_then(ingress_nginx::flag).unwrap_or(default)
    }

    pub(super) fn number(&mut self, name: &'static str) -> Option<i64> {
        self.text(name).and_then(ingress_nginx::integer)
    }

    /// Reports a value that has no effect.
    pub(super) fn note(&mut self, name: &str, message: &str, remedy: &str) {
        self.warn(name, format!("{message}, so it has no effect"), remedy);
    }

    /// Reports a problem because of which a value has no effect, with its reason.
    pub(super) fn note_problem(&mut self, name: &str, problem: Diagnostic) {
        let field = annotation_field(&format!("{PREFIX}{name}"));
        let message = format!("{}, so it has no effect", problem.message);
        let note = Diagnostic::warning(field, message, problem.remedy).with_topic(Topic::Annotation);
        self.notes.push(note.with_reason(problem.reason));
    }

    /// Reports annotations that have no effect without another one.
    pub(super) fn note_without(&mut self, names: &[&str], needed: &str) {
        for name in names.iter().filter(|name| written(self.meta, name).is_some()) {
            self.note(name, &format!("{needed} is missing"), &format!("set {needed}, or remove it"));
        }
    }

    pub(super) fn warn(&mut self, name: &str, message: String, remedy: &str) {
        let field = annotation_field(&format!("{PREFIX}{name}"));
        self.notes.push(Diagnostic::warning(field, message, remedy).with_topic(Topic::Annotation));
    }

    /// Reports a value that is valid in ingress-nginx, and not supported here.
    pub(super) fn refuse(&mut self, name: &str, message: &str, remedy: &str) {
        let field = annotation_field(&format!("{PREFIX}{name}"));
        let message = format!("{message}, so requests get status 503");
        self.errors.push(Diagnostic::error(field, message, remedy));
    }
}

/// Whether an Ingress only gets a share of the requests for the paths of another one.
pub(super) fn is_canary(ingress: &Object<Ingress>) -> bool {
    written(&ingress.meta, "canary").and_then(ingress_nginx::flag) == Some(true)
}

/// The value of an annotation as it is written; an empty one counts as missing.
pub(super) fn written<'m>(meta: &'m Meta, name: &str) -> Option<&'m str> {
    let value = meta.annotations.get(&*format!("{PREFIX}{name}"));
    value.map(|value| &**value).filter(|value| !value.is_empty())
}
