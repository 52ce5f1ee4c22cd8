//! `sub_filter`: replaces texts in the bodies of responses, in any case. As in nginx, the first match from the left
//! counts, and of several that begin there the one whose directive is the first.

use std::sync::Arc;

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderName};
use memchr::memmem::Finder;

use super::directive_tree::WrittenDirective;
use super::refusal::DirectiveRefusal;
use super::text::{KnownVariables, PartValues, SnippetText, TextPhase};

/// The edits of a location. `None` for what it does not say, so that it has that of its server.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SubFilters {
    /// `sub_filter`
    replacements: Option<Arc<Vec<TextReplacement>>>,
    /// `sub_filter_once`
    is_once: Option<bool>,
    /// `sub_filter_types`, in lower case and without `text/html`, which is always one of them. Empty for all.
    types: Option<Arc<[Box<str>]>>,
    /// `sub_filter_last_modified`
    keeps_last_modified: Option<bool>,
}

/// A text and what takes its place.
#[derive(Clone, Debug, PartialEq)]
enum TextReplacement {
    Fixed(Arc<ReplacedText>),
    Expanded { text: SnippetText, replacement: SnippetText },
}

/// The same for one response.
#[derive(Debug)]
struct ReplacedText {
    /// Of the text in lower case.
    finder: Finder<'static>,
    replacement: Box<[u8]>,
}

impl PartialEq for ReplacedText {
    fn eq(&self, other: &Self) -> bool {
        let ReplacedText { finder, replacement } = self;
        (finder.needle(), replacement) == (other.finder.needle(), &other.replacement)
    }
}

impl ReplacedText {
    fn new(text: &str, replacement: &str) -> Self {
        let finder = Finder::new(&text.to_ascii_lowercase()).into_owned();
        ReplacedText { finder, replacement: replacement.as_bytes().into() }
    }
}

/// What replaces texts in the body of one response.
#[derive(Debug)]
pub(crate) struct BodyReplacements {
    texts: Vec<Arc<ReplacedText>>,
    is_once: bool,
}

impl SubFilters {
    /// Whether a directive is one of these.
    pub(super) fn has(name: &str) -> bool {
        ["sub_filter", "sub_filter_once", "sub_filter_types", "sub_filter_last_modified"].contains(&name)
    }

    /// Adds a directive. `Ok(false)` if it is about something else.
    pub(super) fn add(
        &mut self,
        directive: &WrittenDirective,
        scope: &KnownVariables,
    ) -> Result<bool, DirectiveRefusal> {
        match &directive.name[..] {
            "sub_filter" => {
                let [text, replacement] = directive.exactly()?;
                let replacements = Arc::make_mut(self.replacements.get_or_insert_default());
                replacements.push(TextReplacement::parse(text, replacement, scope)?);
                if replacements.len() > MAX_REPLACEMENTS {
                    let message =
                        format!("is the {}th, and a location may have {MAX_REPLACEMENTS}", replacements.len());
                    return Err(DirectiveRefusal::new(message, "replace fewer texts"));
                }
            }
            "sub_filter_once" => set_flag(&mut self.is_once, directive)?,
            "sub_filter_last_modified" => set_flag(&mut self.keeps_last_modified, directive)?,
            "sub_filter_types" => {
                let types = directive.some_arguments()?;
                if let Some(other) = types.iter().find(|name| *name != "*" && !name.contains('/')) {
                    return Err(DirectiveRefusal::invalid(format!("has {other:?}, which is no media type")));
                }
                let is_all = types.iter().any(|name| name == "*");
                let types = types.iter().map(|name| name.to_ascii_lowercase().into()).filter(|_| !is_all).collect();
                if self.types.replace(types).is_some() {
                    return Err(DirectiveRefusal::invalid("is given twice"));
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Adds those of the server.
    pub(super) fn inherit(&mut self, outer: &SubFilters) {
        let SubFilters { replacements, is_once, types, keeps_last_modified } = outer;
        self.replacements = self.replacements.take().or_else(|| replacements.clone());
        self.is_once = self.is_once.or(*is_once);
        self.types = self.types.take().or_else(|| types.clone());
        self.keeps_last_modified = self.keeps_last_modified.or(*keeps_last_modified);
    }

    /// Whether bodies stay as they are.
    pub(super) fn is_empty(&self) -> bool {
        self.replacements.is_none()
    }

    /// The fields of responses that may be removed.
    pub(super) fn names(&self) -> &'static [HeaderName] {
        if self.is_empty() { &[] } else { &VALIDATORS }
    }

    /// The texts that are expanded.
    pub(super) fn texts(&self) -> impl Iterator<Item = &SnippetText> {
        let replacements = self.replacements.iter().flat_map(|replacements| replacements.iter());
        replacements
            .flat_map(|one| match one {
                TextReplacement::Fixed(_) => [None, None],
                TextReplacement::Expanded { text, replacement } => [Some(text), Some(replacement)],
            })
            .flatten()
    }

    /// What replaces texts in the body of a response with these fields, of which those about its age are removed as in
    /// nginx. `None` if the body stays as it is.
    pub(super) fn of_response(&self, values: &dyn PartValues, headers: &mut HeaderMap) -> Option<BodyReplacements> {
        let replacements = self.replacements.as_ref()?;
        let is_empty = headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() == b"0");
        if is_empty || headers.contains_key(CONTENT_ENCODING) || !self.is_for(headers) {
            return None;
        }
        let texts = replacements.iter().filter_map(|one| match one {
            TextReplacement::Fixed(text) => Some(Arc::clone(text)),
            TextReplacement::Expanded { text, replacement } => {
                let text = text.expand_parts(values).filter(|text| !text.is_empty())?;
                Some(Arc::new(ReplacedText::new(&text, &replacement.expand_parts(values)?)))
            }
        });
        let texts = texts.collect();
        if self.keeps_last_modified != Some(true) {
            VALIDATORS.iter().for_each(|name| drop(headers.remove(name)));
        }
        Some(BodyReplacements { texts, is_once: self.is_once != Some(false) })
    }

    fn is_for(&self, headers: &HeaderMap) -> bool {
        let types = self.types.as_deref();
        if types.is_some_and(<[_]>::is_empty) {
            return true;
        }
        let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = value.split(';').next().unwrap_or_default().trim();
        let mut known = types.into_iter().flatten().map(|name| &**name).chain(["text/html"]);
        known.any(|known| known.eq_ignore_ascii_case(media_type))
    }
}

impl TextReplacement {
    fn parse(text: &str, replacement: &str, scope: &KnownVariables) -> Result<Self, DirectiveRefusal> {
        let parse = |text| SnippetText::parse_in(text, scope, TextPhase::Request);
        let (text, replacement) = (parse(text)?, parse(replacement)?);
        match (text.literal(), replacement.literal()) {
            (Some(""), _) => Err(DirectiveRefusal::invalid("has an empty text to replace")),
            (Some(text), Some(replacement)) => {
                Ok(TextReplacement::Fixed(Arc::new(ReplacedText::new(text, replacement))))
            }
            _ => Ok(TextReplacement::Expanded { text, replacement }),
        }
    }
}

fn set_flag(setting: &mut Option<bool>, directive: &WrittenDirective) -> Result<(), DirectiveRefusal> {
    let value = match directive.exactly()? {
        ["on"] => true,
        ["off"] => false,
        [_] => return Err(DirectiveRefusal::invalid("takes `on` or `off`")),
    };
    match setting.replace(value) {
        Some(_) => Err(DirectiveRefusal::invalid("is given twice")),
        None => Ok(()),
    }
}

impl BodyReplacements {
    /// The largest body that is changed, in bytes. Others pass as they are.
    pub(crate) const MAX_BODY: usize = 1 << 20;

    /// The body with the replacements. `None` if it has none of the texts, or would be too large.
    pub(crate) fn apply(&self, body: &[u8]) -> Option<Vec<u8>> {
        let lower = body.to_ascii_lowercase();
        let find = |text: &ReplacedText, from: usize| Some(from + text.finder.find(lower.get(from..)?)?);
        // Of each text that is still searched, where it is next.
        let found = self.texts.iter().filter_map(|text| Some((find(text, 0)?, &**text)));
        let mut searches: Vec<(usize, &ReplacedText)> = found.collect();
        let (mut changed, mut end) = (Vec::with_capacity(body.len()), 0);
        while let Some((index, &(start, text))) = searches.iter().enumerate().min_by_key(|(_, (start, _))| *start) {
            changed.extend_from_slice(body.get(end..start)?);
            changed.extend_from_slice(&text.replacement);
            if changed.len() > MAX_CHANGED {
                return None;
            }
            end = start + text.finder.needle().len();
            if self.is_once {
                searches.remove(index);
            }
            searches.retain_mut(|(start, text)| {
                let next = if *start < end { find(text, end) } else { Some(*start) };
                *start = next.unwrap_or_default();
                next.is_some()
            });
        }
        changed.extend_from_slice(body.get(end..)?);
        (end > 0 && changed.len() <= MAX_CHANGED).then_some(changed)
    }
}

static VALIDATORS: [HeaderName; 2] = [ETAG, LAST_MODIFIED];

/// Each takes a pass over the body.
const MAX_REPLACEMENTS: usize = 16;
/// In bytes: replacements may be longer than the texts.
const MAX_CHANGED: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::super::tests::{Request, location, run, server};
    use super::super::{Snippet, SnippetPlace};
    use super::*;
    use crate::snapshot::regex::RegexLimit;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    fn edited(snippet: &Snippet, headers: &mut HeaderMap, body: &str) -> Option<String> {
        let request = Request::get("/a?b=c");
        let replacements = run(snippet, &request).body_replacements(snippet, &request, headers)?;
        Some(String::from_utf8(replacements.apply(body.as_bytes())?).unwrap())
    }

    #[test]
    fn texts_are_replaced_as_by_nginx() {
        for (text, body, expected) in [
            ("sub_filter a x;", "banana", "bxnana"),
            ("sub_filter a x; sub_filter_once off;", "banana", "bxnxnx"),
            ("sub_filter AN x; sub_filter_once off;", "bAnana", "bxxa"),
            ("sub_filter ana <$arg_b>; sub_filter_once off;", "bananana", "b<c>n<c>"),
            // The first from the left, then the first in the snippet.
            ("sub_filter nan 1; sub_filter ana 2; sub_filter an 3;", "bananan", "b21"),
            ("sub_filter an 1; sub_filter ana 2;", "banana", "b12"),
            ("sub_filter aa 1; sub_filter_once off;", "aaaaa", "11a"),
            ("sub_filter b ''; sub_filter_once off;", "abbc", "ac"),
            ("sub_filter $arg_b x; sub_filter $arg_none y;", "abc", "abx"),
            ("set $v q; sub_filter b $v$uri;", "abc", "aq/ac"),
            ("sub_filter é E;", "caf\u{e9}", "cafE"),
        ] {
            let mut html = headers(&[("content-type", "text/html; charset=utf-8")]);
            assert_eq!(edited(&location(text), &mut html, body).as_deref(), Some(expected), "{text}");
        }
        let mut html = headers(&[("content-type", "text/html")]);
        assert_eq!(edited(&location("sub_filter z x;"), &mut html, "banana"), None);
    }

    #[test]
    fn only_bodies_of_the_types_are_changed() {
        let plain = [("content-type", "text/plain")];
        for (text, fields, is_changed) in [
            ("sub_filter a b;", &[("content-type", "TEXT/HTML")][..], true),
            ("sub_filter a b;", &plain, false),
            ("sub_filter a b;", &[], false),
            ("sub_filter a b; sub_filter_types text/css text/plain;", &plain, true),
            ("sub_filter a b; sub_filter_types text/css;", &[("content-type", "text/html")], true),
            ("sub_filter a b; sub_filter_types *;", &[], true),
            ("sub_filter a b; sub_filter_types *;", &[("content-encoding", "gzip")], false),
            ("sub_filter a b; sub_filter_types *;", &[("content-length", "0")], false),
            ("sub_filter_types *;", &plain, false),
        ] {
            assert_eq!(edited(&location(text), &mut headers(fields), "a").is_some(), is_changed, "{text} {fields:?}");
        }
    }

    #[test]
    fn fields_about_the_age_are_removed() {
        let fields = [("content-type", "text/html"), ("etag", "\"a\""), ("last-modified", "x")];
        for (text, expected) in [
            ("sub_filter z x;", 1),
            ("sub_filter z x; sub_filter_last_modified on;", 3),
            ("sub_filter_last_modified off;", 3),
        ] {
            let mut headers = headers(&fields);
            edited(&location(text), &mut headers, "a");
            assert_eq!(headers.len(), expected, "{text}");
        }
    }

    #[test]
    fn locations_inherit_what_they_do_not_say() {
        let outer = server("sub_filter a x; sub_filter_once off;");
        for (text, expected) in [("", "bxnxnx"), ("sub_filter b y;", "yanana"), ("sub_filter_once on;", "bxnana")] {
            let inner = Snippet::parse_below(text, &outer, RegexLimit::MEMORY_ONLY).unwrap();
            let mut html = headers(&[("content-type", "text/html")]);
            assert_eq!(edited(&inner, &mut html, "banana").as_deref(), Some(expected), "{text}");
            assert!(inner.edits_responses() && inner.edits_sent_requests(), "{text}");
        }
    }

    #[test]
    fn results_are_limited() {
        let snippet = location(&format!("sub_filter a {}; sub_filter_once off;", "b".repeat(2_000)));
        let mut html = headers(&[("content-type", "text/html")]);
        assert!(edited(&snippet, &mut html, &"a".repeat(2_000)).is_some());
        assert_eq!(edited(&snippet, &mut html, &"a".repeat(3_000)), None);
    }

    #[test]
    fn other_directives_are_refused() {
        let many = "sub_filter a b;".repeat(17);
        for text in [
            "sub_filter a;",
            "sub_filter '' b;",
            "sub_filter a $status;",
            "sub_filter a $unknown;",
            "sub_filter_once maybe;",
            "sub_filter_once on; sub_filter_once off;",
            "sub_filter_types;",
            "sub_filter_types html;",
            "sub_filter_types *; sub_filter_types text/css;",
            "sub_filter_last_modified 1;",
            "if ($arg_a) { sub_filter a b; }",
            &many,
        ] {
            let refused = Snippet::parse(text, SnippetPlace::Location, RegexLimit::MEMORY_ONLY).unwrap_err();
            assert!(refused.directive.starts_with("sub_filter") && !refused.restricts, "{text}: {refused}");
        }
    }
}
