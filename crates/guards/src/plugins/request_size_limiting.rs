//! `request-size-limiting`: rejects requests with bodies that are too large.
//!
//! ```yaml
//! plugin: request-size-limiting
//! config: {allowed_payload_size: 8, size_unit: megabytes, content_types: {application/json: 1}}
//! ```

use std::collections::BTreeMap;

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::plugin_api::media_type::MediaType;
use crate::plugin_api::{AccessOutcome, BuildCx, Phases, Plugin, PluginKind, Reply, RequestCx};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The largest allowed body, in units of `size_unit`.
    allowed_payload_size: u64,
    /// The unit of `allowed_payload_size` and `content_types`.
    size_unit: SizeUnit,
    /// The largest allowed bodies of some media types, in place of `allowed_payload_size`: types such as
    /// `application/json`, or all of a kind, such as `image/*`. A type goes before its kind. The smallest of all limits
    /// applies to requests with several types, an unreadable one, or none.
    content_types: BTreeMap<String, u64>,
    /// Reject requests that have neither a valid `Content-Length` nor `Transfer-Encoding: chunked`.
    require_content_length: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            allowed_payload_size: 128,
            size_unit: SizeUnit::Megabytes,
            content_types: BTreeMap::new(),
            require_content_length: false,
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum SizeUnit {
    /// 1,048,576 bytes each.
    Megabytes,
    /// 1,024 bytes each.
    Kilobytes,
    /// 1 byte each.
    Bytes,
}

pub(crate) struct RequestSizeLimiting {
    max_bytes: u64,
    /// The limits of ranges of media types, of which the more specific ones come first.
    by_type: Box<[(Box<str>, u64)]>,
    requires_length: bool,
}

impl PluginKind for RequestSizeLimiting {
    const NAME: &'static str = "request-size-limiting";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 951;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    type Config = Config;
    type Plugin = RequestSizeLimiting;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let unit: u64 = match config.size_unit {
            SizeUnit::Megabytes => 1 << 20,
            SizeUnit::Kilobytes => 1 << 10,
            SizeUnit::Bytes => 1,
        };
        let invalid_type = config.content_types.keys().find(|range| !MediaType::is_range(range) || *range == "*/*");
        if let Some(range) = invalid_type {
            let field = format!("content_types.{range}");
            let remedy = "write a type such as application/json or image/*; allowed_payload_size is for all others";
            return Err(vec![Diagnostic::in_config(field, "is not a media type", remedy)]);
        }
        // A limit that exceeds 64 bits is larger than any body.
        let bytes = |size: u64| size.saturating_mul(unit);
        let mut by_type: Vec<_> = config.content_types.iter().map(|(range, size)| (&**range, bytes(*size))).collect();
        by_type.sort_by_key(|(range, _)| range.ends_with("/*"));
        Ok(RequestSizeLimiting {
            max_bytes: bytes(config.allowed_payload_size),
            by_type: by_type.into_iter().map(|(range, size)| (range.into(), size)).collect(),
            requires_length: config.require_content_length,
        })
    }
}

impl Plugin for RequestSizeLimiting {
    fn may_wait(&self) -> bool {
        false
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let max_bytes = self.max_bytes(&cx.head.headers);
        match cx.head.headers.get(CONTENT_LENGTH).and_then(parse_length) {
            Some(length) if length > max_bytes => {
                let status = match cx.framing.expects_continue {
                    true => StatusCode::EXPECTATION_FAILED,
                    false => StatusCode::PAYLOAD_TOO_LARGE,
                };
                return AccessOutcome::Reply(Reply::negotiated(
                    status,
                    "Request size limit exceeded",
                    "body_too_large",
                ));
            }
            // The proxy ensures that the body is not longer than Content-Length.
            Some(_) => return AccessOutcome::Continue,
            None if self.requires_length && !cx.framing.is_chunked => {
                let message = "A valid Content-Length header is required";
                return AccessOutcome::Reply(Reply::negotiated(
                    StatusCode::LENGTH_REQUIRED,
                    message,
                    "length_required",
                ));
            }
            None => {}
        }
        // The length is unknown, so the proxy counts the bytes while the body streams.
        cx.body_changes.limit = Some(cx.body_changes.limit.map_or(max_bytes, |limit| limit.min(max_bytes)));
        AccessOutcome::Continue
    }
}

impl RequestSizeLimiting {
    /// The limit of a request.
    fn max_bytes(&self, headers: &HeaderMap) -> u64 {
        match MediaType::of(headers) {
            Some(media_type) => {
                let limit = self.by_type.iter().find(|(range, _)| media_type.is_in(range));
                limit.map_or(self.max_bytes, |(_, limit)| *limit)
            }
            // The backend may take it for any of its types.
            None => self.by_type.iter().map(|(_, limit)| *limit).fold(self.max_bytes, u64::min),
        }
    }
}

fn parse_length(value: &HeaderValue) -> Option<u64> {
    value.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin_api::{RegisteredKind, ReplyBody};
    use crate::plugin_chain::testing::{TestRequest, build, chain};

    const KIND: RegisteredKind<RequestSizeLimiting> = RegisteredKind::NEW;

    // docs/kong-compatibility.md, 4.27
    #[tokio::test]
    async fn too_large_content_lengths_are_rejected() {
        let required = json!({"allowed_payload_size": 8, "size_unit": "bytes", "require_content_length": true});
        let (too_large, no_length) = ("Request size limit exceeded", "A valid Content-Length header is required");
        let (content, transfer) = ("content-length", "transfer-encoding");
        for (config, headers, expected) in [
            (json!({}), vec![(content, "134217728")], None),
            (json!({}), vec![(content, "134217729")], Some((413, too_large))),
            (json!({"allowed_payload_size": 1, "size_unit": "kilobytes"}), vec![(content, "1024")], None),
            (
                json!({"allowed_payload_size": 1, "size_unit": "kilobytes"}),
                vec![(content, "1025")],
                Some((413, too_large)),
            ),
            (json!({"allowed_payload_size": 1}), vec![(content, "1048577")], Some((413, too_large))),
            (
                json!({"allowed_payload_size": 1}),
                vec![(content, "1048577"), ("expect", "100-continue")],
                Some((417, too_large)),
            ),
            (json!({}), vec![], None),
            (required.clone(), vec![(content, "8")], None),
            (required.clone(), vec![(content, "9")], Some((413, too_large))),
            (required.clone(), vec![], Some((411, no_length))),
            (required.clone(), vec![(content, "many")], Some((411, no_length))),
            (required.clone(), vec![(transfer, "chunked")], None),
            (json!({"allowed_payload_size": u64::MAX}), vec![(content, "18446744073709551615")], None),
        ] {
            let request =
                headers.iter().fold(TestRequest::get("/"), |request, (name, value)| request.header(name, value));
            let outcome = request.run(&chain(&[(&KIND, config.clone())])).await;
            let expected = expected.map(|(status, message)| (status, ReplyBody::Negotiated(message.into())));
            let found = outcome.reply.map(|reply| (reply.status.as_u16(), reply.body));
            assert_eq!(found, expected, "{config} {headers:?}");
        }
    }

    // docs/kong-compatibility.md, 4.27
    #[tokio::test]
    async fn bodies_without_length_are_limited_while_streaming() {
        let limiting_chain = |config: &serde_json::Value| chain(&[(&KIND, config.clone())]);
        let eight_kilobytes = json!({"allowed_payload_size": 8, "size_unit": "kilobytes"});
        assert_eq!(
            TestRequest::get("/").run(&limiting_chain(&eight_kilobytes)).await.state.body_changes.limit,
            Some(8192)
        );
        let chunked = TestRequest::get("/").header("transfer-encoding", "chunked");
        assert_eq!(chunked.run(&limiting_chain(&eight_kilobytes)).await.state.body_changes.limit, Some(8192));
        assert_eq!(
            TestRequest::get("/").run(&limiting_chain(&json!({}))).await.state.body_changes.limit,
            Some(128 << 20)
        );
    }

    #[tokio::test]
    async fn media_types_have_limits_of_their_own() {
        let config = json!({
            "allowed_payload_size": 50, "size_unit": "bytes",
            "content_types": {"image/*": 100, "image/png": 80, "application/json": 10},
        });
        for (types, limit) in [
            (&[][..], 10),
            (&["text/plain"], 50),
            (&["application/json"], 10),
            (&["Application/JSON; charset=utf-8"], 10),
            (&["image/png"], 80),
            (&["image/gif"], 100),
            (&["image/gif", "text/plain"], 10),
            (&["nonsense"], 10),
        ] {
            for (length, expected) in [(limit, None), (limit + 1, Some(413))] {
                let request = TestRequest::get("/").header("content-length", &length.to_string());
                let request = types.iter().fold(request, |request, value| request.header("content-type", value));
                let outcome = request.run(&chain(&[(&KIND, config.clone())])).await;
                assert_eq!(outcome.reply_status().map(|status| status.as_u16()), expected, "{types:?} {length}");
            }
            let request = TestRequest::get("/").header("transfer-encoding", "chunked");
            let request = types.iter().fold(request, |request, value| request.header("content-type", value));
            let outcome = request.run(&chain(&[(&KIND, config.clone())])).await;
            assert_eq!(outcome.state.body_changes.limit, Some(limit), "{types:?}");
        }
    }

    #[test]
    fn invalid_sizes_and_units_are_rejected() {
        for (config, field) in [
            (json!({"allowed_payload_size": -1}), "config.allowed_payload_size"),
            (json!({"allowed_payload_size": "8"}), "config.allowed_payload_size"),
            (json!({"size_unit": "MB"}), "config.size_unit"),
            (json!({"content_types": {"json": 1}}), "config.content_types.json"),
            (json!({"content_types": {"*/*": 1}}), "config.content_types.*/*"),
        ] {
            let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
            assert_eq!(invalid[0].field, field, "{config}: {invalid:?}");
        }
    }
}
