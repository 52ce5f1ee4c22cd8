//! Checks for words that must not be in any file: promises, paths of one machine, hosts of package registries.

use crate::tree::{File, Finding};

/// A banned word, which is split in two so that this file does not contain it.
struct Ban {
    word: (&'static str, &'static str),
    form: Form,
    remedy: &'static str,
}

/// Where a word is banned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Anywhere,
    /// As a complete word.
    Whole,
    /// Followed by the name of a user and a slash.
    OfUser,
}

use Form::{Anywhere, OfUser, Whole};

const PROMISE: &str = "do it now, or state what is missing as a fact in the documentation";
const MACHINE: &str = "is a path of one machine; take it from an argument, the environment or a temporary folder";
const REGISTRY: &str = "is a host of a package registry; name the package and let the tool's configuration find it";

const BANS: &[Ban] = &[
    Ban { word: ("TO", "DO"), form: Whole, remedy: PROMISE },
    Ban { word: ("FIX", "ME"), form: Whole, remedy: PROMISE },
    Ban { word: ("XX", "X"), form: Whole, remedy: PROMISE },
    Ban { word: ("/ro", "ot/"), form: Anywhere, remedy: MACHINE },
    Ban { word: ("/ho", "me/"), form: OfUser, remedy: MACHINE },
    Ban { word: ("/wo", "rk/"), form: Anywhere, remedy: MACHINE },
    Ban { word: ("/Us", "ers/"), form: OfUser, remedy: MACHINE },
    Ban { word: ("/tmp/", "wt/"), form: Anywhere, remedy: MACHINE },
    Ban { word: ("crates", ".io"), form: Anywhere, remedy: REGISTRY },
    Ban { word: ("pypi", ".org"), form: Anywhere, remedy: REGISTRY },
    Ban { word: ("npmjs", ".org"), form: Anywhere, remedy: REGISTRY },
    Ban { word: ("proxy.golang", ".org"), form: Anywhere, remedy: REGISTRY },
    Ban { word: ("arti", "factory"), form: Anywhere, remedy: REGISTRY },
];

pub(crate) fn findings(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| !file.has_extension("lock")) {
        for (line, text) in file.lines() {
            for ban in BANS {
                let word = format!("{}{}", ban.word.0, ban.word.1);
                if contains(text, &word, ban.form) {
                    findings.push(Finding::new(&file.path, line, format!("`{word}`: {}", ban.remedy)));
                }
            }
        }
    }
    findings
}

fn contains(text: &str, word: &str, form: Form) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        match form {
            Anywhere => true,
            Whole => !before.ends_with(is_word) && !after.starts_with(is_word),
            OfUser => after
                .split_once('/')
                .is_some_and(|(name, _)| !name.is_empty() && name.chars().all(|c| is_word(c) || c == '-')),
        }
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
            ("machine", "a.md", concat!("cd /ho", "me/me/x"), &[("a.md:1", "one machine")]),
            ("nobody's", "a.md", concat!("a mount such as /ho", "me/my files/x"), &[]),
            ("inside a path", "a.sh", concat!("target/image-ro", "ot/etc"), &[]),
            ("registry", "a.toml", concat!("https://static.crates", ".io/x"), &[("a.toml:1", "registry")]),
            ("lock file", "Cargo.lock", concat!("registry+https://github.com/rust-lang/crates", ".io-index"), &[]),
        ];
        for (name, path, text, expected) in cases {
            expect(name, findings(&[File::new(path, text)]), expected);
        }
    }
}
