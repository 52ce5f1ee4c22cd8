//! What becomes of the snippets of an Ingress: the compiler reports whether they are in effect, and the parser which
//! directive is not supported.

use super::findings::{IngressFindings, field};
use super::subject::Subject;
use crate::api::ingress_nginx::{flag, written_key};
use crate::diagnostic::{Diagnostic, Topic};
use crate::report::migration::{FoundAnnotation, FoundSnippet, MigrationVerdict};
use crate::snapshot::location_snippet::{Snippet, SnippetPlace};
use crate::snapshot::regex::RegexLimit;

/// Where a snippet stands; `None` for other annotations.
pub(super) fn place(name: &str) -> Option<(&'static str, SnippetPlace)> {
    match name {
        "configuration-snippet" => Some(("configuration-snippet", SnippetPlace::Location)),
        "server-snippet" => Some(("server-snippet", SnippetPlace::Server)),
        _ => None,
    }
}

/// The annotation, and the directives of it that deserve a row.
pub(super) fn evaluate(
    subject: Subject<'_>,
    found: &IngressFindings<'_>,
    annotation: &'static str,
    place: SnippetPlace,
    text: &str,
) -> (FoundAnnotation, Vec<FoundSnippet>) {
    let rows = rows(subject, found, annotation, place, text);
    let worst = rows.iter().max_by_key(|row| row.verdict);
    let verdict = worst.map(|row| row.verdict).unwrap_or_default();
    let effect = match verdict {
        MigrationVerdict::Same if rows.iter().any(|row| row.directive.is_empty()) => {
            "it has no effect, as in ingress-nginx"
        }
        MigrationVerdict::Same => "it is in effect",
        _ => "it is not in effect",
    };
    let found = FoundAnnotation {
        name: annotation.to_owned(),
        value: text.to_owned(),
        verdict,
        guard: rows.iter().any(|row| row.guard),
        effect: effect.to_owned(),
        remedy: String::new(),
        ..FoundAnnotation::default()
    };
    (found, rows)
}

fn rows(
    subject: Subject<'_>,
    found: &IngressFindings<'_>,
    annotation: &'static str,
    place: SnippetPlace,
    text: &str,
) -> Vec<FoundSnippet> {
    let key = written_key(&subject.ingress.meta.annotations, annotation).unwrap_or_default();
    let problems: Vec<&Diagnostic> = found.at(&field(key)).collect();
    let row = |verdict, effect: &str, remedy: &str| FoundSnippet {
        annotation,
        verdict,
        effect: effect.to_owned(),
        remedy: remedy.to_owned(),
        ..FoundSnippet::default()
    };
    if subject.is_canary() {
        return vec![row(MigrationVerdict::Same, "that of the main Ingress applies, as in ingress-nginx", "")];
    }
    if problems.is_empty() {
        return Vec::new();
    }
    if !are_allowed(subject) {
        let rows = problems.iter().map(|problem| match problem.is_error() {
            true => FoundSnippet { guard: true, ..row(MigrationVerdict::LeftOut, &problem.message, &problem.remedy) },
            false => row(MigrationVerdict::Same, "the ConfigMap does not allow snippets, so it has no effect", ""),
        });
        return rows.collect();
    }
    let refused = Snippet::parse(text, place, RegexLimit::MEMORY_ONLY).err();
    let mut rows = Vec::new();
    for problem in problems {
        // The compiler may refuse another directive, because of what the snippet of the host has.
        let refused = refused.as_ref().filter(|refused| {
            let start = format!("line {}: {}", refused.line, refused.directive);
            problem.message.starts_with(&start) && problem.message.contains(&refused.message)
        });
        rows.push(match refused {
            Some(refused) => FoundSnippet {
                line: Some(refused.line),
                directive: refused.directive.clone(),
                guard: problem.is_error(),
                ..row(MigrationVerdict::LeftOut, &refused.message, &refused.remedy)
            },
            None if problem.is_error() => FoundSnippet {
                line: line_of_change(text, &problem.message),
                guard: true,
                ..row(MigrationVerdict::LeftOut, &problem.message, &problem.remedy)
            },
            None if problem.topic == Topic::Conflict => of_shared_host(subject, &row, problem),
            None => match ignored_directive(&problem.message) {
                Some(UnusedDirective { line, directive, reason }) => {
                    FoundSnippet { line, directive, ..row(MigrationVerdict::Same, reason, "") }
                }
                None => FoundSnippet {
                    line: line_of_change(text, &problem.message),
                    ..row(MigrationVerdict::LeftOut, &problem.message, &problem.remedy)
                },
            },
        });
    }
    rows
}

/// Whether the ConfigMap permits snippets, without which ingress-nginx does not read them.
fn are_allowed(subject: Subject<'_>) -> bool {
    let value = |key: &str| subject.config.get(key).map(|value| value.trim());
    let is_on = value("allow-snippet-annotations").and_then(flag) == Some(true);
    is_on && value("annotations-risk-level") == Some("Critical")
}

/// Only one snippet of a host counts. In ingress-nginx, it may be that of any namespace.
fn of_shared_host(
    subject: Subject<'_>,
    row: &dyn Fn(MigrationVerdict, &str, &str) -> FoundSnippet,
    problem: &Diagnostic,
) -> FoundSnippet {
    if subject.shares_host_with_other_namespace() {
        row(MigrationVerdict::Differs, &problem.message, &problem.remedy)
    } else {
        row(MigrationVerdict::Same, "another snippet of the host precedes it, as in ingress-nginx", "")
    }
}

/// A directive that changes no response.
#[derive(Debug, PartialEq, Eq)]
struct UnusedDirective<'m> {
    line: Option<usize>,
    directive: String,
    reason: &'m str,
}

/// The directive that a message is about. `None` if it is about the whole snippet.
fn ignored_directive(message: &str) -> Option<UnusedDirective<'_>> {
    if let Some((line, rest)) = message.strip_prefix("line ").and_then(|rest| rest.split_once(": ")) {
        let (directive, reason) = rest.split_once(": ")?;
        return Some(UnusedDirective { line: line.parse().ok(), directive: directive.to_owned(), reason });
    }
    let names = ["send_timeout", "keepalive_timeout", "access_log"];
    let name = names.iter().find(|name| message.starts_with(&format!("{name} is not supported")))?;
    let reason = message.get(name.len() + 1..).unwrap_or_default();
    Some(UnusedDirective { line: None, directive: (*name).to_owned(), reason })
}

/// The first line of a directive that changes the target or Host, if the message is about that.
fn line_of_change(text: &str, message: &str) -> Option<usize> {
    let is_rewrite = |line: &str| {
        let is_redirect = ["redirect;", "permanent;"].iter().any(|flag| line.ends_with(flag));
        line.starts_with("rewrite ") && !is_redirect
    };
    let is_host = |line: &str| line.starts_with("proxy_set_header Host") || line.starts_with("grpc_set_header Host");
    let is_about_host = message.contains("sets Host");
    let is_about_target = message.contains("changes the target") || message.contains("leads to another location");
    let mut lines = text.lines().zip(1..);
    let found = lines.find(|(line, _)| match line.trim() {
        line if is_about_host => is_host(line),
        line => is_about_target && is_rewrite(line),
    });
    found.map(|(_, number)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_without_effect_are_recognized() {
        for (message, expected) in [
            ("line 3: proxy_buffers: Portico forwards them", Some((Some(3), "proxy_buffers", "Portico forwards them"))),
            ("access_log is not supported, so", Some((None, "access_log", "is not supported, so"))),
            ("it has a rewrite that leads to another location", None),
            ("line 3: root is not supported", None),
        ] {
            let expected = expected.map(|(line, directive, reason)| UnusedDirective {
                line,
                directive: str::to_owned(directive),
                reason,
            });
            assert_eq!(ignored_directive(message), expected, "{message}");
        }
    }

    #[test]
    fn a_change_of_the_target_has_a_line() {
        let text = "rewrite ^/a /b permanent;\nset $a b;\n  rewrite ^/b /c last;\nproxy_set_header Host $a;\n";
        for (message, expected) in [
            ("it changes the target before the location is chosen", Some(3)),
            ("it has a rewrite that leads to another location", Some(3)),
            ("it sets Host by a variable or in an if", Some(4)),
            ("the ConfigMap does not allow snippets", None),
        ] {
            assert_eq!(line_of_change(text, message), expected, "{message}");
        }
    }
}
