//! Sockets to listen on: one per worker, all on one address, after making sure that nobody else is there.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::BindState;

/// One listening socket per worker.
///
/// With SO_REUSEPORT the system lets another process of the same user in on the port and splits the clients between the two,
/// so the address is bound once without it first.
pub(crate) fn listen(address: SocketAddr, workers: usize, sharing: bool) -> Result<Vec<TcpListener>, BindState> {
    let sockets = || {
        if !sharing {
            bind(address, false)?;
        }
        let sockets = (0..workers).map(|_| bind(address, true)).collect::<io::Result<Vec<_>>>()?;
        // Only when all are bound: what arrives at a listening socket that is closed again is lost.
        for socket in &sockets {
            socket.listen(BACKLOG)?;
        }
        Ok(sockets.into_iter().map(TcpListener::from).collect())
    };
    sockets().map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => BindState::InUse,
        io::ErrorKind::PermissionDenied => BindState::NotPermitted,
        io::ErrorKind::AddrNotAvailable => BindState::NotOurs,
        _ => BindState::Failed(error.to_string()),
    })
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier listener that still wait for their end must not keep the port; one that listens does.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        // `::` means IPv6 only; `0.0.0.0` is an address of its own.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit it, which saves a system call for each.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Connections that may wait to be accepted, per worker; the system may allow fewer (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_occupied_port_is_found_although_it_could_be_shared() {
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
    fn what_is_not_ours_is_said() {
        let foreign: SocketAddr = "192.0.2.1:8080".parse().unwrap();
        assert_eq!(listen(foreign, 1, false).unwrap_err(), BindState::NotOurs);
    }
}
