//! Patterns in words: people who got a host name or a duration wrong need not read a regular expression.

use super::path::Path;
use super::report::{Report, shown};

/// A pattern of some kind of object, and how to tell people about it.
pub(super) struct Wording {
    pattern: &'static str,
    /// What a matching text is called.
    noun: &'static str,
    /// What it consists of.
    words: &'static str,
    pub(super) example: &'static str,
}

impl Wording {
    pub(super) fn of(pattern: &str) -> Option<&'static Wording> {
        WORDINGS.iter().find(|known| known.pattern == pattern)
    }
}

/// Message and remedy for a text that does not match.
pub(super) fn mismatch(pattern: &str, text: &str, path: &Path<'_>, report: &Report) -> (String, String) {
    let quoted = report.quote_text(text);
    if pattern == HOSTNAME || (pattern == NAME && path.to_string().to_lowercase().ends_with("hostname")) {
        return (format!("{quoted} is not a host name"), host_remedy(text, pattern == HOSTNAME));
    }
    match Wording::of(pattern) {
        Some(Wording { noun, words, example, .. }) => {
            (format!("{quoted} is not {noun}"), format!("use {words}, for example `{example}`"))
        }
        None => (format!("{quoted} does not match the pattern of this field"), format!("it must match `{pattern}`")),
    }
}

/// Message and remedy for what is no host name, with or without a wildcard.
pub(super) fn no_host(text: &str, report: &Report) -> (String, String) {
    (format!("{} is not a host name", report.quote_text(text)), host_remedy(text, true))
}

/// The commonest ways to get a host name wrong have an answer of their own.
fn host_remedy(text: &str, wildcard: bool) -> String {
    if text.contains("://") {
        return "leave the scheme and the path out: only the host name stands here".to_owned();
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && !host.is_empty()
        && !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return format!("leave the port out: `{}`", shown(host));
    }
    if text.contains('/') {
        return "leave the path out: only the host name stands here".to_owned();
    }
    if text.ends_with('.') && text.len() > 1 {
        return format!("leave the last dot out: `{}`", shown(text.trim_end_matches('.')));
    }
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) && text.is_ascii() {
        return format!("write it in lower case: `{}`", shown(&text.to_ascii_lowercase()));
    }
    if text == "*" && wildcard {
        return "leave the field out to match every host".to_owned();
    }
    if text.contains('*') {
        return if wildcard {
            "a wildcard is `*.` at the start and stands for one or more whole labels, for example `*.example.com`"
        } else {
            "no wildcard is allowed here: write the whole name, for example `www.example.com`"
        }
        .to_owned();
    }
    "use lower-case letters, digits, `-` and dots, for example `www.example.com`".to_owned()
}

const HOSTNAME: &str = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

const WORDINGS: &[Wording] = &[
    Wording {
        pattern: HOSTNAME,
        noun: "a host name",
        words: "lower-case letters, digits, `-` and dots",
        example: "www.example.com",
    },
    Wording {
        pattern: NAME,
        noun: "a name",
        words: "lower-case letters, digits, `-` and dots, starting and ending with a letter or digit",
        example: "web",
    },
    Wording {
        pattern: r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        noun: "an API group",
        words: "the group without its version (the core group is `\"\"`)",
        example: "gateway.networking.k8s.io",
    },
    Wording {
        pattern: r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$",
        noun: "a kind",
        words: "letters, digits and `-`, starting with a letter",
        example: "Service",
    },
    Wording {
        pattern: "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        noun: "a namespace",
        words: "lower-case letters, digits and `-`, starting and ending with a letter or digit",
        example: "default",
    },
    Wording {
        pattern: "^([0-9]{1,5}(h|m|s|ms)){1,4}$",
        noun: "a duration",
        words: "one to four numbers of at most five digits, each with its unit h, m, s or ms",
        example: "1m30s",
    },
    Wording {
        pattern: r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$",
        noun: "a name for a header, a cookie or a parameter",
        words: "letters, digits, `-` and other token characters, no space and no colon",
        example: "X-Request-Id",
    },
    Wording {
        pattern: "^[!-~]+([\\t ]?[!-~]+)*$",
        noun: "the value of a header",
        words: "visible ASCII characters with single spaces between",
        example: "max-age=60",
    },
    Wording {
        pattern: r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$",
        noun: "the value of a label",
        words: "nothing, or letters, digits, `-`, `_` and `.`, starting and ending with a letter or digit",
        example: "blue_1.2",
    },
    Wording {
        pattern: "^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$",
        noun: "the path of a URL",
        words: "the characters of a URL, others as `%` and two hexadecimal digits",
        example: "/auth",
    },
    Wording {
        pattern: r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$",
        noun: "a controller name",
        words: "a domain, `/` and a path",
        example: "portico.dev/gateway-controller",
    },
    Wording {
        pattern: r"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9]+$",
        noun: "a protocol",
        words: "HTTP, HTTPS, TLS, TCP or UDP, or one of your own behind a domain and `/`",
        example: "HTTPS",
    },
    Wording {
        pattern: r"(^\*$)|(^(http(s)?):\/\/(((\*\.)?([a-zA-Z0-9\-]+\.)*[a-zA-Z0-9-]+|\*)(:([0-9]{1,5}))?)$)",
        noun: "an origin",
        words: "`*`, or a scheme and a host name with no path behind it",
        example: "https://www.example.com",
    },
    Wording {
        pattern: r"^(([^:/?#]+):)(//([^/?#]*))([^?#]*)(\?([^#]*))?(#(.*))?",
        noun: "a URI",
        words: "a scheme, `://` and what follows it",
        example: "spiffe://example.com/web",
    },
    Wording {
        pattern: r"^(System|([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]))$",
        noun: "a well-known set of certificates",
        words: "`System`, or a name of an implementation behind a domain and `/`",
        example: "System",
    },
    Wording {
        pattern: r"^Hostname|IPAddress|NamedAddress|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$",
        noun: "a type of address",
        words: "IPAddress or Hostname, or one of an implementation behind a domain and `/`",
        example: "IPAddress",
    },
    Wording { pattern: "^/.*$", noun: "an absolute path", words: "a path that begins with `/`", example: "/status" },
    Wording {
        pattern: r"^[0-9a-f]{8}(?:\-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
        noun: "an identifier",
        words: "the 32 hexadecimal digits of a UUID in lower case, with its hyphens",
        example: "0b8a7f3c-5a8e-4a0e-9a51-4b9d3f6a2c10",
    },
];

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;
    use crate::api::Kind;
    use crate::schema::tree::{Node, Others};
    use crate::schema::{Channel, kinds};

    #[test]
    fn every_wording_has_an_example_that_matches() {
        for known in WORDINGS {
            assert!(Regex::new(known.pattern).unwrap().is_match(known.example), "{}", known.noun);
        }
    }

    /// Otherwise a new release brings patterns that people would have to read.
    #[test]
    fn every_pattern_that_manifests_meet_has_a_wording() {
        // Kinds under trial may change with every release.
        let kinds = Kind::ALL.iter().filter(|kind| !kind.name().starts_with('X'));
        for kind in kinds {
            let tree = kinds::tree(*kind, Channel::Experimental, "v1").unwrap();
            if let Some(spec) = tree.at(&Path::Root.field("spec")) {
                visit(spec, &format!("{kind} spec"));
            }
        }
    }

    fn visit(node: &Node, place: &str) {
        if let Some(pattern) = node.text.as_ref().and_then(|text| text.pattern.as_ref()) {
            assert!(Wording::of(pattern.as_str()).is_some(), "{place}: {pattern}");
        }
        if let Some(fields) = &node.fields {
            for (name, node) in &fields.known {
                visit(node, &format!("{place}.{name}"));
            }
            if let Others::Of(node) = &fields.others {
                visit(node, &format!("{place}.*"));
            }
        }
        if let Some(node) = node.items.as_ref().and_then(|items| items.node.as_ref()) {
            visit(node, &format!("{place}[]"));
        }
    }

    #[test]
    fn wrong_host_names_get_the_answer_that_helps() {
        for (text, expected) in [
            ("https://example.com/", "leave the scheme and the path out: only the host name stands here"),
            ("example.com:8080", "leave the port out: `example.com`"),
            ("example.com/api", "leave the path out: only the host name stands here"),
            ("example.com.", "leave the last dot out: `example.com`"),
            ("Example.com", "write it in lower case: `example.com`"),
            ("*", "leave the field out to match every host"),
            (
                "a.*.com",
                "a wildcard is `*.` at the start and stands for one or more whole labels, for example `*.example.com`",
            ),
            ("ex_ample", "use lower-case letters, digits, `-` and dots, for example `www.example.com`"),
        ] {
            assert_eq!(host_remedy(text, true), expected, "{text}");
        }
        assert!(host_remedy("*.example.com", false).starts_with("no wildcard"));
    }
}
