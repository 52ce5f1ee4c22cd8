//! The small grammars of Kubernetes names: DNS labels and names, qualified names, label values, port names, data keys.
//!
//! Each grammar has a description for remedies, which fits after "use".

use super::path::ObjectPath;
use super::report::ViolationReport;

/// One label of a DNS name: `web-1`.
pub(super) const DNS_LABEL: Grammar = Grammar {
    accepts: is_dns_label,
    description: "at most 63 lower-case letters, digits and `-`, starting and ending with a letter or digit",
    example: "web-1",
};

/// DNS labels joined by dots: `web.example.com`.
pub(super) const DNS_NAME: Grammar = Grammar {
    accepts: is_dns_name,
    description: "at most 253 lower-case letters, digits, `-` and `.`, each part between dots starting and ending \
        with a letter or digit",
    example: "web.example.com",
};

/// A DNS name after an optional signer, whose slashes are colons: `example.com:internal:roots`.
pub(super) const NAME_WITH_SIGNER: Grammar = Grammar {
    accepts: is_name_with_signer,
    description: "lower-case letters, digits, `-` and `.`, each part between dots starting and ending with a letter or \
        digit, after the name of the signer, if any, with `:` for `/`",
    example: "example.com:internal:roots",
};

/// A DNS label as in RFC 1035, which starts with a letter: `web-1`.
pub(super) const DNS_LABEL_1035: Grammar = Grammar {
    accepts: is_dns_label_1035,
    description: "at most 63 lower-case letters, digits and `-`, starting with a letter and ending with a letter or \
        digit",
    example: "web-1",
};

/// The key of a label or an annotation (`app`, `example.com/app`), a finalizer or an application protocol.
pub(super) const QUALIFIED_NAME: Grammar = Grammar {
    accepts: is_qualified_name,
    description: "at most 63 letters, digits, `-`, `_` and `.`, starting and ending with a letter or digit, after an \
            optional DNS name and `/`",
    example: "example.com/app",
};

/// The value of a label.
pub(super) const LABEL_VALUE: Grammar = Grammar {
    accepts: is_label_value,
    description: "nothing, or at most 63 letters, digits, `-`, `_` and `.`, starting and ending with a letter or digit",
    example: "blue_1.2",
};

/// A port by name: `http`.
pub(super) const PORT_NAME: Grammar = Grammar {
    accepts: is_port_name,
    description: "at most 15 lower-case letters, digits and `-`, with at least one letter, no `-` at an end and no \
        `--`",
    example: "http-alt",
};

/// A key under `data` of a Secret or ConfigMap: `tls.crt`.
pub(super) const DATA_KEY: Grammar = Grammar {
    accepts: is_data_key,
    description: "at most 253 letters, digits, `-`, `_` and `.`, not starting with `..`",
    example: "tls.crt",
};

/// A set of texts, with a description for messages.
#[derive(Clone, Copy)]
pub(super) struct Grammar {
    pub(super) accepts: fn(&str) -> bool,
    pub(super) description: &'static str,
    pub(super) example: &'static str,
}

impl Grammar {
    pub(super) fn remedy(&self) -> String {
        format!("use {}, for example `{}`", self.description, self.example)
    }
}

fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && is_words(text, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit(), b"-")
}

fn is_dns_label_1035(text: &str) -> bool {
    is_dns_label(text) && text.starts_with(|first: char| first.is_ascii_lowercase())
}

fn is_dns_name(text: &str) -> bool {
    // The API server limits the length of the whole name, and not that of each label.
    text.len() <= 253
        && text.split('.').all(|label| is_words(label, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit(), b"-"))
}

fn is_name_with_signer(text: &str) -> bool {
    text.split(':').all(is_dns_name)
}

fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_dns_name(prefix) && is_name_part(name),
        None => is_name_part(text),
    }
}

fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_name_part(text)
}

fn is_name_part(text: &str) -> bool {
    text.len() <= 63 && is_words(text, |byte| byte.is_ascii_alphanumeric(), b"-_.")
}

fn is_port_name(text: &str) -> bool {
    text.len() <= 15
        && is_words(text, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit(), b"-")
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
        && !text.contains("--")
}

fn is_data_key(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && text != "."
        && !text.starts_with("..")
}

/// Whether the text consists of word bytes and separators, and starts and ends with a word byte.
fn is_words(text: &str, is_word_byte: fn(u8) -> bool, separators: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    is_word_byte(*first)
        && is_word_byte(*last)
        && bytes.iter().all(|byte| is_word_byte(*byte) || separators.contains(byte))
}

/// Reports a text that the grammar does not accept; `noun` names what the text should be.
pub(super) fn check_grammar(
    grammar: Grammar,
    text: &str,
    noun: &str,
    path: &ObjectPath<'_>,
    report: &mut ViolationReport,
) {
    if !(grammar.accepts)(text) {
        report.add(path, format!("{} is not {noun}", report.quote_text(text)), grammar.remedy());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammars_accept_and_reject() {
        let text_of = |length: usize| "a".repeat(length);
        let cases: &[(Grammar, &[&str], &[&str])] = &[
            (DNS_LABEL, &["a", "1a", "a-b", &text_of(63)], &["", "-a", "a-", "A", "a.b", "a_b", "ä", &text_of(64)]),
            (
                DNS_NAME,
                &["a", "a.b-c.d", &text_of(253)],
                &["", ".", "a..b", "a.", ".a", "A.b", "a.-b", "*.a", &text_of(254)],
            ),
            (DNS_LABEL_1035, &["a", "a1"], &["1a", "", "A"]),
            (
                QUALIFIED_NAME,
                &["a", "A_b.c-d", "example.com/A", "a/1"],
                &["", "/a", "a/", "a/b/c", "a b", "Example.com/a", &text_of(64)],
            ),
            (LABEL_VALUE, &["", "A.b_c-1"], &["-a", "a b", &text_of(64)]),
            (PORT_NAME, &["http", "h2c", "1a"], &["", "80", "a--b", "-a", "HTTP", &text_of(16)]),
            (DATA_KEY, &["tls.crt", ".a", "_"], &["", ".", "..", "..a", "a/b", "a b", &text_of(254)]),
        ];
        for (grammar, good, bad) in cases {
            assert!((grammar.accepts)(grammar.example), "{}", grammar.example);
            for text in *good {
                assert!((grammar.accepts)(text), "{text} is {}", grammar.description);
            }
            for text in *bad {
                assert!(!(grammar.accepts)(text), "{text} is not {}", grammar.description);
            }
        }
    }
}
