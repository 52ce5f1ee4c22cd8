//! Bodies: their media type and encoding, and the edits of each format.

use std::borrow::Cow;
use std::io::Read;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use super::RequestEditError;
use super::edits::{BodyName, EditableFields, Rendered, RetainedFields};
use super::fields::FormPairs;
use super::multipart_fields::MultipartFields;
use crate::plugin_api::json_fields::JsonFields;

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
    pub(super) rendered: Rendered<'p, BodyName>,
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

/// The encoding of a body, from `Content-Encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyEncoding {
    Identity,
    Gzip,
    Unknown,
}

impl BodyEncoding {
    pub(super) fn from_headers(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        let value = match (values.next(), values.next()) {
            (None, _) => return BodyEncoding::Identity,
            (Some(value), None) => value.as_bytes().trim_ascii(),
            (Some(_), Some(_)) => return BodyEncoding::Unknown,
        };
        let is = |name: &[u8]| value.eq_ignore_ascii_case(name);
        if is(b"gzip") || is(b"x-gzip") {
            BodyEncoding::Gzip
        } else if is(b"identity") || value.is_empty() {
            BodyEncoding::Identity
        } else {
            BodyEncoding::Unknown
        }
    }

    pub(super) fn is_known(self) -> bool {
        self != BodyEncoding::Unknown
    }

    /// Decodes a body of up to `max_bytes`.
    pub(super) fn decode(self, body: &Bytes, max_bytes: usize) -> Result<Cow<'_, [u8]>, BodyRejection> {
        // An empty body has no gzip header.
        if self != BodyEncoding::Gzip || body.is_empty() {
            return Ok(Cow::Borrowed(body));
        }
        let mut decoded = Vec::new();
        let limit = u64::try_from(max_bytes).unwrap_or(u64::MAX).saturating_add(1);
        let result = MultiGzDecoder::new(&body[..]).take(limit).read_to_end(&mut decoded);
        if decoded.len() > max_bytes {
            return Err(BodyRejection::TooLarge);
        }
        result.map_err(|_| BodyRejection::Invalid)?;
        Ok(Cow::Owned(decoded))
    }
}
