//! Parsers for listen addresses and networks, and the forms of paths to reject.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use clap::ValueEnum;
use ipnet::{IpNet, Ipv4Net};

/// An address to listen on: `127.0.0.1:8100`, `[::1]:8100` or `localhost:8100`.
pub(super) fn parse_socket_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        return Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    }
    let port = text.strip_prefix(':').unwrap_or(text);
    if port.parse::<u16>().is_ok() {
        return Err(format!(
            "has no address; write 127.0.0.1:{port} for this machine only or 0.0.0.0:{port} for all interfaces"
        ));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Err(format!("has no port; write for example {}", SocketAddr::new(address, 8100)));
    }
    Err("not an address and a port; write for example 127.0.0.1:8100 or [::1]:8100".to_owned())
}

/// A form of paths that some backends read as another path than Portico; `proxy::RejectedPaths` describes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PathFormArg {
    Backslash,
    EncodedSlash,
    DotParameters,
    EmptySegment,
    PathParameters,
}

/// An address to listen on, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListenArg {
    Off,
    On(SocketAddr),
}

impl ListenArg {
    pub(super) fn address(self) -> Option<SocketAddr> {
        match self {
            ListenArg::Off => None,
            ListenArg::On(address) => Some(address),
        }
    }
}

impl FromStr for ListenArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(ListenArg::Off);
        }
        parse_socket_address(text).map(ListenArg::On).map_err(|error| format!("{error}, or off"))
    }
}

impl fmt::Display for ListenArg {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenArg::Off => formatter.write_str("off"),
            ListenArg::On(address) => address.fmt(formatter),
        }
    }
}

/// A network, or a single address as a network with only that address. IPv4-mapped IPv6 addresses become IPv4, as those
/// that are compared with the network do.
pub(super) fn parse_network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_canonical().into());
    }
    let network: IpNet = text
        .parse()
        .map_err(|_| "not an address or a network; write for example 10.0.0.7, 10.0.0.0/24 or fd00::/64".to_owned())?;
    if network != network.trunc() {
        let (truncated, address) = (network.trunc(), network.addr());
        return Err(format!(
            "has bits set beyond its prefix; write {truncated} for the network or {address} for the address"
        ));
    }
    Ok(match network {
        IpNet::V6(v6) if v6.prefix_len() >= MAPPED_PREFIX => match v6.addr().to_ipv4_mapped() {
            Some(address) => {
                let prefix = v6.prefix_len() - MAPPED_PREFIX;
                Ipv4Net::new(address, prefix).expect("128 bits less 96 are at most 32").into()
            }
            None => network,
        },
        IpNet::V4(_) | IpNet::V6(_) => network,
    })
}

/// The length of the prefix of IPv4-mapped IPv6 addresses (RFC 4291, section 2.5.5.2).
const MAPPED_PREFIX: u8 = 96;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed() {
        let no_address =
            Err("has no address; write 127.0.0.1:8100 for this machine only or 0.0.0.0:8100 for all interfaces");
        let cases: &[(&str, Result<&str, &str>)] = &[
            ("127.0.0.1:8100", Ok("127.0.0.1:8100")),
            ("[::]:0", Ok("[::]:0")),
            ("localhost:80", Ok("127.0.0.1:80")),
            ("8100", no_address),
            (":8100", no_address),
            ("::1", Err("has no port; write for example [::1]:8100")),
            ("10.0.0.1", Err("has no port; write for example 10.0.0.1:8100")),
            ("example.com:80", Err("not an address and a port; write for example 127.0.0.1:8100 or [::1]:8100")),
            ("127.0.0.1:99999", Err("not an address and a port; write for example 127.0.0.1:8100 or [::1]:8100")),
            ("", Err("not an address and a port; write for example 127.0.0.1:8100 or [::1]:8100")),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|address| address.parse().unwrap()).map_err(str::to_owned);
            assert_eq!(parse_socket_address(text), expected, "{text:?}");
        }
        assert_eq!("off".parse(), Ok(ListenArg::Off));
        assert_eq!("[::1]:1".parse(), parse_socket_address("[::1]:1").map(ListenArg::On));
        assert!("none".parse::<ListenArg>().unwrap_err().ends_with(", or off"));
    }

    #[test]
    fn networks_are_parsed() {
        let cases: &[(&str, Result<&str, &str>)] = &[
            ("10.0.0.7", Ok("10.0.0.7/32")),
            ("::1", Ok("::1/128")),
            ("10.0.0.0/24", Ok("10.0.0.0/24")),
            ("::ffff:10.0.0.7", Ok("10.0.0.7/32")),
            ("::ffff:10.0.0.0/104", Ok("10.0.0.0/8")),
            ("::ffff:0:0/96", Ok("0.0.0.0/0")),
            ("::/0", Ok("::/0")),
            (
                "10.0.0.5/24",
                Err("has bits set beyond its prefix; write 10.0.0.0/24 for the network or 10.0.0.5 for the address"),
            ),
            ("10.0.0.0/33", Err("not an address or a network; write for example 10.0.0.7, 10.0.0.0/24 or fd00::/64")),
            ("lan", Err("not an address or a network; write for example 10.0.0.7, 10.0.0.0/24 or fd00::/64")),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|network| network.parse().unwrap()).map_err(str::to_owned);
            assert_eq!(parse_network(text), expected, "{text:?}");
        }
    }
}
