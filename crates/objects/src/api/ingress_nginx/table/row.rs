//! How the rows of the table are written: one for each annotation.

use super::super::annotation::{AnnotationScope, NginxAnnotation, OnBadValue};
use super::super::value::ValueKind;

pub(super) type Row = NginxAnnotation;

pub(super) const INTEGER: ValueKind = ValueKind::Integer { min: i64::MIN, max: i64::MAX };
pub(super) const COUNT: ValueKind = ValueKind::Integer { min: 0, max: i64::MAX };
pub(super) const SECONDS: ValueKind = ValueKind::Seconds { min: 0 };
/// Seconds of a header that clients read, where a negative number has a meaning.
pub(super) const SIGNED_SECONDS: ValueKind = ValueKind::Seconds { min: i64::MIN };
pub(super) const ON_OFF: ValueKind = ValueKind::OneOf(&["on", "off"]);

pub(super) const fn path(name: &'static str, value: ValueKind, default: &'static str, bad: OnBadValue) -> Row {
    let scope = AnnotationScope::Path;
    Row { name, value, default, scope, on_bad: bad, on_wrong_form: bad, summary: "" }
}

pub(super) const fn host(name: &'static str, value: ValueKind, default: &'static str, bad: OnBadValue) -> Row {
    Row { scope: AnnotationScope::Host, ..path(name, value, default, bad) }
}

pub(super) const fn service(name: &'static str, value: ValueKind, default: &'static str, bad: OnBadValue) -> Row {
    Row { scope: AnnotationScope::Service, ..path(name, value, default, bad) }
}
