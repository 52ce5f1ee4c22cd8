//! One page: the responses that it replaces, and its body in several formats, one of which the client accepts best.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;

use http::HeaderValue;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::page_template::{Escaping, PageTemplate, PageValues};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::ResponseSource;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PageConfig {
    /// The statuses, each as a number such as `404`, a range such as `500-504`, or a class such as `5xx`.
    statuses: Vec<StatusEntry>,
    /// Whose responses are replaced.
    #[serde(default)]
    from: PageSource,
    /// The hosts to which the page belongs, such as `shop.example` and `*.shop.example`. All, if there are none.
    #[serde(default)]
    hosts: Vec<String>,
    /// The page in the formats that clients may accept. The first one is sent if the client accepts none.
    bodies: Vec<PageBodyConfig>,
}

#[derive(Debug)]
enum StatusEntry {
    Number(u64),
    Text(String),
}

impl<'de> Deserialize<'de> for StatusEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StatusVisitor;

        impl Visitor<'_> for StatusVisitor {
            type Value = StatusEntry;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a status such as 404, or a string such as \"500-504\"")
            }

            fn visit_u64<E: de::Error>(self, status: u64) -> Result<StatusEntry, E> {
                Ok(StatusEntry::Number(status))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<StatusEntry, E> {
                Ok(StatusEntry::Text(text.to_owned()))
            }
        }

        deserializer.deserialize_any(StatusVisitor)
    }
}

impl JsonSchema for StatusEntry {
    fn schema_name() -> Cow<'static, str> {
        "StatusEntry".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["integer", "string"]})
    }
}

/// Whose responses a page replaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum PageSource {
    /// Portico's errors, and replies of plugins.
    #[default]
    Gateway,
    /// Responses of backends.
    Backend,
    /// All responses.
    Both,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PageBodyConfig {
    /// The value of `Content-Type`. It decides how variables are escaped, so it must be a type of HTML, XML or JSON, or
    /// `text/plain`.
    content_type: String,
    /// The text, with the variables `{{status}}`, `{{title}}`, `{{reason}}`, `{{request_id}}`, `{{host}}` and
    /// `{{path}}`. It may be in a ConfigMap: `template: {configMapKeyRef: {name: pages, key: 404.html}}`.
    template: String,
}

/// A page whose configuration is valid.
pub(super) struct Page {
    statuses: Box<[RangeInclusive<u16>]>,
    from: PageSource,
    hosts: Box<[PageHost]>,
    bodies: Box<[PageBody]>,
}

pub(super) struct PageBody {
    pub(super) content_type: HeaderValue,
    /// The media type without parameters, in lowercase.
    media_type: Box<str>,
    template: PageTemplate,
}

#[derive(PartialEq)]
enum PageHost {
    Exact(Box<str>),
    /// The end of the host, with the dot.
    Suffix(Box<str>),
}

impl Page {
    pub(super) fn build(field: &str, config: PageConfig, problems: &mut Vec<Diagnostic>) -> Page {
        let PageConfig { statuses, from, hosts, bodies } = config;
        let mut report = |field: String, message: String, remedy: &str| {
            problems.push(Diagnostic::in_config(field, message, remedy));
        };
        if statuses.is_empty() {
            report(format!("{field}.statuses"), "is empty".to_owned(), "list a status such as 404 or 5xx");
        }
        let mut ranges = Vec::new();
        for (index, entry) in statuses.iter().enumerate() {
            match parse_statuses(entry) {
                Some(range) => ranges.push(range),
                None => {
                    let remedy = "use statuses from 400 to 599: a number, a range such as 500-504, 4xx or 5xx";
                    report(format!("{field}.statuses[{index}]"), "is no status of an error".to_owned(), remedy);
                }
            }
        }
        let mut patterns = Vec::new();
        for (index, host) in hosts.iter().enumerate() {
            match PageHost::parse(host) {
                Some(pattern) => patterns.push(pattern),
                None => {
                    let remedy = "write a name such as shop.example or *.shop.example, without a port";
                    report(format!("{field}.hosts[{index}]"), "is no host".to_owned(), remedy);
                }
            }
        }
        if bodies.is_empty() {
            report(format!("{field}.bodies"), "is empty".to_owned(), "add a body with content_type and template");
        }
        let mut pages = Vec::new();
        for (index, body) in bodies.into_iter().enumerate() {
            match PageBody::build(&body) {
                Ok(body) => pages.push(body),
                Err((name, message, remedy)) => {
                    report(format!("{field}.bodies[{index}].{name}"), message, &remedy);
                }
            }
        }
        for (index, body) in pages.iter().enumerate() {
            if pages[..index].iter().any(|other| other.media_type == body.media_type) {
                let message = format!("{} has a body already", body.media_type);
                report(format!("{field}.bodies[{index}].content_type"), message, "keep one body for each type");
            }
        }
        Page { statuses: ranges.into(), from, hosts: patterns.into(), bodies: pages.into() }
    }

    /// Whether an earlier page applies to all responses of this one, which then never applies.
    pub(super) fn is_covered_by(&self, earlier: &Page) -> bool {
        let covers = |statuses: &RangeInclusive<u16>| {
            earlier.statuses.iter().any(|range| range.contains(statuses.start()) && range.contains(statuses.end()))
        };
        (earlier.from == PageSource::Both || earlier.from == self.from)
            && self.statuses.iter().all(covers)
            && (earlier.hosts.is_empty() || earlier.hosts == self.hosts)
    }

    /// How many bytes the templates have.
    pub(super) fn template_bytes(config: &PageConfig) -> usize {
        config.bodies.iter().map(|body| body.template.len()).sum()
    }

    /// Whether the page replaces a response. `host`: without a port, in lowercase.
    pub(super) fn applies_to(&self, status: u16, source: ResponseSource, host: &str) -> bool {
        let is_from = match self.from {
            PageSource::Gateway => source != ResponseSource::Service,
            PageSource::Backend => source == ResponseSource::Service,
            PageSource::Both => true,
        };
        is_from
            && self.statuses.iter().any(|range| range.contains(&status))
            && (self.hosts.is_empty() || self.hosts.iter().any(|pattern| pattern.matches(host)))
    }

    /// The body in the format that the client accepts best; the first one of several, and of none.
    pub(super) fn best_body(&self, accepted: &[(String, u16)]) -> Option<&PageBody> {
        let mut best: Option<(&PageBody, u16)> = None;
        for body in &self.bodies {
            let weight = body.weight(accepted);
            if best.is_none_or(|(_, other)| weight > other) {
                best = Some((body, weight));
            }
        }
        best.map(|(body, _)| body)
    }

    pub(super) fn is_negotiated(&self) -> bool {
        self.bodies.len() > 1
    }
}

impl PageBody {
    /// The error has the name of the field, what is wrong, and what would be right.
    fn build(config: &PageBodyConfig) -> Result<PageBody, (&'static str, String, String)> {
        let remedy = "use text/html, application/json, application/problem+json or text/plain".to_owned();
        let wrong = |message: &str| ("content_type", message.to_owned(), remedy.clone());
        let content_type = HeaderValue::from_str(&config.content_type).map_err(|_| wrong("is no value of a header"))?;
        let media_type = config.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let escaping = escaping_of(&media_type).ok_or_else(|| wrong("is a type whose text cannot be escaped"))?;
        let template = PageTemplate::parse(&config.template, escaping)
            .map_err(|(message, remedy)| ("template", message, remedy))?;
        Ok(PageBody { content_type, media_type: media_type.into(), template })
    }

    pub(super) fn render(&self, values: &PageValues<'_>) -> String {
        self.template.render(values)
    }

    /// The weight of the most specific member of `Accept` that matches (RFC 9110, section 12.5.1). Without the field,
    /// every type is accepted.
    fn weight(&self, accepted: &[(String, u16)]) -> u16 {
        let main = self.media_type.split('/').next().unwrap_or_default();
        let matching = accepted.iter().filter_map(|(range, weight)| {
            let specificity = match range.split_once('/')? {
                _ if **range == *self.media_type => 3,
                (range_main, "*") if range_main == main => 2,
                ("*", "*") => 1,
                // Clients that ask for JSON can read the types that are based on it (RFC 6839).
                ("application", "json") if self.media_type.ends_with("+json") => 2,
                _ => return None,
            };
            Some((specificity, *weight))
        });
        if accepted.is_empty() { 1000 } else { matching.max().map_or(0, |(_, weight)| weight) }
    }
}

fn escaping_of(media_type: &str) -> Option<Escaping> {
    let (_, subtype) = media_type.split_once('/')?;
    let has = |name: &str, suffix: &str| subtype == name || subtype.ends_with(suffix);
    match media_type {
        "text/html" => Some(Escaping::Markup),
        "text/plain" => Some(Escaping::Text),
        _ if has("json", "+json") => Some(Escaping::Json),
        _ if has("xml", "+xml") => Some(Escaping::Markup),
        _ => None,
    }
}

fn parse_statuses(entry: &StatusEntry) -> Option<RangeInclusive<u16>> {
    let range = match entry {
        StatusEntry::Number(status) => {
            let status = u16::try_from(*status).ok()?;
            status..=status
        }
        StatusEntry::Text(text) => match text.split_once('-') {
            Some((first, last)) => first.trim().parse().ok()?..=last.trim().parse().ok()?,
            None if text == "4xx" => 400..=499,
            None if text == "5xx" => 500..=599,
            None => {
                let status = text.parse().ok()?;
                status..=status
            }
        },
    };
    let is_error = |status: &u16| (400..=599).contains(status);
    (is_error(range.start()) && is_error(range.end()) && range.start() <= range.end()).then_some(range)
}

impl PageHost {
    fn parse(text: &str) -> Option<PageHost> {
        let text = text.to_ascii_lowercase();
        let name = text.strip_prefix("*.").unwrap_or(&text);
        let is_label = |label: &str| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        if name.len() > 253 || !name.split('.').all(is_label) {
            return None;
        }
        Some(match text.strip_prefix('*') {
            Some(suffix) => PageHost::Suffix(suffix.into()),
            None => PageHost::Exact(text.into()),
        })
    }

    fn matches(&self, host: &str) -> bool {
        match self {
            PageHost::Exact(name) => **name == *host,
            PageHost::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(&**suffix),
        }
    }
}
