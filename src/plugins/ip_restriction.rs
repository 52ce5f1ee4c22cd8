//! Lets clients in by their address, or keeps them out.
//!
//! ```yaml
//! plugin: ip-restriction
//! config: {allow: [10.0.0.0/8, "2001:db8::/32"], deny: [10.1.2.3]}
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::StatusCode;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::plugin::{BuildCx, Invalid, Kind, Outcome, Phases, Plugin, Reply, RequestCx};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Addresses and networks that may come in; nobody else may. IPv4 or IPv6, such as `10.0.0.1` or `10.0.0.0/8`.
    allow: Vec<String>,
    /// Addresses and networks that may not come in, whatever `allow` says.
    deny: Vec<String>,
    /// The status for those who may not, 200 to 599.
    status: u16,
    /// What they are told; `IP address not allowed: ADDRESS` if it is not given.
    message: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config { allow: Vec::new(), deny: Vec::new(), status: 403, message: None }
    }
}

pub(crate) struct IpRestriction {
    /// None if everybody may.
    allow: Option<Addresses>,
    deny: Addresses,
    status: StatusCode,
    message: Option<String>,
}

impl Kind for IpRestriction {
    const NAME: &'static str = "ip-restriction";
    const PRIORITY: i32 = 990;
    const PHASES: Phases = Phases::ACCESS;
    const GUARD: bool = true;
    const PROTOCOLS: &'static [&'static str] = &["grpc", "grpcs", "http", "https", "tcp", "tls"];
    type Config = Config;
    type Plugin = IpRestriction;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Invalid>> {
        let mut invalid = Vec::new();
        if config.allow.is_empty() && config.deny.is_empty() {
            let message = "neither `allow` nor `deny` names an address";
            invalid.push(Invalid::new("", message, "list addresses or networks in one of them, such as 10.0.0.0/8"));
        }
        let status = StatusCode::from_u16(config.status).ok().filter(|status| (200..600).contains(&status.as_u16()));
        if status.is_none() {
            let message = format!("{} cannot be the status of a whole answer", config.status);
            invalid.push(Invalid::new("status", message, "use one of 200 to 599, such as 403"));
        }
        let allow = Addresses::parsed("allow", &config.allow, &mut invalid);
        let deny = Addresses::parsed("deny", &config.deny, &mut invalid);
        match status {
            Some(status) if invalid.is_empty() => {
                let allow = (!config.allow.is_empty()).then_some(allow);
                Ok(IpRestriction { allow, deny, status, message: config.message })
            }
            _ => Err(invalid),
        }
    }
}

impl Plugin for IpRestriction {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> Outcome<'a> {
        let address = cx.client.address.to_canonical();
        let may = !self.deny.contain(address) && self.allow.as_ref().is_none_or(|allow| allow.contain(address));
        if may {
            return Outcome::Next;
        }
        let message = self.message.clone().unwrap_or_else(|| format!("IP address not allowed: {address}"));
        Outcome::Reply(Reply::negotiated(self.status, message, "address_not_allowed"))
    }
}

/// Ranges in ascending order that neither touch nor overlap.
#[derive(Debug, Default, PartialEq, Eq)]
struct Addresses {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Addresses {
    fn parsed(field: &str, texts: &[String], invalid: &mut Vec<Invalid>) -> Self {
        let mut addresses = Addresses::default();
        for (at, text) in texts.iter().enumerate() {
            match network(text) {
                Some(IpNet::V4(net)) => addresses.v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                Some(IpNet::V6(net)) => addresses.v6.push((net.network().to_bits(), net.broadcast().to_bits())),
                None => {
                    let message = format!("{text:?} is neither an address nor a network");
                    let remedy = "use an address or address/bits, such as 10.0.0.0/8 or 2001:db8::/32";
                    invalid.push(Invalid::new(format!("{field}[{at}]"), message, remedy));
                }
            }
        }
        merge(&mut addresses.v4);
        merge(&mut addresses.v6);
        addresses
    }

    fn contain(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => is_in(&self.v4, Ipv4Addr::to_bits(address)),
            IpAddr::V6(address) => is_in(&self.v6, Ipv6Addr::to_bits(address)),
        }
    }
}

/// An IPv4 network written as IPv6 is one of IPv4, as it is of clients.
fn network(text: &str) -> Option<IpNet> {
    let net = text.parse().ok().or_else(|| text.parse().ok().map(|address: IpAddr| IpNet::from(address)))?;
    match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match IpAddr::V6(v6.network()).to_canonical() {
            mapped @ IpAddr::V4(_) => IpNet::new(mapped, v6.prefix_len() - 96).ok(),
            IpAddr::V6(_) => Some(net),
        },
        _ => Some(net),
    }
}

fn merge<N: Copy + Ord>(ranges: &mut Vec<(N, N)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let overlap = next.0 <= last.1;
        if overlap {
            last.1 = last.1.max(next.1);
        }
        overlap
    });
}

fn is_in<N: Copy + Ord>(ranges: &[(N, N)], number: N) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= number);
    after > 0 && number <= ranges[after - 1].1
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin::testing::{Visit, build, chain};
    use crate::plugin::{Entry, ReplyBody};

    const KIND: Entry<IpRestriction> = Entry::NEW;

    // kong-compat §4.15
    #[tokio::test]
    async fn addresses_decide_and_deny_comes_first() {
        for (config, may, may_not) in [
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
            (json!({"allow": ["0.0.0.0/0"]}), vec!["1.2.3.4"], vec!["2001:db8::1"]),
        ] {
            let chain = chain(&[(&KIND, config.clone())]);
            for (addresses, status) in [(may, None), (may_not, Some(StatusCode::FORBIDDEN))] {
                for address in addresses {
                    let mut visit = Visit::get("/");
                    visit.address = address.parse().unwrap();
                    assert_eq!(visit.run(&chain).await.replied(), status, "{config}: {address}");
                }
            }
        }
    }

    // kong-compat §4.15
    #[tokio::test]
    async fn they_are_told() {
        for (config, status, message) in [
            (json!({"deny": ["192.0.2.0/24"]}), 403, "IP address not allowed: 192.0.2.1"),
            (json!({"deny": ["192.0.2.0/24"], "status": 404, "message": "What?"}), 404, "What?"),
        ] {
            let reply = Visit::get("/").run(&chain(&[(&KIND, config.clone())])).await.reply.unwrap();
            assert_eq!(reply.status.as_u16(), status, "{config}");
            assert_eq!(reply.body, ReplyBody::Negotiated(message.into()), "{config}");
        }
    }

    // kong-compat §4.15
    #[test]
    fn what_is_no_address_is_refused() {
        for (config, field) in [
            (json!({}), "config"),
            (json!({"allow": ["10.0.0.0/33"]}), "config.allow[0]"),
            (json!({"allow": ["::1"], "deny": ["::1", "shop.example"]}), "config.deny[1]"),
            (json!({"allow": ["::1"], "status": 100}), "config.status"),
        ] {
            let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} is taken"));
            assert_eq!(invalid[0].field, field, "{config}: {invalid:?}");
        }
    }
}
