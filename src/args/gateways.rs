//! Which Gateways are ours, and which addresses they may have.

use std::collections::BTreeSet;

use clap::Args;
use ipnet::IpNet;

use super::network;
use crate::api::names::GATEWAY_CONTROLLER;

#[derive(Debug, Args)]
#[command(next_help_heading = "Gateways")]
pub(super) struct GatewayArgs {
    /// Also serve GatewayClasses of this controller, to take them over from another implementation (repeatable);
    /// portico.dev/gateway-controller is always served
    #[arg(long, value_name = "NAME", value_delimiter = ',', env = "PORTICO_GATEWAY_CONTROLLER_NAME")]
    #[arg(value_parser = controller_name)]
    gateway_controller_name: Vec<String>,

    /// Addresses that Gateways may have: addresses or CIDRs (repeatable); 0.0.0.0 or :: binds all interfaces. Without it
    /// Gateways get 127.0.0.1, 127.0.0.2, …
    #[arg(long, value_name = "CIDR", value_delimiter = ',', env = "PORTICO_GATEWAY_ADDRESS_POOL")]
    #[arg(value_parser = pool_member)]
    gateway_address_pool: Vec<IpNet>,
}

/// Which Gateways are ours, and which addresses they may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayOptions {
    /// Controller names whose GatewayClasses we serve; ours is always among them.
    pub controller_names: BTreeSet<String>,
    pub pool: AddressPool,
}

/// The addresses that Gateways may have, in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPool {
    pub networks: Vec<IpNet>,
    /// Given by a person. Then a Gateway may ask only for addresses in it; else for any that can be bound.
    pub explicit: bool,
}

impl GatewayArgs {
    pub(super) fn resolve(self) -> GatewayOptions {
        let mut controller_names: BTreeSet<String> = self.gateway_controller_name.into_iter().collect();
        controller_names.insert(GATEWAY_CONTROLLER.to_owned());
        let explicit = !self.gateway_address_pool.is_empty();
        let mut networks = Vec::new();
        for network in self.gateway_address_pool {
            if !networks.contains(&network) {
                networks.push(network);
            }
        }
        if !explicit {
            networks.push(LOOPBACK.parse().expect("a constant that a test parses"));
        }
        GatewayOptions { controller_names, pool: AddressPool { networks, explicit } }
    }
}

/// As the Gateway API defines it: a domain, a slash and a path, at most 253 characters.
fn controller_name(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let path = |path: &str| {
        let punctuation = b"/-._~%!$&'()*+,;=:";
        !path.is_empty() && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || punctuation.contains(&byte))
    };
    match text.split_once('/') {
        Some((domain, rest)) if text.len() <= 253 && domain.split('.').all(label) && path(rest) => Ok(text.to_owned()),
        _ => {
            Err("not a controller name; write a domain and a path, for example example.com/gateway-controller"
                .to_owned())
        }
    }
}

fn pool_member(text: &str) -> Result<IpNet, String> {
    let network = network::network(text)?;
    let is_single = network.prefix_len() == network.max_prefix_len();
    if network.addr().is_unspecified() && !is_single {
        let address = network.addr();
        return Err(format!("a pool of addresses nobody owns; write {address} to bind all interfaces of this machine"));
    }
    if network.addr().is_multicast() {
        return Err("multicast, where nothing can listen for TCP; write addresses of this machine".to_owned());
    }
    Ok(network)
}

/// All of it is this machine on Linux.
const LOOPBACK: &str = "127.0.0.0/8";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_always_served_and_the_default_pool_is_loopback() {
        let options = GatewayArgs { gateway_controller_name: vec![], gateway_address_pool: vec![] }.resolve();
        assert_eq!(options.controller_names, BTreeSet::from(["portico.dev/gateway-controller".to_owned()]));
        assert_eq!(options.pool, AddressPool { networks: vec!["127.0.0.0/8".parse().unwrap()], explicit: false });
    }

    #[test]
    fn an_explicit_pool_keeps_its_order_and_loses_duplicates() {
        let given: Vec<IpNet> = ["10.0.0.9", "10.0.0.0/30", "10.0.0.9"].map(|text| pool_member(text).unwrap()).into();
        let args =
            GatewayArgs { gateway_controller_name: vec!["a.b/c".to_owned()], gateway_address_pool: given.clone() };
        let options = args.resolve();
        assert_eq!(options.pool, AddressPool { networks: given[..2].to_vec(), explicit: true });
        assert_eq!(options.controller_names.len(), 2);
    }

    #[test]
    fn pool_members() {
        assert!(pool_member("0.0.0.0").is_ok());
        assert!(pool_member("::").is_ok());
        assert_eq!(
            pool_member("0.0.0.0/0").unwrap_err(),
            "a pool of addresses nobody owns; write 0.0.0.0 to bind all interfaces of this machine"
        );
        assert!(pool_member("224.0.0.1").unwrap_err().starts_with("multicast"));
    }

    #[test]
    fn controller_names() {
        for good in ["konghq.com/kic-gateway-controller", "a/b", "example.com/x/y:z"] {
            assert_eq!(controller_name(good), Ok(good.to_owned()));
        }
        let long = format!("a/{}", "b".repeat(252));
        for bad in ["", "portico", "/x", "a/", "A.com/x", "a..b/c", "-a/b", "a-/b", "a/b c", long.as_str()] {
            assert!(controller_name(bad).is_err(), "{bad:?}");
        }
    }
}
