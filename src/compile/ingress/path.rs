//! Paths of an Ingress as Kong's ingress controller reads them (`kong-compat.md` §3.2).

use super::super::verdict::Problem;
use crate::snapshot::kong::Path;

/// What decides how paths are read, besides their type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading<'a> {
    /// What a regular expression begins with, `/~` unless the annotation says otherwise.
    pub regex_prefix: &'a str,
    /// Types other than exact and prefix are regular expressions if they look like one.
    pub legacy_detection: bool,
    /// Exact paths and prefixes with the characters of regular expressions are read as such. Kong makes one of every such
    /// path without escaping it, and manifests that come from there may count on it; elsewhere a path is what it says.
    pub unescaped: bool,
}

/// The paths that stand for one path of the object, and what there is to remark. The error says why there are none.
pub(super) fn read(
    reading: Reading<'_>,
    path: Option<&str>,
    kind: Option<&str>,
    field: &str,
) -> Result<(Vec<Path>, Option<Problem>), Problem> {
    let path = merged(path.unwrap_or_default());
    if !path.starts_with('/') {
        let message = format!("{path:?} does not begin with a slash");
        return Err(Problem::new(field, message, format!("write /{path}")));
    }
    if kind != Some("Exact")
        && let Some(pattern) = path.strip_prefix(reading.regex_prefix)
    {
        return Ok((vec![regex(pattern, field)?], None));
    }
    match kind {
        Some("Exact") => {
            let text = format!("/{}", path.trim_start_matches('/'));
            match reading.reads_as_pattern(&text) {
                true => Ok((vec![regex(&format!("{text}$"), field)?], Some(remark(&text, field)))),
                false => Ok((vec![Path::exact(&text)], None)),
            }
        }
        Some("Prefix") => {
            let base = path.trim_matches('/');
            if base.is_empty() {
                return Ok((vec![Path::prefix("/")], None));
            }
            let text = format!("/{base}");
            // The plain one is a text for Kong, too.
            let below = Path::prefix(&format!("{text}/"));
            match reading.reads_as_pattern(&text) {
                true => Ok((vec![below, regex(&format!("{text}$"), field)?], Some(remark(&text, field)))),
                false => Ok((vec![below, Path::exact(&text)], None)),
            }
        }
        None | Some("ImplementationSpecific") => {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-~/%".contains(&byte);
            if reading.legacy_detection && !path.bytes().all(is_plain) {
                return Ok((vec![regex(&path, field)?], None));
            }
            Ok((vec![Path::prefix(&path)], None))
        }
        Some(other) => {
            let message = format!("{other} is not a type of path that is served");
            Err(Problem::new(field, message, "use Exact, Prefix or ImplementationSpecific"))
        }
    }
}

impl Reading<'_> {
    fn reads_as_pattern(&self, text: &str) -> bool {
        self.unescaped && text.contains(['\\', '(', '[', '*', '+', '?', '^', '$', '|'])
    }
}

fn regex(pattern: &str, field: &str) -> Result<Path, Problem> {
    Path::regex(pattern).map_err(|error| {
        let message = format!("the regular expression cannot be used: {error}");
        Problem::new(field, message, "see docs/ingress.md for the syntax")
    })
}

fn remark(text: &str, field: &str) -> Problem {
    let message = format!("{text} is read as a regular expression, as Kong does");
    Problem::new(
        field,
        message,
        "write it with the type ImplementationSpecific and /~ in front, so that everybody sees it",
    )
}

/// Slashes that stand together are one; nothing is the root.
fn merged(path: &str) -> String {
    if path.is_empty() {
        return "/".to_owned();
    }
    let mut made = String::with_capacity(path.len());
    for next in path.chars() {
        if next != '/' || !made.ends_with('/') {
            made.push(next);
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    // kong-compat §3.2
    // kong-compat §7.7
    #[test]
    fn every_type_of_path() {
        let usual = Reading { regex_prefix: "/~", legacy_detection: false, unescaped: false };
        let kong = Reading { unescaped: true, ..usual };
        let legacy = Reading { legacy_detection: true, ..usual };
        let other = Reading { regex_prefix: "/@", ..usual };
        let specific = Some("ImplementationSpecific");
        type Written = (Option<&'static str>, Option<&'static str>);
        let cases: &[(Reading<'_>, Written, &[&str])] = &[
            (usual, (Some("/foo"), Some("Exact")), &["Exact /foo"]),
            (usual, (Some("//foo//bar/"), Some("Exact")), &["Exact /foo/bar/"]),
            (usual, (Some("/a.b"), Some("Exact")), &["Exact /a.b"]),
            (usual, (Some("/a(b|c)"), Some("Exact")), &["Exact /a(b|c)"]),
            (kong, (Some("/a(b|c)"), Some("Exact")), &["Regex ~/a(b|c)$"]),
            // A dot alone is meant as one.
            (kong, (Some("/a.b"), Some("Exact")), &["Exact /a.b"]),
            (usual, (Some("/~/a"), Some("Exact")), &["Exact /~/a"]),
            (usual, (Some("/foo"), Some("Prefix")), &["Prefix /foo/", "Exact /foo"]),
            (usual, (Some("/foo/"), Some("Prefix")), &["Prefix /foo/", "Exact /foo"]),
            (usual, (Some("/"), Some("Prefix")), &["Prefix /"]),
            (kong, (Some("/v[0-9]"), Some("Prefix")), &["Prefix /v[0-9]/", "Regex ~/v[0-9]$"]),
            (usual, (Some(r"/~/a/\d+"), Some("Prefix")), &[r"Regex ~/a/\d+"]),
            (usual, (Some(r"/~/a/\d+"), specific), &[r"Regex ~/a/\d+"]),
            (usual, (Some("/foo"), specific), &["Prefix /foo"]),
            (usual, (Some("/foo"), None), &["Prefix /foo"]),
            (usual, (None, None), &["Prefix /"]),
            (usual, (Some(""), Some("Prefix")), &["Prefix /"]),
            (usual, (Some("/a*"), specific), &["Prefix /a*"]),
            (legacy, (Some("/a*"), specific), &["Regex ~/a*"]),
            (legacy, (Some("/a_b%20~c"), specific), &["Prefix /a_b%20~c"]),
            (legacy, (Some("/a*"), Some("Exact")), &["Exact /a*"]),
            (other, (Some("/@/x[0-9]"), specific), &["Regex ~/x[0-9]"]),
            (other, (Some("/~/x"), specific), &["Prefix /~/x"]),
        ];
        for (reading, (path, kind), expected) in cases {
            let (paths, _) = read(*reading, *path, *kind, "path").unwrap();
            let found: Vec<_> = paths.iter().map(ToString::to_string).collect();
            assert_eq!(found, *expected, "{path:?} {kind:?} {reading:?}");
        }
        for (path, kind, expected) in [
            ("foo", "Prefix", "\"foo\" does not begin with a slash"),
            ("/~/(", "Prefix", "the regular expression cannot be used: unclosed group at character 2"),
            ("/", "Glob", "Glob is not a type of path that is served"),
        ] {
            assert_eq!(read(usual, Some(path), Some(kind), "path").unwrap_err().message, expected);
        }
    }
}
