//! `upstream-timeout`: sets the time that endpoints have for requests of a route or a consumer.
//!
//! ```yaml
//! plugin: upstream-timeout
//! config: {connect_timeout: 2000, read_timeout: 120000}
//! ```
//!
//! Each timeout that is set precedes the same one of the Service, whether an annotation or a BackendPolicy has set it.
//! The others keep theirs. `timeouts.request` and `timeouts.backendRequest` of an HTTPRoute, and the times that a
//! BackendPolicy sets for whole requests and attempts, still apply: a request ends at the earliest of all.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::endpoint_timeouts::EndpointTimeouts;
use crate::plugin_api::{AccessOutcome, BuildCx, Phases, Plugin, PluginKind, RequestCx};

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// How long connecting to an endpoint may take, in milliseconds, 1 to 2147483646.
    connect_timeout: Option<u32>,
    /// How long Portico waits until it can send the next part of the request, in milliseconds, 1 to 2147483646.
    send_timeout: Option<u32>,
    /// How long Portico waits for the start of the response and for each further part of it, in milliseconds, 1 to
    /// 2147483646.
    read_timeout: Option<u32>,
}

pub(crate) struct UpstreamTimeout {
    timeouts: EndpointTimeouts,
}

impl PluginKind for UpstreamTimeout {
    const NAME: &'static str = "upstream-timeout";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 400;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = false;
    type Config = Config;
    type Plugin = UpstreamTimeout;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let mut timeout = |field: &str, milliseconds: Option<u32>| {
            let milliseconds = milliseconds?;
            if milliseconds > MAX_TIMEOUT {
                invalid.push(Diagnostic::in_config(field, format!("{milliseconds} is too large"), RANGE));
            }
            let valid = NonZeroU32::new(milliseconds);
            if valid.is_none() {
                invalid.push(Diagnostic::in_config(field, "0 leaves no time for the endpoint", RANGE));
            }
            valid
        };
        let timeouts = EndpointTimeouts {
            connect: timeout("connect_timeout", config.connect_timeout),
            write: timeout("send_timeout", config.send_timeout),
            read: timeout("read_timeout", config.read_timeout),
        };
        if !invalid.is_empty() {
            return Err(invalid);
        }
        if timeouts.is_unset() {
            let remedy = "set connect_timeout, send_timeout or read_timeout, or remove the plugin";
            cx.note(Diagnostic::in_config("read_timeout", "no timeout is set, so the plugin has no effect", remedy));
        }
        Ok(UpstreamTimeout { timeouts })
    }
}

impl Plugin for UpstreamTimeout {
    fn may_wait(&self) -> bool {
        false
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        cx.endpoint_timeouts.replace_by(self.timeouts);
        AccessOutcome::Continue
    }
}

/// The largest timeout that Kong accepts, in milliseconds.
const MAX_TIMEOUT: u32 = 2_147_483_646;

const RANGE: &str = "set a number of milliseconds from 1 to 2147483646, or remove the field";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin_api::RegisteredKind;
    use crate::plugin_chain::testing::{TestRequest, build, chain, notes};

    const KIND: RegisteredKind<UpstreamTimeout> = RegisteredKind::NEW;

    // docs/kong-compatibility.md, 5.18
    #[tokio::test]
    async fn timeouts_that_are_set_are_those_of_the_request() {
        for (config, expected) in [
            (json!({}), [None, None, None]),
            (json!({"connect_timeout": 1}), [Some(1), None, None]),
            (json!({"send_timeout": 20}), [None, Some(20), None]),
            (json!({"read_timeout": 2_147_483_646_u32}), [None, None, Some(2_147_483_646)]),
            (json!({"connect_timeout": 1, "send_timeout": 2, "read_timeout": 3}), [Some(1), Some(2), Some(3)]),
        ] {
            let outcome = TestRequest::get("/").run(&chain(&[(&KIND, config.clone())])).await;
            let EndpointTimeouts { connect, write, read } = outcome.state.endpoint_timeouts;
            assert_eq!([connect, write, read].map(|timeout| timeout.map(NonZeroU32::get)), expected, "{config}");
        }
    }

    #[test]
    fn timeouts_out_of_range_are_rejected() {
        for (config, field) in [
            (json!({"connect_timeout": 0}), "config.connect_timeout"),
            (json!({"send_timeout": 2_147_483_647_u32}), "config.send_timeout"),
            (json!({"read_timeout": -1}), "config.read_timeout"),
            (json!({"read_timeout": "5s"}), "config.read_timeout"),
            (json!({"write_timeout": 5}), "config.write_timeout"),
        ] {
            let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
            assert_eq!(invalid[0].field, field, "{config}: {invalid:?}");
        }
    }

    #[test]
    fn plugin_without_effect_has_a_note() {
        assert_eq!(notes(&KIND, &json!({})).len(), 1);
        assert_eq!(notes(&KIND, &json!({"read_timeout": 5})).len(), 0);
    }
}
