//! Which Gateways are ours, and which addresses they may have.

use std::collections::BTreeSet;

use clap::{Args, ValueEnum};
use ipnet::IpNet;

use super::{UsageError, network};
use crate::api::core::ServiceType;
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
    /// each Gateway gets a Service in a Pod, and elsewhere 127.0.0.1, 127.0.0.2, …
    #[arg(long, value_name = "CIDR", value_delimiter = ',', env = "PORTICO_GATEWAY_ADDRESS_POOL")]
    #[arg(value_parser = pool_member)]
    gateway_address_pool: Vec<IpNet>,
}

/// What matters only where Gateways are served.
#[derive(Debug, Args)]
#[command(next_help_heading = "Gateways")]
pub(super) struct GatewayServiceArgs {
    /// Type of the Service that each Gateway gets when there is no address pool; in a Pod LoadBalancer unless said otherwise
    #[arg(long, value_enum, value_name = "TYPE", env = "PORTICO_GATEWAY_SERVICE_TYPE")]
    gateway_service_type: Option<ServiceKind>,
}

/// As `spec.type` of a Service spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ServiceKind {
    #[value(name = "LoadBalancer")]
    LoadBalancer,
    #[value(name = "NodePort")]
    NodePort,
    #[value(name = "ClusterIP")]
    ClusterIp,
}

/// Which Gateways are ours, and which addresses they may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayOptions {
    /// Controller names whose GatewayClasses we serve; ours is always among them.
    pub controller_names: BTreeSet<String>,
    pub addresses: AddressSource,
}

/// Where Gateways get their addresses from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressSource {
    Pool(AddressPool),
    /// A Service of this type for each Gateway.
    Services(ServiceType),
}

/// The addresses that Gateways may have, in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPool {
    pub networks: Vec<IpNet>,
    /// Given by a person. Then a Gateway may ask only for addresses in it; else for any that can be bound.
    pub explicit: bool,
}

impl GatewayArgs {
    /// `cluster`: there is one; `in_cluster`: and we run in it.
    pub(super) fn resolve(
        self,
        service: Option<GatewayServiceArgs>,
        cluster: bool,
        in_cluster: bool,
    ) -> Result<GatewayOptions, UsageError> {
        let mut controller_names: BTreeSet<String> = self.gateway_controller_name.into_iter().collect();
        controller_names.insert(GATEWAY_CONTROLLER.to_owned());
        let explicit = !self.gateway_address_pool.is_empty();
        let mut networks = Vec::new();
        for network in self.gateway_address_pool {
            if !networks.contains(&network) {
                networks.push(network);
            }
        }
        let addresses = match service.and_then(|service| service.gateway_service_type) {
            Some(_) if explicit => return Err(UsageError::PoolAndService),
            Some(_) if !cluster => return Err(UsageError::NeedsKubernetes { flag: "--gateway-service-type" }),
            Some(kind) => AddressSource::Services(kind.into()),
            None if in_cluster && !explicit => AddressSource::Services(ServiceType::LoadBalancer),
            None => {
                if !explicit {
                    networks.push(LOOPBACK.parse().expect("a constant that a test parses"));
                }
                AddressSource::Pool(AddressPool { networks, explicit })
            }
        };
        Ok(GatewayOptions { controller_names, addresses })
    }
}

impl From<ServiceKind> for ServiceType {
    fn from(kind: ServiceKind) -> Self {
        match kind {
            ServiceKind::LoadBalancer => ServiceType::LoadBalancer,
            ServiceKind::NodePort => ServiceType::NodePort,
            ServiceKind::ClusterIp => ServiceType::ClusterIp,
        }
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

    fn args(pool: &[IpNet]) -> GatewayArgs {
        GatewayArgs { gateway_controller_name: vec!["a.b/c".to_owned()], gateway_address_pool: pool.to_vec() }
    }

    #[test]
    fn ours_is_always_served() {
        let options = args(&[]).resolve(None, false, false).unwrap();
        let names = ["a.b/c", "portico.dev/gateway-controller"].map(str::to_owned);
        assert_eq!(options.controller_names, BTreeSet::from(names));
    }

    #[test]
    fn addresses_come_from_where_we_run_unless_told() {
        let pool: IpNet = "10.0.0.9/32".parse().unwrap();
        let loopback = AddressPool { networks: vec!["127.0.0.0/8".parse().unwrap()], explicit: false };
        let explicit = AddressPool { networks: vec![pool], explicit: true };
        let resolve = |pool: &[IpNet], service, cluster, in_cluster| {
            let service = Some(GatewayServiceArgs { gateway_service_type: service });
            args(pool)
                .resolve(service, cluster, in_cluster)
                .map(|options| options.addresses)
                .map_err(|error| error.to_string())
        };
        let node_port = Some(ServiceKind::NodePort);
        assert_eq!(resolve(&[], None, false, false), Ok(AddressSource::Pool(loopback.clone())));
        assert_eq!(
            resolve(&[], None, true, false),
            Ok(AddressSource::Pool(loopback)),
            "nobody in there could reach us"
        );
        assert_eq!(resolve(&[], None, true, true), Ok(AddressSource::Services(ServiceType::LoadBalancer)));
        assert_eq!(resolve(&[], node_port, true, false), Ok(AddressSource::Services(ServiceType::NodePort)));
        assert_eq!(resolve(&[pool], None, true, true), Ok(AddressSource::Pool(explicit)));
        assert!(resolve(&[pool], node_port, true, true).unwrap_err().contains("--gateway-address-pool"));
        assert!(resolve(&[], node_port, false, false).unwrap_err().contains("--kubernetes"));
    }

    #[test]
    fn an_explicit_pool_keeps_its_order_and_loses_duplicates() {
        let given: Vec<IpNet> = ["10.0.0.9", "10.0.0.0/30", "10.0.0.9"].map(|text| pool_member(text).unwrap()).into();
        let options = args(&given).resolve(None, false, false).unwrap();
        let pool = AddressPool { networks: given[..2].to_vec(), explicit: true };
        assert_eq!(options.addresses, AddressSource::Pool(pool));
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
