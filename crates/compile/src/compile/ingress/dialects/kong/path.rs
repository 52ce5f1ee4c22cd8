//! Parses the paths of an Ingress as Kong's ingress controller does (docs/kong-compatibility.md, 3.2). Kong refuses the
//! whole configuration if a path is invalid; here, requests that the path may mean get an error.

use crate::compile::budgets::{RegexBudget, literal_segments};
use crate::compile::paths::literal_path;
use crate::compile::paths::literal_path::{CheckedPath, UnusablePath};
use crate::compile::paths::path_expression::{PathExpression, normalize_escapes};
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
    /// `None` if the Ingress is refused: then expressions are replaced by the text with which their paths begin.
    pub regexes: Option<&'a RegexBudget<'a>>,
}

/// The conditions for one path of an Ingress.
#[derive(Debug, Default)]
pub(in crate::compile::ingress) struct ParsedPath {
    pub conditions: Vec<PathCondition>,
    /// Why requests for the path must not be forwarded: they get an error, since a less specific route, which may
    /// protect them less, must not get them.
    pub problem: Option<Diagnostic>,
    pub notes: Vec<Diagnostic>,
}

/// Parses one path of an Ingress.
pub(in crate::compile::ingress) fn parse_path(
    options: PathOptions<'_>,
    path: Option<&str>,
    kind: Option<&str>,
    field: &str,
) -> ParsedPath {
    let path = merge_slashes(path.unwrap_or_default());
    if !path.starts_with('/') {
        let message = format!("{path:?} does not start with a slash");
        return refused(&path, Diagnostic::error(field, message, format!("write /{path}")));
    }
    if kind != Some("Exact")
        && let Some(pattern) = path.strip_prefix(options.regex_prefix)
    {
        return options.regex(pattern, field);
    }
    match kind {
        Some("Exact") => {
            let text = format!("/{}", path.trim_start_matches('/'));
            match options.is_pattern(&text) {
                true => options.regex(&format!("{text}$"), field).with_note(pattern_note(&text, field)),
                false => options.literal(&text, field, |text| vec![PathCondition::exact(text)]),
            }
        }
        Some("Prefix") => {
            let base = path.trim_matches('/');
            if base.is_empty() {
                return ParsedPath { conditions: vec![PathCondition::prefix("/")], ..ParsedPath::default() };
            }
            let text = format!("/{base}");
            let subpaths = |text: &str| PathCondition::prefix(&format!("{text}/"));
            if options.is_pattern(&text) {
                let mut parsed = options.regex(&format!("{text}$"), field).with_note(pattern_note(&text, field));
                if parsed.problem.is_none() {
                    // As in Kong, the prefix with a final slash is always literal.
                    parsed.conditions.insert(0, subpaths(&text));
                }
                return parsed;
            }
            options.literal(&text, field, |text| match text.trim_end_matches('/') {
                "" => vec![PathCondition::prefix("/")],
                text => vec![subpaths(text), PathCondition::exact(text)],
            })
        }
        None | Some("ImplementationSpecific") => {
            let is_literal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-~/%".contains(&byte);
            if options.legacy_detection && !path.bytes().all(is_literal) {
                return options.regex(&path, field);
            }
            options.literal(&path, field, |text| vec![PathCondition::prefix(text)])
        }
        Some(other) => {
            let message = format!("{other} is not a supported path type");
            refused(&path, Diagnostic::error(field, message, "use Exact, Prefix or ImplementationSpecific"))
        }
    }
}

/// A path of which only the requests are known that it may mean. The problem does not yet say what happens to them.
fn refused(path: &str, mut problem: Diagnostic) -> ParsedPath {
    let expression = PathExpression::of_ingress(path);
    problem.message = format!("{}, so {} get status 500", problem.message, expression.refused_requests());
    let conditions = vec![PathCondition::refused(&expression.refused_prefix(), path)];
    ParsedPath { conditions, problem: Some(problem), ..ParsedPath::default() }
}

impl ParsedPath {
    fn with_note(mut self, note: Diagnostic) -> Self {
        self.notes.push(note);
        self
    }
}

impl PathOptions<'_> {
    fn regex(&self, pattern: &str, field: &str) -> ParsedPath {
        // Kong compares expressions with decoded paths.
        let pattern = &*normalize_escapes(pattern);
        let expression = PathExpression::of_ingress(pattern);
        // Compiling an expression of an Ingress that has too many would take the memory that the budget limits.
        let without_compiling = || {
            let prefix = literal_segments(pattern);
            let prefix = if prefix.starts_with('/') { prefix } else { "/" };
            ParsedPath { conditions: vec![PathCondition::refused(prefix, pattern)], ..ParsedPath::default() }
        };
        let Some(regexes) = self.regexes else { return without_compiling() };
        let compiled =
            regexes.compile(pattern, RegexAnchor::Start, field, "see docs/ingress.md for the syntax", |limit| {
                PathCondition::regex_within(pattern, limit)
            });
        match compiled {
            // The Ingress is refused as a whole, and planned again.
            Err(_) if regexes.is_exceeded() => without_compiling(),
            Err(problem) => refused(pattern, problem),
            Ok(condition) => match expression.check(field) {
                Ok(note) => {
                    ParsedPath { conditions: vec![condition], problem: None, notes: note.into_iter().collect() }
                }
                Err(problem) => {
                    let conditions = vec![PathCondition::refused(&expression.refused_prefix(), pattern)];
                    ParsedPath { conditions, problem: Some(problem), ..ParsedPath::default() }
                }
            },
        }
    }

    /// `conditions`: those for the text that requests have.
    fn literal(&self, path: &str, field: &str, conditions: impl Fn(&str) -> Vec<PathCondition>) -> ParsedPath {
        match CheckedPath::parse(path, field) {
            CheckedPath::Usable(text, note) => {
                let remedy = format!(
                    "write a regular expression as {} and the expression, with type ImplementationSpecific; write a \
                     prefix without special characters",
                    self.regex_prefix
                );
                let notes = note.into_iter().chain(literal_path::pattern_note(path, field, &remedy)).collect();
                ParsedPath { conditions: conditions(&text), problem: None, notes }
            }
            CheckedPath::Unusable(UnusablePath { usable_part, is_pattern, mut problem }) => {
                if is_pattern {
                    problem.remedy = format!(
                        "write a regular expression as {}{path}, with type ImplementationSpecific",
                        self.regex_prefix
                    );
                }
                let conditions = match is_pattern || usable_part == "/" {
                    true => vec![PathCondition::refused(&usable_part, path)],
                    false => conditions(&usable_part),
                };
                ParsedPath { conditions, problem: Some(problem), ..ParsedPath::default() }
            }
        }
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
            (defaults, (Some("/~/reg%65x/%2e%5cd%2"), specific), &[r"Regex ~/regex/\.%5Cd%2"]),
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
            let parsed = parse_path(*options, *path, *kind, "path");
            assert_eq!(parsed.problem, None, "{path:?} {kind:?} {options:?}");
            assert_eq!(texts(&parsed.conditions), *expected, "{path:?} {kind:?} {options:?}");
        }
    }

    fn texts(conditions: &[PathCondition]) -> Vec<String> {
        conditions.iter().map(ToString::to_string).collect()
    }

    fn with_options(check: impl Fn(PathOptions<'_>)) {
        let budgets = Budgets::default();
        let regexes = RegexBudget::new(&budgets, &BudgetShare::Available(Expansion::MAX));
        check(PathOptions { regex_prefix: "/~", legacy_detection: false, unescaped: false, regexes: Some(&regexes) });
    }

    /// Requests that such a path means get an error, and not the backend of a less specific path.
    #[test]
    fn paths_that_no_request_can_have_are_refused() {
        with_options(|defaults| {
            let legacy = PathOptions { legacy_detection: true, ..defaults };
            let unescaped = PathOptions { unescaped: true, ..defaults };
            let specific = "ImplementationSpecific";
            let cases: &[(PathOptions<'_>, &str, &str, &[&str])] = &[
                (defaults, "/~admin", "Prefix", &["Refused /admin"]),
                (defaults, "/~admin/[0-9]+", specific, &["Refused /admin/"]),
                (defaults, "/~", "Prefix", &["Refused /"]),
                (defaults, "/~.*", specific, &["Refused /"]),
                (defaults, "/~/café", specific, &["Refused /caf%C3%A9"]),
                (defaults, r"/~/a/\.\./b", specific, &["Refused /b"]),
                (defaults, "/~/(?i)/foo", specific, &["Refused /"]),
                (defaults, "/~/a b", specific, &["Refused /a%20b"]),
                // Invalid, or too large.
                (defaults, "/~/admin/(", "Prefix", &["Refused /admin/"]),
                (defaults, r"/~/admin/\w{500}", "Prefix", &["Refused /admin/"]),
                (legacy, "/admin/(", specific, &["Refused /admin/"]),
                (legacy, "/a b", specific, &["Refused /a%20b"]),
                (unescaped, "/admin/(", "Exact", &["Refused /admin/"]),
                (unescaped, "/admin/(", "Prefix", &["Refused /admin/"]),
                // Literal paths.
                (defaults, "/admin?x=1", "Exact", &["Exact /admin"]),
                (defaults, "/admin?x=1", "Prefix", &["Prefix /admin/", "Exact /admin"]),
                (defaults, "/admin#x", specific, &["Prefix /admin"]),
                (defaults, "/?x", "Prefix", &["Refused /"]),
                (defaults, "/admin%00", specific, &["Prefix /admin"]),
                (defaults, "/admin(/.*)?", "Prefix", &["Refused /admin"]),
                // Neither the type nor the start are known.
                (defaults, "/admin", "Glob", &["Refused /admin"]),
                (defaults, "admin", "Prefix", &["Refused /admin"]),
            ];
            for (options, path, kind, expected) in cases {
                let parsed = parse_path(*options, Some(path), Some(kind), "path");
                assert_eq!(texts(&parsed.conditions), *expected, "{path} {kind}");
                let problem = parsed.problem.expect(path);
                assert!(problem.is_error() && problem.message.contains("get status 500"), "{path}: {problem}");
            }
        });
    }

    #[test]
    fn paths_that_may_not_be_meant_as_they_are_matched_are_reported() {
        with_options(|defaults| {
            let specific = "ImplementationSpecific";
            let cases: &[(&str, &str, &[&str], usize)] = &[
                ("/*", "Prefix", &["Prefix /*/", "Exact /*"], 1),
                ("/api/*", specific, &["Prefix /api/*"], 1),
                ("/foo(/|$)(.*)", specific, &["Prefix /foo(/|$)(.*)"], 1),
                ("/users/{id}", "Exact", &["Exact /users/{id}"], 1),
                // Expressions have another type.
                ("/~/a", "Exact", &["Exact /~/a"], 1),
                ("/a b", "Exact", &["Exact /a%20b"], 1),
                ("/café", "Prefix", &["Prefix /caf%C3%A9/", "Exact /caf%C3%A9"], 1),
                ("/a/../b", specific, &["Prefix /b"], 1),
                ("/a b*", specific, &["Prefix /a%20b*"], 2),
                ("/~/", specific, &["Regex ~/"], 1),
                ("/~/.*", "Prefix", &["Regex ~/.*"], 1),
                ("/a.b-c_d~e", "Prefix", &["Prefix /a.b-c_d~e/", "Exact /a.b-c_d~e"], 0),
                ("/~/a/.*", "Prefix", &["Regex ~/a/.*"], 0),
                ("/", "Prefix", &["Prefix /"], 0),
            ];
            for (path, kind, expected, notes) in cases {
                let parsed = parse_path(defaults, Some(path), Some(kind), "path");
                assert_eq!(texts(&parsed.conditions), *expected, "{path} {kind}");
                assert_eq!((parsed.problem, parsed.notes.len()), (None, *notes), "{path} {kind}: {:?}", parsed.notes);
                assert!(parsed.notes.iter().all(|note| !note.is_error() && note.field == "path"), "{path} {kind}");
            }
        });
    }

    #[test]
    fn messages_name_the_cause() {
        with_options(|defaults| {
            for (path, kind, expected) in [
                (
                    "foo",
                    "Prefix",
                    "\"foo\" does not start with a slash, so requests whose path begins with /foo get status 500",
                ),
                (
                    "/~/(",
                    "Prefix",
                    "the regular expression is invalid: unclosed group at character 2, so requests for the host that \
                 no other rule matches get status 500",
                ),
                (
                    "/",
                    "Glob",
                    "Glob is not a supported path type, so requests for the host that no other rule matches get status \
                     500",
                ),
                (
                    "/~admin",
                    "Prefix",
                    "the regular expression \"admin\" matches the path of no request, so requests whose path begins with \
                 /admin get status 500",
                ),
            ] {
                let problem = parse_path(defaults, Some(path), Some(kind), "path").problem;
                assert_eq!(problem.map(|problem| problem.message).as_deref(), Some(expected));
            }
        });
    }
}
