//! The text of a document, and references in it.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use serde_json::Value;
use serde_saphyr::DuplicateKeyPolicy;

use crate::diagnostic::Diagnostic;

/// A parsed document.
#[derive(Debug)]
pub struct ApiDocument {
    pub version: OpenApiVersion,
    pub root: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenApiVersion {
    /// Swagger 2.0.
    V2,
    V30,
    V31,
}

/// The largest text in bytes, after decoding. An object in a cluster has at most about 1 MiB.
const MAX_TEXT: usize = 4 << 20;
/// The most values, keys and list items. Aliases count as what they stand for.
const MAX_NODES: usize = 500_000;
const MAX_DEPTH: usize = 120;
/// The most references from one to the next.
const MAX_REFERENCES: usize = 16;

impl ApiDocument {
    /// Parses JSON or YAML. An encoded text has escapes as in URIs; a text with spaces, quotes or line breaks cannot be
    /// encoded and is read as it is.
    pub fn parse(field: &str, text: &str, is_encoded: bool) -> Result<ApiDocument, Diagnostic> {
        let error = |message: String, remedy: &str| Diagnostic::in_config(field, message, remedy);
        if text.trim().is_empty() {
            return Err(error("is missing".to_owned(), "set it to the text of an OpenAPI document, in JSON or YAML"));
        }
        let is_plain = text.trim_end().contains([' ', '\n', '"', '{', '\t']);
        let text = if is_encoded && !is_plain {
            percent_decode_str(text).decode_utf8().map_err(|_| {
                error("is not UTF-8 after decoding".to_owned(), "encode the bytes of a document in UTF-8")
            })?
        } else {
            Cow::Borrowed(text)
        };
        if text.len() > MAX_TEXT {
            let message = format!("has more than {} MiB", MAX_TEXT >> 20);
            return Err(error(message, "divide the document, and configure a plugin for each part"));
        }
        let root = parse_text(&text).map_err(|message| {
            error(format!("is neither valid JSON nor valid YAML: {message}"), "correct the document")
        })?;
        let version = match (root.get("openapi").and_then(Value::as_str), root.get("swagger").and_then(Value::as_str)) {
            (Some(version), _) if version.starts_with("3.0.") => OpenApiVersion::V30,
            (Some(version), _) if version.starts_with("3.1.") => OpenApiVersion::V31,
            (None, Some("2.0")) => OpenApiVersion::V2,
            (Some(version), _) | (None, Some(version)) => {
                let message = format!("has the version {version:?}");
                return Err(error(message, "use a document of OpenAPI 3.0 or 3.1, or of Swagger 2.0"));
            }
            (None, None) => {
                let remedy = "begin the document with a line such as openapi: 3.1.0";
                return Err(error("is no OpenAPI document".to_owned(), remedy));
            }
        };
        if root.get("paths").is_some_and(|paths| !paths.is_object()) {
            return Err(error("has paths that are no object".to_owned(), "write each path as a key of paths"));
        }
        Ok(ApiDocument { version, root })
    }

    /// What a value stands for: itself, or the part of the document that its `$ref` names. The error is a clause.
    pub fn resolve<'d>(&'d self, value: &'d Value) -> Result<&'d Value, String> {
        let mut found = value;
        for _ in 0..MAX_REFERENCES {
            let Some(reference) = found.get("$ref").and_then(Value::as_str) else { return Ok(found) };
            let Some(pointer) = reference.strip_prefix('#') else {
                return Err(format!("refers to {reference:?}, and other documents are never fetched"));
            };
            let pointer = percent_decode_str(pointer).decode_utf8_lossy();
            found =
                self.root.pointer(&pointer).ok_or_else(|| format!("refers to {reference:?}, which does not exist"))?;
        }
        Err("refers to itself".to_owned())
    }
}

fn parse_text(text: &str) -> Result<Value, String> {
    // Most documents in JSON are large, and this parser is faster.
    if text.trim_start().starts_with('{')
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(value);
    }
    let budget = serde_saphyr::budget! {
        max_events: 4 * MAX_NODES,
        max_nodes: MAX_NODES,
        max_depth: MAX_DEPTH,
        max_aliases: MAX_NODES,
        max_recorded_anchor_events: MAX_NODES,
        enforce_alias_anchor_ratio: false,
        max_documents: 1,
    };
    let mut options = serde_saphyr::options! {
        budget: budget,
        duplicate_keys: DuplicateKeyPolicy::Error,
        // The OpenAPI specification recommends YAML 1.2, in which NO, on and y are strings.
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    options.alias_limits.max_total_replayed_events = MAX_NODES;
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let text = error.to_string();
        text.lines().next().unwrap_or_default().to_owned()
    })
}
