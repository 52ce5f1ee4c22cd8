//! What this machine lacks for another connection. It says nothing about the endpoint.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use rustix::io::Errno;

/// What is missing. Another endpoint would need it as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalShortage {
    /// File descriptors of the process or of the machine.
    Descriptors,
    /// Local ports for connections to this address.
    Ports,
    /// Memory for sockets.
    Memory,
}

impl LocalShortage {
    /// What the error of an operation on a socket says is missing. `None` for every error that the endpoint or the
    /// network may have caused.
    pub fn of_error(error: &io::Error) -> Option<Self> {
        match Errno::from_io_error(error)? {
            Errno::MFILE | Errno::NFILE => Some(LocalShortage::Descriptors),
            Errno::NOMEM | Errno::NOBUFS => Some(LocalShortage::Memory),
            _ => None,
        }
    }

    /// The same for an error of connecting to this address.
    pub(super) fn of_connect_error(error: &io::Error, address: SocketAddr) -> Option<Self> {
        let is_unavailable = error.kind() == io::ErrorKind::AddrNotAvailable;
        let no_ports = || (is_unavailable && has_source_address(address)).then_some(LocalShortage::Ports);
        LocalShortage::of_error(error).or_else(no_ports)
    }
}

/// Whether this machine has an address from which it can send to this one. The system reports the lack of an address
/// and the lack of a port as the same error, but UDP has ports of its own. Nothing is sent.
fn has_source_address(address: SocketAddr) -> bool {
    let any_port = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    match UdpSocket::bind(any_port).and_then(|socket| socket.connect(address)) {
        Ok(()) => true,
        // No descriptor is free, for example, which is a shortage as well.
        Err(error) => LocalShortage::of_error(&error).is_some(),
    }
}

/// Completes a sentence that ends with "because ".
impl fmt::Display for LocalShortage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            LocalShortage::Descriptors => {
                "no file descriptor is free; raise the limit of open files (ulimit -n), or lower --max-connections"
            }
            LocalShortage::Ports => {
                "no local port is free for this address; widen net.ipv4.ip_local_port_range, or add endpoints"
            }
            LocalShortage::Memory => "no memory is free for sockets; raise net.ipv4.tcp_mem or the memory limit",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_this_machine_are_told_from_those_of_endpoints() {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        for (errno, expected) in [
            (Errno::MFILE, Some(LocalShortage::Descriptors)),
            (Errno::NFILE, Some(LocalShortage::Descriptors)),
            (Errno::NOMEM, Some(LocalShortage::Memory)),
            (Errno::NOBUFS, Some(LocalShortage::Memory)),
            (Errno::ADDRNOTAVAIL, Some(LocalShortage::Ports)),
            (Errno::CONNREFUSED, None),
            (Errno::TIMEDOUT, None),
            (Errno::HOSTUNREACH, None),
            (Errno::NETUNREACH, None),
            (Errno::CONNRESET, None),
            (Errno::ACCESS, None),
        ] {
            let found = LocalShortage::of_connect_error(&errno.into(), address);
            assert_eq!(found, expected, "{errno:?}");
        }
        // No machine has a source address for a link-local address without an interface.
        let unreachable = SocketAddr::from((Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), 80));
        assert_eq!(LocalShortage::of_connect_error(&Errno::ADDRNOTAVAIL.into(), unreachable), None);
        assert_eq!(LocalShortage::of_error(&io::Error::other("no number")), None);
    }
}
