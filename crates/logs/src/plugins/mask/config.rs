//! The fields of `mask`, and the masks that they describe.

use http::HeaderName;
use regex::bytes::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::masking::MaskedAccessField;
use crate::plugin_api::masking::json_mask::{JsonMask, MAX_MASKED_PATHS};
use crate::plugin_api::masking::masked_path::MaskedPath;
use crate::plugin_api::masking::text_mask::{MaskedKind, TextMask};
use crate::plugin_api::{count_regex_states, optional_record, regex_error_message};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The fields of JSON bodies that are masked, such as `customer.email`; at most 64.
    fields: Vec<String>,
    /// The forms of personal data that are masked in all texts.
    kinds: Vec<MaskedKind>,
    /// Regular expressions for other data that is masked in all texts; at most 32 with at most 1024 bytes each.
    patterns: Vec<String>,
    /// What takes the place of masked data, at most 64 bytes.
    replacement: String,
    /// Whether bodies of responses are masked.
    response_body: bool,
    /// The size of the largest body in bytes that is masked, also when it is decompressed, 1 to 8388608. Larger ones
    /// get status 502.
    max_body_size: usize,
    /// What logs must not contain. If unset, logs are not masked.
    #[serde(deserialize_with = "optional_record")]
    log: Option<LogConfig>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct LogConfig {
    /// The fields of the objects of log plugins that are masked, such as `client_ip`; at most 64.
    fields: Vec<String>,
    /// The headers of requests and responses whose values no log contains.
    headers: Vec<String>,
    /// The query parameters whose values no log contains.
    query_parameters: Vec<String>,
    /// The cookies whose values no log contains.
    cookies: Vec<String>,
    /// The fields of the access log that are masked.
    access_log_fields: Vec<MaskedAccessField>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            fields: Vec::new(),
            kinds: Vec::new(),
            patterns: Vec::new(),
            replacement: "***".to_owned(),
            response_body: true,
            max_body_size: 1 << 20,
            log: None,
        }
    }
}

/// The masks that a configuration describes.
pub(super) struct Masks {
    /// `None` if bodies are not masked.
    pub(super) body: Option<JsonMask>,
    pub(super) max_bytes: usize,
    pub(super) log: Option<LogMasks>,
}

pub(super) struct LogMasks {
    pub(super) object: JsonMask,
    pub(super) headers: Vec<HeaderName>,
    pub(super) parameters: Vec<Box<str>>,
    pub(super) cookies: Vec<Box<str>>,
    pub(super) access_log: Vec<MaskedAccessField>,
}

/// Parses a configuration, whose problems are added to `invalid`.
pub(super) fn parse(config: Config, invalid: &mut Vec<Diagnostic>) -> Option<Masks> {
    let Config { fields, kinds, patterns, replacement, response_body, max_body_size, log } = config;
    let paths = parse_paths("fields", &fields, invalid);
    let patterns = parse_patterns(&patterns, invalid);
    let is_printable = replacement.chars().all(|character| !character.is_control());
    if replacement.len() > MAX_REPLACEMENT_BYTES || !is_printable {
        let remedy = "write at most 64 bytes without control characters";
        invalid.push(Diagnostic::in_config("replacement", "is too long, or has control characters", remedy));
    }
    if !(1..=MAX_BODY_BYTES).contains(&max_body_size) {
        let remedy = "set a number of bytes from 1 to 8388608";
        invalid.push(Diagnostic::in_config("max_body_size", "is out of range", remedy));
    }
    let text = TextMask::new(&kinds, patterns, &replacement);
    let masks_nothing = paths.is_empty() && text.is_empty();
    if !response_body && !paths.is_empty() {
        let remedy = "remove it, or set response_body to true; fields of logs are in log.fields";
        invalid.push(Diagnostic::in_config("fields", "has no effect, because response_body is false", remedy));
    }
    if !response_body && log.is_none() {
        let remedy = "set response_body to true, or set log";
        invalid.push(Diagnostic::in_config("response_body", "neither bodies nor logs are masked", remedy));
    }
    let log = log.map(|log| parse_log(log, text.clone(), invalid));
    if log.is_none() && masks_nothing {
        let remedy = "set fields, kinds or patterns";
        invalid.push(Diagnostic::in_config("", "the plugin masks nothing", remedy));
    }
    let body = (response_body && !masks_nothing).then(|| JsonMask::new(paths, text));
    invalid.is_empty().then_some(Masks { body, max_bytes: max_body_size, log })
}

fn parse_log(log: LogConfig, text: TextMask, invalid: &mut Vec<Diagnostic>) -> LogMasks {
    let LogConfig { fields, headers, query_parameters, cookies, access_log_fields } = log;
    let paths = parse_paths("log.fields", &fields, invalid);
    let mut names = Vec::new();
    for (index, header) in headers.iter().enumerate() {
        match header.parse() {
            Ok(name) => names.push(name),
            Err(_) => {
                let remedy = "write a name such as X-User-Email";
                let field = format!("log.headers[{index}]");
                invalid.push(Diagnostic::in_config(field, "is not the name of a header", remedy));
            }
        }
    }
    for (field, values) in [("headers", &headers), ("query_parameters", &query_parameters), ("cookies", &cookies)] {
        if values.len() > MAX_NAMES {
            let message = format!("{} names are too many", values.len());
            invalid.push(Diagnostic::in_config(format!("log.{field}"), message, "keep 64 or fewer"));
        }
        if values.iter().any(String::is_empty) {
            let remedy = "write the names of fields";
            invalid.push(Diagnostic::in_config(format!("log.{field}"), "contains an empty name", remedy));
        }
    }
    let has_names = !names.is_empty() || !query_parameters.is_empty() || !cookies.is_empty();
    if !has_names && paths.is_empty() && access_log_fields.is_empty() && text.is_empty() {
        let remedy = "name fields of logs, or set kinds or patterns";
        invalid.push(Diagnostic::in_config("log", "nothing is masked in logs", remedy));
    }
    let boxed = |names: Vec<String>| names.into_iter().map(String::into_boxed_str).collect();
    LogMasks {
        object: JsonMask::new(paths, text),
        headers: names,
        parameters: boxed(query_parameters),
        cookies: boxed(cookies),
        access_log: access_log_fields,
    }
}

fn parse_paths(field: &str, paths: &[String], invalid: &mut Vec<Diagnostic>) -> Vec<MaskedPath> {
    if paths.len() > MAX_MASKED_PATHS {
        let message = format!("{} paths are too many", paths.len());
        invalid.push(Diagnostic::in_config(field, message, format!("keep {MAX_MASKED_PATHS} or fewer")));
        return Vec::new();
    }
    let parse = |(index, path): (usize, &String)| match MaskedPath::parse(path) {
        Ok(path) => Some(path),
        Err(problem) => {
            let remedy = "write a path such as customer.email, orders[*].iban or **.password";
            let field = format!("{field}[{index}]");
            invalid.push(Diagnostic::in_config(field, format!("{path:?} {problem}"), remedy));
            None
        }
    };
    let mut parsed: Vec<MaskedPath> = Vec::new();
    for path in paths.iter().enumerate().filter_map(parse) {
        if !parsed.contains(&path) {
            parsed.push(path);
        }
    }
    parsed
}

fn parse_patterns(patterns: &[String], invalid: &mut Vec<Diagnostic>) -> Vec<Regex> {
    if patterns.len() > MAX_PATTERNS {
        let message = format!("{} patterns are too many", patterns.len());
        invalid.push(Diagnostic::in_config("patterns", message, format!("keep {MAX_PATTERNS} or fewer")));
        return Vec::new();
    }
    let texts: Vec<&str> = patterns.iter().map(String::as_str).collect();
    let mut parsed = Vec::new();
    for (index, pattern) in texts.iter().enumerate() {
        let field = format!("patterns[{index}]");
        if pattern.len() > MAX_PATTERN_BYTES {
            invalid.push(Diagnostic::in_config(field, "has more than 1024 bytes", "write a shorter expression"));
            continue;
        }
        match RegexBuilder::new(pattern).size_limit(MAX_PATTERN_MEMORY).build() {
            Ok(regex) if regex.is_match(b"") => {
                let remedy = "write an expression that matches at least one character";
                invalid.push(Diagnostic::in_config(field, "matches the empty text", remedy));
            }
            Ok(regex) => parsed.push(regex),
            Err(error) => {
                let remedy = "see https://docs.rs/regex for the syntax";
                invalid.push(Diagnostic::in_config(field, regex_error_message(&error), remedy));
            }
        }
    }
    if let Err(problem) = count_regex_states("patterns", &texts, MAX_STATES) {
        invalid.push(problem);
    }
    parsed
}

const MAX_BODY_BYTES: usize = 8 << 20;
const MAX_REPLACEMENT_BYTES: usize = 64;
const MAX_NAMES: usize = 64;
const MAX_PATTERNS: usize = 32;
const MAX_PATTERN_BYTES: usize = 1024;
const MAX_STATES: usize = 2_000;
const MAX_PATTERN_MEMORY: usize = 1 << 20;
