//! Refuses requests with too large a body.
//!
//! ```yaml
//! plugin: request-size-limiting
//! config: {allowed_payload_size: 8, size_unit: megabytes}
//! ```

use http::header::CONTENT_LENGTH;
use http::{HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plugin::{BuildCx, Invalid, Kind, Outcome, Phases, Plugin, Reply, RequestCx};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The largest body that is let through.
    allowed_payload_size: u64,
    /// What `allowed_payload_size` counts.
    size_unit: Unit,
    /// Refuses requests that do not say how large they are, neither by `Content-Length` nor by `Transfer-Encoding: chunked`.
    require_content_length: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config { allowed_payload_size: 128, size_unit: Unit::Megabytes, require_content_length: false }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Unit {
    /// Of 1,048,576 bytes.
    Megabytes,
    /// Of 1,024 bytes.
    Kilobytes,
    /// Single ones.
    Bytes,
}

pub(crate) struct RequestSizeLimiting {
    /// In bytes.
    most: u64,
    requires_length: bool,
}

impl Kind for RequestSizeLimiting {
    const NAME: &'static str = "request-size-limiting";
    const PRIORITY: i32 = 951;
    const PHASES: Phases = Phases::ACCESS;
    const GUARD: bool = true;
    type Config = Config;
    type Plugin = RequestSizeLimiting;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Invalid>> {
        let unit: u64 = match config.size_unit {
            Unit::Megabytes => 1 << 20,
            Unit::Kilobytes => 1 << 10,
            Unit::Bytes => 1,
        };
        // What does not fit into 64 bits is no limit to any body.
        let most = config.allowed_payload_size.saturating_mul(unit);
        Ok(RequestSizeLimiting { most, requires_length: config.require_content_length })
    }
}

impl Plugin for RequestSizeLimiting {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> Outcome<'a> {
        match cx.head.headers.get(CONTENT_LENGTH).and_then(length) {
            Some(length) if length > self.most => {
                let status = match cx.framing.expects_continue {
                    true => StatusCode::EXPECTATION_FAILED,
                    false => StatusCode::PAYLOAD_TOO_LARGE,
                };
                return Outcome::Reply(Reply::negotiated(status, "Request size limit exceeded", "body_too_large"));
            }
            // The length that was said is held to already.
            Some(_) => return Outcome::Next,
            None if self.requires_length && !cx.framing.is_chunked => {
                let message = "A valid Content-Length header is required";
                return Outcome::Reply(Reply::negotiated(StatusCode::LENGTH_REQUIRED, message, "length_required"));
            }
            None => {}
        }
        // Nothing was said: it is counted as it comes.
        *cx.body_limit = Some(cx.body_limit.map_or(self.most, |limit| limit.min(self.most)));
        Outcome::Next
    }
}

fn length(value: &HeaderValue) -> Option<u64> {
    value.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin::testing::{Visit, build, chain};
    use crate::plugin::{Entry, ReplyBody};

    const KIND: Entry<RequestSizeLimiting> = Entry::NEW;

    // kong-compat §4.27
    #[tokio::test]
    async fn what_says_that_it_is_too_large_is_refused() {
        let required = json!({"allowed_payload_size": 8, "size_unit": "bytes", "require_content_length": true});
        let (large, length) = ("Request size limit exceeded", "A valid Content-Length header is required");
        let (content, transfer) = ("content-length", "transfer-encoding");
        for (config, headers, expected) in [
            (json!({}), vec![(content, "134217728")], None),
            (json!({}), vec![(content, "134217729")], Some((413, large))),
            (json!({"allowed_payload_size": 1, "size_unit": "kilobytes"}), vec![(content, "1024")], None),
            (json!({"allowed_payload_size": 1, "size_unit": "kilobytes"}), vec![(content, "1025")], Some((413, large))),
            (json!({"allowed_payload_size": 1}), vec![(content, "1048577")], Some((413, large))),
            (
                json!({"allowed_payload_size": 1}),
                vec![(content, "1048577"), ("expect", "100-continue")],
                Some((417, large)),
            ),
            (json!({}), vec![], None),
            (required.clone(), vec![(content, "8")], None),
            (required.clone(), vec![(content, "9")], Some((413, large))),
            (required.clone(), vec![], Some((411, length))),
            (required.clone(), vec![(content, "many")], Some((411, length))),
            (required.clone(), vec![(transfer, "chunked")], None),
            (json!({"allowed_payload_size": u64::MAX}), vec![(content, "18446744073709551615")], None),
        ] {
            let visit = headers.iter().fold(Visit::get("/"), |visit, (name, value)| visit.header(name, value));
            let outcome = visit.run(&chain(&[(&KIND, config.clone())])).await;
            let expected = expected.map(|(status, message)| (status, ReplyBody::Negotiated(message.into())));
            let found = outcome.reply.map(|reply| (reply.status.as_u16(), reply.body));
            assert_eq!(found, expected, "{config} {headers:?}");
        }
    }

    // kong-compat §4.27
    #[tokio::test]
    async fn what_says_nothing_is_counted() {
        let limit = |config: &serde_json::Value| chain(&[(&KIND, config.clone())]);
        let small = json!({"allowed_payload_size": 8, "size_unit": "kilobytes"});
        assert_eq!(Visit::get("/").run(&limit(&small)).await.passage.body_limit, Some(8192));
        let chunked = Visit::get("/").header("transfer-encoding", "chunked");
        assert_eq!(chunked.run(&limit(&small)).await.passage.body_limit, Some(8192));
        assert_eq!(Visit::get("/").run(&limit(&json!({}))).await.passage.body_limit, Some(128 << 20));
    }

    #[test]
    fn sizes_are_numbers_of_a_unit() {
        for (config, field) in [
            (json!({"allowed_payload_size": -1}), "config.allowed_payload_size"),
            (json!({"allowed_payload_size": "8"}), "config.allowed_payload_size"),
            (json!({"size_unit": "MB"}), "config.size_unit"),
        ] {
            let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} is taken"));
            assert_eq!(invalid[0].field, field, "{config}: {invalid:?}");
        }
    }
}
