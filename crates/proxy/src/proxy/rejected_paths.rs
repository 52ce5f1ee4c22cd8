//! Forms of paths that some endpoints read as another path than Portico, so that a rule for a path does not protect it.
//! They are rejected only if the operator says so.

/// Which paths are rejected with 400.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RejectedPaths {
    /// A backslash, which IIS and .NET read as a slash.
    pub backslash: bool,
    /// `%2F` or `%5C`, which some endpoints decode before they split a path into segments.
    pub encoded_slash: bool,
    /// A dot segment with parameters, such as `..;` or `..;a=b`, from which Tomcat removes the parameters.
    pub dot_parameters: bool,
    /// Two slashes in sequence, which many endpoints read as one.
    pub empty_segment: bool,
    /// A semicolon, encoded or not, which begins parameters that some endpoints remove from a segment.
    pub path_parameters: bool,
}

impl RejectedPaths {
    /// Checks a path without dot segments, whose unreserved characters are decoded. The error says what is rejected.
    pub(in crate::proxy) fn check(self, path: &str) -> Result<(), &'static str> {
        if self == RejectedPaths::default() {
            return Ok(());
        }
        if self.backslash && path.contains('\\') {
            return Err("the path has a backslash");
        }
        if self.encoded_slash && path.as_bytes().windows(3).any(is_encoded_slash) {
            return Err("the path has an encoded slash or backslash");
        }
        if self.dot_parameters && path.split(['/', '\\']).any(is_dot_with_parameters) {
            return Err("the path has a dot segment with parameters");
        }
        if self.empty_segment && path.contains("//") {
            return Err("the path has an empty segment");
        }
        if self.path_parameters && has_parameters(path) {
            return Err("the path has parameters");
        }
        Ok(())
    }
}

fn has_parameters(path: &str) -> bool {
    path.contains(';') || path.as_bytes().windows(3).any(|bytes| bytes.eq_ignore_ascii_case(b"%3b"))
}

fn is_encoded_slash(bytes: &[u8]) -> bool {
    bytes.eq_ignore_ascii_case(b"%2f") || bytes.eq_ignore_ascii_case(b"%5c")
}

fn is_dot_with_parameters(segment: &str) -> bool {
    let after_dots = segment.strip_prefix("..").or_else(|| segment.strip_prefix('.'));
    let has_prefix = |rest: &str, prefix: &str| {
        rest.as_bytes().get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    after_dots.is_some_and(|rest| has_prefix(rest, ";") || has_prefix(rest, "%3b"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_configured_forms_are_rejected() {
        let backslash = RejectedPaths { backslash: true, ..RejectedPaths::default() };
        let encoded_slash = RejectedPaths { encoded_slash: true, ..RejectedPaths::default() };
        let dot_parameters = RejectedPaths { dot_parameters: true, ..RejectedPaths::default() };
        let empty_segment = RejectedPaths { empty_segment: true, ..RejectedPaths::default() };
        let path_parameters = RejectedPaths { path_parameters: true, ..RejectedPaths::default() };
        let forms = [backslash, encoded_slash, dot_parameters, empty_segment, path_parameters];
        for (path, rejected_by) in [
            ("/public/..\\admin", &[backslash][..]),
            ("/a%2Fb", &[encoded_slash]),
            ("/a%5cb", &[encoded_slash]),
            ("/public/..;/admin", &[dot_parameters, path_parameters]),
            ("/public/..;a=b/admin", &[dot_parameters, path_parameters]),
            ("/public/.;/admin", &[dot_parameters, path_parameters]),
            ("/public/..%3B/admin", &[dot_parameters, path_parameters]),
            ("/public/a\\..;", &[backslash, dot_parameters, path_parameters]),
            ("//admin", &[empty_segment]),
            ("/public//admin", &[empty_segment]),
            ("/admin//", &[empty_segment]),
            ("///", &[empty_segment]),
            ("/admin;v=1", &[path_parameters]),
            ("/admin%3Bv=1", &[path_parameters]),
            ("/admin%3bv=1/users", &[path_parameters]),
            ("/a;b=c/..a;/.well-known;x/%2", &[path_parameters]),
            ("/;//x", &[empty_segment, path_parameters]),
            ("/admin/", &[]),
            ("/a/%3/b%", &[]),
            ("/", &[]),
        ] {
            for form in forms {
                assert_eq!(form.check(path).is_err(), rejected_by.contains(&form), "{path} {form:?}");
            }
            assert_eq!(RejectedPaths::default().check(path), Ok(()), "{path}");
        }
    }
}
