//! `websocket-size-limit`: limits the messages of WebSockets, in both directions.
//!
//! ```yaml
//! plugin: websocket-size-limit
//! config: {client_max_payload: 4096, upstream_max_payload: 1048576}
//! ```
//!
//! A limit is compared with the payload of a message, without the headers of its frames. If a message has several
//! frames, their payloads are added up. Ping, pong and close frames have no limit but that of RFC 6455, which is 125
//! bytes.
//!
//! The header of a frame says how long it is, so a message that is too long is not forwarded: neither its only frame,
//! nor the frame that makes it too long. Its sender gets a close frame with the status 1009, the other side one with
//! 1001, and both have five seconds to close. Messages are forwarded as they arrive; nothing is buffered for this
//! plugin.
//!
//! Both sides must use the frames of RFC 6455, and a frame with reserved bits or opcodes, for example, closes the
//! connection with the status 1002. What a side sends after its close frame is not forwarded.
//! `Sec-WebSocket-Extensions` is removed from requests, so that no extension is negotiated: compressed messages would
//! have another length than the one that is compared.
//!
//! Connections without this plugin are forwarded without looking at their frames, and have no limit. Upgrades to other
//! protocols, and WebSockets that were open when the plugin was attached, are not limited.

use std::num::NonZeroU32;

use http::header::SEC_WEBSOCKET_EXTENSIONS;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::message_limits::MessageLimits;
use crate::plugin_api::{AccessOutcome, BuildCx, ChangedFields, Phases, Plugin, PluginKind, RequestCx, Scopes};

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The most bytes of a message of the client, 1 to 33554432. If only `upstream_max_payload` is set, 1048576.
    client_max_payload: Option<u32>,
    /// The most bytes of a message of the endpoint, 1 to 33554432. If only `client_max_payload` is set, 16777216.
    upstream_max_payload: Option<u32>,
}

pub(crate) struct WebsocketSizeLimit {
    limits: MessageLimits,
}

impl PluginKind for WebsocketSizeLimit {
    const NAME: &'static str = "websocket-size-limit";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 1003;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    const SCOPES: Scopes = Scopes { consumer_group: false, ..Scopes::ALL };
    type Config = Config;
    type Plugin = WebsocketSizeLimit;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        if config.client_max_payload.is_none() && config.upstream_max_payload.is_none() {
            let remedy = "set client_max_payload, upstream_max_payload, or both";
            invalid.push(Diagnostic::in_config("", "has no limit", remedy));
        }
        let mut limit = |field: &str, bytes: Option<u32>, default: NonZeroU32| {
            let bytes = bytes.map_or(Some(default), NonZeroU32::new);
            let valid = bytes.filter(|bytes| bytes.get() <= MAX_LIMIT);
            valid.unwrap_or_else(|| {
                invalid.push(Diagnostic::in_config(
                    field,
                    "is out of range",
                    "set a number of bytes from 1 to 33554432",
                ));
                default
            })
        };
        let limits = MessageLimits {
            client: limit("client_max_payload", config.client_max_payload, CLIENT_DEFAULT),
            endpoint: limit("upstream_max_payload", config.upstream_max_payload, ENDPOINT_DEFAULT),
        };
        if invalid.is_empty() { Ok(WebsocketSizeLimit { limits }) } else { Err(invalid) }
    }
}

impl Plugin for WebsocketSizeLimit {
    fn may_wait(&self) -> bool {
        false
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        cx.head.headers.remove(SEC_WEBSOCKET_EXTENSIONS);
        *cx.message_limits = Some(self.limits);
        AccessOutcome::Continue
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        fields.request.add(&SEC_WEBSOCKET_EXTENSIONS);
    }
}

/// Kong's largest limit, 32 MiB.
const MAX_LIMIT: u32 = 32 << 20;
/// The limits that Kong has without the plugin: 1 MiB and 16 MiB.
const CLIENT_DEFAULT: NonZeroU32 = NonZeroU32::new(1 << 20).expect("it is not zero");
const ENDPOINT_DEFAULT: NonZeroU32 = NonZeroU32::new(16 << 20).expect("it is not zero");

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin_api::RegisteredKind;
    use crate::plugin_chain::testing::{TestRequest, build, chain};

    const KIND: RegisteredKind<WebsocketSizeLimit> = RegisteredKind::NEW;

    // docs/kong-compatibility.md, 5.20
    #[tokio::test]
    async fn limits_are_those_of_the_request_and_extensions_are_not_negotiated() {
        for (config, expected) in [
            (json!({"client_max_payload": 4096}), (4096, 16 << 20)),
            (json!({"upstream_max_payload": 1}), (1 << 20, 1)),
            (json!({"client_max_payload": 33_554_432, "upstream_max_payload": 5}), (32 << 20, 5)),
        ] {
            let request = TestRequest::get("/").header("sec-websocket-extensions", "permessage-deflate");
            let outcome = request.run(&chain(&[(&KIND, config.clone())])).await;
            let MessageLimits { client, endpoint } = outcome.state.message_limits.unwrap();
            assert_eq!((client.get(), endpoint.get()), expected, "{config}");
            assert!(!outcome.request.headers.contains_key(SEC_WEBSOCKET_EXTENSIONS));
        }
    }

    #[test]
    fn invalid_limits_name_the_field() {
        for (config, field) in [
            (json!({}), "config"),
            (json!({"client_max_payload": 0}), "config.client_max_payload"),
            (json!({"upstream_max_payload": 33_554_433}), "config.upstream_max_payload"),
            (json!({"client_max_payload": -1}), "config.client_max_payload"),
            (json!({"client_max_payload": "1k"}), "config.client_max_payload"),
            (json!({"max_payload": 5}), "config.max_payload"),
        ] {
            let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
            assert_eq!(invalid[0].field, field, "{config}: {invalid:?}");
        }
    }
}
