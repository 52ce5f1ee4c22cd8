//! Parses the paths of an Ingress as Kong's ingress controller does (docs/kong-compatibility.md, 3.2).

use crate::compile::budgets::{RegexBudget, literal_segments};
use crate::diagnostic::Diagnostic;
use crate::snapshot::regex::RegexAnchor;
use crate::snapshot::router::by_conditions::PathCondition;

/// Options that affect how paths are parsed.
#[derive(Clone, Copy, Debug)]
pub(in crate::compile::ingress) struct PathOptions<'a> {
    /// The prefix of paths that are regular expressions, `/~` by default.
    pub regex_prefix: &'a str,
    /// Whether paths of type ImplementationSpecific are regular expressions if they contain special characters.
    pub legacy_detection: bool,
    /// Whether paths of type Exact and Prefix with special characters are regular expressions. Kong does not escape
    /// such paths, and manifests written for Kong may depend on it; otherwise these paths are literal.
    pub unescaped: bool,
    /// `None` if the Ingress is refused: then expressions are replaced by their literal prefixes.
    pub regexes: Option<&'a RegexBudget<'a>>,
}

/// The router paths for one path of an Ingress, with an optional note.
pub(in crate::compile::ingress) fn parse_path(
    options: PathOptions<'_>,
    path: Option<&str>,
    kind: Option<&str>,
    field: &str,
) -> Result<(Vec<PathCondition>, Option<Diagnostic>), Diagnostic> {
    let path = merge_slashes(path.unwrap_or_default());
    if !path.starts_with('/') {
        let message = format!("{path:?} does not start with a slash");
        return Err(Diagnostic::error(field, message, format!("write /{path}")));
    }
    if kind != Some("Exact")
        && let Some(pattern) = path.strip_prefix(options.regex_prefix)
    {
        return Ok((vec![options.regex(pattern, field)?], None));
    }
    match kind {
        Some("Exact") => {
            let text = format!("/{}", path.trim_start_matches('/'));
            match options.is_pattern(&text) {
                true => Ok((vec![options.regex(&format!("{text}$"), field)?], Some(pattern_note(&text, field)))),
                false => Ok((vec![PathCondition::exact(&text)], None)),
            }
        }
        Some("Prefix") => {
            let base = path.trim_matches('/');
            if base.is_empty() {
                return Ok((vec![PathCondition::prefix("/")], None));
            }
            let text = format!("/{base}");
            // As in Kong, the prefix with a final slash is always literal.
            let subpaths = PathCondition::prefix(&format!("{text}/"));
            match options.is_pattern(&text) {
                true => {
                    Ok((vec![subpaths, options.regex(&format!("{text}$"), field)?], Some(pattern_note(&text, field))))
                }
                false => Ok((vec![subpaths, PathCondition::exact(&text)], None)),
            }
        }
        None | Some("ImplementationSpecific") => {
            let is_literal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-~/%".contains(&byte);
            if options.legacy_detection && !path.bytes().all(is_literal) {
                return Ok((vec![options.regex(&path, field)?], None));
            }
            Ok((vec![PathCondition::prefix(&path)], None))
        }
        Some(other) => {
            let message = format!("{other} is not a supported path type");
            Err(Diagnostic::error(field, message, "use Exact, Prefix or ImplementationSpecific"))
        }
    }
}

impl PathOptions<'_> {
    fn regex(&self, pattern: &str, field: &str) -> Result<PathCondition, Diagnostic> {
        let Some(regexes) = self.regexes else {
            let prefix = literal_segments(pattern);
            return Ok(PathCondition::prefix(if prefix.is_empty() { "/" } else { prefix }));
        };
        regexes.compile(pattern, RegexAnchor::Start, field, "see docs/ingress.md for the syntax", |limit| {
            PathCondition::regex_within(pattern, limit)
        })
    }

    fn is_pattern(&self, text: &str) -> bool {
        self.unescaped && text.contains(['\\', '(', '[', '*', '+', '?', '^', '$', '|'])
    }
}

fn pattern_note(text: &str, field: &str) -> Diagnostic {
    let message = format!("{text} is treated as a regular expression, as in Kong");
    Diagnostic::warning(field, message, "to make that explicit, use type ImplementationSpecific and the prefix /~")
}

/// Merges adjacent slashes; an empty path becomes `/`.
fn merge_slashes(path: &str) -> String {
    if path.is_empty() {
        return "/".to_owned();
    }
    let mut merged = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !merged.ends_with('/') {
            merged.push(c);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::Budgets;
    use crate::compile::budgets::{BudgetShare, Expansion};

    // docs/kong-compatibility.md, 3.2
    // docs/kong-compatibility.md, 7.7
    #[test]
    fn every_path_type_is_parsed() {
        let budgets = Budgets::default();
        let regexes = RegexBudget::new(&budgets, &BudgetShare::Available(Expansion::MAX));
        let defaults =
            PathOptions { regex_prefix: "/~", legacy_detection: false, unescaped: false, regexes: Some(&regexes) };
        let kong = PathOptions { unescaped: true, ..defaults };
        let legacy = PathOptions { legacy_detection: true, ..defaults };
        let other_prefix = PathOptions { regex_prefix: "/@", ..defaults };
        let specific = Some("ImplementationSpecific");
        type PathAndType = (Option<&'static str>, Option<&'static str>);
        let cases: &[(PathOptions<'_>, PathAndType, &[&str])] = &[
            (defaults, (Some("/foo"), Some("Exact")), &["Exact /foo"]),
            (defaults, (Some("//foo//bar/"), Some("Exact")), &["Exact /foo/bar/"]),
            (defaults, (Some("/a.b"), Some("Exact")), &["Exact /a.b"]),
            (defaults, (Some("/a(b|c)"), Some("Exact")), &["Exact /a(b|c)"]),
            (kong, (Some("/a(b|c)"), Some("Exact")), &["Regex ~/a(b|c)$"]),
            // A dot alone does not make a path a regular expression.
            (kong, (Some("/a.b"), Some("Exact")), &["Exact /a.b"]),
            (defaults, (Some("/~/a"), Some("Exact")), &["Exact /~/a"]),
            (defaults, (Some("/foo"), Some("Prefix")), &["Prefix /foo/", "Exact /foo"]),
            (defaults, (Some("/foo/"), Some("Prefix")), &["Prefix /foo/", "Exact /foo"]),
            (defaults, (Some("/"), Some("Prefix")), &["Prefix /"]),
            (kong, (Some("/v[0-9]"), Some("Prefix")), &["Prefix /v[0-9]/", "Regex ~/v[0-9]$"]),
            (defaults, (Some(r"/~/a/\d+"), Some("Prefix")), &[r"Regex ~/a/\d+"]),
            (defaults, (Some(r"/~/a/\d+"), specific), &[r"Regex ~/a/\d+"]),
            (defaults, (Some("/foo"), specific), &["Prefix /foo"]),
            (defaults, (Some("/foo"), None), &["Prefix /foo"]),
            (defaults, (None, None), &["Prefix /"]),
            (defaults, (Some(""), Some("Prefix")), &["Prefix /"]),
            (defaults, (Some("/a*"), specific), &["Prefix /a*"]),
            (legacy, (Some("/a*"), specific), &["Regex ~/a*"]),
            (legacy, (Some("/a_b%20~c"), specific), &["Prefix /a_b%20~c"]),
            (legacy, (Some("/a*"), Some("Exact")), &["Exact /a*"]),
            (other_prefix, (Some("/@/x[0-9]"), specific), &["Regex ~/x[0-9]"]),
            (other_prefix, (Some("/~/x"), specific), &["Prefix /~/x"]),
        ];
        for (options, (path, kind), expected) in cases {
            let (paths, _) = parse_path(*options, *path, *kind, "path").unwrap();
            let found: Vec<_> = paths.iter().map(ToString::to_string).collect();
            assert_eq!(found, *expected, "{path:?} {kind:?} {options:?}");
        }
        for (path, kind, expected) in [
            ("foo", "Prefix", "\"foo\" does not start with a slash"),
            ("/~/(", "Prefix", "the regular expression is invalid: unclosed group at character 2"),
            ("/", "Glob", "Glob is not a supported path type"),
        ] {
            assert_eq!(parse_path(defaults, Some(path), Some(kind), "path").unwrap_err().message, expected);
        }
    }
}
