//! Writing XML: escaped text, and elements from JSON.

use serde_json::Value;

use super::text::is_name;

/// The text as content of an element or of an attribute in quotes. `None` if it has a character that XML cannot
/// contain.
pub fn escape(text: &str) -> Option<String> {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            // A parser would replace it by a line feed.
            '\r' => escaped.push_str("&#13;"),
            '\t' | '\n' => escaped.push(character),
            '\u{FFFE}' | '\u{FFFF}' => return None,
            character if character < ' ' => return None,
            character => escaped.push(character),
        }
    }
    Some(escaped)
}

/// Writes a member of an object as elements: lists as several, members with the prefix `@` as attributes, and `#text`
/// as text. `None` if a name is not one of XML, or a text cannot be written. The parser of JSON limits the depth.
pub fn write_element(document: &mut String, name: &str, value: &Value) -> Option<()> {
    if !is_name(name.as_bytes()) {
        return None;
    }
    match value {
        Value::Array(values) => values.iter().try_for_each(|value| write_element(document, name, value)),
        Value::Object(members) => {
            document.push('<');
            document.push_str(name);
            let is_attribute = |name: &str| name.starts_with('@');
            for (name, value) in members.iter().filter(|(name, _)| is_attribute(name)) {
                let name = &name[1..];
                if !is_name(name.as_bytes()) {
                    return None;
                }
                document.push_str(&format!(" {name}=\"{}\"", escape(&scalar(value)?)?));
            }
            document.push('>');
            write_content(document, value)?;
            document.push_str(&format!("</{name}>"));
            Some(())
        }
        scalar_value => {
            document.push_str(&format!("<{name}>{}</{name}>", escape(&scalar(scalar_value)?)?));
            Some(())
        }
    }
}

/// Writes the content of an element: the members of an object except attributes, or a text.
pub fn write_content(document: &mut String, value: &Value) -> Option<()> {
    let Value::Object(members) = value else {
        document.push_str(&escape(&scalar(value)?)?);
        return Some(());
    };
    for (name, value) in members.iter().filter(|(name, _)| !name.starts_with('@')) {
        match name.as_str() {
            "#text" => document.push_str(&escape(&scalar(value)?)?),
            name => write_element(document, name, value)?,
        }
    }
    Some(())
}

/// A value without members as text; null is empty.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_becomes_elements() {
        let write = |value: Value| {
            let mut document = String::new();
            write_element(&mut document, "r", &value).map(|()| document)
        };
        for (value, expected) in [
            (json!({"a": 1, "b": [true, "x<y"], "c": null}), "<r><a>1</a><b>true</b><b>x&lt;y</b><c></c></r>"),
            (json!({"@id": "\"1\"", "#text": "t"}), "<r id=\"&quot;1&quot;\">t</r>"),
            (json!({"p:a": {"b": "&"}}), "<r><p:a><b>&amp;</b></p:a></r>"),
        ] {
            assert_eq!(write(value).as_deref(), Some(expected));
        }
        for invalid in [
            json!({"a b": 1}),
            json!({"a><evil": 1}),
            json!({"": 1}),
            json!({"a": "\u{0}"}),
            json!({"@a b": 1}),
            json!({"@a": {}}),
            json!({"#text": []}),
        ] {
            assert_eq!(write(invalid.clone()), None, "{invalid}");
        }
    }
}
