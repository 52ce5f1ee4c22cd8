//! The PROXY protocol, versions 1 and 2: a load balancer in front sends the client's address before the client's bytes.
//!
//! The header is required from the peers in `--proxy-protocol-from` and not read from any other peer. Its presence is
//! never guessed, since a client could then send one itself.

use std::net::SocketAddr;

use ppp::v1;
use ppp::v2::{self, Command};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::upstream::ConnectionEnds;

/// The source of the connection according to the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum ProxyHeaderSource {
    Client(ConnectionEnds),
    /// The load balancer itself (a health check) or an unknown client. The connection's own addresses are used.
    Peer,
}

/// Why reading the header failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::proxy) enum ProxyHeaderError {
    #[error("the connection was closed before the end of the PROXY header")]
    ConnectionClosed,
    #[error("the connection does not begin with a PROXY header of version 1 or 2")]
    Malformed,
    #[error("the PROXY header is longer than {LONGEST_V1} bytes (version 1) or {LONGEST_V2} bytes (version 2)")]
    TooLong,
}

/// The result of parsing the first bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum ParsedHeader {
    /// A complete header, with its length.
    Complete(usize, ProxyHeaderSource),
    /// An incomplete header.
    Partial,
}

/// Reads exactly the header, and no byte after it.
pub(in crate::proxy) async fn read(stream: &mut TcpStream) -> Result<ProxyHeaderSource, ProxyHeaderError> {
    let mut header = vec![0; LONGEST_V2];
    let mut consumed = 0;
    loop {
        // Peeked before it is consumed, since the bytes after the header belong to the client's stream.
        let available =
            consumed + stream.peek(&mut header[consumed..]).await.map_err(|_| ProxyHeaderError::ConnectionClosed)?;
        if available == consumed {
            return Err(ProxyHeaderError::ConnectionClosed);
        }
        let parsed = parse(&header[..available])?;
        let end = match parsed {
            ParsedHeader::Complete(length, _) => length,
            ParsedHeader::Partial => available,
        };
        stream.read_exact(&mut header[consumed..end]).await.map_err(|_| ProxyHeaderError::ConnectionClosed)?;
        consumed = end;
        if let ParsedHeader::Complete(_, source) = parsed {
            return Ok(source);
        }
    }
}

/// Parses a header. Finds its end first, so that the `ppp` parser gets only complete headers.
pub(in crate::proxy) fn parse(bytes: &[u8]) -> Result<ParsedHeader, ProxyHeaderError> {
    if matches_prefix(bytes, v2::PROTOCOL_PREFIX) {
        let Some(length) = bytes.get(14..16) else { return Ok(ParsedHeader::Partial) };
        let length = 16 + usize::from(u16::from_be_bytes([length[0], length[1]]));
        if length > LONGEST_V2 {
            return Err(ProxyHeaderError::TooLong);
        }
        let Some(header) = bytes.get(..length) else { return Ok(ParsedHeader::Partial) };
        let header = v2::Header::try_from(header).map_err(|_| ProxyHeaderError::Malformed)?;
        let source = match (header.command, header.addresses) {
            (Command::Local, _) => ProxyHeaderSource::Peer,
            (Command::Proxy, v2::Addresses::IPv4(ip)) => {
                client((ip.source_address, ip.source_port), (ip.destination_address, ip.destination_port))
            }
            (Command::Proxy, v2::Addresses::IPv6(ip)) => {
                client((ip.source_address, ip.source_port), (ip.destination_address, ip.destination_port))
            }
            (Command::Proxy, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => ProxyHeaderSource::Peer,
        };
        Ok(ParsedHeader::Complete(length, source))
    } else if matches_prefix(bytes, b"PROXY ") {
        let Some(end) = memchr::memchr(b'\n', &bytes[..bytes.len().min(LONGEST_V1)]) else {
            return if bytes.len() < LONGEST_V1 { Ok(ParsedHeader::Partial) } else { Err(ProxyHeaderError::TooLong) };
        };
        let line = &bytes[..=end];
        let header = v1::Header::try_from(line).map_err(|_| ProxyHeaderError::Malformed)?;
        // The parser accepts other ends in a line with UNKNOWN.
        if header.header.len() != line.len() || !line.ends_with(b"\r\n") {
            return Err(ProxyHeaderError::Malformed);
        }
        let source = match header.addresses {
            v1::Addresses::Tcp4(ip) => {
                client((ip.source_address, ip.source_port), (ip.destination_address, ip.destination_port))
            }
            v1::Addresses::Tcp6(ip) => {
                client((ip.source_address, ip.source_port), (ip.destination_address, ip.destination_port))
            }
            v1::Addresses::Unknown => ProxyHeaderSource::Peer,
        };
        Ok(ParsedHeader::Complete(end + 1, source))
    } else {
        Err(ProxyHeaderError::Malformed)
    }
}

/// Whether the bytes received so far begin with `prefix`, or are a prefix of it.
fn matches_prefix(bytes: &[u8], prefix: &[u8]) -> bool {
    let common = bytes.len().min(prefix.len());
    bytes[..common] == prefix[..common]
}

fn client(client: impl Into<SocketAddr>, destination: impl Into<SocketAddr>) -> ProxyHeaderSource {
    ProxyHeaderSource::Client(ConnectionEnds { client: client.into(), destination: destination.into() })
}

/// The longest line of version 1.
const LONGEST_V1: usize = 107;
/// The longest accepted header of version 2, TLVs included; the protocol allows up to 64 KiB.
const LONGEST_V2: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let mut header = v2::PROTOCOL_PREFIX.to_vec();
        header.extend([0x20 | command, family]);
        header.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        header.extend(payload);
        header
    }

    /// Addresses and ports of client and listener, as in a header of version 2.
    const IPV4_ADDRESSES: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0x30, 0x39, 1, 187];

    fn ends(client: &str, destination: &str) -> ProxyHeaderSource {
        let [client, destination] = [client, destination].map(|text| text.parse().unwrap());
        ProxyHeaderSource::Client(ConnectionEnds { client, destination })
    }

    #[test]
    fn headers_are_parsed_once_complete() {
        let mut ipv6_addresses = [0; 36];
        ipv6_addresses[..2].copy_from_slice(&[0x20, 0x01]);
        ipv6_addresses[15] = 7;
        ipv6_addresses[31] = 1;
        ipv6_addresses[33] = 80;
        ipv6_addresses[35] = 81;
        let ipv4 = ends("192.0.2.1:12345", "198.51.100.2:443");
        let cases: Vec<(Vec<u8>, ProxyHeaderSource)> = vec![
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n".to_vec(), ipv4),
            (b"PROXY TCP6 2001::7 ::1 80 443\r\n".to_vec(), ends("[2001::7]:80", "[::1]:443")),
            (b"PROXY UNKNOWN\r\n".to_vec(), ProxyHeaderSource::Peer),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), ProxyHeaderSource::Peer),
            (v2(1, 0x11, &IPV4_ADDRESSES), ipv4),
            (v2(1, 0x21, &ipv6_addresses), ends("[2001::7]:80", "[::1]:81")),
            // With a TLV, and with nothing but TLVs.
            (v2(1, 0x11, &[&IPV4_ADDRESSES[..], &[4, 0, 2, 0, 0]].concat()), ipv4),
            (v2(1, 0x00, &[4, 0, 2, 0, 0]), ProxyHeaderSource::Peer),
            (v2(0, 0x11, &IPV4_ADDRESSES), ProxyHeaderSource::Peer),
            (v2(0, 0x00, &[]), ProxyHeaderSource::Peer),
            (v2(1, 0x31, &[0; 216]), ProxyHeaderSource::Peer),
        ];
        for (header, source) in cases {
            let bytes = [&header[..], b"GET / HTTP/1.1\r\n\r\nPROXY "].concat();
            for cut in 1..header.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(ParsedHeader::Partial), "{cut} bytes of {header:?}");
            }
            assert_eq!(parse(&header), Ok(ParsedHeader::Complete(header.len(), source)));
            assert_eq!(parse(&bytes), Ok(ParsedHeader::Complete(header.len(), source)));
        }
    }

    #[test]
    fn malformed_headers_are_rejected() {
        let long = [&b"PROXY UNKNOWN "[..], &[b'x'; LONGEST_V1]].concat();
        let mut wrong_version = v2(1, 0x11, &IPV4_ADDRESSES);
        wrong_version[12] = 0x31;
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], ProxyHeaderError::Malformed),
            (b"\x16\x03\x01", ProxyHeaderError::Malformed),
            (b"\r\nGET", ProxyHeaderError::Malformed),
            (b"proxy TCP4 192.0.2.1 198.51.100.2 1 2\r\n", ProxyHeaderError::Malformed),
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n", ProxyHeaderError::Malformed),
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n", ProxyHeaderError::Malformed),
            (b"PROXY TCP4 2001::7 198.51.100.2 1 2\r\n", ProxyHeaderError::Malformed),
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n", ProxyHeaderError::Malformed),
            (b"PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n", ProxyHeaderError::Malformed),
            (b"PROXY UNKNOWN\rx\r\n", ProxyHeaderError::Malformed),
            (b"PROXY UNKNOWN ffff::1 \n", ProxyHeaderError::Malformed),
            (&long, ProxyHeaderError::TooLong),
            (&wrong_version, ProxyHeaderError::Malformed),
            (&v2(2, 0x11, &IPV4_ADDRESSES), ProxyHeaderError::Malformed),
            (&v2(1, 0x11, &IPV4_ADDRESSES[..8]), ProxyHeaderError::Malformed),
            (&v2(1, 0x00, &[0; LONGEST_V2]), ProxyHeaderError::TooLong),
        ] {
            assert_eq!(parse(bytes), Err(expected), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic_or_over_read(
            start in prop::sample::select(
                vec![&b""[..], b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 1", v2::PROTOCOL_PREFIX]
            ),
            rest in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [start, &rest].concat();
            if let Ok(ParsedHeader::Complete(length, _)) = parse(&bytes) {
                prop_assert!(length <= bytes.len() && length <= LONGEST_V2);
                // Bytes after the header do not change the result, and a shorter input is incomplete.
                prop_assert_eq!(parse(&bytes[..length]), parse(&bytes));
                prop_assert_eq!(parse(&bytes[..length - 1]), Ok(ParsedHeader::Partial));
            }
        }
    }
}
