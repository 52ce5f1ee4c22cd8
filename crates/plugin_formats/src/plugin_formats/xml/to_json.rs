//! Elements as JSON.
//!
//! | XML | JSON |
//! | --- | --- |
//! | an element with text only | the text |
//! | an element with attributes or children | an object; attributes have the prefix `@`, and text is `#text` |
//! | several elements with the same name, or one whose name is listed | a list |
//! | an element with `xsi:nil="true"` | null |
//!
//! All values are texts: XML does not say which of them are numbers.

use serde_json::{Map, Value};

use super::tree::{XmlElement, local_name};

/// How elements become JSON.
#[derive(Clone, Debug, Default)]
pub struct JsonRules {
    /// The local names of elements that are lists, even if there is one.
    pub lists: Vec<String>,
    /// Whether names have their prefixes, and declarations of namespaces are attributes.
    pub keeps_prefixes: bool,
}

impl JsonRules {
    /// The content of an element. The depth of the recursion is limited by that of the document.
    pub fn content(&self, element: &XmlElement) -> Value {
        let is_declaration = |name: &str| name == "xmlns" || name.starts_with("xmlns:");
        let is_nil = |(name, value): &(String, String)| local_name(name) == "nil" && (value == "true" || value == "1");
        if element.children.is_empty() && element.attributes.iter().any(is_nil) {
            return Value::Null;
        }
        let mut members = Map::new();
        for (name, value) in &element.attributes {
            if self.keeps_prefixes || !is_declaration(name) {
                members.insert(format!("@{}", self.name(name)), value.as_str().into());
            }
        }
        for child in &element.children {
            let name = self.name(&child.name);
            let value = self.content(child);
            let is_list = || self.lists.iter().any(|list| list == child.local_name());
            match members.get_mut(name) {
                Some(Value::Array(values)) => values.push(value),
                Some(first) => *first = vec![first.take(), value].into(),
                None if is_list() => _ = members.insert(name.to_owned(), vec![value].into()),
                None => _ = members.insert(name.to_owned(), value),
            }
        }
        if members.is_empty() {
            return element.text.as_str().into();
        }
        if !element.text.trim_ascii().is_empty() {
            members.insert("#text".to_owned(), element.text.trim_ascii().into());
        }
        Value::Object(members)
    }

    pub fn name<'n>(&self, name: &'n str) -> &'n str {
        if self.keeps_prefixes { name } else { local_name(name) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin_formats::xml::scanner::XmlLimits;

    #[test]
    fn elements_become_json() {
        let content = |rules: &JsonRules, document: &str| {
            rules.content(&XmlElement::parse(document.as_bytes(), &XmlLimits::of_message(20)).unwrap())
        };
        let plain = JsonRules::default();
        for (document, expected) in [
            ("<a>1</a>", json!("1")),
            ("<a/>", json!("")),
            ("<a> <b>1</b> <c/> </a>", json!({"b": "1", "c": ""})),
            ("<a><b>1</b><b>2</b><b>3</b></a>", json!({"b": ["1", "2", "3"]})),
            ("<a x='1'>t</a>", json!({"@x": "1", "#text": "t"})),
            ("<p:a xmlns:p='u'><p:b>1</p:b></p:a>", json!({"b": "1"})),
            ("<a xmlns:i='u'><b i:nil='true'/></a>", json!({"b": null})),
        ] {
            assert_eq!(content(&plain, document), expected, "{document}");
        }
        let rules = JsonRules { lists: vec!["b".to_owned()], keeps_prefixes: true };
        let expected = json!({"@xmlns:p": "u", "p:b": ["1"]});
        assert_eq!(content(&rules, "<a xmlns:p='u'><p:b>1</p:b></a>"), expected);
    }
}
