//! Documents as trees of elements.

use super::scanner::{XmlLimits, scan};
use super::text::resolve_references;

/// An element with its content. Comments and processing instructions are left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct XmlElement {
    /// With its prefix.
    pub name: String,
    /// With the declarations of namespaces.
    pub attributes: Vec<(String, String)>,
    pub children: Vec<XmlElement>,
    /// All texts of the element itself, one after the other.
    pub text: String,
}

/// An element needs far more memory than its shortest tag.
const MAX_ELEMENTS: usize = 20_000;

impl XmlElement {
    /// Parses a document in UTF-8. The error continues a sentence whose subject is the document.
    pub fn parse(body: &[u8], limits: &XmlLimits) -> Result<Self, String> {
        scan(body, limits).map_err(|threat| format!("has {}, at byte {}", threat.what, threat.offset))?;
        let text = std::str::from_utf8(body).map_err(|_| "is not UTF-8".to_owned())?;
        let root = read(text).ok_or_else(|| "cannot be read".to_owned())?;
        root.map_err(|()| format!("has more than {MAX_ELEMENTS} elements"))
    }

    /// The name without its prefix.
    pub fn local_name(&self) -> &str {
        local_name(&self.name)
    }

    pub fn child(&self, local_name: &str) -> Option<&XmlElement> {
        self.children.iter().find(|child| child.local_name() == local_name)
    }
}

/// A name without its prefix.
pub fn local_name(name: &str) -> &str {
    name.split_once(':').map_or(name, |(_, local)| local)
}

/// Reads a document that was scanned. The inner error means that there are too many elements.
fn read(text: &str) -> Option<Result<XmlElement, ()>> {
    let (mut open, mut rest, mut count) = (Vec::<XmlElement>::new(), text, 0);
    loop {
        let start = rest.find('<')?;
        if let Some(element) = open.last_mut() {
            element.text.push_str(&resolve_references(&rest[..start]));
        }
        rest = &rest[start..];
        if let Some(after) = rest.strip_prefix("<![CDATA[") {
            let (data, after) = after.split_once("]]>")?;
            open.last_mut()?.text.push_str(data);
            rest = after;
        } else if let Some(after) = rest.strip_prefix("<!--") {
            rest = after.split_once("-->")?.1;
        } else if let Some(after) = rest.strip_prefix("<?") {
            rest = after.split_once("?>")?.1;
        } else if let Some(after) = rest.strip_prefix("</") {
            rest = after.split_once('>')?.1;
            let element = open.pop()?;
            match open.last_mut() {
                Some(parent) => parent.children.push(element),
                None => return Some(Ok(element)),
            }
        } else {
            count += 1;
            if count > MAX_ELEMENTS {
                return Some(Err(()));
            }
            let (element, is_empty, after) = read_start_tag(rest)?;
            rest = after;
            if !is_empty {
                open.push(element);
            } else if let Some(parent) = open.last_mut() {
                parent.children.push(element);
            } else {
                return Some(Ok(element));
            }
        }
    }
}

/// The element, whether it ends with the tag, and what follows.
fn read_start_tag(text: &str) -> Option<(XmlElement, bool, &str)> {
    let is_delimiter = |character: char| " \t\r\n=/>".contains(character);
    let text = text.strip_prefix('<')?;
    let (name, mut rest) = text.split_at(text.find(is_delimiter)?);
    let mut element = XmlElement { name: name.to_owned(), ..XmlElement::default() };
    loop {
        rest = rest.trim_ascii_start();
        if let Some(after) = rest.strip_prefix("/>") {
            return Some((element, true, after));
        }
        if let Some(after) = rest.strip_prefix('>') {
            return Some((element, false, after));
        }
        let (name, after) = rest.split_at(rest.find(is_delimiter)?);
        let after = after.trim_ascii_start().strip_prefix('=')?.trim_ascii_start();
        let quote = after.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        let (value, after) = after[1..].split_once(quote)?;
        element.attributes.push((name.to_owned(), resolve_references(value).into_owned()));
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin_formats::xml::scanner::XmlLimits;

    #[test]
    fn documents_become_trees() {
        let limits = XmlLimits::of_message(10);
        let document = "<?xml version='1.0'?><!-- c --><s:a xmlns:s=\"urn:x\" s:b = 'x &amp; y'>1<![CDATA[<2]]>\
                        <c/><?pi ?>&#51;<d e=\"\">t</d ></s:a>";
        let root = XmlElement::parse(document.as_bytes(), &limits).unwrap();
        assert_eq!((&*root.name, root.local_name(), &*root.text), ("s:a", "a", "1<23"));
        let attributes: Vec<_> = root.attributes.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(attributes, [("xmlns:s", "urn:x"), ("s:b", "x & y")]);
        assert_eq!(root.children.iter().map(|child| &*child.name).collect::<Vec<_>>(), ["c", "d"]);
        assert_eq!(root.child("d").unwrap().text, "t");
        for (document, expected) in [
            ("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "document type definition"),
            ("<a>&b;</a>", "entity"),
            ("<a><b></a>", "end tag"),
            ("<a><a><a><a><a><a><a><a><a><a><a/></a></a></a></a></a></a></a></a></a></a>", "nested too deeply"),
            ("<?xml version='1.0' encoding='ISO-8859-1'?><a>\u{e9}</a>", ""),
        ] {
            let outcome = XmlElement::parse(document.as_bytes(), &limits);
            assert!(expected.is_empty() || outcome.unwrap_err().contains(expected), "{document}");
        }
        let latin = b"<?xml version='1.0' encoding='ISO-8859-1'?><a>\xE9</a>";
        assert_eq!(XmlElement::parse(latin, &limits).unwrap_err(), "is not UTF-8");
        let many = format!("<a>{}</a>", "<b/>".repeat(MAX_ELEMENTS));
        assert!(XmlElement::parse(many.as_bytes(), &limits).unwrap_err().contains("elements"));
    }
}
