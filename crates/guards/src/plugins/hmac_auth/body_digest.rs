//! The digest of a body in the header `Digest` (RFC 3230).

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use http::header::CONTENT_LENGTH;
use http::{HeaderName, HeaderValue};

use crate::plugin_api::RequestCx;
use crate::plugin_api::consumers::sha256;
use crate::plugin_api::login::BASE64;

const DIGEST: HeaderName = HeaderName::from_static("digest");
const ALGORITHM: &str = "sha-256";

/// The digests that a request declares, and its body.
pub(super) struct BodyDigest<'t, 'c>(&'t RequestCx<'c>);

impl<'t, 'c> BodyDigest<'t, 'c> {
    pub(super) fn of(cx: &'t RequestCx<'c>) -> Self {
        BodyDigest(cx)
    }

    /// Whether the declared SHA-256 digest is that of the body. Without a digest, the body must be empty.
    pub(super) fn is_valid(&self) -> bool {
        let Some(body) = self.body() else { return false };
        if !self.0.head.headers.contains_key(DIGEST) {
            return body.is_empty();
        }
        let mut declared = self.declared();
        let (Some(declared), None) = (declared.next(), declared.next()) else { return false };
        BASE64.decode(declared).is_ok_and(|declared| verify_slices_are_equal(&sha256(body), &declared).is_ok())
    }

    /// The body as the client sent it. `None` if the request announces one that was not buffered.
    fn body(&self) -> Option<&'t [u8]> {
        match self.0.body {
            Some(body) => Some(body),
            None => {
                let length = self.0.head.headers.get(CONTENT_LENGTH).map(HeaderValue::as_bytes);
                (!self.0.framing.has_body && length.is_none_or(|length| length == b"0")).then_some(&[])
            }
        }
    }

    /// The SHA-256 digests in base64, of all fields. Each field may list digests of several algorithms.
    fn declared(&self) -> impl Iterator<Item = &'t str> {
        let values = self.0.head.headers.get_all(DIGEST).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).filter_map(|instance| {
            let (algorithm, digest) = instance.trim().split_once('=')?;
            algorithm.eq_ignore_ascii_case(ALGORITHM).then_some(digest)
        })
    }
}
