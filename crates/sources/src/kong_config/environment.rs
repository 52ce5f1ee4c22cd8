//! References to environment variables, `${{ env "DECK_NAME" }}`. decK replaces them in the text of a file; here the
//! values that have them are replaced, so that no value can change what the rest of the file means.
//!
//! Before the file is parsed, the references are written in characters that have no meaning in YAML, one for each of
//! theirs ([`prepare`]). In the parsed values, [`resolve`] reads these characters.

use std::borrow::Cow;

use serde_json::Value;

use super::fields::FileFindings;

/// Writes the references of a text in private-use characters, so that the text is YAML whatever quotes and braces they
/// have. A reference that `indent` moves to the right is moved.
pub(super) fn prepare(text: &str) -> Cow<'_, str> {
    if !text.contains(START) {
        return Cow::Borrowed(text);
    }
    let mut prepared = String::with_capacity(2 * text.len());
    for line in text.split_inclusive('\n') {
        let mut rest = line;
        while let Some((before, after)) = rest.split_once(START) {
            // Without its end, the text stays what it is: an error.
            let Some((expression, after)) = after.split_once(END) else { break };
            let begins_line = prepared.ends_with('\n') || prepared.is_empty();
            prepared.push_str(before);
            if begins_line && before.trim().is_empty() {
                let indent = filter_of(expression).and_then(|filter| filter.strip_prefix("indent "));
                let columns: usize = indent.and_then(|columns| columns.trim().parse().ok()).unwrap_or(0);
                prepared.extend(std::iter::repeat_n(' ', columns.min(MAX_INDENT).saturating_sub(before.len())));
            }
            // A plain scalar begins in the line of its key or of the dash of its list.
            let line_before = prepared.rsplit('\n').next().unwrap_or_default();
            let is_plain = line_before.trim_end().ends_with([':', '-', ',', '[', '{']);
            prepared.push(if is_plain { PLAIN } else { QUOTED });
            prepared.extend(START[1..].chars().chain(expression.chars()).chain(END.chars()).map(hidden));
            rest = after;
        }
        prepared.push_str(rest);
    }
    Cow::Owned(prepared)
}

/// Replaces the references in a value, at `path` in the file.
pub(super) fn resolve(
    value: &mut Value,
    path: &str,
    variable: &dyn Fn(&str) -> Option<String>,
    findings: &FileFindings,
) {
    match value {
        Value::String(text) => {
            let (text, is_plain) = match text.contains([PLAIN, QUOTED]) {
                true => (Cow::Owned(text.chars().map(shown).collect::<String>()), text.starts_with(PLAIN)),
                false => (Cow::Borrowed(&**text), false),
            };
            if text.contains(START) {
                match resolve_text(&text, is_plain, variable) {
                    Ok(resolved) => *value = resolved,
                    Err((message, remedy)) => findings.reject(path, message, remedy),
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                resolve(item, &format!("{path}[{index}]"), variable, findings);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                resolve(field, &path, variable, findings);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// `is_plain`: a reference that is the whole text has the type that its value has in YAML, since it is not in quotes.
fn resolve_text(
    text: &str,
    is_plain: bool,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Value, (String, String)> {
    let mut resolved = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(START) {
        let invalid = || ("this template is not understood".to_owned(), SYNTAX.to_owned());
        let (expression, after) = after.split_once(END).ok_or_else(invalid)?;
        let filter = filter_of(expression);
        let source = expression.split('|').next().unwrap_or_default().trim();
        let name = source.strip_prefix("env").map(str::trim).and_then(unquoted).ok_or_else(invalid)?;
        if !name.starts_with("DECK_") {
            let remedy = format!("rename it, and write ${{{{ env \"DECK_{name}\" }}}}");
            return Err((format!("environment variable {name} does not start with DECK_"), remedy));
        }
        let Some(value) = variable(name) else {
            return Err((format!("environment variable {name} is not set"), "set it".to_owned()));
        };
        resolved.push_str(before);
        let is_whole = before.is_empty() && after.is_empty() && resolved.is_empty();
        let typed = match filter {
            None => plain_value(&value).filter(|_| is_plain),
            Some("toInt") => value.trim().parse::<i64>().ok().map(Value::from),
            Some("toFloat") => value.trim().parse::<f64>().ok().map(Value::from),
            Some("toBool") => parse_bool(value.trim()).map(Value::from),
            // The lines of a value need no indentation to belong to its text.
            Some(filter) if filter.strip_prefix("indent ").is_some_and(|columns| is_number(columns.trim())) => None,
            Some(_) => return Err(invalid()),
        };
        match (filter, typed) {
            (Some(filter @ ("toInt" | "toFloat" | "toBool")), None) => {
                let message = format!("the value of environment variable {name} does not suit {filter}");
                return Err((message, "correct the variable, or remove the filter".to_owned()));
            }
            (_, Some(typed)) if is_whole => return Ok(typed),
            _ => resolved.push_str(&value),
        }
        rest = after;
    }
    resolved.push_str(rest);
    Ok(Value::String(resolved))
}

fn filter_of(expression: &str) -> Option<&str> {
    expression.split_once('|').map(|(_, filter)| filter.trim())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The words that Go reads as a boolean.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// The number or boolean that a text without quotes is in YAML.
fn plain_value(text: &str) -> Option<Value> {
    let text = text.trim();
    match text {
        "true" | "True" | "TRUE" => return Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Value::Bool(false)),
        _ => {}
    }
    let digits = text.trim_start_matches(['-', '+']);
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    let integer = || text.parse::<i64>().ok().map(Value::from);
    integer().or_else(|| text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from))
}

fn unquoted(text: &str) -> Option<&str> {
    let name = text.strip_prefix('"')?.strip_suffix('"')?;
    (!name.is_empty() && !name.contains('"')).then_some(name)
}

/// The character that stands for one of a reference.
fn hidden(char: char) -> char {
    match u8::try_from(char) {
        Ok(byte) if byte.is_ascii() => char::from_u32(HIDDEN + u32::from(byte)).unwrap_or(char),
        _ => char,
    }
}

fn shown(char: char) -> char {
    match (char, u32::from(char)) {
        (PLAIN | QUOTED, _) => '$',
        (_, code @ HIDDEN..LAST_HIDDEN) => char::from_u32(code - HIDDEN).unwrap_or(char),
        _ => char,
    }
}

const START: &str = "${{";
const END: &str = "}}";
/// The code of the character that stands for the ASCII character of code 0, and the end of these codes.
const HIDDEN: u32 = 0xE000;
const LAST_HIDDEN: u32 = HIDDEN + 128;
/// Stands for the dollar sign of a reference that begins a scalar without quotes.
const PLAIN: char = '\u{E080}';
/// Stands for the dollar sign of another reference.
const QUOTED: char = '\u{E081}';
/// More columns than any file has.
const MAX_INDENT: usize = 200;

const SYNTAX: &str =
    "write ${{ env \"DECK_NAME\" }}, with | toInt, toBool or toFloat for another type, or with | indent 4";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The value of `a` in a document that has the text as its last part.
    fn found(document: &str) -> Value {
        let variable = |name: &str| match name {
            "DECK_HOST" => Some("a.example".to_owned()),
            "DECK_PORT" => Some("81".to_owned()),
            "DECK_ON" => Some("T".to_owned()),
            "DECK_QUOTES" => Some("a\": [b] # c".to_owned()),
            "DECK_PEM" => Some("BEGIN\nEND".to_owned()),
            _ => None,
        };
        let prepared = prepare(document);
        assert_eq!(prepared.lines().count(), document.lines().count(), "{document}");
        let findings = FileFindings::default();
        let mut value: Value = serde_saphyr::from_str(&prepared).unwrap_or_else(|error| panic!("{document}: {error}"));
        resolve(&mut value, "", &variable, &findings);
        let problems: Vec<_> =
            findings.into_parts().0.into_iter().map(|problem| (problem.field, problem.message)).collect();
        match problems.first() {
            Some((field, message)) => json!(format!("{field}: {message}")),
            None => value["a"].clone(),
        }
    }

    #[test]
    fn variables_are_inserted_with_their_type() {
        for (text, expected) in [
            ("plain", json!("plain")),
            ("${{ env \"DECK_HOST\" }}", json!("a.example")),
            ("http://${{ env \"DECK_HOST\" }}:${{env \"DECK_PORT\"}}/x", json!("http://a.example:81/x")),
            ("${{ env \"DECK_PORT\" | toInt }}", json!(81)),
            ("'${{ env \"DECK_PORT\" | toInt }}'", json!(81)),
            ("${{ env \"DECK_ON\" | toBool }}", json!(true)),
            (
                "${{ env \"DECK_HOST\" | toInt }}",
                json!("a: the value of environment variable DECK_HOST does not suit toInt"),
            ),
            ("${{ env \"DECK_NONE\" }}", json!("a: environment variable DECK_NONE is not set")),
            ("${{ env \"HOME\" }}", json!("a: environment variable HOME does not start with DECK_")),
            ("${{ .Values.x }}", json!("a: this template is not understood")),
            ("${{ env \"DECK_HOST\" | upper }}", json!("a: this template is not understood")),
        ] {
            assert_eq!(found(&format!("a: {text}")), expected, "{text}");
        }
    }

    #[test]
    fn templates_of_deck_need_no_other_quotes_than_there() {
        for (document, expected) in [
            ("a: ${{ env \"DECK_PORT\" }}", json!(81)),
            ("a: ${{ env \"DECK_PORT\" }} # comment", json!(81)),
            ("a: \"${{ env \"DECK_PORT\" }}\"", json!("81")),
            ("a: \"${{ env \"DECK_QUOTES\" }}\"", json!("a\": [b] # c")),
            ("a: x-${{ env \"DECK_PORT\" }}", json!("x-81")),
            ("a: [${{ env \"DECK_PORT\" }}, \"${{ env \"DECK_PORT\" }}\"]", json!([81, "81"])),
            ("{\"a\": ${{ env \"DECK_PORT\" | toInt }}}", json!(81)),
            ("{\"a\": ${{ env \"DECK_PORT\" }}}", json!(81)),
            ("a:\n  - ${{ env \"DECK_PORT\" }}", json!([81])),
            ("a: |\n  ${{ env \"DECK_PEM\" | indent 2 }}\n", json!("BEGIN\nEND\n")),
            ("b:\n  - c: 1\na: |-\n${{ env \"DECK_PEM\" | indent 6 }}\n", json!("BEGIN\nEND")),
            ("a: 1 # ${{ env \"DECK_NONE\" }}", json!(1)),
        ] {
            assert_eq!(found(document), expected, "{document}");
        }
    }
}
