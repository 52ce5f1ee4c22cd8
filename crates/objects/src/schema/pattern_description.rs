//! Descriptions of patterns in words, so that users need not read regular expressions.

use super::path::ObjectPath;
use super::quote::printable;
use super::report::ViolationReport;

/// A pattern in a schema, with a description for messages.
pub(super) struct PatternDescription {
    pattern: &'static str,
    /// A noun for a matching text.
    noun: &'static str,
    /// What a matching text consists of.
    description: &'static str,
    pub(super) example: &'static str,
}

impl PatternDescription {
    pub(super) fn for_pattern(pattern: &str) -> Option<&'static PatternDescription> {
        PATTERN_DESCRIPTIONS.iter().find(|known| known.pattern == pattern)
    }
}

/// The message and remedy for a text that does not match.
pub(super) fn mismatch(pattern: &str, text: &str, path: &ObjectPath<'_>, report: &ViolationReport) -> (String, String) {
    let quoted = report.quote_text(text);
    if let Some(placeholder) = placeholder(text) {
        return not_rendered(&quoted, placeholder);
    }
    // Host names without a wildcard have the pattern of names, so the name of the field decides.
    if pattern == HOSTNAME || (pattern == NAME && path.to_string().to_lowercase().ends_with("hostname")) {
        return (format!("{quoted} is not a host name"), host_remedy(text, pattern == HOSTNAME));
    }
    match PatternDescription::for_pattern(pattern) {
        Some(PatternDescription { noun, description, example, .. }) => {
            (format!("{quoted} is not {noun}"), format!("use {description}, for example `{example}`"))
        }
        None => (format!("{quoted} does not match the pattern of this field"), format!("it must match `{pattern}`")),
    }
}

/// The message and remedy for a text that is not a host name, in a field that allows a wildcard.
pub(super) fn not_a_host_name(text: &str, report: &ViolationReport) -> (String, String) {
    let wildcard_allowed = true;
    if let Some(placeholder) = placeholder(text) {
        return not_rendered(&report.quote_text(text), placeholder);
    }
    (format!("{} is not a host name", report.quote_text(text)), host_remedy(text, wildcard_allowed))
}

/// The first `${NAME}` or `{{ … }}` in a text, which another program replaces.
fn placeholder(text: &str) -> Option<&str> {
    let (start, end) =
        [("${", '}'), ("{{", '}')].into_iter().find_map(|(start, end)| Some((text.find(start)?, end)))?;
    let length = text[start..].rfind(end)? + 1;
    Some(&text[start..start + length])
}

fn not_rendered(quoted: &str, placeholder: &str) -> (String, String) {
    let message = format!("{quoted} has the placeholder {}, which was not replaced", printable(placeholder));
    (message, "check what envsubst, Flux, Argo CD, Helm or another tool makes of the file".to_owned())
}

/// The remedy for a wrong host name; the most frequent mistakes have a specific one.
fn host_remedy(text: &str, wildcard_allowed: bool) -> String {
    if text.contains("://") {
        return "remove the scheme and the path: only a host name is allowed here".to_owned();
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && !host.is_empty()
        && !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return format!("remove the port: `{}`", printable(host));
    }
    if text.contains('/') {
        return "remove the path: only a host name is allowed here".to_owned();
    }
    if text.ends_with('.') && text.len() > 1 {
        return format!("remove the last dot: `{}`", printable(text.trim_end_matches('.')));
    }
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) && text.is_ascii() {
        return format!("write it in lower case: `{}`", printable(&text.to_ascii_lowercase()));
    }
    if text == "*" && wildcard_allowed {
        return "remove the field to match every host".to_owned();
    }
    if text.contains('*') {
        return if wildcard_allowed {
            "a wildcard is `*.` at the start and stands for one or more whole labels, for example `*.example.com`"
        } else {
            "no wildcard is allowed here: write the whole name, for example `www.example.com`"
        }
        .to_owned();
    }
    "use lower-case letters, digits, `-` and dots, for example `www.example.com`".to_owned()
}

/// The pattern of host names whose first label may be `*`.
const HOSTNAME: &str = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// The pattern of names, and of host names without a wildcard.
const NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

const PATTERN_DESCRIPTIONS: &[PatternDescription] = &[
    PatternDescription {
        pattern: HOSTNAME,
        noun: "a host name",
        description: "lower-case letters, digits, `-` and dots",
        example: "www.example.com",
    },
    PatternDescription {
        pattern: NAME,
        noun: "a name",
        description: "lower-case letters, digits, `-` and dots, starting and ending with a letter or digit",
        example: "web",
    },
    PatternDescription {
        pattern: r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        noun: "an API group",
        description: "the group without its version (the core group is `\"\"`)",
        example: "gateway.networking.k8s.io",
    },
    PatternDescription {
        pattern: r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]$",
        noun: "a class of load balancers",
        description: "letters, digits, `-`, `_` and dots, with or without a domain and a slash before them",
        example: "service.k8s.aws/nlb",
    },
    PatternDescription {
        pattern: r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$",
        noun: "a kind",
        description: "letters, digits and `-`, starting with a letter",
        example: "Service",
    },
    PatternDescription {
        pattern: "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        noun: "a namespace",
        description: "lower-case letters, digits and `-`, starting and ending with a letter or digit",
        example: "default",
    },
    PatternDescription {
        pattern: "^([0-9]{1,5}(h|m|s|ms)){1,4}$",
        noun: "a duration",
        description: "one to four numbers of at most five digits, each with its unit h, m, s or ms",
        example: "1m30s",
    },
    PatternDescription {
        pattern: r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$",
        noun: "a name for a header, a cookie or a parameter",
        description: "letters, digits, `-` and other token characters, no space and no colon",
        example: "X-Request-Id",
    },
    PatternDescription {
        pattern: "^[!-~]+([\\t ]?[!-~]+)*$",
        noun: "the value of a header",
        description: "visible ASCII characters with single spaces between",
        example: "max-age=60",
    },
    PatternDescription {
        pattern: r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
        noun: "the name of a zone or region",
        description: "letters, digits, `-`, `_` and `.`, starting and ending with a letter or digit",
        example: "eu-central-1a",
    },
    PatternDescription {
        pattern: r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$",
        noun: "the value of a label",
        description: "nothing, or letters, digits, `-`, `_` and `.`, starting and ending with a letter or digit",
        example: "blue_1.2",
    },
    PatternDescription {
        pattern: r"^(100(\.0{1,4})?|[0-9]{1,2}(\.[0-9]{1,4})?)%$",
        noun: "a percentage",
        description: "a number from 0 to 100 with up to four decimals, and `%`",
        example: "0.5%",
    },
    PatternDescription {
        pattern: "^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$",
        noun: "the path of a URL",
        description: "the characters of a URL, others as `%` and two hexadecimal digits",
        example: "/auth",
    },
    PatternDescription {
        pattern: r"^[1-5][0-9]{2}(-[1-5][0-9]{2})?$",
        noun: "a status or a range of statuses",
        description: "a status from 100 to 599, or two with `-` between them",
        example: "200-299",
    },
    PatternDescription {
        pattern: r"^/[!-~]*$",
        noun: "a path",
        description: "`/`, then printable ASCII characters without spaces",
        example: "/healthz",
    },
    PatternDescription {
        pattern: r"^/[^;]*$",
        noun: "the path of a cookie",
        description: "`/`, then any characters but `;`",
        example: "/shop",
    },
    PatternDescription {
        pattern: r"^[0-9]{1,4}(\.[0-9]{1,3})?$",
        noun: "a number",
        description: "digits, with up to three decimal places",
        example: "1.5",
    },
    PatternDescription {
        pattern: r"^[0-9]{1,7}(Ki|Mi)?$",
        noun: "a size",
        description: "digits, with `Ki` or `Mi` for 1024 or 1048576 bytes",
        example: "64Ki",
    },
    PatternDescription {
        pattern: "^([0-9a-fA-F]{2})+$",
        noun: "bytes in hexadecimal",
        description: "two hexadecimal digits for each byte",
        example: "0d0a",
    },
    PatternDescription {
        pattern: r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$",
        noun: "a controller name",
        description: "a domain, `/` and a path",
        example: "portico.dev/gateway-controller",
    },
    PatternDescription {
        pattern: r"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9]+$",
        noun: "a protocol",
        description: "HTTP, HTTPS, TLS, TCP or UDP, or a custom protocol with a domain and `/`",
        example: "HTTPS",
    },
    PatternDescription {
        pattern: r"(^\*$)|(^(http(s)?):\/\/(((\*\.)?([a-zA-Z0-9\-]+\.)*[a-zA-Z0-9-]+|\*)(:([0-9]{1,5}))?)$)",
        noun: "an origin",
        description: "`*`, or a scheme and a host name without a path",
        example: "https://www.example.com",
    },
    PatternDescription {
        pattern: r"^(([^:/?#]+):)(//([^/?#]*))([^?#]*)(\?([^#]*))?(#(.*))?",
        noun: "a URI",
        description: "a scheme, `://` and a host or path",
        example: "spiffe://example.com/web",
    },
    PatternDescription {
        pattern: r"^(System|([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]))$",
        noun: "a well-known set of certificates",
        description: "`System`, or an implementation-specific name with a domain and `/`",
        example: "System",
    },
    PatternDescription {
        pattern: r"^Hostname|IPAddress|NamedAddress|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$",
        noun: "a type of address",
        description: "IPAddress or Hostname, or an implementation-specific type with a domain and `/`",
        example: "IPAddress",
    },
    PatternDescription {
        pattern: "^/.*$",
        noun: "an absolute path",
        description: "a path that begins with `/`",
        example: "/status",
    },
    PatternDescription {
        pattern: r"^[0-9a-f]{8}(?:\-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
        noun: "an identifier",
        description: "the 32 hexadecimal digits of a UUID in lower case, with its hyphens",
        example: "0b8a7f3c-5a8e-4a0e-9a51-4b9d3f6a2c10",
    },
];

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;
    use crate::api::Kind;
    use crate::schema::tree::{OtherFields, SchemaNode};
    use crate::schema::{Channel, kinds};

    #[test]
    fn every_example_matches_its_pattern() {
        for known in PATTERN_DESCRIPTIONS {
            assert!(Regex::new(known.pattern).unwrap().is_match(known.example), "{}", known.noun);
        }
    }

    /// Without a description, a message would show the regular expression.
    #[test]
    fn every_pattern_has_a_description() {
        // Experimental kinds may change with every release.
        let kinds = Kind::ALL.iter().filter(|kind| !kind.name().starts_with('X'));
        for kind in kinds {
            let tree = kinds::tree(*kind, Channel::Experimental, "v1").unwrap();
            if let Some(spec) = tree.at(&ObjectPath::Root.field("spec")) {
                visit(spec, &format!("{kind} spec"));
            }
        }
    }

    fn visit(node: &SchemaNode, path: &str) {
        if let Some(pattern) = node.text.as_ref().and_then(|text| text.pattern.as_ref()) {
            assert!(PatternDescription::for_pattern(pattern.as_str()).is_some(), "{path}: {pattern}");
        }
        if let Some(fields) = &node.fields {
            for (name, node) in &fields.known {
                visit(node, &format!("{path}.{name}"));
            }
            if let OtherFields::Matching(node) = &fields.others {
                visit(node, &format!("{path}.*"));
            }
        }
        if let Some(node) = node.items.as_ref().and_then(|items| items.node.as_ref()) {
            visit(node, &format!("{path}[]"));
        }
    }

    #[test]
    fn wrong_host_names_get_specific_remedies() {
        for (text, expected) in [
            ("https://example.com/", "remove the scheme and the path: only a host name is allowed here"),
            ("example.com:8080", "remove the port: `example.com`"),
            ("example.com/api", "remove the path: only a host name is allowed here"),
            ("example.com.", "remove the last dot: `example.com`"),
            ("Example.com", "write it in lower case: `example.com`"),
            ("*", "remove the field to match every host"),
            (
                "a.*.com",
                "a wildcard is `*.` at the start and stands for one or more whole labels, for example `*.example.com`",
            ),
            ("ex_ample", "use lower-case letters, digits, `-` and dots, for example `www.example.com`"),
        ] {
            let wildcard_allowed = true;
            assert_eq!(host_remedy(text, wildcard_allowed), expected, "{text}");
        }
        let wildcard_allowed = false;
        assert!(host_remedy("*.example.com", wildcard_allowed).starts_with("no wildcard"));
    }
}
