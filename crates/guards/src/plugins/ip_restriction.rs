//! `ip-restriction`: allows or denies requests, connections and UDP sessions by client address.
//!
//! ```yaml
//! plugin: ip-restriction
//! config: {allow: [10.0.0.0/8, "2001:db8::/32"], deny: [10.1.2.3]}
//! ```
//!
//! If an address in `--trusted-ips` reports a client in `X-Forwarded-For` without a readable address, such as
//! `unknown`, the request is denied, whatever `allow` and `deny` contain. The response names the address `0.0.0.0`.
//!
//! The plugin also runs for the connections of TCPRoutes and TLSRoutes, and for the sessions of UDPRoutes: those of
//! denied addresses are reset, or their datagrams dropped. `status` and `message` do not apply to them.

use std::net::IpAddr;

use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::address_ranges::{AddressRanges, parse_network};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::context::UNKNOWN_CLIENT;
use crate::plugin_api::{
    AccessOutcome, BuildCx, Phases, Plugin, PluginKind, Reply, RequestCx, StreamCx, StreamDecision,
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Client addresses and networks that are allowed, IPv4 or IPv6, such as `10.0.0.1` or `10.0.0.0/8`. If this is not
    /// empty, all other clients are denied. At least one of `allow` and `deny` must not be empty.
    allow: Vec<String>,
    /// Client addresses and networks that are denied. Takes precedence over `allow`.
    deny: Vec<String>,
    /// Status of the response to denied requests, 200 to 599.
    status: u16,
    /// Message of the response to denied requests; if unset, `IP address not allowed: ADDRESS`.
    message: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config { allow: Vec::new(), deny: Vec::new(), status: 403, message: None }
    }
}

pub(crate) struct IpRestriction {
    /// `None` allows all addresses.
    allow: Option<AddressRanges>,
    deny: AddressRanges,
    status: StatusCode,
    message: Option<String>,
}

impl PluginKind for IpRestriction {
    const NAME: &'static str = "ip-restriction";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 990;
    const PHASES: Phases = Phases::ACCESS_AND_STREAM_OPEN;
    const FAIL_CLOSED: bool = true;
    const PROTOCOLS: &'static [&'static str] = &["grpc", "grpcs", "http", "https", "tcp", "tls"];
    type Config = Config;
    type Plugin = IpRestriction;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        if config.allow.is_empty() && config.deny.is_empty() {
            let message = "`allow` and `deny` are both empty";
            invalid.push(Diagnostic::in_config(
                "",
                message,
                "list addresses or networks in one of them, such as 10.0.0.0/8",
            ));
        }
        let status = StatusCode::from_u16(config.status).ok().filter(|status| (200..600).contains(&status.as_u16()));
        if status.is_none() {
            let message = format!("{} is not a status of 200 to 599", config.status);
            invalid.push(Diagnostic::in_config("status", message, "set it to 403, or to another status in this range"));
        }
        let allow = parse_ranges("allow", &config.allow, &mut invalid);
        let deny = parse_ranges("deny", &config.deny, &mut invalid);
        match status {
            Some(status) if invalid.is_empty() => {
                let allow = (!config.allow.is_empty()).then_some(allow);
                Ok(IpRestriction { allow, deny, status, message: config.message })
            }
            _ => Err(invalid),
        }
    }
}

impl IpRestriction {
    fn allows(&self, address: IpAddr) -> bool {
        address != UNKNOWN_CLIENT
            && !self.deny.contains(address)
            && self.allow.as_ref().is_none_or(|allow| allow.contains(address))
    }
}

impl Plugin for IpRestriction {
    fn may_wait(&self) -> bool {
        false
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let address = cx.client.address.to_canonical();
        if self.allows(address) {
            return AccessOutcome::Continue;
        }
        let message = self.message.clone().unwrap_or_else(|| format!("IP address not allowed: {address}"));
        AccessOutcome::Reply(Reply::negotiated(self.status, message, "address_not_allowed"))
    }

    fn stream_open(&self, cx: &StreamCx) -> StreamDecision {
        if self.allows(cx.client) { StreamDecision::Continue } else { StreamDecision::Reject }
    }
}

/// The ranges of a list. Reports entries that are neither an address nor a network.
fn parse_ranges(field: &str, texts: &[String], invalid: &mut Vec<Diagnostic>) -> AddressRanges {
    let networks = texts.iter().enumerate().filter_map(|(index, text)| {
        let network = parse_network(text);
        if network.is_none() {
            let message = format!("{text:?} is neither an address nor a network");
            let remedy = "use an address or address/bits, such as 10.0.0.0/8 or 2001:db8::/32";
            invalid.push(Diagnostic::in_config(format!("{field}[{index}]"), message, remedy));
        }
        network
    });
    networks.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin_api::{RegisteredKind, ReplyBody};
    use crate::plugin_chain::testing::{TestRequest, build, chain};

    const KIND: RegisteredKind<IpRestriction> = RegisteredKind::NEW;

    // docs/kong-compatibility.md, 4.15
    #[tokio::test]
    async fn requests_are_filtered_by_address_and_deny_wins() {
        for (config, allowed, denied) in [
            (json!({"allow": ["192.0.2.1"]}), vec!["192.0.2.1", "::ffff:192.0.2.1"], vec!["192.0.2.2", "2001:db8::1"]),
            (json!({"deny": ["192.0.2.1"]}), vec!["192.0.2.2", "2001:db8::1"], vec!["192.0.2.1", "::ffff:192.0.2.1"]),
            (
                json!({"allow": ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/31"], "deny": ["10.1.2.0/24"]}),
                vec!["10.0.0.0", "10.1.1.255", "10.1.3.0", "10.255.255.255", "192.0.2.6", "192.0.2.7"],
                vec!["9.255.255.255", "11.0.0.0", "10.1.2.0", "10.1.2.255", "192.0.2.5", "192.0.2.8"],
            ),
            (
                json!({"allow": ["2001:db8::/32", "::1"]}),
                vec!["2001:db8::", "2001:db8:ffff::1", "::1"],
                vec!["2001:db9::", "::", "::2", "0.0.0.1"],
            ),
            (json!({"allow": ["::ffff:10.0.0.0/104"]}), vec!["10.1.1.1"], vec!["11.0.0.1"]),
            // 0.0.0.0 stands for a client whose address is unknown.
            (json!({"allow": ["0.0.0.0/0"]}), vec!["1.2.3.4"], vec!["2001:db8::1", "0.0.0.0"]),
            (json!({"deny": ["192.0.2.1"]}), vec!["192.0.2.2"], vec!["0.0.0.0"]),
        ] {
            let plugin = build(&KIND, &config).unwrap_or_else(|problems| panic!("{problems:?}"));
            let chain = chain(&[(&KIND, config.clone())]);
            for (addresses, status) in [(allowed, None), (denied, Some(StatusCode::FORBIDDEN))] {
                for address in addresses {
                    let mut request = TestRequest::get("/");
                    request.address = address.parse().unwrap();
                    assert_eq!(request.run(&chain).await.reply_status(), status, "{config}: {address}");
                    let decision = plugin.stream_open(&StreamCx { client: address.parse().unwrap() });
                    let is_allowed = decision == StreamDecision::Continue;
                    // `StreamChain` converts addresses before.
                    assert!(address.starts_with("::ffff:") || is_allowed == status.is_none(), "{config}: {address}");
                }
            }
        }
    }

    // docs/kong-compatibility.md, 4.15
    #[tokio::test]
    async fn denied_requests_get_the_configured_response() {
        for (config, status, message) in [
            (json!({"deny": ["192.0.2.0/24"]}), 403, "IP address not allowed: 192.0.2.1"),
            (json!({"deny": ["192.0.2.0/24"], "status": 404, "message": "What?"}), 404, "What?"),
        ] {
            let reply = TestRequest::get("/").run(&chain(&[(&KIND, config.clone())])).await.reply.unwrap();
            assert_eq!(reply.status.as_u16(), status, "{config}");
            assert_eq!(reply.body, ReplyBody::Negotiated(message.into()), "{config}");
        }
    }

    // docs/kong-compatibility.md, 4.15
    #[test]
    fn invalid_addresses_are_rejected() {
        for (config, field) in [
            (json!({}), "config"),
            (json!({"allow": ["10.0.0.0/33"]}), "config.allow[0]"),
            (json!({"allow": ["::1"], "deny": ["::1", "shop.example"]}), "config.deny[1]"),
            (json!({"allow": ["::1"], "status": 100}), "config.status"),
        ] {
            let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
            assert_eq!(invalid[0].field, field, "{config}: {invalid:?}");
        }
    }
}
