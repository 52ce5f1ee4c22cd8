//! Bodies: their media type and encoding, and the edits of each format.

use std::borrow::Cow;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;

use super::RequestEditError;
use super::edits::{BodyName, EditableFields, Rendered, RetainedFields};
use super::fields::FormPairs;
use super::multipart_fields::MultipartFields;
use crate::json_fields::JsonFields;
use crate::plugin_api::content_coding::{ContentCoding, DecodingError};

/// The media types whose fields can be edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFormat {
    Json,
    Form,
    Multipart,
}

/// Why a body is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyRejection {
    TooLarge,
    /// It is not in its encoding.
    Invalid,
}

pub(super) struct EditedBody {
    pub(super) body: Vec<u8>,
    pub(super) is_changed: bool,
}

/// What happens to a body.
pub(super) struct BodyEdits<'p> {
    pub(super) rendered: &'p Rendered<'p, BodyName>,
    /// The only fields that the endpoint gets, if not all.
    pub(super) allowed: Option<&'p [BodyName]>,
    /// Whether names lead into nested values, so that the outermost one may be a list.
    pub(super) has_paths: bool,
}

impl BodyEdits<'_> {
    fn apply(&self, fields: &mut (impl EditableFields<BodyName> + RetainedFields)) -> Result<bool, RequestEditError> {
        let is_edited = self.rendered.apply(fields)?;
        Ok(self.allowed.is_some_and(|allowed| fields.retain(allowed)) || is_edited)
    }
}

/// A body with more fields is rejected; parsed fields take many times the memory of the body.
const MAX_FIELDS: usize = 10_000;

impl BodyFormat {
    pub(super) fn from_headers(headers: &HeaderMap) -> Option<BodyFormat> {
        let media_type = headers.get(CONTENT_TYPE)?.as_bytes().split(|byte| *byte == b';').next()?.trim_ascii();
        let is = |name: &[u8]| media_type.eq_ignore_ascii_case(name);
        if is(b"application/json") {
            Some(BodyFormat::Json)
        } else if is(b"application/x-www-form-urlencoded") {
            Some(BodyFormat::Form)
        } else if is(b"multipart/form-data") {
            Some(BodyFormat::Multipart)
        } else {
            None
        }
    }

    /// Edits a body. One that is not valid stays unchanged.
    pub(super) fn edit(
        self,
        headers: &HeaderMap,
        body: Cow<'_, [u8]>,
        edits: &BodyEdits<'_>,
    ) -> Result<EditedBody, RequestEditError> {
        let too_many = |fields: usize| {
            if fields > MAX_FIELDS { Err(RequestEditError::Body(BodyRejection::TooLarge)) } else { Ok(()) }
        };
        let mut edited = None;
        match self {
            BodyFormat::Json => {
                let parsed = match &*body {
                    // An empty body has no members.
                    b"" => Some(JsonFields::empty()),
                    body if edits.has_paths => JsonFields::parse(body),
                    body => JsonFields::parse_object(body),
                };
                if let Some(mut fields) = parsed {
                    too_many(fields.count())?;
                    edited = edits.apply(&mut fields)?.then(|| fields.encode());
                    if fields.is_exhausted() {
                        return Err(RequestEditError::Body(BodyRejection::TooLarge));
                    }
                }
            }
            BodyFormat::Form => {
                too_many(memchr::memchr_iter(b'&', &body).count())?;
                let mut pairs = FormPairs::parse(&body);
                edited = edits.apply(&mut pairs)?.then(|| pairs.encode());
            }
            BodyFormat::Multipart => {
                let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
                if let Some(mut fields) = MultipartFields::parse(content_type, &body) {
                    edited = edits.apply(&mut fields)?.then(|| fields.encode());
                }
            }
        }
        let is_changed = edited.is_some();
        Ok(EditedBody { body: edited.unwrap_or_else(|| body.into_owned()), is_changed })
    }
}

/// Whether the fields of bodies with this coding are edited.
pub(super) fn is_editable(coding: ContentCoding) -> bool {
    matches!(coding, ContentCoding::Identity | ContentCoding::Gzip)
}

/// Decodes a body of up to `max_bytes`.
pub(super) fn decode(coding: ContentCoding, body: &Bytes, max_bytes: usize) -> Result<Cow<'_, [u8]>, BodyRejection> {
    // An empty body has no gzip header.
    if coding == ContentCoding::Identity || body.is_empty() {
        return Ok(Cow::Borrowed(body));
    }
    let decoded = coding.decode(body, max_bytes).map_err(|error| match error {
        DecodingError::TooLarge => BodyRejection::TooLarge,
        DecodingError::Invalid => BodyRejection::Invalid,
    })?;
    Ok(Cow::Owned(decoded.into()))
}
