//! What a snippet does with the fields of responses.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::endpoint_rewrites::EndpointRewrites;
use super::error_page::ErrorPage;
use super::expires::ResponseExpiry;
use super::field_value::{ExpandedField, FieldPattern, FieldText};
use super::text::{PartValues, SnippetText, TextPart};
use super::variable::ResponseVariable;
use crate::snapshot::regex_steps::RegexSteps;

/// The edits of one block.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SnippetResponseFields {
    /// `more_set_headers` and `more_clear_headers`, in order.
    pub(super) more: Vec<ConditionalEdit>,
    /// `add_header`. `None` if the block has none, so that it has those of the block around it.
    pub(super) added: Option<Arc<Vec<AddedField>>>,
    /// `proxy_hide_header`. `None` if the block has none.
    pub(super) hidden: Option<Arc<Vec<HeaderName>>>,
    pub(super) expiry: Option<ResponseExpiry>,
    /// `default_type`: of the text of `return`.
    pub(super) default_type: Option<HeaderValue>,
    /// `error_page`. `None` if the block has none.
    pub(super) error_pages: Option<Arc<Vec<ErrorPage>>>,
    reads_upstream_fields: bool,
}

/// An edit of some responses.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ConditionalEdit {
    /// Empty for all.
    pub(super) statuses: Arc<[u16]>,
    /// Media types in lower case. Empty for all.
    pub(super) types: Arc<[Box<str>]>,
    pub(super) edit: ResponseEdit,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum ResponseEdit {
    Set(HeaderName, FieldText),
    Append(HeaderName, FieldText),
    Clear(FieldPattern),
}

/// A field of `add_header`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AddedField {
    pub(super) name: HeaderName,
    pub(super) value: FieldText,
    /// Whether responses of every status get it.
    pub(super) is_always: bool,
}

/// Where a response comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SnippetResponseOrigin {
    Upstream,
    /// Portico, also if the snippet determines it.
    Portico,
}

impl SnippetResponseFields {
    /// Adds what this block has from the block around it.
    pub(super) fn inherit(&mut self, outer: &SnippetResponseFields) {
        self.more.splice(0..0, outer.more.iter().cloned());
        self.added = self.added.take().or_else(|| outer.added.clone());
        self.hidden = self.hidden.take().or_else(|| outer.hidden.clone());
        self.expiry = self.expiry.take().or_else(|| outer.expiry.clone());
        self.error_pages = self.error_pages.take().or_else(|| outer.error_pages.clone());
        self.default_type = self.default_type.take().or_else(|| outer.default_type.clone());
    }

    /// Computes what is the same for all requests, once the edits are complete.
    pub(super) fn complete(&mut self) {
        let of_more = self.more.iter().any(|edit| match &edit.edit {
            ResponseEdit::Set(_, value) | ResponseEdit::Append(_, value) => value.reads_upstream_fields(),
            ResponseEdit::Clear(_) => false,
        });
        let of_added =
            self.added.iter().flat_map(|added| added.iter()).any(|field| field.value.reads_upstream_fields());
        self.reads_upstream_fields = of_more || of_added;
    }

    /// Changes the fields of a response in the order of nginx: rewrites and hidden fields of an endpoint's response,
    /// `more_set_headers`, `expires`, `add_header`.
    pub(super) fn apply(
        &self,
        values: &dyn PartValues,
        now: Option<i64>,
        (rewrites, steps): (&EndpointRewrites, &RegexSteps),
        (status, origin): (StatusCode, SnippetResponseOrigin),
        headers: &mut HeaderMap,
    ) {
        let received = match origin {
            SnippetResponseOrigin::Upstream if self.reads_upstream_fields || rewrites.reads_upstream_fields() => {
                headers.clone()
            }
            SnippetResponseOrigin::Upstream | SnippetResponseOrigin::Portico => HeaderMap::new(),
        };
        if origin == SnippetResponseOrigin::Upstream {
            let values = OfResponse { values, status, received: &received, headers };
            for (name, values) in rewrites.edits(headers, &values, steps) {
                headers.remove(name);
                for value in values {
                    headers.append(name, value);
                }
            }
            for name in self.hidden.iter().flat_map(|hidden| hidden.iter()) {
                headers.remove(name);
            }
        }
        let expand = |value: &FieldText, headers: &HeaderMap| {
            value.expand(&OfResponse { values, status, received: &received, headers })
        };
        for edit in &self.more {
            if !edit.applies_to(status, headers) {
                continue;
            }
            match &edit.edit {
                ResponseEdit::Clear(pattern) => pattern.remove_from(headers),
                ResponseEdit::Set(name, value) => match expand(value, headers) {
                    ExpandedField::Value(value) => {
                        headers.insert(name, value);
                    }
                    ExpandedField::Empty => {
                        headers.remove(name);
                    }
                    ExpandedField::Invalid => {}
                },
                ResponseEdit::Append(name, value) => {
                    if let ExpandedField::Value(value) = expand(value, headers) {
                        headers.append(name, value);
                    }
                }
            }
        }
        let is_usual = USUAL_STATUSES.contains(&status.as_u16());
        if let Some(expiry) = self.expiry.as_ref().filter(|_| is_usual) {
            expiry.set_fields(now, headers);
        }
        for field in self.added.iter().flat_map(|added| added.iter()).filter(|field| is_usual || field.is_always) {
            let ExpandedField::Value(value) = expand(&field.value, headers) else { continue };
            // A second value of these would be an error, and nginx replaces the last two as well.
            if [CONTENT_TYPE, ETAG, LAST_MODIFIED].contains(&field.name) {
                headers.insert(&field.name, value);
            } else {
                headers.append(&field.name, value);
            }
        }
    }

    /// The fields that are set or removed by name.
    pub(super) fn names(&self) -> impl Iterator<Item = &HeaderName> {
        let more = self.more.iter().filter_map(|edit| match &edit.edit {
            ResponseEdit::Set(name, _) | ResponseEdit::Append(name, _) => Some(name),
            ResponseEdit::Clear(FieldPattern::Name(name)) => Some(name),
            ResponseEdit::Clear(FieldPattern::Prefix(_)) => None,
        });
        let added = self.added.iter().flat_map(|added| added.iter()).map(|field| &field.name);
        let of_expiry = self.expiry.iter().flat_map(|_| &EXPIRY_FIELDS);
        more.chain(added).chain(self.hidden.iter().flat_map(|hidden| hidden.iter())).chain(of_expiry)
    }

    /// The texts that are expanded.
    pub(super) fn texts(&self) -> impl Iterator<Item = &SnippetText> {
        let more = self.more.iter().filter_map(|edit| match &edit.edit {
            ResponseEdit::Set(_, value) | ResponseEdit::Append(_, value) => Some(value),
            ResponseEdit::Clear(_) => None,
        });
        let added = self.added.iter().flat_map(|added| added.iter()).map(|field| &field.value);
        more.chain(added).filter_map(FieldText::expanded).chain(self.all_error_pages().map(|page| &page.url))
    }

    pub(super) fn all_error_pages(&self) -> impl Iterator<Item = &ErrorPage> {
        self.error_pages.iter().flat_map(|pages| pages.iter())
    }

    /// Whether responses stay as they are.
    pub(super) fn is_empty(&self) -> bool {
        let edits_none = self.more.is_empty() && self.added.is_none() && self.hidden.is_none();
        edits_none && self.expiry.is_none() && self.error_pages.is_none()
    }
}

impl ConditionalEdit {
    fn applies_to(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let is_type = || {
            let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let media_type = value.split(';').next().unwrap_or_default().trim();
            self.types.iter().any(|known| known.eq_ignore_ascii_case(media_type))
        };
        (self.statuses.is_empty() || self.statuses.contains(&status.as_u16())) && (self.types.is_empty() || is_type())
    }
}

/// The values of texts while fields are edited.
struct OfResponse<'r> {
    values: &'r dyn PartValues,
    status: StatusCode,
    /// As the endpoint sent them.
    received: &'r HeaderMap,
    headers: &'r HeaderMap,
}

impl PartValues for OfResponse<'_> {
    fn part<'v>(&'v self, part: &'v TextPart) -> Cow<'v, str> {
        match part {
            TextPart::Response(ResponseVariable::Status) => Cow::Borrowed(self.status.as_str()),
            TextPart::Response(ResponseVariable::UpstreamField(name)) => joined(self.received, name),
            TextPart::Response(ResponseVariable::SentField(name)) => joined(self.headers, name),
            TextPart::Literal(_) | TextPart::Request(_) | TextPart::Set(_) | TextPart::Group(_) => {
                self.values.part(part)
            }
        }
    }
}

/// The values of a field, separated by commas.
fn joined<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Cow<'h, str> {
    let mut values = headers.get_all(name).iter().filter_map(|value| std::str::from_utf8(value.as_bytes()).ok());
    let Some(first) = values.next() else { return Cow::Borrowed("") };
    values.fold(Cow::Borrowed(first), |joined, value| Cow::Owned(format!("{joined}, {value}")))
}

static EXPIRY_FIELDS: [HeaderName; 2] = [CACHE_CONTROL, EXPIRES];

/// With which `add_header` without `always` and `expires` have an effect.
const USUAL_STATUSES: [u16; 10] = [200, 201, 204, 206, 301, 302, 303, 304, 307, 308];
