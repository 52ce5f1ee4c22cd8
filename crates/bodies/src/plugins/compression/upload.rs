//! Bodies of requests that are decompressed before they are forwarded.

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::content_coding::{ContentCoding, DIGESTS, DecodingError};
use crate::plugin_api::{AccessOutcome, BuildCx, Reply, RequestCx};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RequestConfig {
    /// Decompress bodies with a `Content-Encoding`.
    pub(super) decompress: bool,
    /// The largest body in bytes, as the client sends it and decompressed; at most 16 MiB.
    max_bytes: u64,
    /// How many times as large as the compressed body the decompressed one may be. Bodies of up to 64 KiB may be
    /// larger.
    max_ratio: u32,
}

impl Default for RequestConfig {
    fn default() -> Self {
        RequestConfig { decompress: false, max_bytes: 1 << 20, max_ratio: 100 }
    }
}

/// How bodies are decompressed.
pub(super) struct Uploads {
    max_bytes: usize,
    max_ratio: usize,
}

impl Uploads {
    /// `None` if nothing is decompressed.
    pub(super) fn build(config: &RequestConfig, cx: &BuildCx<'_>) -> Result<Option<Uploads>, Vec<Diagnostic>> {
        let mut problems = Vec::new();
        let default = RequestConfig::default();
        for (name, is_changed) in
            [("max_bytes", config.max_bytes != default.max_bytes), ("max_ratio", config.max_ratio != default.max_ratio)]
        {
            if is_changed && !config.decompress {
                let message = "has no effect, because no body is decompressed";
                let remedy = "set `request.decompress: true`, or remove it";
                cx.note(Diagnostic::in_config(format!("request.{name}"), message, remedy));
            }
        }
        let max_bytes = usize::try_from(config.max_bytes).unwrap_or(usize::MAX);
        if max_bytes == 0 || max_bytes > MAX_BYTES {
            let message = format!("{} is not a size of a body that can be decompressed", config.max_bytes);
            let remedy = format!("use a number from 1 to {MAX_BYTES}");
            problems.push(Diagnostic::in_config("request.max_bytes", message, remedy));
        }
        if config.max_ratio == 0 {
            let remedy = "use a number of at least 1, such as 100";
            problems.push(Diagnostic::in_config("request.max_ratio", "0 lets no body pass", remedy));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let max_ratio = usize::try_from(config.max_ratio).unwrap_or(usize::MAX);
        Ok(config.decompress.then_some(Uploads { max_bytes, max_ratio }))
    }

    pub(super) fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    pub(super) fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        if !is_encoded(&cx.head.headers) {
            return AccessOutcome::Continue;
        }
        // Without a body, as after an upgrade, there is nothing to decode.
        let Some(body) = cx.current_body().filter(|body| !body.is_empty()).cloned() else {
            return AccessOutcome::Continue;
        };
        let coding = ContentCoding::from_headers(&cx.head.headers);
        if coding == ContentCoding::Unknown {
            let message = "The content coding of the request is not supported";
            let reply = Reply::negotiated(StatusCode::UNSUPPORTED_MEDIA_TYPE, message, "unsupported_encoding");
            // RFC 9110, section 15.5.16
            let supported = HeaderValue::from_static("gzip, deflate, br, zstd");
            return AccessOutcome::Reply(reply.with_header(ACCEPT_ENCODING, supported));
        }
        let by_ratio = body.len().saturating_mul(self.max_ratio).max(FREE_BYTES);
        let limit = self.max_bytes.min(by_ratio);
        AccessOutcome::Wait(Box::pin(async move {
            match coding.decode_in_turns(&body, limit).await {
                Ok(decoded) => {
                    let headers = &mut cx.head.headers;
                    headers.remove(CONTENT_ENCODING);
                    for name in &DIGESTS {
                        headers.remove(name);
                    }
                    cx.replace_body(decoded);
                    None
                }
                Err(DecodingError::Invalid) => {
                    let message = "The request body is not in its content coding";
                    Some(Reply::negotiated(StatusCode::BAD_REQUEST, message, "invalid_encoding"))
                }
                Err(DecodingError::TooLarge) => {
                    let message = "The decompressed request body is too large";
                    Some(Reply::negotiated(StatusCode::PAYLOAD_TOO_LARGE, message, "decompressed_body_too_large"))
                }
            }
        }))
    }
}

/// Whether a request has a body to decode: one with a coding, and not that of gRPC, whose messages must stream.
pub(super) fn is_encoded(headers: &HeaderMap) -> bool {
    headers.contains_key(CONTENT_ENCODING)
        && ContentCoding::from_headers(headers) != ContentCoding::Identity
        && !super::media_types::is_grpc_message(headers)
}

/// How large every body may become, since the ratio of short ones is often large.
const FREE_BYTES: usize = 64 << 10;

const MAX_BYTES: usize = 16 << 20;
