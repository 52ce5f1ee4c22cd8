//! The buffers of one worker for received datagrams. All of its sockets share them, because a datagram is sent on
//! before the next one is received.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use quinn_udp::RecvMeta;

/// A received datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Datagram<'b> {
    pub(super) source: SocketAddr,
    /// The address to which it was sent, if the kernel reports it.
    pub(super) destination: Option<IpAddr>,
    pub(super) bytes: &'b [u8],
}

/// Receives into the buffers, and returns how many of them have data.
type ReceiveCall<'r> = dyn Fn(&mut [IoSliceMut<'_>], &mut [RecvMeta]) -> io::Result<usize> + 'r;

/// Buffers for a batch of the largest datagrams.
pub(super) struct ReceiveBuffers {
    /// Empty until the first listener is bound.
    bytes: Vec<u8>,
    received: [RecvMeta; BATCH],
}

impl ReceiveBuffers {
    pub(super) fn new() -> Self {
        ReceiveBuffers { bytes: Vec::new(), received: [RecvMeta::default(); BATCH] }
    }

    /// Allocates the buffers, before the first use of the others.
    pub(super) fn allocate(&mut self) {
        self.bytes.resize(BATCH * MAX_DATAGRAM, 0);
    }

    /// A buffer for one datagram.
    pub(super) fn single(&mut self) -> &mut [u8] {
        &mut self.bytes[..MAX_DATAGRAM]
    }

    /// Receives a batch of datagrams with `receive`.
    pub(super) fn fill<'b>(
        &'b mut self,
        receive: &ReceiveCall<'_>,
    ) -> io::Result<impl Iterator<Item = Datagram<'b>> + use<'b>> {
        let mut chunks = self.bytes.chunks_exact_mut(MAX_DATAGRAM);
        let mut slices: [IoSliceMut<'_>; BATCH] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let filled = receive(&mut slices, &mut self.received)?.min(BATCH);
        let buffers = self.bytes.chunks_exact(MAX_DATAGRAM).zip(&self.received[..filled]);
        Ok(buffers.flat_map(|(buffer, received)| datagrams(buffer, received)))
    }
}

/// The datagrams in one buffer: the kernel joins datagrams of one length from one source, of which the last one may be
/// shorter.
fn datagrams<'b>(buffer: &'b [u8], received: &RecvMeta) -> impl Iterator<Item = Datagram<'b>> + use<'b> {
    let (source, destination) = (received.addr, received.dst_ip);
    let bytes = &buffer[..received.len.min(buffer.len())];
    // `chunks` returns nothing for an empty datagram.
    let empty = bytes.is_empty().then_some(bytes);
    let parts = empty.into_iter().chain(bytes.chunks(received.stride.max(1)));
    parts.map(move |bytes| Datagram { source, destination, bytes })
}

/// The datagrams, or joined datagrams, that one system call receives.
const BATCH: usize = 8;
/// UDP has a length field of 16 bits.
const MAX_DATAGRAM: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_datagrams_are_separated() {
        let source: SocketAddr = "192.0.2.1:5000".parse().unwrap();
        let mut buffers = ReceiveBuffers::new();
        buffers.allocate();
        let batch = buffers.fill(&|slices, received| {
            for (index, (text, stride)) in [("aabbc", 2), ("", 0), ("whole", 5)].into_iter().enumerate() {
                slices[index][..text.len()].copy_from_slice(text.as_bytes());
                let mut meta = RecvMeta::default();
                (meta.addr, meta.len, meta.stride) = (source, text.len(), stride);
                received[index] = meta;
            }
            Ok(3)
        });
        let texts: Vec<_> = batch.unwrap().map(|datagram| std::str::from_utf8(datagram.bytes).unwrap()).collect();
        assert_eq!(texts, ["aa", "bb", "c", "", "whole"]);
    }
}
