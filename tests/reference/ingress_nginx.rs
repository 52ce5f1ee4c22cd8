//! The page of the annotations of ingress-nginx.

use portico::api::ingress_nginx::{AnnotationScope, NginxAnnotation, OnBadValue, annotations};
use portico::compile::{AnnotationSupport, annotation_support};

use super::cell;
use crate::root;

#[test]
fn pages_count_the_annotations_in_effect() {
    let is_supported = |row: &NginxAnnotation| annotation_support(row.name) == AnnotationSupport::Supported;
    let (all, in_effect) = (annotations().len(), annotations().iter().filter(|row| is_supported(row)).count());
    for (page, text) in [
        ("README.md", format!("{in_effect} of its {all} annotations")),
        ("CHANGELOG.md", format!("{in_effect} of its annotations")),
        ("docs/ingress.md", format!("[{in_effect} of ingress-nginx]")),
        ("docs/tasks/ingress-nginx.md", format!("[{in_effect} of its {all} annotations]")),
    ] {
        let content = std::fs::read_to_string(root().join(page)).unwrap().replace('\n', " ");
        assert!(content.contains(&text), "{page} does not have `{text}`");
    }
}

pub(super) fn page() -> String {
    let mut page = "# Annotations of ingress-nginx

All annotations that the last release of ingress-nginx has, without their prefix `nginx.ingress.kubernetes.io/`, and
what they do on an Ingress of the [dialect `nginx`](../tasks/ingress-nginx.md). The defaults are those without a
ConfigMap.

- **yes**: it has its effect.
- **not needed**: it configures the inside of nginx, without a difference for clients and backends.
- **503**: it may restrict requests and is not supported yet, so no request is served: to the paths of the Ingress, or
  to all paths of its hosts if it *changes the host*. A value that switches it off has no effect.
- **no**: it has no effect yet, and `portico check` and an event report it.

A bad value has the consequence of ingress-nginx: *default*, as if the annotation was missing; or *503* for all paths of
the Ingress.

| annotation | here | default | changes | bad value | what it does |
| --- | --- | --- | --- | --- | --- |
"
    .to_owned();
    for annotation in annotations() {
        page += &row(annotation);
    }
    page
}

fn row(annotation: &NginxAnnotation) -> String {
    let NginxAnnotation { name, default, scope, on_bad, on_wrong_form, summary, .. } = *annotation;
    let support = match annotation_support(name) {
        AnnotationSupport::Supported => "yes",
        AnnotationSupport::NotNeeded => "not needed",
        AnnotationSupport::Refused => "503",
        AnnotationSupport::Reported => "no",
    };
    let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
    let scope = match scope {
        AnnotationScope::Host => "the host",
        AnnotationScope::Path => "the paths",
        AnnotationScope::Service => "the Service",
    };
    let consequence = |bad: OnBadValue| match bad {
        OnBadValue::Default => "default",
        OnBadValue::DropGroup => "default, also of its group",
        OnBadValue::Reject | OnBadValue::Deny503 => "503",
    };
    let bad = match (consequence(on_bad), consequence(on_wrong_form)) {
        (one, other) if one == other => one.to_owned(),
        (characters, form) => format!("{characters}; {form} if only its form is wrong"),
    };
    format!("| `{name}` | {support} | {} | {scope} | {bad} | {} |\n", cell(&default), cell(summary))
}
