//! PROXY headers: a header has one end, and the address in it is the one at the place that the protocol defines.

use std::net::{IpAddr, SocketAddr};

use crate::proxy::connection::proxy_header::{ParsedHeader, ProxyHeaderSource, parse};
use crate::upstream::ConnectionEnds;

/// The input is what a load balancer sends.
pub(crate) fn check(input: &[u8]) {
    let parsed = parse(input);
    let Ok(ParsedHeader::Complete(length, source)) = parsed else { return };
    assert!(length <= input.len(), "the header was received");
    let header = &input[..length];
    assert_eq!(parse(header), parsed, "bytes after the header do not change it");
    for cut in 0..length {
        assert_eq!(parse(&header[..cut]), Ok(ParsedHeader::Partial), "{cut} bytes are no header");
    }
    let expected = if header.starts_with(b"PROXY ") { version_1(header) } else { version_2(header) };
    assert_eq!(source, expected.map_or(ProxyHeaderSource::Peer, ProxyHeaderSource::Client));
}

fn version_1(header: &[u8]) -> Option<ConnectionEnds> {
    let line = std::str::from_utf8(header).expect("an accepted line is text");
    let line = line.strip_suffix("\r\n").expect("an accepted line has this end");
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        return None;
    }
    let addresses: [IpAddr; 2] = [words.next()?.parse().ok()?, words.next()?.parse().ok()?];
    for address in addresses {
        assert_eq!(family, Some(if address.is_ipv4() { "TCP4" } else { "TCP6" }), "the address is of the family");
    }
    let [source, destination] = addresses;
    let client = SocketAddr::new(source, words.next()?.parse().ok()?);
    Some(ConnectionEnds { client, destination: SocketAddr::new(destination, words.next()?.parse().ok()?) })
}

fn version_2(header: &[u8]) -> Option<ConnectionEnds> {
    const PROXY: u8 = 0x21;
    let (addresses, ports): ([IpAddr; 2], &[u8]) = match (header[12], header[13] >> 4) {
        (PROXY, 1) => {
            let [source, destination] = [&header[16..20], &header[20..24]].map(<[u8; 4]>::try_from);
            ([source.ok()?.into(), destination.ok()?.into()], &header[24..28])
        }
        (PROXY, 2) => {
            let [source, destination] = [&header[16..32], &header[32..48]].map(<[u8; 16]>::try_from);
            ([source.ok()?.into(), destination.ok()?.into()], &header[48..52])
        }
        _ => return None,
    };
    let end = |index: usize| {
        let port = u16::from_be_bytes([ports[2 * index], ports[2 * index + 1]]);
        SocketAddr::new(addresses[index], port)
    };
    Some(ConnectionEnds { client: end(0), destination: end(1) })
}
