//! Templates of error pages: text with variables such as `{{status}}`, whose values are escaped for the format of the
//! page.

use std::fmt::Write;

use crate::plugin_api::server_text::shorten_to;

/// A template that was parsed when the plugin was built.
#[derive(Debug, PartialEq)]
pub(super) struct PageTemplate {
    segments: Box<[PageSegment]>,
    escaping: Escaping,
}

#[derive(Debug, PartialEq)]
enum PageSegment {
    Literal(Box<str>),
    Variable(PageVariable),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum PageVariable {
    Status,
    Title,
    Reason,
    RequestId,
    Host,
    Path,
}

const VARIABLES: [(&str, PageVariable); 6] = [
    ("status", PageVariable::Status),
    ("title", PageVariable::Title),
    ("reason", PageVariable::Reason),
    ("request_id", PageVariable::RequestId),
    ("host", PageVariable::Host),
    ("path", PageVariable::Path),
];

/// How values are written into a page, so that a client cannot put anything but text into it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Escaping {
    /// As references of characters, also in attributes with quotes.
    Markup,
    /// As the inside of a JSON string.
    Json,
    Text,
}

/// The values of one request.
pub(super) struct PageValues<'v> {
    pub status: u16,
    pub title: &'v str,
    /// The reason of Portico's or a plugin's error; empty for that of a backend.
    pub reason: &'v str,
    pub request_id: &'v str,
    pub host: &'v str,
    pub path: &'v str,
}

impl PageTemplate {
    /// Parses a template. The error says what is wrong, and what would be right.
    pub(super) fn parse(text: &str, escaping: Escaping) -> Result<PageTemplate, (String, String)> {
        let mut segments = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once("{{") {
            let Some((name, after)) = after.split_once("}}") else {
                return Err(("has {{ without }}".to_owned(), "close each variable, as in {{status}}".to_owned()));
            };
            let Some((_, variable)) = VARIABLES.iter().find(|(known, _)| *known == name.trim()) else {
                let known = VARIABLES.map(|(name, _)| name).join(", ");
                let message = format!("has the unknown variable {}", shorten_to(name.trim(), 40));
                return Err((message, format!("use one of {known}")));
            };
            if !literal.is_empty() {
                segments.push(PageSegment::Literal(literal.into()));
            }
            segments.push(PageSegment::Variable(*variable));
            rest = after;
        }
        if !rest.is_empty() {
            segments.push(PageSegment::Literal(rest.into()));
        }
        Ok(PageTemplate { segments: segments.into(), escaping })
    }

    pub(super) fn render(&self, values: &PageValues<'_>) -> String {
        let mut page = String::with_capacity(1024);
        for segment in &self.segments {
            match segment {
                PageSegment::Literal(text) => page.push_str(text),
                PageSegment::Variable(PageVariable::Status) => page.push_str(itoa::Buffer::new().format(values.status)),
                PageSegment::Variable(PageVariable::Title) => self.push_escaped(values.title, &mut page),
                PageSegment::Variable(PageVariable::Reason) => self.push_escaped(values.reason, &mut page),
                PageSegment::Variable(PageVariable::RequestId) => self.push_escaped(values.request_id, &mut page),
                PageSegment::Variable(PageVariable::Host) => self.push_escaped(values.host, &mut page),
                PageSegment::Variable(PageVariable::Path) => self.push_escaped(values.path, &mut page),
            }
        }
        page
    }

    fn push_escaped(&self, value: &str, page: &mut String) {
        for character in value.chars() {
            match (self.escaping, character) {
                (Escaping::Markup, '&') => page.push_str("&amp;"),
                (Escaping::Markup, '<') => page.push_str("&lt;"),
                (Escaping::Markup, '>') => page.push_str("&gt;"),
                (Escaping::Markup, '"') => page.push_str("&quot;"),
                (Escaping::Markup, '\'') => page.push_str("&#39;"),
                (Escaping::Json, '"' | '\\') => page.extend(['\\', character]),
                (Escaping::Json, '\0'..='\x1f') => {
                    write!(page, "\\u{:04x}", u32::from(character)).expect("a string can be written to");
                }
                // A line break in a value would look like a line of the page.
                (Escaping::Text, '\0'..='\x1f' | '\x7f') => page.push(' '),
                (_, other) => page.push(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(path: &str) -> PageValues<'_> {
        PageValues { status: 404, title: "Not Found", reason: "no_route", request_id: "id", host: "a.example", path }
    }

    fn render(text: &str, escaping: Escaping, path: &str) -> String {
        PageTemplate::parse(text, escaping).unwrap().render(&values(path))
    }

    #[test]
    fn variables_are_replaced() {
        let text = "{{status}} {{ title }}: {{reason}} {{request_id}} {{host}}{{path}} {x} }}";
        assert_eq!(render(text, Escaping::Text, "/a"), "404 Not Found: no_route id a.example/a {x} }}");
        assert_eq!(render("", Escaping::Text, "/a"), "");
    }

    #[test]
    fn values_are_escaped_for_the_format() {
        let path = "/<script>\"'&\\\u{1}";
        for (escaping, expected) in [
            (Escaping::Markup, "/&lt;script&gt;&quot;&#39;&amp;\\\u{1}"),
            (Escaping::Json, "/<script>\\\"'&\\\\\\u0001"),
            (Escaping::Text, "/<script>\"'&\\ "),
        ] {
            assert_eq!(render("{{path}}", escaping, path), expected);
        }
    }

    #[test]
    fn invalid_templates_are_refused() {
        for text in ["{{status", "{{secret}}", "{{}}", "{{status}} {{", "{{status|safe}}"] {
            assert!(PageTemplate::parse(text, Escaping::Text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn json_stays_json_whatever_the_path_contains(path in ".{0,40}") {
            let page = render("{\"path\":\"{{path}}\"}", Escaping::Json, &path);
            let parsed: serde_json::Value = serde_json::from_str(&page).unwrap();
            proptest::prop_assert_eq!(parsed["path"].as_str(), Some(&*path));
        }
    }
}
