//! Opens the listening sockets of an address, one per worker, after checking that no other process uses the address.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::BindState;

/// Opens one listening socket per worker.
///
/// With SO_REUSEPORT, the kernel would let another process of the same user share the port and split the clients
/// between both. The address is therefore bound once without the option first, unless `sharing` is set.
pub(super) fn listen(address: SocketAddr, workers: usize, sharing: bool) -> Result<Vec<TcpListener>, BindState> {
    let sockets = || {
        if !sharing {
            bind(address, false)?;
        }
        let sockets = (0..workers).map(|_| bind(address, true)).collect::<io::Result<Vec<_>>>()?;
        // Listen only once all sockets are bound: connections queued on a socket that is closed again are lost.
        for socket in &sockets {
            socket.listen(ACCEPT_BACKLOG)?;
        }
        Ok(sockets.into_iter().map(TcpListener::from).collect())
    };
    sockets().map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => BindState::InUse,
        io::ErrorKind::PermissionDenied => BindState::NotPermitted,
        io::ErrorKind::AddrNotAvailable => BindState::NotLocal,
        _ => BindState::Failed(error.to_string()),
    })
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections in TIME_WAIT do not block the port; another listening socket still does.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        // `::` means IPv6 only; `0.0.0.0` is a separate address.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit the option, which saves a system call each.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Accept queue length per worker; the kernel may enforce a lower limit (`net.core.somaxconn`).
const ACCEPT_BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn occupied_reuseport_port_is_detected() {
        let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let other = bind(local, true).unwrap();
        other.listen(1).unwrap();
        let taken = other.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(listen(taken, 2, false).unwrap_err(), BindState::InUse);
        assert_eq!(listen(taken, 2, true).unwrap().len(), 2);
        drop(other);
        assert_eq!(listen(taken, 2, false).unwrap().len(), 2);
    }

    #[test]
    fn unassigned_address_is_reported() {
        let foreign: SocketAddr = "192.0.2.1:8080".parse().unwrap();
        assert_eq!(listen(foreign, 1, false).unwrap_err(), BindState::NotLocal);
    }
}
