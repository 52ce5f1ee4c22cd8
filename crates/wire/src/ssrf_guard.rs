//! SSRF guard: the addresses that backends, and servers used by plugins, must not have. Authors of Services and plugins
//! can name any address, and Portico would connect to it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

/// Whether loopback addresses of the machine or Pod that Portico runs in may be backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoopbackPolicy {
    /// Allowed: the operator writes the objects, or started Portico with `--allow-loopback-backends`.
    #[default]
    Allowed,
    /// Blocked: users of the cluster write the objects, and local services may trust requests from their own machine.
    Blocked,
}

/// The addresses that the operator allows or denies for backends, and for servers that plugins connect to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    pub loopback: LoopbackPolicy,
    /// The networks of `--deny-endpoint-cidrs`.
    pub denied: Arc<[IpNet]>,
}

impl AddressPolicy {
    /// The denied network that contains the address.
    fn denying_network(&self, address: IpAddr) -> Option<IpNet> {
        self.denied.iter().find(|network| network.contains(&address)).copied()
    }
}

/// What a Service may name addresses with, in addition to EndpointSlices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressSources {
    /// The annotation `portico.dev/address`. In a cluster, it would let users who may write Services, but not
    /// EndpointSlices, choose any address.
    pub annotation: bool,
    /// `externalName`.
    pub external_names: bool,
}

impl AddressSources {
    pub const ALL: AddressSources = AddressSources { annotation: true, external_names: true };
}

/// Which users write the objects, and therefore which addresses the objects may name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TrustModel {
    /// The operator of Portico writes all objects.
    #[default]
    SingleTenant,
    /// Users with write access to a namespace of the cluster write objects.
    MultiTenant { addresses: AddressPolicy, sources: AddressSources },
}

impl TrustModel {
    pub fn address_policy(&self) -> AddressPolicy {
        match self {
            TrustModel::SingleTenant => AddressPolicy::default(),
            TrustModel::MultiTenant { addresses, .. } => addresses.clone(),
        }
    }

    /// Whether objects may give consumers and routes the ids and names that backends and logs get. Users of a cluster
    /// could use those of others, also if they may choose any address.
    pub fn trusts_given_names(&self) -> bool {
        matches!(self, TrustModel::SingleTenant)
    }

    pub fn address_sources(&self) -> AddressSources {
        match self {
            TrustModel::SingleTenant => AddressSources::ALL,
            TrustModel::MultiTenant { sources, .. } => *sources,
        }
    }
}

/// Why an address is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockedAddress {
    reason: BlockReason,
    /// The embedded IPv4 address that is the reason: NAT64, a tunnel, or for IPv4-compatible addresses the local
    /// machine, translates the address to it.
    translated: Option<Ipv4Addr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BlockReason {
    /// Link-local, unspecified, multicast or broadcast.
    SpecialPurpose,
    /// A metadata service that serves credentials of the machine to any local client.
    Metadata,
    Loopback,
    /// An address in a network of `--deny-endpoint-cidrs`.
    DeniedNetwork(IpNet),
    /// A cluster-internal name outside the namespace of the object. The name may be in no namespace at all.
    OtherNamespace,
    /// A cluster-internal name of a Pod, which contains the address that it resolves to.
    Pod,
}

impl BlockedAddress {
    /// Why this address is blocked; None if it is allowed.
    pub fn check(address: IpAddr, policy: &AddressPolicy) -> Option<Self> {
        let check = |address: IpAddr| {
            let special = match address {
                IpAddr::V4(address) => check_v4(address),
                IpAddr::V6(address) => check_v6(address),
            };
            let is_blocked =
                |reason: &BlockReason| *reason != BlockReason::Loopback || policy.loopback == LoopbackPolicy::Blocked;
            special.filter(is_blocked).or_else(|| policy.denying_network(address).map(BlockReason::DeniedNetwork))
        };
        let check_translated =
            |address: Ipv4Addr| Some(BlockedAddress { reason: check(address.into())?, translated: Some(address) });
        let canonical = address.to_canonical();
        // The address itself is checked before an embedded one, since `::` and `::1` are within the IPv4-compatible
        // range.
        let itself = check(canonical).map(|reason| BlockedAddress { reason, translated: None });
        itself.or_else(|| match canonical {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => embedded_v4(address).into_iter().find_map(check_translated),
        })
    }

    /// Checks a host: an address, with or without brackets, or a name.
    pub fn check_host(host: &str, policy: &AddressPolicy) -> Option<Self> {
        let without_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match without_brackets.parse() {
            Ok(address) => BlockedAddress::check(address, policy),
            Err(_) => BlockedAddress::check_name(host, policy.loopback),
        }
    }

    /// Checks a name that has a fixed meaning without DNS: `localhost` (RFC 6761, section 6.3).
    pub fn check_name(host: &str, loopback: LoopbackPolicy) -> Option<Self> {
        let is_localhost =
            host.trim_end_matches('.').rsplit('.').next().is_some_and(|label| label.eq_ignore_ascii_case("localhost"));
        (is_localhost && loopback == LoopbackPolicy::Blocked)
            .then_some(BlockedAddress { reason: BlockReason::Loopback, translated: None })
    }

    /// Checks a name in an object of this namespace. The addresses it resolves to are checked after resolution.
    pub fn check_name_in_namespace(namespace: &str, host: &str, trust_model: &TrustModel) -> Option<Self> {
        let TrustModel::MultiTenant { addresses, .. } = trust_model else { return None };
        check_cluster_name(namespace, host)
            .map(|reason| BlockedAddress { reason, translated: None })
            .or_else(|| BlockedAddress::check_name(host, addresses.loopback))
    }

    /// What to configure instead.
    pub fn remedy(&self) -> &'static str {
        match self.reason {
            BlockReason::SpecialPurpose => "use a unicast address that is not link-local",
            BlockReason::Metadata => "use an address that belongs to no cloud metadata service",
            BlockReason::Loopback => {
                "use an address that other machines can reach, or start Portico with --allow-loopback-backends if \
                 loopback backends are intended"
            }
            BlockReason::DeniedNetwork(_) => {
                "use an address outside of the networks of --deny-endpoint-cidrs, which the operator of Portico sets"
            }
            BlockReason::OtherNamespace => {
                "use a name in the object's own namespace; for a Service of another namespace, name it and its \
                 namespace in the backendRef of an HTTPRoute, and create a ReferenceGrant in that namespace"
            }
            BlockReason::Pod => "use a Service that selects the Pod",
        }
    }
}

/// Completes a sentence that begins with "ADDRESS is " or "NAME is ".
impl fmt::Display for BlockedAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.translated {
            write!(formatter, "translated to {address}, which is ")?;
        }
        formatter.write_str(match self.reason {
            BlockReason::DeniedNetwork(network) => {
                return write!(formatter, "in {network}, a network that --deny-endpoint-cidrs denies");
            }
            BlockReason::SpecialPurpose => "a link-local, multicast, broadcast or unspecified address",
            BlockReason::Metadata => "a cloud metadata address, which serves credentials of the machine",
            BlockReason::Loopback => "a loopback address of the machine or Pod that Portico runs in",
            BlockReason::OtherNamespace => "a cluster-internal name outside the object's own namespace",
            BlockReason::Pod => "a cluster-internal name of a Pod address",
        })
    }
}

/// Whether a name is that of a Service or Pod, or in the domain of the cluster.
pub fn is_cluster_internal_name(host: &str) -> bool {
    // No namespace has an empty name, so a Service of any namespace is in another one.
    check_cluster_name("", host).is_some()
}

/// Why a cluster-internal name is blocked in objects of this namespace. Names of Services end in `NAMESPACE.svc`, those
/// of Pods in `NAMESPACE.pod`, with or without the cluster domain.
fn check_cluster_name(namespace: &str, host: &str) -> Option<BlockReason> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let is_in = |name: &str, domain: &str| {
        name.strip_suffix(domain).is_some_and(|front| front.is_empty() || front.ends_with('.'))
    };
    let in_cluster_domain = is_in(&host, CLUSTER_DOMAIN);
    let name = if in_cluster_domain { host.strip_suffix(CLUSTER_DOMAIN)?.trim_end_matches('.') } else { &host };
    if is_in(name, "pod") {
        Some(BlockReason::Pod)
    } else if is_in(name, "svc") {
        (!is_in(name, &format!("{namespace}.svc"))).then_some(BlockReason::OtherNamespace)
    } else {
        in_cluster_domain.then_some(BlockReason::OtherNamespace)
    }
}

/// The default cluster domain.
const CLUSTER_DOMAIN: &str = "cluster.local";

fn check_v4(address: Ipv4Addr) -> Option<BlockReason> {
    if address.is_link_local() || address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
        Some(BlockReason::SpecialPurpose)
    } else if address.is_loopback() {
        Some(BlockReason::Loopback)
    } else {
        METADATA_V4.contains(&address).then_some(BlockReason::Metadata)
    }
}

fn check_v6(address: Ipv6Addr) -> Option<BlockReason> {
    if address.is_unicast_link_local() || address.is_unspecified() || address.is_multicast() {
        Some(BlockReason::SpecialPurpose)
    } else if address.is_loopback() {
        Some(BlockReason::Loopback)
    } else {
        METADATA_V6.contains(&address).then_some(BlockReason::Metadata)
    }
}

/// The IPv4 addresses in an IPv6 address, to which a NAT64 translator, a tunnel or the local machine may send.
fn embedded_v4(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let octets = address.octets();
    let address_at = |indexes: [usize; 4]| Ipv4Addr::from(indexes.map(|index| octets[index]));
    match address.segments() {
        // IPv4-compatible (RFC 4291, section 2.5.5.1), and the well-known NAT64 prefix (RFC 6052, section 2.1).
        [0, 0, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => vec![address_at([12, 13, 14, 15])],
        // Local-use NAT64 (RFC 8215). The prefix length in use is unknown, so each possible one is checked. In
        // prefixes shorter than 96 bits, octet 8 and the octets after the IPv4 address are zero (RFC 6052, section
        // 2.2).
        [0x64, 0xff9b, 1, ..] => {
            let are_zero = |octets: &[u8]| octets.iter().all(|octet| *octet == 0);
            // For the lengths 48, 56 and 64: the octets of the IPv4 address, and the first octet after it.
            let shorter_prefixes = [([6, 7, 9, 10], 11), ([7, 9, 10, 11], 12), ([9, 10, 11, 12], 13)];
            let possible = shorter_prefixes.into_iter().filter(|(_, end)| octets[8] == 0 && are_zero(&octets[*end..]));
            let all = possible.map(|(indexes, _)| address_at(indexes)).chain([address_at([12, 13, 14, 15])]);
            // 0.0.0.0 is skipped, since a zero suffix usually means another prefix length. If every length yields it,
            // it is returned once.
            let mut addresses: Vec<_> = all.filter(|address| !address.is_unspecified()).collect();
            if addresses.is_empty() {
                addresses.push(Ipv4Addr::UNSPECIFIED);
            }
            addresses
        }
        // 6to4 (RFC 3056, section 2).
        [0x2002, ..] => vec![address_at([2, 3, 4, 5])],
        // Teredo (RFC 4380, section 4): the server, and the client with all bits inverted.
        [0x2001, 0, ..] => {
            let client = u32::from(address_at([12, 13, 14, 15]));
            vec![address_at([4, 5, 6, 7]), Ipv4Addr::from(!client)]
        }
        // ISATAP, in any prefix (RFC 5214, section 6.1). The bit of the second form means that the IPv4 address is
        // unique.
        [.., 0 | 0x200, 0x5efe, _, _] => vec![address_at([12, 13, 14, 15])],
        _ => Vec::new(),
    }
}

/// Metadata services whose address is not link-local. The list has no ranges, since neighboring addresses may have
/// other uses, and clusters assign addresses of 100.64.0.0/10 to Pods.
const METADATA_V4: [Ipv4Addr; 3] = [
    // Alibaba Cloud.
    Ipv4Addr::new(100, 100, 100, 200),
    // Azure's WireServer, which serves certificates of VM extensions; a public address owned by Microsoft.
    Ipv4Addr::new(168, 63, 129, 16),
    // Oracle's Compute Classic.
    Ipv4Addr::new(192, 0, 0, 192),
];
const METADATA_V6: [Ipv6Addr; 7] = [
    // AWS, and the EKS Pod Identity agent.
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    // Google Cloud.
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    // Oracle Cloud.
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    // Alibaba Cloud.
    Ipv6Addr::new(0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200),
    // Akamai.
    Ipv6Addr::new(0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1),
    // Scaleway.
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(loopback: LoopbackPolicy) -> AddressPolicy {
        AddressPolicy { loopback, ..AddressPolicy::default() }
    }

    fn multi_tenant(loopback: LoopbackPolicy) -> TrustModel {
        TrustModel::MultiTenant { addresses: policy(loopback), sources: AddressSources::ALL }
    }

    fn reason(address: &str, loopback: LoopbackPolicy) -> String {
        let blocked = BlockedAddress::check(address.parse().unwrap(), &policy(loopback));
        blocked.map(|blocked| blocked.to_string()).unwrap_or_default()
    }

    #[test]
    fn addresses_in_denied_networks_are_blocked() {
        let denied: Vec<IpNet> =
            ["10.96.0.0/12", "192.0.2.7/32", "fd12::/16"].map(|text| text.parse().unwrap()).to_vec();
        let policy = AddressPolicy { loopback: LoopbackPolicy::Allowed, denied: denied.into() };
        let in_network = |network: &str| format!("in {network}, a network that --deny-endpoint-cidrs denies");
        for (address, expected) in [
            ("10.96.0.1", in_network("10.96.0.0/12")),
            ("10.111.255.255", in_network("10.96.0.0/12")),
            ("192.0.2.7", in_network("192.0.2.7/32")),
            ("fd12::1", in_network("fd12::/16")),
            ("::ffff:10.96.0.1", in_network("10.96.0.0/12")),
            ("64:ff9b::10.96.0.1", format!("translated to 10.96.0.1, which is {}", in_network("10.96.0.0/12"))),
            ("2002:a60:1::1", format!("translated to 10.96.0.1, which is {}", in_network("10.96.0.0/12"))),
            (
                "2001:0:c000:207:0:1234:3fff:fdd2",
                format!("translated to 192.0.2.7, which is {}", in_network("192.0.2.7/32")),
            ),
            ("2001:db8::5efe:10.96.0.1", format!("translated to 10.96.0.1, which is {}", in_network("10.96.0.0/12"))),
            ("2002:a5f:ffff::1", String::new()),
            ("10.95.255.255", String::new()),
            ("10.112.0.0", String::new()),
            ("192.0.2.6", String::new()),
            ("fd13::1", String::new()),
            ("127.0.0.1", String::new()),
        ] {
            let blocked = BlockedAddress::check(address.parse().unwrap(), &policy);
            assert_eq!(blocked.map(|blocked| blocked.to_string()).unwrap_or_default(), expected, "{address}");
            assert_eq!(BlockedAddress::check_host(address, &policy), blocked, "{address}");
        }
        assert_eq!(reason("10.96.0.1", LoopbackPolicy::Blocked), "", "nothing is denied by default");
    }

    #[test]
    fn special_addresses_are_blocked() {
        let special = "a link-local, multicast, broadcast or unspecified address";
        let metadata = "a cloud metadata address, which serves credentials of the machine";
        let loopback = "a loopback address of the machine or Pod that Portico runs in";
        for (address, expected) in [
            ("169.254.169.254", special),
            ("169.254.170.2", special),
            ("fe80::1", special),
            ("fe80::a9fe:a9fe", special),
            ("0.0.0.0", special),
            ("::", special),
            ("224.0.0.1", special),
            ("ff02::1", special),
            ("255.255.255.255", special),
            ("::ffff:169.254.169.254", special),
            ("100.100.100.200", metadata),
            ("168.63.129.16", metadata),
            ("192.0.0.192", metadata),
            ("::ffff:168.63.129.16", metadata),
            ("fd00:ec2::254", metadata),
            ("fd00:ec2::23", metadata),
            ("fd20:ce::254", metadata),
            ("fd00:c1::a9fe:a9fe", metadata),
            ("fd00:100::100:200", metadata),
            ("fd00:a9fe:a9fe::1", metadata),
            ("fd00:42::42", metadata),
            ("127.0.0.1", loopback),
            ("127.8.9.10", loopback),
            ("::1", loopback),
            ("::ffff:127.0.0.1", loopback),
        ] {
            assert_eq!(reason(address, LoopbackPolicy::Blocked), expected, "{address}");
        }
        for (address, ipv4, expected) in [
            ("::169.254.169.254", "169.254.169.254", special),
            ("::127.0.0.1", "127.0.0.1", loopback),
            ("64:ff9b::169.254.169.254", "169.254.169.254", special),
            ("64:ff9b::168.63.129.16", "168.63.129.16", metadata),
            ("64:ff9b::127.0.0.1", "127.0.0.1", loopback),
            ("64:ff9b::0.0.0.0", "0.0.0.0", special),
            ("64:ff9b:1::169.254.169.254", "169.254.169.254", special),
            ("64:ff9b:1:0:7::100.100.100.200", "100.100.100.200", metadata),
            ("64:ff9b:1:a9fe:a9:fe00::", "169.254.169.254", special),
            ("64:ff9b:1:7f00:0:100::", "127.0.0.1", loopback),
            ("64:ff9b:1:7a9:fe:a9fe::", "169.254.169.254", special),
            ("64:ff9b:1:77f:0:1::", "127.0.0.1", loopback),
            ("64:ff9b:1:708:a9:fea9:fe00:0", "169.254.169.254", special),
            ("64:ff9b:1:708:64:6464:c800:0", "100.100.100.200", metadata),
            ("64:ff9b:1::", "0.0.0.0", special),
            ("2002:a9fe:a9fe::1", "169.254.169.254", special),
            ("2002:7f00:1::", "127.0.0.1", loopback),
            ("2002:a83f:8110:1:2:3:4:5", "168.63.129.16", metadata),
            // The client, and the server.
            ("2001:0:c000:201:0:1234:5601:5601", "169.254.169.254", special),
            ("2001::c000:201:0:1234:80ff:fffe", "127.0.0.1", loopback),
            ("2001:0:7f00:1:0:1234:3fff:fdd2", "127.0.0.1", loopback),
            ("2001:db8::5efe:169.254.169.254", "169.254.169.254", special),
            ("2001:db8:1:2:200:5efe:127.0.0.1", "127.0.0.1", loopback),
            ("fd00::200:5efe:100.100.100.200", "100.100.100.200", metadata),
        ] {
            let expected = format!("translated to {ipv4}, which is {expected}");
            assert_eq!(reason(address, LoopbackPolicy::Blocked), expected, "{address}");
        }
    }

    #[test]
    fn neighbors_of_special_addresses_are_allowed() {
        for address in [
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.199",
            "100.100.100.201",
            "168.63.129.15",
            "192.0.0.191",
            "198.18.0.1",
            "169.253.255.255",
            "fd00:ec2::253",
            "fd20:ce::255",
            "fd00::1",
            "2001:db8::1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::10.0.0.1",
            "64:ff9b:1:0a00:0:100::",
            "64:ff9b:1:70a:0:1::",
            "64:ff9b:1:708:a:0:100:0",
            // The octets after the address are not zero.
            "64:ff9b:1:708:a9:fea9:fe01:203",
            // This prefix embeds no IPv4 address.
            "64:ff9b:2::169.254.169.254",
            "2001:db8::169.254.169.254",
            "2002:a00:1::1",
            "2003:a9fe:a9fe::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2001:1:a9fe:a9fe::1",
            "2001:db8::5efe:10.0.0.1",
            "2001:db8::5eff:169.254.169.254",
            "2001:db8::100:5efe:169.254.169.254",
        ] {
            assert_eq!(reason(address, LoopbackPolicy::Blocked), "", "{address}");
        }
    }

    #[test]
    fn cluster_names_of_other_namespaces_are_blocked() {
        let trust_model = multi_tenant(LoopbackPolicy::Allowed);
        for (name, expected) in [
            ("db.b.svc.cluster.local", Some(BlockReason::OtherNamespace)),
            ("db.b.svc.cluster.local.", Some(BlockReason::OtherNamespace)),
            ("DB.B.SVC.Cluster.Local", Some(BlockReason::OtherNamespace)),
            ("db.b.svc", Some(BlockReason::OtherNamespace)),
            ("db.b.svc.", Some(BlockReason::OtherNamespace)),
            ("one.db.b.svc.cluster.local", Some(BlockReason::OtherNamespace)),
            ("db.ba.svc", Some(BlockReason::OtherNamespace)),
            ("svc.cluster.local", Some(BlockReason::OtherNamespace)),
            ("db.cluster.local", Some(BlockReason::OtherNamespace)),
            ("10-0-0-1.b.pod.cluster.local", Some(BlockReason::Pod)),
            ("10-0-0-1.a.pod.cluster.local", Some(BlockReason::Pod)),
            ("10-0-0-1.a.pod", Some(BlockReason::Pod)),
            ("db.a.svc.cluster.local", None),
            ("db.A.svc", None),
            ("one.db.a.svc.cluster.local.", None),
            ("db.b", None),
            ("db", None),
            ("svc.example", None),
            ("db.b.svc.example", None),
            ("mycluster.local", None),
            ("notsvc", None),
        ] {
            assert_eq!(
                BlockedAddress::check_name_in_namespace("a", name, &trust_model).map(|blocked| blocked.reason),
                expected,
                "{name}"
            );
            assert_eq!(BlockedAddress::check_name_in_namespace("a", name, &TrustModel::SingleTenant), None, "{name}");
        }
        let trust_model = multi_tenant(LoopbackPolicy::Blocked);
        let reason =
            BlockedAddress::check_name_in_namespace("a", "localhost", &trust_model).map(|blocked| blocked.reason);
        assert_eq!(reason, Some(BlockReason::Loopback));
    }

    #[test]
    fn loopback_is_blocked_for_tenants() {
        for address in ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1"] {
            assert_eq!(reason(address, LoopbackPolicy::Allowed), "", "{address}");
        }
        assert_ne!(reason("169.254.169.254", LoopbackPolicy::Allowed), "", "other blocked addresses are unaffected");
        for (name, expected) in [
            ("localhost", true),
            ("LocalHost", true),
            ("web.localhost", true),
            ("localhost.", true),
            ("localhost.example", false),
            ("notlocalhost", false),
        ] {
            assert_eq!(BlockedAddress::check_name(name, LoopbackPolicy::Blocked).is_some(), expected, "{name}");
            assert_eq!(BlockedAddress::check_name(name, LoopbackPolicy::Allowed), None, "{name}");
            assert_eq!(
                BlockedAddress::check_host(name, &policy(LoopbackPolicy::Blocked)).is_some(),
                expected,
                "{name}"
            );
        }
        for (host, expected) in [("[::1]", true), ("::1", true), ("127.0.0.1", true), ("[2001:db8::1]", false)] {
            assert_eq!(
                BlockedAddress::check_host(host, &policy(LoopbackPolicy::Blocked)).is_some(),
                expected,
                "{host}"
            );
        }
    }
}
