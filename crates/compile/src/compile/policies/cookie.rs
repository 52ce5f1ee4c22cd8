//! The cookies of sessions and of hashing: what is wrong with their names and paths, and what responses set.

use std::time::Duration;

use crate::cookie_prefix::has_prefix;
use crate::upstream::settings::{SameSite, SetCookie};

/// A cookie as an object describes it.
#[derive(Clone, Copy, Debug)]
pub(in crate::compile) struct CookieSpec<'o> {
    pub(in crate::compile) name: &'o str,
    pub(in crate::compile) path: &'o str,
    /// `None` for a cookie that clients forget when they close.
    pub(in crate::compile) max_age: Option<Duration>,
    pub(in crate::compile) same_site: SameSite,
}

/// What is wrong with a cookie.
#[derive(Debug)]
pub(in crate::compile) struct CookieProblem {
    pub(in crate::compile) part: CookiePart,
    pub(in crate::compile) message: String,
    pub(in crate::compile) remedy: &'static str,
}

/// What a problem is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::compile) enum CookiePart {
    Name,
    Path,
}

impl CookieSpec<'_> {
    /// The cookie, or all that is wrong with it.
    pub(in crate::compile) fn build(self) -> Result<SetCookie, Vec<CookieProblem>> {
        let CookieSpec { name, path, max_age, same_site } = self;
        let mut problems = Vec::new();
        let mut problem = |part, message, remedy| problems.push(CookieProblem { part, message, remedy });
        if name.is_empty() || !name.bytes().all(is_token_byte) {
            let message = format!("{name:?} is not the name of a cookie");
            problem(CookiePart::Name, message, "use letters, digits, hyphens and underscores");
        }
        if !path.starts_with('/') || path.bytes().any(|byte| byte == b';' || !(b' '..=b'~').contains(&byte)) {
            let message = format!("{path:?} is not the path of a cookie");
            problem(CookiePart::Path, message, "write a path that begins with a slash and has no semicolon");
        } else if path != "/" && has_prefix(name, "__Host-") {
            let message = format!("clients reject the cookie {name} with a path other than /");
            problem(CookiePart::Path, message, "use the path / or another name");
        }
        if problems.is_empty() { Ok(SetCookie::new(name, path, max_age, same_site)) } else { Err(problems) }
    }
}

/// A byte of a token (RFC 9110, section 5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_that_clients_reject_are_problems() {
        use CookiePart::{Name, Path};
        for (name, path, expected) in [
            ("a", "/", &[][..]),
            ("__Host-a", "/", &[]),
            ("a", "/b c", &[]),
            ("", "/", &[Name]),
            ("a b", "/", &[Name]),
            ("a=b", "x", &[Name, Path]),
            ("a", "", &[Path]),
            ("a", "/;b", &[Path]),
            ("a", "/\u{e9}", &[Path]),
            ("__Host-a", "/b", &[Path]),
            ("__host-a", "/b", &[Path]),
        ] {
            let built = CookieSpec { name, path, max_age: None, same_site: SameSite::Lax }.build();
            let parts: Vec<_> = built.err().into_iter().flatten().map(|problem| problem.part).collect();
            assert_eq!(parts, expected, "{name:?}, {path:?}");
        }
    }
}
