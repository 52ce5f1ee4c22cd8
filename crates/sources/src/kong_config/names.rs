//! Names of Kubernetes objects for the entities of a file: valid, unique, and those of the entities where possible.

use std::collections::HashSet;

/// The names in use, by what they name.
#[derive(Debug, Default)]
pub(super) struct Names {
    used: HashSet<(&'static str, String)>,
}

impl Names {
    /// A DNS label, which starts with a letter, for a Service and whatever else needs one.
    pub(super) fn label(&mut self, kind: &'static str, name: &str) -> String {
        self.unique(kind, name, MAX_LABEL, false)
    }

    /// A DNS name, which may contain dots.
    pub(super) fn name(&mut self, kind: &'static str, name: &str) -> String {
        self.unique(kind, name, MAX_NAME, true)
    }

    fn unique(&mut self, kind: &'static str, name: &str, max: usize, dots: bool) -> String {
        let plain = plain(name, dots);
        let mut candidate = plain.clone();
        let mut attempt = 0_u32;
        // Another entity may have the same name after its special characters were replaced.
        while candidate.len() > max || (attempt == 0 && plain != name) || !self.used.insert((kind, candidate.clone())) {
            let suffix = format!("-{:08x}", hash(&format!("{name}\n{attempt}")));
            let kept: String = plain.chars().take(max - suffix.len()).collect();
            candidate = format!("{}{suffix}", kept.trim_end_matches(['-', '.']));
            attempt += 1;
        }
        candidate
    }
}

/// The name with other characters than those of DNS names replaced by hyphens.
fn plain(name: &str, dots: bool) -> String {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || (dots && c == '.');
    let mut text = String::with_capacity(name.len());
    for c in name.chars().flat_map(char::to_lowercase) {
        let c = if allowed(c) { c } else { '-' };
        // Labels between dots neither start nor end with a hyphen.
        if c == '.' && text.ends_with(['.', '-']) || c == '-' && text.ends_with('.') {
            continue;
        }
        text.push(c);
    }
    let text = text.trim_matches(['-', '.']);
    match text.chars().next() {
        None => "entity".to_owned(),
        Some(first) if !dots && !first.is_ascii_lowercase() => format!("s-{text}"),
        Some(_) => text.to_owned(),
    }
}

/// FNV-1a, folded to 32 bits: names must not change with the version of a library.
fn hash(text: &str) -> u32 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = text.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step);
    (hash ^ (hash >> 32)) as u32
}

const MAX_LABEL: usize = 63;
/// Shorter than a DNS name may be, because Kubernetes appends to some names.
const MAX_NAME: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_valid_unique_and_kept_if_possible() {
        let mut names = Names::default();
        assert_eq!(names.label("Service", "users"), "users");
        assert_eq!(names.name("Ingress", "a.b-c"), "a.b-c");
        let changed = names.label("Service", "Users_API");
        assert!(changed.starts_with("users-api-") && changed.len() == "users-api-".len() + 8, "{changed}");
        assert_ne!(names.label("Service", "users_api"), changed);
        assert!(names.label("Service", "1st").starts_with("s-1st"));
        assert_ne!(names.label("Service", "users"), "users", "it is taken");
        assert_eq!(names.label("Ingress", "users"), "users", "each kind has its own names");
        let long = names.label("Service", &"x".repeat(300));
        assert_eq!(long.len(), 63);
        assert!(names.name("Secret", "a._.b").starts_with("a.b"), "no empty label");
        assert!(names.name("Secret", "///").starts_with("entity-"));
    }
}
