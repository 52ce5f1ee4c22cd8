//! UDP sockets of plugins.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::net::UdpSocket;

use crate::plugin_api::RemoteDatagrams;
use crate::shared_limit::Held;
use crate::upstream::OwnSockets;

/// A socket that is connected to one address, with its permit.
struct ConnectedDatagrams {
    socket: UdpSocket,
    _permit: Held,
}

impl RemoteDatagrams for ConnectedDatagrams {
    fn send<'s>(&'s self, datagram: &'s [u8]) -> BoxFuture<'s, io::Result<()>> {
        async move { self.socket.send(datagram).await.map(drop) }.boxed()
    }
}

/// A socket for the first address that is not an own listener and to which there is a route.
pub(super) async fn connect_first(
    addresses: &[SocketAddr],
    own_sockets: &OwnSockets,
    permit: Held,
) -> io::Result<Box<dyn RemoteDatagrams>> {
    let mut last_error = io::Error::other("the host has no address");
    for address in addresses {
        match connect_to(*address, own_sockets).await {
            Ok(socket) => return Ok(Box::new(ConnectedDatagrams { socket, _permit: permit })),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

async fn connect_to(address: SocketAddr, own_sockets: &OwnSockets) -> io::Result<UdpSocket> {
    own_sockets.check(address).map_err(io::Error::other)?;
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    let local = || socket.local_addr().ok().map(|local| local.ip());
    own_sockets.check_connected(address, local).map_err(io::Error::other)?;
    Ok(socket)
}
