//! Which addresses no backend can have, nor a server that plugins ask, whatever objects and DNS say: whoever writes a
//! Service or a plugin may name any, and it is Portico that asks there.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether the loopback addresses of the machine or Pod that Portico runs in may be backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loopback {
    /// Objects are written by whoever runs Portico.
    #[default]
    Served,
    /// Objects are written by others. What listens there believes that it is asked by its own machine.
    Refused,
}

/// Who writes the objects, and so how far is followed what they name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Authors {
    /// Whoever runs Portico.
    #[default]
    Operator,
    /// Whoever may write into a namespace of the cluster.
    Tenants { loopback: Loopback },
}

impl Authors {
    pub fn loopback(self) -> Loopback {
        match self {
            Authors::Operator => Loopback::Served,
            Authors::Tenants { loopback } => loopback,
        }
    }
}

/// Why no backend can have an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoBackend {
    why: Why,
    /// What the address is translated to on its way, if it is.
    translated: Option<Ipv4Addr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// It means a link, a group or whoever is asking.
    NoHost,
    /// Credentials of the machine are given there to everybody who asks from it.
    Metadata,
    Loopback,
    /// A name of the cluster, for what nobody said that this namespace may use.
    OtherNamespace,
    /// A name of the cluster that leads to whatever address is in it.
    Pod,
}

impl NoBackend {
    /// Why no backend can have this address; None if one can.
    pub fn of(address: IpAddr, loopback: Loopback) -> Option<Self> {
        let is_refused = |why: &Why| *why != Why::Loopback || loopback == Loopback::Refused;
        let own = match address.to_canonical() {
            IpAddr::V4(address) => of_v4(address),
            IpAddr::V6(address) => of_v6(address),
        };
        let own = own.filter(is_refused).map(|why| NoBackend { why, translated: None });
        let translated = |address: Ipv4Addr| {
            let why = of_v4(address).filter(is_refused)?;
            Some(NoBackend { why, translated: Some(address) })
        };
        match address.to_canonical() {
            // Their own before what is embedded: these two are within that range.
            IpAddr::V4(_) | IpAddr::V6(Ipv6Addr::UNSPECIFIED | Ipv6Addr::LOCALHOST) => own,
            IpAddr::V6(address) => own.or_else(|| embedded(address).into_iter().find_map(translated)),
        }
    }

    /// The same of a host that is written as an address, with or without brackets, or as a name.
    pub fn of_host(host: &str, loopback: Loopback) -> Option<Self> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match bare.parse() {
            Ok(address) => NoBackend::of(address, loopback),
            Err(_) => NoBackend::of_name(host, loopback),
        }
    }

    /// The same of a name, if what it means is known without asking DNS (RFC 6761, section 6.3).
    pub fn of_name(host: &str, loopback: Loopback) -> Option<Self> {
        let is_localhost =
            host.trim_end_matches('.').rsplit('.').next().is_some_and(|label| label.eq_ignore_ascii_case("localhost"));
        (is_localhost && loopback == Loopback::Refused).then_some(NoBackend { why: Why::Loopback, translated: None })
    }

    /// The same of a name that an object of this namespace gives. What else it leads to is seen when DNS says it.
    pub fn of_name_within(namespace: &str, host: &str, authors: Authors) -> Option<Self> {
        let why = match authors {
            Authors::Operator => None,
            Authors::Tenants { .. } => of_cluster_name(namespace, host),
        };
        why.map(|why| NoBackend { why, translated: None }).or_else(|| NoBackend::of_name(host, authors.loopback()))
    }

    /// What would be right instead.
    pub fn remedy(&self) -> &'static str {
        match self.why {
            Why::NoHost | Why::Metadata => "name the address of the backend",
            Why::Loopback => {
                "name the address of the backend, or start Portico with --allow-loopback-backends if it is meant to lead \
                 there"
            }
            Why::OtherNamespace => {
                "name the Service in the backendRef of an HTTPRoute, with its namespace, and have a ReferenceGrant written there"
            }
            Why::Pod => "name a Service that selects the Pod",
        }
    }
}

/// Behind "ADDRESS is " or "NAME is ".
impl fmt::Display for NoBackend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.translated {
            write!(formatter, "translated to {address}, which is ")?;
        }
        formatter.write_str(match self.why {
            Why::NoHost => "of a link or a group, or of no host",
            Why::Metadata => "where clouds give away credentials of the machine",
            Why::Loopback => "within the machine or Pod that Portico itself runs in",
            Why::OtherNamespace => "a name of the cluster that is not of the Service's own namespace",
            Why::Pod => "a name of the cluster for an address of any Pod",
        })
    }
}

/// Names of Services end in `NAMESPACE.svc`, those of Pods in `NAMESPACE.pod`, both with or without the cluster's domain.
fn of_cluster_name(namespace: &str, host: &str) -> Option<Why> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let is_below = |name: &str, parent: &str| {
        name.strip_suffix(parent).is_some_and(|front| front.is_empty() || front.ends_with('.'))
    };
    let in_domain = is_below(&host, CLUSTER_DOMAIN);
    let name = if in_domain { host.strip_suffix(CLUSTER_DOMAIN)?.trim_end_matches('.') } else { &host };
    if is_below(name, "pod") {
        Some(Why::Pod)
    } else if is_below(name, "svc") {
        (!is_below(name, &format!("{namespace}.svc"))).then_some(Why::OtherNamespace)
    } else {
        in_domain.then_some(Why::OtherNamespace)
    }
}

/// What clusters are called inside unless somebody chose another name.
const CLUSTER_DOMAIN: &str = "cluster.local";

fn of_v4(address: Ipv4Addr) -> Option<Why> {
    if address.is_link_local() || address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
        Some(Why::NoHost)
    } else if address.is_loopback() {
        Some(Why::Loopback)
    } else {
        METADATA_V4.contains(&address).then_some(Why::Metadata)
    }
}

fn of_v6(address: Ipv6Addr) -> Option<Why> {
    if address.is_unicast_link_local() || address.is_unspecified() || address.is_multicast() {
        Some(Why::NoHost)
    } else if address.is_loopback() {
        Some(Why::Loopback)
    } else {
        METADATA_V6.contains(&address).then_some(Why::Metadata)
    }
}

/// The addresses of IPv4 that may be reached under this one where there is a translator, or by the machine itself.
fn embedded(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let octets = address.octets();
    let of = |places: [usize; 4]| Ipv4Addr::from(places.map(|place| octets[place]));
    match address.segments() {
        // IPv4-compatible (RFC 4291, section 2.5.5.1), and the prefix that every NAT64 knows (RFC 6052, section 2.1).
        [0, 0, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => vec![of([12, 13, 14, 15])],
        // For NAT64 of one's own (RFC 8215). Which prefix in it somebody has chosen is not to be seen, so each that fits counts:
        // with all but the longest, octet 8 and whatever is behind the address are zero (RFC 6052, section 2.2).
        [0x64, 0xff9b, 1, ..] => {
            let zero = |octets: &[u8]| octets.iter().all(|octet| *octet == 0);
            let shorter = [([6, 7, 9, 10], 11), ([7, 9, 10, 11], 12), ([9, 10, 11, 12], 13)];
            let fitting = shorter.into_iter().filter(|(_, behind)| octets[8] == 0 && zero(&octets[*behind..]));
            let all = fitting.map(|(places, _)| of(places)).chain([of([12, 13, 14, 15])]);
            // Where nothing is, nothing was put, unless that is so wherever something could be.
            let mut addresses: Vec<_> = all.filter(|address| !address.is_unspecified()).collect();
            if addresses.is_empty() {
                addresses.push(Ipv4Addr::UNSPECIFIED);
            }
            addresses
        }
        _ => Vec::new(),
    }
}

/// Services of clouds for their machines that are not on a link. Single addresses: what is around them is free for others,
/// and clusters give addresses of 100.64.0.0/10 to Pods.
const METADATA_V4: [Ipv4Addr; 3] = [
    // Alibaba Cloud.
    Ipv4Addr::new(100, 100, 100, 200),
    // Azure's WireServer, which knows the certificates of extensions; a public address that is Microsoft's.
    Ipv4Addr::new(168, 63, 129, 16),
    // Oracle's Compute Classic.
    Ipv4Addr::new(192, 0, 0, 192),
];
const METADATA_V6: [Ipv6Addr; 7] = [
    // AWS, and its agent that gives Pods of EKS an identity.
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

    fn why(address: &str, loopback: Loopback) -> String {
        NoBackend::of(address.parse().unwrap(), loopback).map(|why| why.to_string()).unwrap_or_default()
    }

    #[test]
    fn each_address_is_a_backends_or_not() {
        let (nobody, metadata) =
            ("of a link or a group, or of no host", "where clouds give away credentials of the machine");
        let own = "within the machine or Pod that Portico itself runs in";
        for (address, expected) in [
            ("169.254.169.254", nobody),
            ("169.254.170.2", nobody),
            ("fe80::1", nobody),
            ("fe80::a9fe:a9fe", nobody),
            ("0.0.0.0", nobody),
            ("::", nobody),
            ("224.0.0.1", nobody),
            ("ff02::1", nobody),
            ("255.255.255.255", nobody),
            ("::ffff:169.254.169.254", nobody),
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
            ("127.0.0.1", own),
            ("127.8.9.10", own),
            ("::1", own),
            ("::ffff:127.0.0.1", own),
        ] {
            assert_eq!(why(address, Loopback::Refused), expected, "{address}");
        }
        for (address, ipv4, expected) in [
            ("::169.254.169.254", "169.254.169.254", nobody),
            ("::127.0.0.1", "127.0.0.1", own),
            ("64:ff9b::169.254.169.254", "169.254.169.254", nobody),
            ("64:ff9b::168.63.129.16", "168.63.129.16", metadata),
            ("64:ff9b::127.0.0.1", "127.0.0.1", own),
            ("64:ff9b::0.0.0.0", "0.0.0.0", nobody),
            ("64:ff9b:1::169.254.169.254", "169.254.169.254", nobody),
            ("64:ff9b:1:0:7::100.100.100.200", "100.100.100.200", metadata),
            ("64:ff9b:1:a9fe:a9:fe00::", "169.254.169.254", nobody),
            ("64:ff9b:1:7f00:0:100::", "127.0.0.1", own),
            ("64:ff9b:1:7a9:fe:a9fe::", "169.254.169.254", nobody),
            ("64:ff9b:1:77f:0:1::", "127.0.0.1", own),
            ("64:ff9b:1:708:a9:fea9:fe00:0", "169.254.169.254", nobody),
            ("64:ff9b:1:708:64:6464:c800:0", "100.100.100.200", metadata),
            ("64:ff9b:1::", "0.0.0.0", nobody),
        ] {
            let expected = format!("translated to {ipv4}, which is {expected}");
            assert_eq!(why(address, Loopback::Refused), expected, "{address}");
        }
    }

    #[test]
    fn their_neighbors_are_free() {
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
            // What is behind the address would have to be zero.
            "64:ff9b:1:708:a9:fea9:fe01:203",
            // Where it stands is no place of an address of IPv4.
            "64:ff9b:2::169.254.169.254",
            "2001:db8::169.254.169.254",
        ] {
            assert_eq!(why(address, Loopback::Refused), "", "{address}");
        }
    }

    #[test]
    fn names_of_the_cluster_lead_into_ones_own_namespace_only() {
        let tenants = Authors::Tenants { loopback: Loopback::Served };
        for (name, expected) in [
            ("db.b.svc.cluster.local", Some(Why::OtherNamespace)),
            ("db.b.svc.cluster.local.", Some(Why::OtherNamespace)),
            ("DB.B.SVC.Cluster.Local", Some(Why::OtherNamespace)),
            ("db.b.svc", Some(Why::OtherNamespace)),
            ("db.b.svc.", Some(Why::OtherNamespace)),
            ("one.db.b.svc.cluster.local", Some(Why::OtherNamespace)),
            ("db.ba.svc", Some(Why::OtherNamespace)),
            ("svc.cluster.local", Some(Why::OtherNamespace)),
            ("db.cluster.local", Some(Why::OtherNamespace)),
            ("10-0-0-1.b.pod.cluster.local", Some(Why::Pod)),
            ("10-0-0-1.a.pod.cluster.local", Some(Why::Pod)),
            ("10-0-0-1.a.pod", Some(Why::Pod)),
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
            assert_eq!(NoBackend::of_name_within("a", name, tenants).map(|no| no.why), expected, "{name}");
            assert_eq!(NoBackend::of_name_within("a", name, Authors::Operator), None, "{name}");
        }
        let tenants = Authors::Tenants { loopback: Loopback::Refused };
        let why = NoBackend::of_name_within("a", "localhost", tenants).map(|no| no.why);
        assert_eq!(why, Some(Why::Loopback));
    }

    #[test]
    fn loopback_is_refused_where_others_write() {
        for address in ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1"] {
            assert_eq!(why(address, Loopback::Served), "", "{address}");
        }
        assert_ne!(why("169.254.169.254", Loopback::Served), "", "this is another matter");
        for (name, expected) in [
            ("localhost", true),
            ("LocalHost", true),
            ("web.localhost", true),
            ("localhost.", true),
            ("localhost.example", false),
            ("notlocalhost", false),
        ] {
            assert_eq!(NoBackend::of_name(name, Loopback::Refused).is_some(), expected, "{name}");
            assert_eq!(NoBackend::of_name(name, Loopback::Served), None, "{name}");
            assert_eq!(NoBackend::of_host(name, Loopback::Refused).is_some(), expected, "{name}");
        }
        for (host, expected) in [("[::1]", true), ("::1", true), ("127.0.0.1", true), ("[2001:db8::1]", false)] {
            assert_eq!(NoBackend::of_host(host, Loopback::Refused).is_some(), expected, "{host}");
        }
    }
}
