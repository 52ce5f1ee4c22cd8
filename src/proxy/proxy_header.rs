//! The PROXY protocol, versions 1 and 2: a balancer in front of us says who the client is before its bytes begin.
//!
//! The header is read from the peers that the operator names, and they must send it: whether it is there is configured and
//! never guessed, or else a client could write one itself.

use std::net::SocketAddr;

use ppp::v1;
use ppp::v2::{self, Command};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Who the balancer says is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Client(SocketAddr),
    /// Nobody: the balancer speaks for itself (its own checks), or does not know. The connection's own address counts.
    Peer,
}

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("the connection ended before the header did")]
    Ended,
    #[error("it does not begin with a header of version 1 or 2")]
    NotAHeader,
    #[error("the header is longer than {LONGEST_V1} bytes in version 1, or {LONGEST} in version 2")]
    TooLong,
}

/// What some first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parsed {
    /// The header, with its length.
    Whole(usize, Origin),
    /// The beginning of one.
    Partial,
}

/// Reads the header and not a byte more.
pub(crate) async fn read(stream: &mut TcpStream) -> Result<Origin, Invalid> {
    let mut header = vec![0; LONGEST];
    let mut taken = 0;
    loop {
        // Looked at before it is taken, since what follows the header is the client's.
        let seen = taken + stream.peek(&mut header[taken..]).await.map_err(|_| Invalid::Ended)?;
        if seen == taken {
            return Err(Invalid::Ended);
        }
        let parsed = parse(&header[..seen])?;
        let until = match parsed {
            Parsed::Whole(length, _) => length,
            Parsed::Partial => seen,
        };
        stream.read_exact(&mut header[taken..until]).await.map_err(|_| Invalid::Ended)?;
        taken = until;
        if let Parsed::Whole(_, origin) = parsed {
            return Ok(origin);
        }
    }
}

/// Finds the end of the header first, so that the parser sees it whole or not at all.
fn parse(bytes: &[u8]) -> Result<Parsed, Invalid> {
    if begins(bytes, v2::PROTOCOL_PREFIX) {
        let Some(length) = bytes.get(14..16) else { return Ok(Parsed::Partial) };
        let length = 16 + usize::from(u16::from_be_bytes([length[0], length[1]]));
        if length > LONGEST {
            return Err(Invalid::TooLong);
        }
        let Some(header) = bytes.get(..length) else { return Ok(Parsed::Partial) };
        let header = v2::Header::try_from(header).map_err(|_| Invalid::NotAHeader)?;
        let origin = match (header.command, header.addresses) {
            (Command::Local, _) => Origin::Peer,
            (Command::Proxy, v2::Addresses::IPv4(ip)) => client(ip.source_address, ip.source_port),
            (Command::Proxy, v2::Addresses::IPv6(ip)) => client(ip.source_address, ip.source_port),
            (Command::Proxy, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => Origin::Peer,
        };
        Ok(Parsed::Whole(length, origin))
    } else if begins(bytes, b"PROXY ") {
        let Some(end) = memchr::memchr(b'\n', &bytes[..bytes.len().min(LONGEST_V1)]) else {
            return if bytes.len() < LONGEST_V1 { Ok(Parsed::Partial) } else { Err(Invalid::TooLong) };
        };
        let header = v1::Header::try_from(&bytes[..=end]).map_err(|_| Invalid::NotAHeader)?;
        if header.header.len() != end + 1 {
            return Err(Invalid::NotAHeader);
        }
        let origin = match header.addresses {
            v1::Addresses::Tcp4(ip) => client(ip.source_address, ip.source_port),
            v1::Addresses::Tcp6(ip) => client(ip.source_address, ip.source_port),
            v1::Addresses::Unknown => Origin::Peer,
        };
        Ok(Parsed::Whole(end + 1, origin))
    } else {
        Err(Invalid::NotAHeader)
    }
}

/// Whether what has come so far is, or may become, something that begins so.
fn begins(bytes: &[u8], prefix: &[u8]) -> bool {
    let common = bytes.len().min(prefix.len());
    bytes[..common] == prefix[..common]
}

fn client(ip: impl Into<std::net::IpAddr>, port: u16) -> Origin {
    Origin::Client(SocketAddr::new(ip.into(), port))
}

/// The longest line that version 1 can have.
const LONGEST_V1: usize = 107;
/// Version 2 with what balancers add to it; the protocol could go up to 64 KiB.
pub(crate) const LONGEST: usize = 4096;

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

    const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0x30, 0x39, 1, 187];

    fn origin(text: &str) -> Origin {
        Origin::Client(text.parse().unwrap())
    }

    #[test]
    fn headers_are_read_whole_or_waited_for() {
        let mut v6 = [0; 36];
        v6[..2].copy_from_slice(&[0x20, 0x01]);
        v6[15] = 7;
        v6[33] = 80;
        let cases: Vec<(Vec<u8>, Origin)> = vec![
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n".to_vec(), origin("192.0.2.1:12345")),
            (b"PROXY TCP6 2001::7 ::1 80 443\r\n".to_vec(), origin("[2001::7]:80")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Origin::Peer),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), Origin::Peer),
            (v2(1, 0x11, &V4), origin("192.0.2.1:12345")),
            (v2(1, 0x21, &v6), origin("[2001::7]:80")),
            // With a field that a balancer adds, and with nothing but such fields.
            (v2(1, 0x11, &[&V4[..], &[4, 0, 2, 0, 0]].concat()), origin("192.0.2.1:12345")),
            (v2(1, 0x00, &[4, 0, 2, 0, 0]), Origin::Peer),
            (v2(0, 0x11, &V4), Origin::Peer),
            (v2(0, 0x00, &[]), Origin::Peer),
            (v2(1, 0x31, &[0; 216]), Origin::Peer),
        ];
        for (header, origin) in cases {
            let bytes = [&header[..], b"GET / HTTP/1.1\r\n\r\nPROXY "].concat();
            for cut in 1..header.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(Parsed::Partial), "{cut} bytes of {header:?}");
            }
            assert_eq!(parse(&header), Ok(Parsed::Whole(header.len(), origin)));
            assert_eq!(parse(&bytes), Ok(Parsed::Whole(header.len(), origin)));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long = [&b"PROXY UNKNOWN "[..], &[b'x'; LONGEST_V1]].concat();
        let mut version = v2(1, 0x11, &V4);
        version[12] = 0x31;
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Invalid::NotAHeader),
            (b"\x16\x03\x01", Invalid::NotAHeader),
            (b"\r\nGET", Invalid::NotAHeader),
            (b"proxy TCP4 192.0.2.1 198.51.100.2 1 2\r\n", Invalid::NotAHeader),
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n", Invalid::NotAHeader),
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n", Invalid::NotAHeader),
            (b"PROXY TCP4 2001::7 198.51.100.2 1 2\r\n", Invalid::NotAHeader),
            (b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n", Invalid::NotAHeader),
            (b"PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n", Invalid::NotAHeader),
            (b"PROXY UNKNOWN\rx\r\n", Invalid::NotAHeader),
            (&long, Invalid::TooLong),
            (&version, Invalid::NotAHeader),
            (&v2(2, 0x11, &V4), Invalid::NotAHeader),
            (&v2(1, 0x11, &V4[..8]), Invalid::NotAHeader),
            (&v2(1, 0x00, &[0; LONGEST]), Invalid::TooLong),
        ] {
            assert_eq!(parse(bytes), Err(expected), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_read_too_much(
            start in prop::sample::select(vec![&b""[..], b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 1", v2::PROTOCOL_PREFIX]),
            rest in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [start, &rest].concat();
            if let Ok(Parsed::Whole(length, _)) = parse(&bytes) {
                prop_assert!(length <= bytes.len() && length <= LONGEST);
                // What comes behind the header changes nothing about it, and what is shorter is not one.
                prop_assert_eq!(parse(&bytes[..length]), parse(&bytes));
                prop_assert_eq!(parse(&bytes[..length - 1]), Ok(Parsed::Partial));
            }
        }
    }
}
