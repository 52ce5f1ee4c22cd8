//! The socket of a UDP listener: it receives the datagrams of clients, and sends replies from the address that the
//! client sent to.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket as StdUdpSocket};

use quinn_udp::{Transmit, UdpSocketState};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::receive_buffers::{Datagram, ReceiveBuffers};
use crate::bind_address::BindAddress;
use crate::proxy::telemetry::stats::DatagramDrop;

/// The socket of one worker at one address.
pub(super) struct UdpListener {
    pub(super) address: BindAddress,
    /// Differs from that of all other listeners of the worker, also of closed ones at the same address.
    pub(super) number: u64,
    socket: UdpSocket,
    state: UdpSocketState,
}

impl UdpListener {
    pub(super) fn new(number: u64, address: BindAddress, socket: StdUdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        if address.socket.is_ipv4() {
            // The library forbids fragments, which replies larger than the MTU need. For IPv6 that cannot be undone.
            set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::WANT)?;
        }
        Ok(UdpListener { address, number, socket: UdpSocket::from_std(socket)?, state })
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Receives the next batch, without waiting.
    pub(super) fn receive<'b>(
        &self,
        buffers: &'b mut ReceiveBuffers,
    ) -> io::Result<impl Iterator<Item = Datagram<'b>> + use<'b>> {
        buffers.fill(&|slices, received| {
            self.socket.try_io(Interest::READABLE, || self.state.recv((&self.socket).into(), slices, received))
        })
    }

    /// The local address of a datagram, if the socket receives those of several addresses.
    pub(super) fn local_address(&self, datagram: &Datagram<'_>) -> Option<IpAddr> {
        datagram.destination.filter(|_| self.address.socket.ip().is_unspecified())
    }

    /// Sends a datagram to a client. `local` is that of the client's datagrams.
    pub(super) fn reply(&self, client: SocketAddr, local: Option<IpAddr>, bytes: &[u8]) -> Result<(), DatagramDrop> {
        let transmit = Transmit { destination: client, ecn: None, contents: bytes, segment_size: None, src_ip: local };
        // Not `try_io`: whether the socket is writable is not tracked, since a datagram that does not fit is dropped.
        self.state.try_send((&self.socket).into(), &transmit).map_err(|error| DatagramDrop::of_error(&error))
    }
}
