//! Flags for the Gateways to serve and their addresses.

use clap::{Args, ValueEnum};
use ipnet::IpNet;

use super::object_name::parse_controller_name;
use super::{UsageError, network};
use crate::api::core::ServiceType;
use crate::api::names::GATEWAY_CONTROLLER;

#[derive(Debug, Args)]
#[command(next_help_heading = "Gateways")]
pub(super) struct GatewayArgs {
    /// Serve the GatewayClasses of this controller name (repeatable); default: portico.dev/gateway-controller. A
    /// second installation needs another name. To take over classes of another implementation, add its name
    #[arg(long, value_name = "NAME", value_delimiter = ',', env = "PORTICO_GATEWAY_CONTROLLER_NAME")]
    #[arg(value_parser = parse_gateway_controller_name)]
    gateway_controller_name: Vec<String>,

    /// Addresses or CIDRs that Gateways may use (repeatable); 0.0.0.0 or :: binds all interfaces. Default: in a Pod
    /// each Gateway gets a Service, elsewhere 127.0.0.1, 127.0.0.2, …
    #[arg(long, value_name = "CIDR", value_delimiter = ',', env = "PORTICO_GATEWAY_ADDRESS_POOL")]
    #[arg(value_parser = parse_pool_network)]
    gateway_address_pool: Vec<IpNet>,
}

/// Flags that exist only for commands that serve Gateways.
#[derive(Debug, Args)]
#[command(next_help_heading = "Gateways")]
pub(super) struct GatewayServiceArgs {
    /// Type of the Service created for each Gateway without an address pool; default: LoadBalancer in a Pod
    #[arg(long, value_enum, value_name = "TYPE", env = "PORTICO_GATEWAY_SERVICE_TYPE")]
    gateway_service_type: Option<ServiceTypeArg>,
}

/// Values of `spec.type` of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ServiceTypeArg {
    #[value(name = "LoadBalancer")]
    LoadBalancer,
    #[value(name = "NodePort")]
    NodePort,
    #[value(name = "ClusterIP")]
    ClusterIp,
}

/// Gateways to serve and their addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayOptions {
    /// Controller names of the served GatewayClasses, without duplicates. The first one is in statuses that belong to
    /// no GatewayClass.
    pub controller_names: Vec<String>,
    pub addresses: AddressSource,
}

/// Source of the addresses of Gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressSource {
    Pool(AddressPool),
    /// A Service of this type for each Gateway.
    Services(ServiceType),
}

/// Addresses that Gateways may use, in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPool {
    pub networks: Vec<IpNet>,
    /// Set by a flag. A Gateway may then request only addresses of the pool, otherwise any address that can be bound.
    pub explicit: bool,
}

/// The defaults of all flags, outside of a cluster.
impl Default for GatewayOptions {
    fn default() -> Self {
        let networks = vec![LOOPBACK.parse().expect("a constant that a test parses")];
        let addresses = AddressSource::Pool(AddressPool { networks, explicit: false });
        GatewayOptions { controller_names: vec![GATEWAY_CONTROLLER.to_owned()], addresses }
    }
}

impl GatewayArgs {
    /// `has_cluster`: objects come from a cluster; `in_cluster`: this process runs in a Pod of it.
    pub(super) fn resolve(
        self,
        service: Option<GatewayServiceArgs>,
        has_cluster: bool,
        in_cluster: bool,
    ) -> Result<GatewayOptions, UsageError> {
        let mut controller_names = Vec::new();
        for name in self.gateway_controller_name {
            if !controller_names.contains(&name) {
                controller_names.push(name);
            }
        }
        if controller_names.is_empty() {
            controller_names.push(GATEWAY_CONTROLLER.to_owned());
        }
        let explicit = !self.gateway_address_pool.is_empty();
        let mut networks = Vec::new();
        for network in self.gateway_address_pool {
            if !networks.contains(&network) {
                networks.push(network);
            }
        }
        let addresses = match service.and_then(|service| service.gateway_service_type) {
            Some(_) if explicit => return Err(UsageError::PoolAndService),
            Some(_) if !has_cluster => return Err(UsageError::RequiresKubernetes { flag: "--gateway-service-type" }),
            Some(service_type) => AddressSource::Services(service_type.into()),
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

impl From<ServiceTypeArg> for ServiceType {
    fn from(service_type: ServiceTypeArg) -> Self {
        match service_type {
            ServiceTypeArg::LoadBalancer => ServiceType::LoadBalancer,
            ServiceTypeArg::NodePort => ServiceType::NodePort,
            ServiceTypeArg::ClusterIp => ServiceType::ClusterIp,
        }
    }
}

fn parse_gateway_controller_name(text: &str) -> Result<String, String> {
    parse_controller_name(text, 253, GATEWAY_CONTROLLER)
}

fn parse_pool_network(text: &str) -> Result<IpNet, String> {
    let network = network::parse_network(text)?;
    let is_single = network.prefix_len() == network.max_prefix_len();
    if network.addr().is_unspecified() && !is_single {
        let address = network.addr();
        return Err(format!("the pool covers every address; write {address} to bind all interfaces of this machine"));
    }
    if network.addr().is_multicast() {
        return Err("multicast addresses cannot accept TCP connections; write addresses of this machine".to_owned());
    }
    Ok(network)
}

/// On Linux every address of this network belongs to the local machine.
const LOOPBACK: &str = "127.0.0.0/8";

#[cfg(test)]
mod tests {
    use super::*;

    fn args(pool: &[IpNet]) -> GatewayArgs {
        GatewayArgs { gateway_controller_name: vec!["a.b/c".to_owned()], gateway_address_pool: pool.to_vec() }
    }

    #[test]
    fn given_controller_names_replace_the_default() {
        for (given, expected) in [
            (&[][..], &["portico.dev/gateway-controller"][..]),
            (&["a.b/c"], &["a.b/c"]),
            (&["z.b/c", "portico.dev/gateway-controller", "z.b/c"], &["z.b/c", "portico.dev/gateway-controller"]),
        ] {
            let gateway_controller_name = given.iter().map(|name| (*name).to_owned()).collect();
            let args = GatewayArgs { gateway_controller_name, gateway_address_pool: vec![] };
            assert_eq!(args.resolve(None, false, false).unwrap().controller_names, expected);
        }
    }

    #[test]
    fn default_addresses_depend_on_the_environment() {
        let pool: IpNet = "10.0.0.9/32".parse().unwrap();
        let loopback = AddressPool { networks: vec!["127.0.0.0/8".parse().unwrap()], explicit: false };
        let explicit = AddressPool { networks: vec![pool], explicit: true };
        let resolve = |pool: &[IpNet], service, has_cluster, in_cluster| {
            let service = Some(GatewayServiceArgs { gateway_service_type: service });
            args(pool)
                .resolve(service, has_cluster, in_cluster)
                .map(|options| options.addresses)
                .map_err(|error| error.to_string())
        };
        let node_port = Some(ServiceTypeArg::NodePort);
        assert_eq!(resolve(&[], None, false, false), Ok(AddressSource::Pool(loopback.clone())));
        assert_eq!(
            resolve(&[], None, true, false),
            Ok(AddressSource::Pool(loopback)),
            "Services cannot route to a process outside of the cluster"
        );
        assert_eq!(resolve(&[], None, true, true), Ok(AddressSource::Services(ServiceType::LoadBalancer)));
        assert_eq!(resolve(&[], node_port, true, false), Ok(AddressSource::Services(ServiceType::NodePort)));
        assert_eq!(resolve(&[pool], None, true, true), Ok(AddressSource::Pool(explicit)));
        assert!(resolve(&[pool], node_port, true, true).unwrap_err().contains("--gateway-address-pool"));
        assert!(resolve(&[], node_port, false, false).unwrap_err().contains("--kubernetes"));
    }

    #[test]
    fn explicit_pool_keeps_order_without_duplicates() {
        let given: Vec<IpNet> =
            ["10.0.0.9", "10.0.0.0/30", "10.0.0.9"].map(|text| parse_pool_network(text).unwrap()).into();
        let options = args(&given).resolve(None, false, false).unwrap();
        let pool = AddressPool { networks: given[..2].to_vec(), explicit: true };
        assert_eq!(options.addresses, AddressSource::Pool(pool));
    }

    #[test]
    fn pool_members_are_validated() {
        assert!(parse_pool_network("0.0.0.0").is_ok());
        assert!(parse_pool_network("::").is_ok());
        assert_eq!(
            parse_pool_network("0.0.0.0/0").unwrap_err(),
            "the pool covers every address; write 0.0.0.0 to bind all interfaces of this machine"
        );
        assert!(parse_pool_network("224.0.0.1").unwrap_err().starts_with("multicast"));
    }

    #[test]
    fn controller_names_are_validated() {
        for good in ["konghq.com/kic-gateway-controller", "a/b", "example.com/x/y:z"] {
            assert_eq!(parse_gateway_controller_name(good), Ok(good.to_owned()));
        }
        let long = format!("a/{}", "b".repeat(252));
        for bad in ["", "portico", "/x", "a/", "A.com/x", "a..b/c", "-a/b", "a-/b", "a/b c", long.as_str()] {
            assert!(parse_gateway_controller_name(bad).is_err(), "{bad:?}");
        }
    }
}
