//! The path templates of `google.api.http`.
//!
//! ```text
//!   /v1/{name=shelves/*/books/*}:publish
//!       └ a variable: a field, and what it matches; `{name}` is `{name=*}`
//!       * matches one segment, ** at the end all that are left, and :publish is the verb
//! ```

use crate::plugin_api::path_encoding::decode_unreserved;

#[derive(Debug, PartialEq)]
pub(super) struct PathTemplate {
    pub(super) segments: Vec<Segment>,
    /// Whether any number of segments may follow.
    pub(super) has_rest: bool,
    pub(super) verb: Option<String>,
    pub(super) variables: Vec<BoundVariable>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Segment {
    Literal(String),
    Any,
}

/// A variable that is bound to some segments.
#[derive(Debug, PartialEq)]
pub(super) struct BoundVariable {
    /// The names of the fields that lead to it.
    pub(super) field: String,
    pub(super) start: usize,
    /// The segment after the last one. `None` if it has all segments that are left.
    pub(super) end: Option<usize>,
    /// Whether it may have several segments, whose separators then stay distinct from escaped ones.
    pub(super) is_path: bool,
}

impl PathTemplate {
    pub(super) fn parse(text: &str) -> Result<PathTemplate, &'static str> {
        let mut template = PathTemplate { segments: Vec::new(), has_rest: false, verb: None, variables: Vec::new() };
        let mut rest = text.strip_prefix('/').ok_or("does not begin with a slash")?;
        // The verb follows the last brace and the last slash.
        let tail_start = rest.rfind(['/', '}']).map_or(0, |position| position + 1);
        if let Some(colon) = rest[tail_start..].find(':') {
            let verb = &rest[tail_start + colon + 1..];
            template.verb = Some(literal(verb)?);
            rest = &rest[..tail_start + colon];
        }
        loop {
            rest = match rest.strip_prefix('{') {
                Some(variable) => {
                    let (variable, after) = variable.split_once('}').ok_or("has a brace without its end")?;
                    template.push_variable(variable)?;
                    after
                }
                None => {
                    let (segment, _) = rest.split_once('/').unwrap_or((rest, ""));
                    template.push(segment)?;
                    &rest[segment.len()..]
                }
            };
            if rest.is_empty() {
                break;
            }
            rest = rest.strip_prefix('/').ok_or("has text after a variable in the same segment")?;
        }
        if template.segments.len() > MAX_SEGMENTS {
            return Err("has more than 32 segments");
        }
        Ok(template)
    }

    fn push(&mut self, segment: &str) -> Result<(), &'static str> {
        if self.has_rest {
            return Err("has something after **");
        }
        match segment {
            "**" => self.has_rest = true,
            "*" => self.segments.push(Segment::Any),
            text => self.segments.push(Segment::Literal(literal(text)?)),
        }
        Ok(())
    }

    fn push_variable(&mut self, variable: &str) -> Result<(), &'static str> {
        let (field, pattern) = variable.split_once('=').unwrap_or((variable, "*"));
        let is_name = |name: &str| {
            !name.is_empty()
                && !name.starts_with(|first: char| first.is_ascii_digit())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        if !field.split('.').all(is_name) {
            return Err("has a variable that is not the name of a field");
        }
        if self.variables.iter().any(|other| other.field == field) {
            return Err("has a variable twice");
        }
        let start = self.segments.len();
        for segment in pattern.split('/') {
            self.push(segment)?;
        }
        let end = (!self.has_rest).then_some(self.segments.len());
        let is_path = self.has_rest || self.segments.len() > start + 1;
        self.variables.push(BoundVariable { field: field.to_owned(), start, end, is_path });
        Ok(())
    }
}

fn literal(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        return Err("has an empty segment or verb");
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()+,;@%".contains(&byte);
    if !text.bytes().all(is_plain) || matches!(text, "." | "..") {
        return Err("has a segment that no path has");
    }
    Ok(decode_unreserved(text).into_owned())
}

const MAX_SEGMENTS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String, &'static str> {
        let template = PathTemplate::parse(text)?;
        let segments = template.segments.iter().map(|segment| match segment {
            Segment::Literal(text) => text.clone(),
            Segment::Any => "*".to_owned(),
        });
        let rest = template.has_rest.then(|| "**".to_owned());
        let mut shown = segments.chain(rest).collect::<Vec<_>>().join("/");
        for BoundVariable { field, start, end, .. } in &template.variables {
            let end = end.map_or_else(String::new, |end| end.to_string());
            shown += &format!(" {field}={start}..{end}");
        }
        Ok(shown + &template.verb.map_or_else(String::new, |verb| format!(" :{verb}")))
    }

    #[test]
    fn templates_are_parsed() {
        for (text, expected) in [
            ("/v1/shelves", "v1/shelves"),
            ("/v1/*/b", "v1/*/b"),
            ("/v1/{id}", "v1/* id=1..2"),
            ("/v1/{a.b_c}/x/{d}", "v1/*/x/* a.b_c=1..2 d=3..4"),
            ("/v1/{name=shelves/*/books/*}", "v1/shelves/*/books/* name=1..5"),
            ("/v1/{name=**}:get", "v1/** name=1.. :get"),
            ("/v1/{id}:cancel", "v1/* id=1..2 :cancel"),
            ("/v1/a:b", "v1/a :b"),
            ("/%7ejane", "~jane"),
            ("/**", "**"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "v1",
            "/",
            "/v1/",
            "//",
            "/v1//b",
            "/{",
            "/{}",
            "/{a",
            "/{a}b",
            "/{a}{b}",
            "/**/a",
            "/{a=**}/b",
            "/{a=}",
            "/{1a}",
            "/{a-b}",
            "/{a}/{a}",
            "/a:",
            "/a b",
            "/é",
            "/..",
            "/a?b",
            "/{a={b}}",
            "/a}b",
            "/v1/***",
        ] {
            assert!(shown(text).is_err(), "{text}: {:?}", shown(text));
        }
        assert!(shown(&"/a".repeat(33)).is_err());
    }
}
