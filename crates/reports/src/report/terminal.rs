//! Diagnostics in the style of a compiler: message, position, the line with a caret, and help.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Padding, Renderer, Snippet};

use super::diagnostic::ReportedDiagnostic;
use super::plain::{escape_controls, replace_controls};
use crate::diagnostic::Severity;
use crate::manifests::{Excerpt, FilePosition};

/// All diagnostics, each followed by an empty line.
pub fn terminal(diagnostics: &[ReportedDiagnostic], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.decor_style(DecorStyle::Ascii).term_width(WIDTH);
    let mut out = String::new();
    for diagnostic in diagnostics {
        let rendered = renderer.render(&[group(diagnostic)]);
        out += &with_true_column(rendered, diagnostic);
        out += "\n\n";
    }
    out
}

fn group(reported: &ReportedDiagnostic) -> Group<'_> {
    let diagnostic = &reported.diagnostic;
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = [reported.object.as_deref(), Some(diagnostic.field.as_str()), Some(diagnostic.message.as_str())];
    let title: Vec<_> = title.into_iter().flatten().filter(|part| !part.is_empty()).map(escape_controls).collect();
    let mut group = Group::with_title(level.primary_title(title.join(": ")).id(reported.reason()));
    if let Some(position) = &reported.position {
        group = match excerpt(reported) {
            Some(excerpt) => group.element(snippet(position, excerpt)),
            None => group.element(origin(position)).element(Padding),
        };
    }
    if !diagnostic.remedy.is_empty() {
        group = group.element(Level::HELP.message(escape_controls(&diagnostic.remedy)));
    }
    if let Some(code) = reported.condition {
        let status = if code.status() { "True" } else { "False" };
        group = group.element(Level::NOTE.message(format!("{} is {status}", code.condition())));
    }
    if let Some(meanwhile) = &reported.meanwhile {
        group = group.element(Level::NOTE.message(escape_controls(meanwhile)));
    }
    group
}

fn origin(position: &FilePosition) -> Origin<'static> {
    let origin = Origin::path(path(position));
    match position.line {
        0 => origin,
        line => origin.line(line as usize).char_column(position.column as usize),
    }
}

fn snippet<'a>(position: &FilePosition, excerpt: &Excerpt) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let text = format!("{}{}", ellipsis(excerpt), replace_controls(&excerpt.text));
    let start = shown_column(position, excerpt) - 1;
    let offset = |characters: usize| text.char_indices().nth(characters).map_or(text.len(), |(offset, _)| offset);
    let span = offset(start)..offset(start + excerpt.width.max(1) as usize);
    let snippet = Snippet::source(text).path(path(position)).line_start(position.line as usize);
    snippet.annotation(AnnotationKind::Primary.span(span))
}

/// Corrects the column of a diagnostic in a very long line: the renderer counts it in the excerpt, not in the line.
fn with_true_column(rendered: String, diagnostic: &ReportedDiagnostic) -> String {
    let (Some(position), Some(excerpt)) = (&diagnostic.position, excerpt(diagnostic)) else { return rendered };
    let Some((title, rest)) = rendered.split_once('\n').filter(|_| excerpt.skipped > 0) else { return rendered };
    let (path, line) = (path(position), position.line);
    let shown = format!("{path}:{line}:{}", shown_column(position, excerpt));
    let rest = rest.replacen(&shown, &format!("{path}:{line}:{}", position.column), 1);
    format!("{title}\n{rest}")
}

/// The column of the caret in the shown text, which begins with an ellipsis if the excerpt skips characters.
fn shown_column(position: &FilePosition, excerpt: &Excerpt) -> usize {
    let column = position.column.max(1).saturating_sub(excerpt.skipped).max(1) as usize;
    // A column beyond the line is moved to its end.
    (column + ellipsis(excerpt).chars().count()).min(excerpt.text.chars().count() + 2)
}

fn ellipsis(excerpt: &Excerpt) -> &'static str {
    if excerpt.skipped > 0 { "…" } else { "" }
}

fn path(position: &FilePosition) -> String {
    escape_controls(&position.file.display().to_string())
}

/// The excerpt, if it may be shown.
fn excerpt(diagnostic: &ReportedDiagnostic) -> Option<&Excerpt> {
    diagnostic.position.as_ref()?.excerpt.as_deref().filter(|_| !is_secret(diagnostic))
}

/// Whether the field is a value of a Secret. Manifests give no excerpts of Secrets; this also covers other sources.
fn is_secret(reported: &ReportedDiagnostic) -> bool {
    let is_of_secret = reported.object.as_deref().is_some_and(|object| object.starts_with("Secret "));
    is_of_secret && ["data", "stringData"].iter().any(|field| reported.diagnostic.field.starts_with(field))
}

/// The width in columns. Longer lines are cut around the caret.
const WIDTH: usize = 120;

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::diagnostic::{Diagnostic, Reason};
    use crate::verdict::Code;

    fn diagnostic(line: &str, column: u32, width: u32) -> ReportedDiagnostic {
        let excerpt = Excerpt { text: line.to_owned(), skipped: 0, width };
        let file: Arc<Path> = Arc::from(Path::new("shop/routes.yaml"));
        ReportedDiagnostic {
            diagnostic: Diagnostic::error("spec.rules[0].filter", "unknown field", "did you mean `filters`?")
                .with_reason(Reason::UnknownField),
            position: Some(FilePosition { file, line: 12, column, excerpt: Some(Arc::new(excerpt)) }),
            object: Some("HTTPRoute default/web".to_owned()),
            id: None,
            condition: None,
            meanwhile: Some("The last valid version of this object stays in use.".to_owned()),
        }
    }

    #[test]
    fn diagnostics_look_like_compiler_errors() {
        let expected = "\
error[UnknownField]: HTTPRoute default/web: spec.rules[0].filter: unknown field
  --> shop/routes.yaml:12:7
   |
12 |       filter: []
   |       ^^^^^^
   |
   = help: did you mean `filters`?
   = note: The last valid version of this object stays in use.

";
        assert_eq!(terminal(&[diagnostic("      filter: []", 7, 6)], false), expected);
    }

    #[test]
    fn unknown_parts_are_omitted() {
        let mut verdict = diagnostic("", 0, 0);
        verdict.position = None;
        verdict.condition = Some(Code::ClassInvalidParameters);
        verdict.meanwhile = None;
        verdict.diagnostic.severity = Severity::Warning;
        let expected = "\
warning[InvalidParameters]: HTTPRoute default/web: spec.rules[0].filter: unknown field
 |
 = help: did you mean `filters`?
 = note: Accepted is False

";
        assert_eq!(terminal(&[verdict], false), expected);

        let mut folder = diagnostic("", 0, 0);
        folder.position = Some(FilePosition::whole_file(Arc::from(Path::new("shop"))));
        (folder.object, folder.diagnostic.field, folder.meanwhile) = (None, String::new(), None);
        let expected = "\
error[UnknownField]: unknown field
--> shop
 |
 = help: did you mean `filters`?

";
        assert_eq!(terminal(&[folder], false), expected);
    }

    #[test]
    fn carets_align_with_tabs_wide_characters_and_long_lines() {
        for (line, column, width, shown) in [
            ("\t\tfilter: x", 3, 6, "12 |         filter: x\n   |         ^^^^^^\n"),
            ("  路径: filter", 7, 6, "12 |   路径: filter\n   |         ^^^^^^\n"),
            ("\u{1b}[31mfilter", 6, 6, "12 | ␛[31mfilter\n   |      ^^^^^^\n"),
            ("\u{9b}31mfilter", 5, 6, "12 | \u{fffd}31mfilter\n   |     ^^^^^^\n"),
            ("\u{202e}filter", 2, 6, "12 | \u{fffd}filter\n   |  ^^^^^^\n"),
            ("filter", 7, 1, "12 | filter\n   |       ^\n"),
        ] {
            let out = terminal(&[diagnostic(line, column, width)], false);
            assert!(out.contains(shown), "{out}");
        }
        let mut long = diagnostic("", 5001, 6);
        let place = long.position.as_mut().unwrap();
        let text = format!("{}filter{}", "x".repeat(66), "y".repeat(128));
        place.excerpt = Some(Arc::new(Excerpt { text, skipped: 4934, width: 6 }));
        let out = terminal(&[long], false);
        assert!(out.contains("routes.yaml:12:5001\n"), "{out}");
        let lines: Vec<_> = out.lines().collect();
        let source = lines.iter().position(|line| line.contains("filteryyy")).expect("the line is shown");
        assert_eq!(
            lines[source].find("filter"),
            lines[source + 1].find("^^^^^^").map(|at| at + lines[source].len() - lines[source].chars().count()),
            "{out}"
        );
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH + 10), "{out}");
    }

    #[test]
    fn secret_values_are_not_shown() {
        let mut secret = diagnostic("  password: hunter2", 13, 7);
        secret.object = Some("Secret default/login".to_owned());
        secret.diagnostic.field = "stringData.password".to_owned();
        assert!(!terminal(&[secret], false).contains("hunter2"));
    }

    #[test]
    fn color_is_optional() {
        let diagnostic = [diagnostic("      filter: []", 7, 6)];
        assert!(!terminal(&diagnostic, false).contains('\u{1b}'));
        assert!(terminal(&diagnostic, true).contains("\u{1b}["));
    }
}
