//! PROXY headers: a header has one end, and the address in it is the one at the place that the protocol defines.

use std::net::{IpAddr, SocketAddr};

use crate::proxy::connection::proxy_header::{ParsedHeader, ProxyHeaderSource, parse};

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

fn version_1(header: &[u8]) -> Option<SocketAddr> {
    let line = std::str::from_utf8(header).expect("an accepted line is text");
    let line = line.strip_suffix("\r\n").expect("an accepted line has this end");
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        return None;
    }
    let (source, _destination, port) = (words.next()?, words.next()?, words.next()?);
    let (source, port) = (source.parse::<IpAddr>().ok()?, port.parse().ok()?);
    assert_eq!(family, Some(if source.is_ipv4() { "TCP4" } else { "TCP6" }), "the address is of the family");
    Some(SocketAddr::new(source, port))
}

fn version_2(header: &[u8]) -> Option<SocketAddr> {
    const PROXY: u8 = 0x21;
    let (address, port): (IpAddr, &[u8]) = match (header[12], header[13] >> 4) {
        (PROXY, 1) => (<[u8; 4]>::try_from(&header[16..20]).ok()?.into(), &header[24..26]),
        (PROXY, 2) => (<[u8; 16]>::try_from(&header[16..32]).ok()?.into(), &header[48..50]),
        _ => return None,
    };
    Some(SocketAddr::new(address, u16::from_be_bytes([port[0], port[1]])))
}
