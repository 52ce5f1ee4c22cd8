//! Opens the sockets of an address, one per worker, after checking that no other process uses the address. Prepares
//! those for TCP for being closed without losing connections.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

use crate::proxy::BindState;

/// Opens one listening socket per worker.
///
/// With SO_REUSEPORT, the kernel would let another process of the same user share the port and split the clients
/// between the two processes. The address is therefore bound once without the option first, unless `allow_sharing` is
/// set.
pub(in crate::proxy) fn listen(
    address: SocketAddr,
    workers: usize,
    allow_sharing: bool,
) -> Result<Vec<TcpListener>, BindState> {
    let open_sockets = || {
        let sockets = bind_all(address, workers, allow_sharing, bind_tcp)?;
        // Listen only once all sockets are bound: connections queued on a socket that is closed again are lost.
        for socket in &sockets {
            socket.listen(ACCEPT_BACKLOG)?;
        }
        Ok(sockets.into_iter().map(TcpListener::from).collect())
    };
    open_sockets().map_err(bind_state)
}

/// Opens one UDP socket per worker, as [`listen`] does for TCP.
pub(in crate::proxy) fn receive_datagrams(
    address: SocketAddr,
    workers: usize,
    allow_sharing: bool,
) -> Result<Vec<UdpSocket>, BindState> {
    let sockets = bind_all(address, workers, allow_sharing, bind_udp).map_err(bind_state)?;
    Ok(sockets.into_iter().map(UdpSocket::from).collect())
}

fn bind_state(error: io::Error) -> BindState {
    match error.kind() {
        io::ErrorKind::AddrInUse => BindState::InUse,
        io::ErrorKind::PermissionDenied => BindState::NotPermitted,
        io::ErrorKind::AddrNotAvailable => BindState::NotLocal,
        _ => BindState::Failed(error.to_string()),
    }
}

/// Binds one socket per worker. `bind` gets the address, and whether other sockets may share the port.
fn bind_all(
    address: SocketAddr,
    workers: usize,
    allow_sharing: bool,
    bind: fn(SocketAddr, bool) -> io::Result<Socket>,
) -> io::Result<Vec<Socket>> {
    if !allow_sharing {
        // Fails if the port is in use. The socket is closed at once.
        let reuse_port = false;
        bind(address, reuse_port)?;
    }
    let reuse_port = true;
    (0..workers).map(|_| bind(address, reuse_port)).collect()
}

fn bind_tcp(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections in TIME_WAIT do not block the port; another listening socket still does.
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit the option, which saves a system call each.
    socket.set_tcp_nodelay(true)?;
    bind(socket, address, reuse_port)
}

fn bind_udp(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    // Without SO_REUSEADDR, which would let any other UDP socket share the port.
    bind(Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?, address, reuse_port)
}

fn bind(socket: Socket, address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    socket.set_reuse_port(reuse_port)?;
    if address.is_ipv6() {
        // `::` means IPv6 only; `0.0.0.0` is a separate address.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Drops the SYN segments that arrive from now on, so that a socket that is about to close starts no more handshakes. A
/// client sends its SYN again after a second, when another socket may listen on the address.
pub(in crate::proxy) fn ignore_new_clients(listener: &impl AsFd) -> io::Result<()> {
    SockRef::from(listener).attach_filter(&DROP_SYN)
}

/// Classic BPF; its input begins with the TCP header.
const DROP_SYN: [SockFilter; 5] = {
    const FLAGS_OFFSET: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    // Instructions of linux/bpf_common.h.
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const WHOLE_SEGMENT: u32 = u32::MAX;
    [
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_OFFSET),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, WHOLE_SEGMENT),
    ]
};

/// Accept queue length per worker; the kernel may enforce a lower limit (`net.core.somaxconn`).
const ACCEPT_BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    const EXCLUSIVE: bool = false;
    const ALLOW_SHARING: bool = true;

    #[test]
    fn occupied_reuseport_port_is_detected() {
        let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let reuse_port = true;
        let other = bind_tcp(local, reuse_port).unwrap();
        other.listen(1).unwrap();
        let taken = other.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(listen(taken, 2, EXCLUSIVE).unwrap_err(), BindState::InUse);
        assert_eq!(listen(taken, 2, ALLOW_SHARING).unwrap().len(), 2);
        drop(other);
        assert_eq!(listen(taken, 2, EXCLUSIVE).unwrap().len(), 2);
    }

    #[test]
    fn occupied_udp_port_is_detected() {
        // At an address of its own, where no test that runs at the same time has the port.
        let other = UdpSocket::bind("127.71.0.1:0").unwrap();
        let taken = other.local_addr().unwrap();
        assert_eq!(receive_datagrams(taken, 2, EXCLUSIVE).unwrap_err(), BindState::InUse);
        // A TCP port of the same number is another one.
        assert_eq!(listen(taken, 1, EXCLUSIVE).unwrap().len(), 1);
        drop(other);
        let sockets = receive_datagrams(taken, 2, EXCLUSIVE).unwrap();
        assert_eq!(receive_datagrams(taken, 2, EXCLUSIVE).unwrap_err(), BindState::InUse, "{sockets:?}");
        assert_eq!(receive_datagrams(taken, 2, ALLOW_SHARING).unwrap().len(), 2);
    }

    #[test]
    fn closing_socket_ignores_new_clients_and_keeps_queued_ones() {
        let listeners = listen("127.0.0.1:0".parse().unwrap(), 1, ALLOW_SHARING).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let queued = TcpStream::connect(address).unwrap();
        ignore_new_clients(&listeners[0]).unwrap();
        let ignored = TcpStream::connect_timeout(&address, Duration::from_millis(50)).unwrap_err();
        assert_eq!(ignored.kind(), io::ErrorKind::TimedOut);
        let (accepted, client) = listeners[0].accept().unwrap();
        assert_eq!(client, queued.local_addr().unwrap());
        // The filter also applies to accepted connections, and passes everything that these receive.
        (&queued).write_all(b"data").unwrap();
        accepted.set_nonblocking(false).unwrap();
        let mut received = [0; 4];
        (&accepted).read_exact(&mut received).unwrap();
        assert_eq!(&received, b"data");
    }

    #[test]
    fn unassigned_address_is_reported() {
        let foreign: SocketAddr = "192.0.2.1:8080".parse().unwrap();
        assert_eq!(listen(foreign, 1, EXCLUSIVE).unwrap_err(), BindState::NotLocal);
    }
}
