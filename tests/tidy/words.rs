//! Words that must not be in any file: promises, paths of somebody's machine, hosts of package registries.

use crate::tree::{File, Finding};

/// Split in two, so that this file does not break its own rule.
struct Ban {
    word: (&'static str, &'static str),
    /// Whether it counts only as a word of its own.
    whole: bool,
    remedy: &'static str,
}

const PROMISE: &str = "do it now, or state what is missing as a fact in the documentation";
const MACHINE: &str = "is a path of one machine; take it from an argument, the environment or a temporary folder";
const REGISTRY: &str = "is a host of a package registry; name the package and let the tool's configuration find it";

const BANS: &[Ban] = &[
    Ban { word: ("TO", "DO"), whole: true, remedy: PROMISE },
    Ban { word: ("FIX", "ME"), whole: true, remedy: PROMISE },
    Ban { word: ("XX", "X"), whole: true, remedy: PROMISE },
    Ban { word: ("/ro", "ot/"), whole: false, remedy: MACHINE },
    Ban { word: ("/ho", "me/"), whole: false, remedy: MACHINE },
    Ban { word: ("/wo", "rk/"), whole: false, remedy: MACHINE },
    Ban { word: ("/Us", "ers/"), whole: false, remedy: MACHINE },
    Ban { word: ("/tmp/", "wt/"), whole: false, remedy: MACHINE },
    Ban { word: ("crates", ".io"), whole: false, remedy: REGISTRY },
    Ban { word: ("pypi", ".org"), whole: false, remedy: REGISTRY },
    Ban { word: ("npmjs", ".org"), whole: false, remedy: REGISTRY },
    Ban { word: ("proxy.golang", ".org"), whole: false, remedy: REGISTRY },
    Ban { word: ("arti", "factory"), whole: false, remedy: REGISTRY },
];

pub(crate) fn findings(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| !file.has_extension("lock")) {
        for (line, text) in file.lines() {
            for ban in BANS {
                let word = format!("{}{}", ban.word.0, ban.word.1);
                if contains(text, &word, ban.whole) {
                    findings.push(Finding::new(&file.path, line, format!("`{word}`: {}", ban.remedy)));
                }
            }
        }
    }
    findings
}

fn contains(text: &str, word: &str, whole: bool) -> bool {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (text[..at].chars().next_back(), text[at + word.len()..].chars().next());
        !whole || (!is_word(before) && !is_word(after))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Places, expect};

    #[test]
    fn banned_words_are_found_with_their_remedy() {
        let cases: &[(&str, &str, &str, Places<'_>)] = &[
            ("none", "a.rs", "fn main() {}", &[]),
            ("promise", "a.rs", concat!("\n// TO", "DO: later"), &[("a.rs:2", "do it now")]),
            ("part of a word", "a.rs", concat!("MASTO", "DON TO", "DOS"), &[]),
            ("machine", "a.md", concat!("cd /ho", "me/me"), &[("a.md:1", "one machine")]),
            ("inside a path", "a.sh", concat!("target/image-ro", "ot/etc"), &[]),
            ("registry", "a.toml", concat!("https://static.crates", ".io/x"), &[("a.toml:1", "registry")]),
            ("lock file", "Cargo.lock", concat!("registry+https://github.com/rust-lang/crates", ".io-index"), &[]),
        ];
        for (name, path, text, expected) in cases {
            expect(name, findings(&[File::new(path, text)]), expected);
        }
    }
}
