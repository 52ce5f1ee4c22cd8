//! The totals in the last line of a check, and numbers with nouns.

use std::collections::BTreeMap;

use super::diagnostic::ReportedDiagnostic;
use super::plain::escape_controls;
use crate::diagnostic::Severity;

/// The amount of input.
#[derive(Clone, Copy, Debug)]
pub struct InputCounts<'a> {
    pub files: usize,
    pub objects: usize,
    /// Objects of kinds that Portico does not read, by `apiVersion/kind`.
    pub ignored: &'a BTreeMap<String, usize>,
    /// Objects that would be served with another `--ingress-class`: by class, the number of each kind.
    pub left_out: &'a BTreeMap<String, BTreeMap<&'static str, usize>>,
}

/// `2 errors and 1 warning; 12 objects read from 3 files; ignored: 5 apps/v1/Deployment`.
pub fn summary(counts: InputCounts<'_>, diagnostics: &[ReportedDiagnostic]) -> String {
    let count_of =
        |severity| diagnostics.iter().filter(|diagnostic| diagnostic.diagnostic.severity == severity).count() as u64;
    let problems = match (count_of(Severity::Error), count_of(Severity::Warning)) {
        (0, 0) if counts.objects == 0 && counts.ignored.is_empty() => "nothing to check".to_owned(),
        (0, 0) => "nothing wrong".to_owned(),
        (0, warnings) => count(warnings, "warning"),
        (errors, 0) => count(errors, "error"),
        (errors, warnings) => format!("{} and {}", count(errors, "error"), count(warnings, "warning")),
    };
    let objects = count(counts.objects as u64, "object");
    let files = count(counts.files as u64, "file");
    let mut out = format!("{problems}; {objects} read from {files}");
    if !counts.ignored.is_empty() {
        out += &format!("; ignored: {}", ignored_kinds(counts.ignored));
    }
    if !counts.left_out.is_empty() {
        out += &format!("; {}", left_out_objects(counts.left_out));
    }
    out + "\n"
}

/// `left out: 3 Ingresses and 1 KongConsumer of class kong, which --ingress-class kong serves`.
pub fn left_out_objects(left_out: &BTreeMap<String, BTreeMap<&'static str, usize>>) -> String {
    let of_kind = |(kind, number): (&&str, &usize)| match (*number, *kind) {
        (1, kind) => format!("1 {kind}"),
        (number, kind @ "Ingress") => format!("{number} {kind}es"),
        (number, kind) => format!("{number} {kind}s"),
    };
    let of_class = |(class, kinds): (&String, &BTreeMap<&str, usize>)| {
        let objects = kinds.iter().map(of_kind).collect::<Vec<_>>().join(" and ");
        let class = escape_controls(class);
        format!("{objects} of class {class}, which --ingress-class {class} serves")
    };
    let classes = left_out.iter().take(MAX_KINDS).map(of_class).collect::<Vec<_>>().join("; ");
    let more = if left_out.len() > MAX_KINDS { "; and objects of further classes" } else { "" };
    format!("left out: {classes}{more}")
}

/// Ignored objects by kind: `5 apps/v1/Deployment, 1 v1/Pod`.
pub fn ignored_kinds(ignored: &BTreeMap<String, usize>) -> String {
    let kinds = ignored.iter().take(MAX_KINDS).map(|(kind, number)| format!("{number} {}", escape_controls(kind)));
    let mut out = kinds.collect::<Vec<_>>().join(", ");
    if ignored.len() > MAX_KINDS {
        out += &format!(" and {} more kinds", ignored.len() - MAX_KINDS);
    }
    out
}

/// `1 route`, `2 routes`.
pub fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// The maximum number of kinds listed; a folder of arbitrary manifests may have many.
const MAX_KINDS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Diagnostic;

    #[test]
    fn totals_are_counted_with_plurals() {
        let diagnostic = |severity| ReportedDiagnostic {
            diagnostic: Diagnostic::of_object("m", "r").with_severity(severity),
            position: None,
            object: None,
            id: None,
            condition: None,
            meanwhile: None,
        };
        let (error, warning) = (diagnostic(Severity::Error), diagnostic(Severity::Warning));
        let many: BTreeMap<_, _> = (1..=7).map(|number| (format!("g/v1/K{number}"), number)).collect();
        let none = BTreeMap::new();
        for (files, objects, ignored, diagnostics, expected) in [
            (1, 1, &none, vec![], "nothing wrong; 1 object read from 1 file\n"),
            (
                3,
                12,
                &none,
                vec![error.clone(), warning.clone(), error.clone()],
                "2 errors and 1 warning; 12 objects read from 3 files\n",
            ),
            (0, 0, &none, vec![warning], "1 warning; 0 objects read from 0 files\n"),
            (
                1,
                2,
                &many,
                vec![error],
                "1 error; 2 objects read from 1 file; ignored: 1 g/v1/K1, 2 g/v1/K2, 3 g/v1/K3, 4 g/v1/K4, 5 g/v1/K5 \
                 and 2 more kinds\n",
            ),
        ] {
            let counts = InputCounts { files, objects, ignored, left_out: &BTreeMap::new() };
            assert_eq!(summary(counts, &diagnostics), expected);
        }
        let several_kinds = BTreeMap::from([("Ingress", 3), ("KongConsumer", 2), ("KongConsumerGroup", 1)]);
        let left_out =
            BTreeMap::from([("blue".to_owned(), BTreeMap::from([("Ingress", 1)])), ("kong".to_owned(), several_kinds)]);
        assert_eq!(
            summary(InputCounts { files: 1, objects: 4, ignored: &none, left_out: &left_out }, &[]),
            "nothing wrong; 4 objects read from 1 file; left out: 1 Ingress of class blue, which --ingress-class blue \
             serves; 3 Ingresses and 2 KongConsumers and 1 KongConsumerGroup of class kong, which --ingress-class kong \
             serves\n"
        );
    }
}
