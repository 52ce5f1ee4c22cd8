//! The formats `@json`, `@base64` and others, of values in strings.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::budget::{Stop, error};
use super::value::{JqValue, OutputStyle};

/// Everything except the unreserved characters (RFC 3986, section 2.3).
const NOT_UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextFormat {
    Text,
    Json,
    Html,
    Uri,
    Csv,
    Tsv,
    Shell,
    Base64,
    Base64Decode,
}

impl TextFormat {
    pub(super) fn named(name: &str) -> Option<TextFormat> {
        Some(match name {
            "text" => TextFormat::Text,
            "json" => TextFormat::Json,
            "html" => TextFormat::Html,
            "uri" => TextFormat::Uri,
            "csv" => TextFormat::Csv,
            "tsv" => TextFormat::Tsv,
            "sh" => TextFormat::Shell,
            "base64" => TextFormat::Base64,
            "base64d" => TextFormat::Base64Decode,
            _ => return None,
        })
    }
}

pub(super) fn apply(format: TextFormat, value: &JqValue) -> Result<String, Stop> {
    Ok(match format {
        TextFormat::Text => text(value).into_owned(),
        TextFormat::Json => value.to_json(OutputStyle::default()),
        TextFormat::Html => escape(&text(value), |character| match character {
            '<' => Some("&lt;"),
            '>' => Some("&gt;"),
            '&' => Some("&amp;"),
            '\'' => Some("&#39;"),
            '"' => Some("&quot;"),
            _ => None,
        }),
        TextFormat::Uri => percent_encode(text(value).as_bytes(), NOT_UNRESERVED).to_string(),
        TextFormat::Csv => row(value, ",", |text| format!("\"{}\"", text.replace('"', "\"\"")))?,
        TextFormat::Tsv => row(value, "\t", |text| {
            escape(text, |character| match character {
                '\\' => Some("\\\\"),
                '\t' => Some("\\t"),
                '\n' => Some("\\n"),
                '\r' => Some("\\r"),
                _ => None,
            })
        })?,
        TextFormat::Shell => match value {
            JqValue::List(elements, _) => elements.iter().map(shell).collect::<Result<Vec<String>, Stop>>()?.join(" "),
            value => shell(value)?,
        },
        TextFormat::Base64 => STANDARD.encode(text(value).as_bytes()),
        TextFormat::Base64Decode => {
            let encoded = text(value);
            let decoded = STANDARD_NO_PAD.decode(encoded.trim_end_matches('='));
            match decoded {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(_) => return error("the string is not base64"),
            }
        }
    })
}

/// A string as it is, and any other value as JSON.
pub(super) fn text(value: &JqValue) -> Cow<'_, str> {
    match value {
        JqValue::Text(text) => Cow::Borrowed(text),
        value => Cow::Owned(value.to_json(OutputStyle::default())),
    }
}

fn row(value: &JqValue, separator: &str, quote: impl Fn(&str) -> String) -> Result<String, Stop> {
    let JqValue::List(cells, _) = value else { return error("only an array can be a row") };
    let mut row = Vec::new();
    for cell in cells.iter() {
        row.push(match cell {
            JqValue::Text(text) => quote(text),
            JqValue::Null => String::new(),
            JqValue::List(..) | JqValue::Object(..) => return error("an array or object cannot be a cell of a row"),
            value => value.to_json(OutputStyle::default()),
        });
    }
    Ok(row.join(separator))
}

fn shell(value: &JqValue) -> Result<String, Stop> {
    match value {
        JqValue::Text(text) => Ok(format!("'{}'", text.replace('\'', "'\\''"))),
        JqValue::List(..) | JqValue::Object(..) => error("an array or object cannot be quoted for a shell"),
        value => Ok(value.to_json(OutputStyle::default())),
    }
}

fn escape(text: &str, replacement: impl Fn(char) -> Option<&'static str>) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match replacement(character) {
            Some(text) => escaped.push_str(text),
            None => escaped.push(character),
        }
    }
    escaped
}
