//! Templates of XML: text with `$(…)` for values of the request and `{{/POINTER}}` for members of its JSON body.

use serde_json::Value;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::lua_value::Budget;
use crate::plugin_formats::template::{Template, Variables};
use crate::plugin_formats::xml::scanner::{XmlLimits, scan};
use crate::plugin_formats::xml::write::{escape, write_content};

pub(super) struct MessageTemplate(Vec<MessagePart>);

enum MessagePart {
    Template(Template),
    /// A member of the JSON body.
    Pointer(String),
}

const REMEDY: &str = "write XML elements, in which {{/a/b}} is a member of the JSON body and $(query_params.c) a value \
                      of the request";

impl MessageTemplate {
    pub(super) fn parse(field: &str, text: &str) -> Result<Self, Diagnostic> {
        let (mut parts, mut rest) = (Vec::new(), text);
        let mut without_values = String::new();
        while let Some((before, after)) = rest.split_once("{{") {
            let unclosed = || Diagnostic::in_config(field, "has {{ without }}", REMEDY);
            let (pointer, after) = after.split_once("}}").ok_or_else(unclosed)?;
            if !pointer.is_empty() && !pointer.starts_with('/') {
                let message = format!("{{{{{pointer}}}}} does not begin with a slash");
                return Err(Diagnostic::in_config(field, message, REMEDY));
            }
            parts.push(MessagePart::Template(Template::parse(before).map_err(|error| error.into_diagnostic(field))?));
            parts.push(MessagePart::Pointer(pointer.to_owned()));
            without_values.push_str(before);
            rest = after;
        }
        parts.push(MessagePart::Template(Template::parse(rest).map_err(|error| error.into_diagnostic(field))?));
        without_values.push_str(rest);
        // Expressions may contain quotes and comparisons, but nothing of XML around them depends on their values.
        if !without_values.contains("$(") {
            let document = format!("<e xmlns:xsi=\"x\" xmlns:soap=\"x\">{without_values}</e>");
            scan(document.as_bytes(), &XmlLimits::of_message(100)).map_err(|threat| {
                let message = format!("is not well-formed: {}", threat.what);
                Diagnostic::in_config(field, message, REMEDY)
            })?;
        }
        Ok(MessageTemplate(parts))
    }

    /// Adds the text for one request. `None` if a value is missing or cannot be in XML.
    pub(super) fn render(
        &self,
        document: &mut String,
        variables: &dyn Variables,
        budget: &mut Budget,
        body: &Value,
    ) -> Option<()> {
        for part in &self.0 {
            match part {
                MessagePart::Template(template) => {
                    let escaped = |value: &[u8]| Some(escape(std::str::from_utf8(value).ok()?)?.into_bytes());
                    let text = template.render_escaped(variables, budget, escaped).ok()??;
                    document.push_str(std::str::from_utf8(&text).ok()?);
                }
                MessagePart::Pointer(pointer) => write_content(document, body.pointer(pointer)?)?,
            }
        }
        Some(())
    }
}
