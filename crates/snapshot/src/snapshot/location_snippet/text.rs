//! Texts with variables, as nginx expands them: `https://$host/$1`, `${scheme}s`.

use std::borrow::Cow;
use std::sync::Arc;

use super::refusal::DirectiveRefusal;
use super::variable::{ResponseVariable, SnippetValues, SnippetVariable};

/// A text that is expanded for each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnippetText {
    parts: Box<[TextPart]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TextPart {
    Literal(Box<str>),
    Request(SnippetVariable),
    /// A variable of `set`, or of a named group, in lower case.
    Set(Arc<str>),
    /// The group of the last expression that matched: 1 to 9.
    Group(usize),
    Response(ResponseVariable),
}

/// Why a text is invalid, as a clause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSnippetText(String);

/// The variables that a text may have in addition to those of each request.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownVariables {
    /// The names of variables that the snippet sets, in lower case.
    pub(super) set: Vec<Arc<str>>,
}

/// When a text is expanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextPhase {
    Request,
    Response,
}

/// Gives the parts of a text their values.
pub(super) trait PartValues {
    fn part<'v>(&'v self, part: &'v TextPart) -> Cow<'v, str>;
}

impl SnippetText {
    /// Parses a text outside of snippets, which has neither variables of `set` nor groups.
    pub fn parse(text: &str) -> Result<Self, InvalidSnippetText> {
        let parsed = SnippetText::parse_parts(text, None).map_err(InvalidSnippetText)?;
        let has_group = parsed.parts.iter().any(|part| matches!(part, TextPart::Group(_)));
        if has_group {
            return Err(InvalidSnippetText("a group has no expression here".to_owned()));
        }
        if parsed.request_variables().any(SnippetVariable::is_of_location) {
            return Err(InvalidSnippetText(
                "the variables of the rule, such as $namespace, and of client certificates are not known here"
                    .to_owned(),
            ));
        }
        Ok(parsed)
    }

    pub(super) fn parse_in(text: &str, scope: &KnownVariables, phase: TextPhase) -> Result<Self, DirectiveRefusal> {
        let refuse = |message| DirectiveRefusal::new(message, "use another variable, or a literal text");
        SnippetText::parse_parts(text, Some((scope, phase))).map_err(refuse)
    }

    fn parse_parts(text: &str, context: Option<(&KnownVariables, TextPhase)>) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            literal.push_str(before);
            let (name, after) = split_name(after)?;
            rest = after;
            match variable_part(&name.to_ascii_lowercase(), context)? {
                TextPart::Literal(text) => literal.push_str(&text),
                part => {
                    push_literal(&mut parts, &mut literal);
                    parts.push(part);
                }
            }
        }
        literal.push_str(rest);
        push_literal(&mut parts, &mut literal);
        Ok(SnippetText { parts: parts.into() })
    }

    /// The text, if it has no variables.
    pub fn literal(&self) -> Option<&str> {
        match &self.parts[..] {
            [] => Some(""),
            [TextPart::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether the text is one variable without anything else.
    pub(super) fn is_one_variable(&self) -> bool {
        matches!(&self.parts[..], [part] if !matches!(part, TextPart::Literal(_)))
    }

    /// Whether an endpoint's response has a part of the text.
    pub(super) fn reads_upstream_fields(&self) -> bool {
        let is_upstream = |part: &TextPart| matches!(part, TextPart::Response(ResponseVariable::UpstreamField(_)));
        self.parts.iter().any(is_upstream)
    }

    /// The variable of the request that the text is.
    pub(super) fn only_variable(&self) -> Option<&SnippetVariable> {
        match &self.parts[..] {
            [TextPart::Request(variable)] => Some(variable),
            _ => None,
        }
    }

    /// The variables whose values a request has.
    pub(super) fn request_variables(&self) -> impl Iterator<Item = &SnippetVariable> {
        self.parts.iter().filter_map(|part| match part {
            TextPart::Request(variable) => Some(variable),
            _ => None,
        })
    }

    /// The variables and, as errors, the texts between them, of a text outside of snippets.
    pub fn request_parts(&self) -> impl Iterator<Item = Result<&SnippetVariable, &str>> {
        self.parts.iter().filter_map(|part| match part {
            TextPart::Literal(text) => Some(Err(&**text)),
            TextPart::Request(variable) => Some(Ok(variable)),
            TextPart::Set(_) | TextPart::Group(_) | TextPart::Response(_) => None,
        })
    }

    /// The text for a request. `None` if it is longer than 8 KiB.
    pub fn expand<'v>(&'v self, values: &'v dyn SnippetValues) -> Option<Cow<'v, str>> {
        match &self.parts[..] {
            [TextPart::Literal(text)] => Some(Cow::Borrowed(&**text)),
            // The value lives as long as the request, so that it need not be copied.
            [TextPart::Request(variable)] => Some(values.value(variable)).filter(|text| text.len() <= MAX_EXPANDED),
            _ => self.expand_parts(&OfRequest(values)).map(|text| Cow::Owned(text.into_owned())),
        }
    }

    pub(super) fn expand_parts<'v>(&'v self, values: &'v dyn PartValues) -> Option<Cow<'v, str>> {
        match &self.parts[..] {
            [] => Some(Cow::Borrowed("")),
            [part] => Some(values.part(part)).filter(|text| text.len() <= MAX_EXPANDED),
            parts => {
                let mut text = String::new();
                for part in parts {
                    let part = values.part(part);
                    // Checked before copying: a variable may occur many times.
                    if text.len() + part.len() > MAX_EXPANDED {
                        return None;
                    }
                    text.push_str(&part);
                }
                Some(Cow::Owned(text))
            }
        }
    }
}

/// The values of texts outside of snippets.
struct OfRequest<'v>(&'v dyn SnippetValues);

impl PartValues for OfRequest<'_> {
    fn part<'v>(&'v self, part: &'v TextPart) -> Cow<'v, str> {
        match part {
            TextPart::Literal(text) => Cow::Borrowed(text),
            TextPart::Request(variable) => self.0.value(variable),
            TextPart::Set(_) | TextPart::Group(_) | TextPart::Response(_) => Cow::Borrowed(""),
        }
    }
}

/// The name of a variable behind its dollar sign, and what follows. The number of a group is one digit.
pub(in crate::snapshot) fn split_name(text: &str) -> Result<(&str, &str), String> {
    let (name, after) = match text.strip_prefix('{') {
        Some(braced) => braced.split_once('}').ok_or("has a variable without a closing brace")?,
        None => {
            let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
            let end = match text.starts_with(|first| matches!(first, '1'..='9')) {
                true => 1,
                false => text.find(|next| !is_part(next)).unwrap_or(text.len()),
            };
            text.split_at_checked(end).unwrap_or((text, ""))
        }
    };
    match name.is_empty() {
        true => Err("has a dollar sign without the name of a variable".to_owned()),
        false => Ok((name, after)),
    }
}

/// The part of a text for a variable, whose name is in lower case.
fn variable_part(name: &str, context: Option<(&KnownVariables, TextPhase)>) -> Result<TextPart, String> {
    if let [digit @ b'1'..=b'9'] = name.as_bytes() {
        return Ok(TextPart::Group(usize::from(digit - b'0')));
    }
    if name == "literal_dollar" {
        return Ok(TextPart::Literal("$".into()));
    }
    if let Some(set) = context.and_then(|(scope, _)| scope.set.iter().find(|set| &***set == name)) {
        return Ok(TextPart::Set(Arc::clone(set)));
    }
    if let Some(variable) = SnippetVariable::parse(name) {
        return Ok(TextPart::Request(variable));
    }
    match (ResponseVariable::parse(name), context) {
        (Some(variable), Some((_, TextPhase::Response))) => Ok(TextPart::Response(variable)),
        (Some(_), _) => Err(format!("reads `${name}`, which has a value only in fields of responses")),
        (None, _) => Err(format!("reads `${name}`, which is not a variable that is supported")),
    }
}

fn push_literal(parts: &mut Vec<TextPart>, literal: &mut String) {
    if !literal.is_empty() {
        parts.push(TextPart::Literal(std::mem::take(literal).into()));
    }
}

/// In bytes.
pub(super) const MAX_EXPANDED: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    struct Names;

    impl SnippetValues for Names {
        fn value(&self, variable: &SnippetVariable) -> Cow<'_, str> {
            Cow::Owned(format!("<{variable:?}>"))
        }
    }

    #[test]
    fn variables_are_expanded() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("$host", "<Host>"),
            ("${scheme}s://$HOST/$request_uri", "<Scheme>s://<Host>/<RequestUri>"),
            ("$http_x_a-b", "<RequestField(\"x-a\")>-b"),
            ("$arg_a$cookie_b", "<Parameter(\"a\")><Cookie(\"b\")>"),
            ("a${literal_dollar}b", "a$b"),
            ("{$args}", "{<Args>}"),
        ] {
            let parsed = SnippetText::parse(text).unwrap();
            assert_eq!(parsed.expand(&Names).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(SnippetText::parse("a${literal_dollar}b").unwrap().literal(), Some("a$b"));
    }

    #[test]
    fn other_names_are_refused() {
        for text in ["$", "a$ b", "${host", "${}", "$foo", "$status", "$1", "$0", "$arg_", "$http_", "$${host}", "$é"]
        {
            assert!(SnippetText::parse(text).is_err(), "{text}");
        }
        let error = SnippetText::parse("a-$Foo").unwrap_err().to_string();
        assert_eq!(error, "reads `$foo`, which is not a variable that is supported");
    }

    #[test]
    fn length_is_limited() {
        struct Long;
        impl SnippetValues for Long {
            fn value(&self, _: &SnippetVariable) -> Cow<'_, str> {
                Cow::Owned("a".repeat(5_000))
            }
        }
        assert!(SnippetText::parse("$host").unwrap().expand(&Long).is_some());
        assert!(SnippetText::parse("$host$host").unwrap().expand(&Long).is_none());
    }
}
