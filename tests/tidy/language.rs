//! Plain language: words that comments, messages and documents do not use, and what they use instead.
//!
//! The banned words are those that a reader who knows Kubernetes and Envoy has to read twice. Names from Kong,
//! Kubernetes or an RFC are in backticks or quotes, and are not checked.

use crate::prose::{self, Form};
use crate::tree::{File, Finding};

/// Words for one meaning, and what to write instead. `*` at the end of a word stands for any ending.
struct Ban {
    words: &'static [&'static str],
    remedy: &'static str,
}

const BANS: &[Ban] = &[
    Ban {
        words: &[
            "whoever",
            "whomever",
            "nobody",
            "somebody",
            "everybody",
            "anybody",
            "people",
            "stranger*",
            "newcomer*",
        ],
        remedy: "name the client, user, operator, caller, controller or object",
    },
    Ban { words: &["of ours", "of theirs", "of our own"], remedy: "name the owner: Portico's, the Gateway's" },
    Ban {
        words: &[
            "is told",
            "are told",
            "was told",
            "were told",
            "be told",
            "been told",
            "is asked",
            "are asked",
            "was asked",
            "were asked",
            "be asked",
            "been asked",
            "is said",
            "are said",
            "was said",
            "were said",
            "be said",
            "been said",
        ],
        remedy: "use an active verb: reports, logs, requests, states",
    },
    Ban {
        words: &["speak", "speaks", "speaking", "shake hands", "shakes hands", "shaking hands", "hands were shaken"],
        remedy: "use `uses`, `supports`, `TLS handshake`",
    },
    Ban { words: &["answer*"], remedy: "write response, responds or returns; result for DNS" },
    Ban { words: &["fault", "faults"], remedy: "write request error" },
    Ban { words: &["trouble*", "hitch*"], remedy: "write diagnostic or error" },
    Ban { words: &["tries"], remedy: "write retries, timeouts or attempts" },
    Ban { words: &["patience", "patient", "silence", "silent"], remedy: "write timeout, idle timeout or read timeout" },
    Ban { words: &["ailing", "passed over"], remedy: "write unhealthy or ejected" },
    Ban { words: &["entrance", "entrances"], remedy: "write ingress listener" },
    Ban {
        words: &["greeted", "greets", "manners", "ledger", "the books", "goodbye", "crowded"],
        remedy: "use the field's noun",
    },
    Ban { words: &["lent", "lend", "lends", "spares"], remedy: "write replay buffer, pool" },
    Ban { words: &["mend*"], remedy: "write fix, fixed or resolved" },
    Ban { words: &["judge*", "judging", "judgment*"], remedy: "write validate, evaluate or decide" },
    Ban { words: &["beside"], remedy: "write next to, in addition to or during" },
    Ban { words: &["for want of"], remedy: "write because … is missing" },
    Ban { words: &["hold it against", "held against", "holds against"], remedy: "write compare with or check against" },
];

/// Banned in comments, except after a person, as in "users who may edit Services".
const WHO: &str = "who";
const PERSONS: &[&str] = &["user", "users", "operator", "operators", "administrator", "administrators", "attackers"];

/// Words that are banned in the names of types and modules.
const IN_NAMES: &[&str] = &[
    "ailing",
    "answer",
    "answers",
    "bar",
    "board",
    "contest",
    "desk",
    "entrance",
    "entrances",
    "fault",
    "faults",
    "front",
    "fronts",
    "goodbye",
    "greeted",
    "hitch",
    "introduction",
    "judge",
    "lent",
    "lookalikes",
    "looks",
    "manner",
    "manners",
    "moments",
    "pace",
    "passage",
    "patience",
    "pen",
    "silence",
    "spares",
    "speech",
    "spoken",
    "telling",
    "told",
    "tries",
    "trouble",
    "troubles",
    "workshop",
];

/// Files that are not checked: this one lists the words, and the changelog describes earlier releases.
const EXEMPT: &[&str] = &["tests/tidy/language.rs", "CHANGELOG.md", "LICENSE"];

pub(crate) fn findings(files: &[File]) -> Vec<Finding> {
    files.iter().filter(|file| !EXEMPT.contains(&file.path.as_str())).flat_map(in_file).collect()
}

fn in_file(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for part in prose::of_file(file) {
        // A literal in a test is data as often as a message.
        if part.form == Form::Literal && (part.in_tests || !part.text.trim().contains(' ')) {
            continue;
        }
        let text = without_code(&part.text).to_lowercase();
        let words: Vec<&str> = text
            .split(|c: char| !c.is_alphanumeric() && c != '\'' && c != '_')
            .filter(|word| !word.is_empty())
            .collect();
        let is_person = |at: usize| at > 0 && PERSONS.contains(&words[at - 1]);
        if part.form == Form::Comment && words.iter().enumerate().any(|(at, word)| *word == WHO && !is_person(at)) {
            let message = format!("`{WHO}`: make a thing the subject: the client, the caller");
            findings.push(Finding::new(&file.path, part.line, message));
        }
        for ban in BANS {
            for banned in ban.words.iter().filter(|banned| contains(&words, banned)) {
                findings.push(Finding::new(&file.path, part.line, format!("`{banned}`: {}", ban.remedy)));
            }
        }
    }
    for name in prose::names(file) {
        for word in name.words().iter().filter(|word| IN_NAMES.contains(&word.as_str())) {
            let message = format!("`{}` is named after `{word}`; use the field's noun", name.text);
            findings.push(Finding::new(&file.path, name.line, message));
        }
    }
    findings
}

fn contains(words: &[&str], banned: &str) -> bool {
    let banned: Vec<&str> = banned.split(' ').collect();
    let word_matches = |(word, banned): (&&str, &&str)| match banned.strip_suffix('*') {
        Some(stem) => word.starts_with(stem),
        None => word == banned,
    };
    words.windows(banned.len()).any(|window| window.iter().zip(&banned).all(word_matches))
}

/// The text without everything in backticks or double quotes.
fn without_code(text: &str) -> String {
    let mut plain = String::new();
    for (index, part) in text.split(['`', '"']).enumerate() {
        plain.push_str(if index % 2 == 0 { part } else { " _ " });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Places, expect};

    #[test]
    fn banned_words_are_found_with_a_better_one() {
        let cases: &[(&str, &str, &str, Places<'_>)] = &[
            ("plain", "src/a.rs", "//! The pool closes idle connections.", &[]),
            ("comment", "src/a.rs", "//! A.\n// Nobody waits.", &[("src/a.rs:2", "`nobody`")]),
            ("two words", "src/a.rs", "//! A.\n/// It is told.", &[("src/a.rs:2", "active verb")]),
            ("ending", "src/a.rs", "//! Answering.", &[("src/a.rs:1", "`answer*`")]),
            ("part of a word", "src/a.rs", "//! A defaulted industry.", &[]),
            ("code", "src/a.rs", "//! Kong's `tries`, and \"answers\".", &[]),
            ("message", "src/a.rs", "//! A.\nconst A: &str = \"no answer came\";", &[("src/a.rs:2", "`answer*`")]),
            ("wire name", "src/a.rs", "//! A.\nconst A: &str = \"tries\";", &[]),
            ("data of a test", "tests/a.rs", "//! A.\nconst A: &str = \"no answer came\";", &[]),
            ("code of Rust", "src/a.rs", "//! A.\nfn f() { let nobody = 1; }", &[]),
            ("pronoun", "src/a.rs", "//! A.\n// Clients who wait.", &[("src/a.rs:2", "`who`")]),
            ("person in a comment", "src/a.rs", "//! A.\n// Users who wait.", &[]),
            ("pronoun in a document", "docs/a.md", "Users who install it.", &[]),
            ("document", "docs/a.md", "# A\n\nMend it.", &[("docs/a.md:3", "`mend*`")]),
            ("code block", "docs/a.md", "```\nmend it\n```", &[]),
            ("script", "a.sh", "#!/bin/sh\n# Nobody.\nnobody", &[("a.sh:2", "`nobody`")]),
            ("type", "src/a.rs", "//! A.\nstruct StatusDesk;", &[("src/a.rs:2", "`desk`")]),
            ("module", "src/a.rs", "//! A.\nmod manners;", &[("src/a.rs:2", "`manners`")]),
            ("this list", "tests/tidy/language.rs", "//! Nobody.", &[]),
        ];
        for (name, path, text, expected) in cases {
            expect(name, findings(&[File::new(path, text)]), expected);
        }
    }
}
