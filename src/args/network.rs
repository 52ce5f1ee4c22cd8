//! Addresses and networks as people write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

/// An address to listen on: `127.0.0.1:8100`, `[::1]:8100` or `localhost:8100`.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        return Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    }
    let port = text.strip_prefix(':').unwrap_or(text);
    if port.parse::<u16>().is_ok() {
        return Err(format!(
            "names no address; write 127.0.0.1:{port} for this machine or 0.0.0.0:{port} for everyone"
        ));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Err(format!("has no port; write for example {}", SocketAddr::new(address, 8100)));
    }
    Err("not an address and a port; write for example 127.0.0.1:8100 or [::1]:8100".to_owned())
}

/// An address to listen on, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listen {
    Off,
    On(SocketAddr),
}

impl Listen {
    pub(super) fn address(self) -> Option<SocketAddr> {
        match self {
            Listen::Off => None,
            Listen::On(address) => Some(address),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Listen::Off);
        }
        address(text).map(Listen::On).map_err(|error| format!("{error}, or off"))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Off => formatter.write_str("off"),
            Listen::On(address) => address.fmt(formatter),
        }
    }
}

/// A network, or a single address as the network that holds only it.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let network: IpNet = text
        .parse()
        .map_err(|_| "not an address or a network; write for example 10.0.0.7, 10.0.0.0/24 or fd00::/64".to_owned())?;
    if network != network.trunc() {
        let (whole, single) = (network.trunc(), network.addr());
        return Err(format!(
            "has bits set beyond its prefix; write {whole} for the network or {single} for the address"
        ));
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let cases: &[(&str, Result<&str, &str>)] = &[
            ("127.0.0.1:8100", Ok("127.0.0.1:8100")),
            ("[::]:0", Ok("[::]:0")),
            ("localhost:80", Ok("127.0.0.1:80")),
            ("8100", Err("names no address; write 127.0.0.1:8100 for this machine or 0.0.0.0:8100 for everyone")),
            (":8100", Err("names no address; write 127.0.0.1:8100 for this machine or 0.0.0.0:8100 for everyone")),
            ("::1", Err("has no port; write for example [::1]:8100")),
            ("10.0.0.1", Err("has no port; write for example 10.0.0.1:8100")),
            ("example.com:80", Err("not an address and a port; write for example 127.0.0.1:8100 or [::1]:8100")),
            ("127.0.0.1:99999", Err("not an address and a port; write for example 127.0.0.1:8100 or [::1]:8100")),
            ("", Err("not an address and a port; write for example 127.0.0.1:8100 or [::1]:8100")),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|address| address.parse().unwrap()).map_err(str::to_owned);
            assert_eq!(address(text), expected, "{text:?}");
        }
        assert_eq!("off".parse(), Ok(Listen::Off));
        assert_eq!("[::1]:1".parse(), address("[::1]:1").map(Listen::On));
        assert!("none".parse::<Listen>().unwrap_err().ends_with(", or off"));
    }

    #[test]
    fn networks() {
        let cases: &[(&str, Result<&str, &str>)] = &[
            ("10.0.0.7", Ok("10.0.0.7/32")),
            ("::1", Ok("::1/128")),
            ("10.0.0.0/24", Ok("10.0.0.0/24")),
            (
                "10.0.0.5/24",
                Err("has bits set beyond its prefix; write 10.0.0.0/24 for the network or 10.0.0.5 for the address"),
            ),
            ("10.0.0.0/33", Err("not an address or a network; write for example 10.0.0.7, 10.0.0.0/24 or fd00::/64")),
            ("lan", Err("not an address or a network; write for example 10.0.0.7, 10.0.0.0/24 or fd00::/64")),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|network| network.parse().unwrap()).map_err(str::to_owned);
            assert_eq!(network(text), expected, "{text:?}");
        }
    }
}
